"""May mail to this recipient come in here, from this client? (RFC 5321 section 3.6.1: a relay is not open.)"""

import re
from dataclasses import dataclass

from relay.config.models import Callout
from relay.mail.address import Address
from relay.mail.reply import Reply
from relay.policy.book import RuleBook

_ROUTED_LOCAL = re.compile(r'[%!]|^".*@')

DENIED = Reply(550, "5.7.1", "relaying denied")
UNKNOWN = Reply(550, "5.1.1", "no such recipient here")
ROUTED = Reply(550, "5.1.3", "a local part with %, ! or a quoted @ is not accepted here")


@dataclass(frozen=True, slots=True)
class Accepting:
    """Taken. `address` is where it goes: a bare `postmaster` is the configured one (RFC 5321 section 4.5.1)."""

    address: Address


@dataclass(frozen=True, slots=True)
class Asking:
    """Taken, if the mail server inside says that it exists (`relay.policy.callout`)."""

    address: Address
    callout: Callout


def judge_recipient(book: RuleBook, address: Address, *, may_relay: bool) -> Accepting | Asking | Reply:
    """`may_relay`: an admitted client with a grant, a trusted network, or an authenticated submitter."""
    if not address.domain:
        return Accepting(book.config.postmaster) if address.is_postmaster else UNKNOWN
    if book.is_report_mailbox(address):
        return Accepting(address)  # RFC 8460 section 5.3: reports come from anybody
    accepted = book.accepted.find(address.domain).values
    if not accepted:
        return Accepting(address) if may_relay else DENIED
    # Threat: user%other.example@ours, unfolded by the mail server behind us, would relay through it.
    if _ROUTED_LOCAL.search(address.local):
        return ROUTED
    accept = book.config.accept
    if not accept.recipients or address.is_postmaster:
        return Accepting(address)
    known = accept.lists.get(address.domain)
    if known is not None and address.local.lower() not in known:
        return UNKNOWN
    callout = accept.callouts.get(address.domain)
    return Accepting(address) if callout is None else Asking(address, callout)
