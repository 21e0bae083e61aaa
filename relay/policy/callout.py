"""Does a recipient exist? What the answers of the mail server inside mean, for `accept.recipients: {DOMAIN: callout}`. Values in, values out.

A question is MAIL FROM:<>, RCPT TO the recipient, and never DATA. Threats: a server that refuses *us* (it does not relay for us, blocks our
address) would have every recipient refused for good; and its words are about our network inside, so none of them reaches the client.
"""

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from relay.config.models import Callout, OnFailure
from relay.mail.reply import Reply

NO_SUCH = Reply(550, "5.1.1", "no such recipient here")
NOT_NOW = Reply(450, "4.1.1", "cannot find out at the moment whether the recipient exists: try again later")
GUESSING = Reply(421, "4.7.0", "too many unknown recipients from your address: try again later")

STALE = timedelta(days=1)
"""A recipient that existed so long ago is taken while nobody can be asked."""
AGAIN = timedelta(seconds=10)
"""So long nobody is asked again after an attempt that reached nobody."""


class Known(StrEnum):
    EXISTS = "exists"
    MISSING = "missing"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Answer:
    """`text` says what was heard, for the log. `reached`: somebody answered RCPT, so the next question may be put at once."""

    known: Known
    text: str = ""
    reached: bool = True


Heard = Reply | str
"""A reply, or in words why there is none."""


_RECIPIENT = frozenset({"5.1.1", "5.1.2", "5.1.3", "5.1.6", "5.1.10"})
"""RFC 3463 section 3.2, RFC 7505 section 4: about the recipient. Of the others 5.1.7 and 5.1.8 are about the sender."""
_MAILBOX = "5.2."
"""RFC 3463 section 3.3: something is wrong with the mailbox, so there is one."""


def needs_postmaster(recipient: Heard) -> bool:
    """True where a refusal may be about us: then it is asked about postmaster, who exists at every domain (RFC 5321 section 4.5.1)."""
    if not isinstance(recipient, Reply) or recipient.code < 500:
        return False
    return recipient.status not in _RECIPIENT and not recipient.status.startswith(_MAILBOX)


def read(mail: Heard, recipient: Heard, postmaster: Heard = "it was not asked") -> Answer:
    """`postmaster` is the answer about postmaster at the same domain, where that `needs_postmaster`."""
    if not isinstance(mail, Reply) or not mail.is_positive:
        return Answer(Known.UNKNOWN, f"to MAIL FROM:<>: {mail}", reached=False)
    if not isinstance(recipient, Reply):
        return Answer(Known.UNKNOWN, f"to RCPT: {recipient}", reached=False)
    if recipient.is_positive or recipient.status.startswith(_MAILBOX):
        return Answer(Known.EXISTS, str(recipient))
    if recipient.is_transient:
        return Answer(Known.UNKNOWN, f"to RCPT: {recipient}", reached=recipient.code != 421)
    if not needs_postmaster(recipient):
        return Answer(Known.MISSING, str(recipient))
    if isinstance(postmaster, Reply) and postmaster.is_positive:
        return Answer(Known.MISSING, str(recipient))
    # It does not even take postmaster: it means us, not the recipient.
    return Answer(Known.UNKNOWN, f"it refuses us: to RCPT {recipient}; for postmaster: {postmaster}", reached=False)


def seconds(answer: Answer, callout: Callout) -> float:
    """For how long an answer is good."""
    keep = {Known.EXISTS: callout.positive, Known.MISSING: callout.negative, Known.UNKNOWN: timedelta(0)}
    return keep[answer.known].total_seconds()


def reply_to(answer: Answer, callout: Callout) -> Reply | None:
    """What RCPT gets; None: the recipient is taken."""
    if answer.known is Known.MISSING:
        return NO_SUCH
    if answer.known is Known.UNKNOWN and callout.on_failure is OnFailure.DEFER:
        return NOT_NOW
    return None
