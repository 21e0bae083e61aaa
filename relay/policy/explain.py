"""What would happen to a message, and why, before any is sent: who governs it, what its deliveries must satisfy, what would be refused.

Puts together the decisions of the other modules and adds none of its own. What DNS says comes in as values; path checks of a client's
certificate come in its evidence. Printing is the command line's business.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from relay.config.connectors import OutboundConnector, TlsException
from relay.config.models import Callout, Config
from relay.config.values import HostPort
from relay.mail.address import Address
from relay.mail.outcome import Deferred
from relay.mail.plan import TlsPlan
from relay.mail.reply import Reply
from relay.policy.admission import (
    NO_DOMAIN,
    Finding,
    Peer,
    Refused,
    admit,
    admit_header_from,
    asks_header_from,
)
from relay.policy.book import IpAddress, RuleBook, in_networks
from relay.policy.plan import Step, after_broken_tls, after_ehlo, choose_plan, running_exception
from relay.policy.published import UNPUBLISHED, Published, join
from relay.policy.recipients import Asking, judge_recipient
from relay.policy.route import (
    LookupFailed,
    MxAnswer,
    NoDomain,
    Unroutable,
    hops,
    usable_addresses,
)

ACCEPTED = Reply(250, "2.1.5", "the recipient is accepted")

_UNKNOWN = Peer(None, None)

Addresses = tuple[IpAddress, ...] | NoDomain | LookupFailed


@dataclass(frozen=True, slots=True)
class Arrival:
    """How the message would come to us: MAIL FROM `sender` by this client."""

    sender: Address
    peer: Peer


@dataclass(frozen=True, slots=True)
class Question:
    """`arrival` is None where only the delivery is asked about."""

    recipient: Address
    arrival: Arrival | None = None


@dataclass(frozen=True, slots=True)
class DnsFacts:
    """What was looked up. `ourselves` are the names of this relay, `own` those addresses of each hop that lead back to it.

    `published` is what was found published about each hop.
    """

    mx: Mapping[str, MxAnswer]
    addresses: Mapping[str, Addresses]
    ourselves: Collection[str] = ()
    own: Mapping[HostPort, Collection[IpAddress]] = field(default_factory=dict)
    published: Mapping[HostPort, Published] = field(default_factory=dict)

    def mx_of(self, domain: str) -> MxAnswer:
        return self.mx.get(domain, LookupFailed("it was not looked up"))

    def addresses_of(self, hop: HostPort) -> Addresses:
        return self.addresses.get(hop.host, LookupFailed("it was not looked up"))


@dataclass(frozen=True, slots=True)
class Inbound:
    """`reply` is the first that refuses, at the command that `stage` names (MAIL, RCPT or DATA), else the recipient's 250.

    `connector` is "" where none speaks of the sender. `may_relay` says why the client may send anywhere, "" where it may not. `callout`:
    the recipient is accepted only if the mail server inside says that it exists; None where nobody is asked. `peer`: the client.
    """

    sender: Address
    stage: str
    reply: Reply
    connector: str
    may_relay: str
    findings: tuple[Finding, ...]
    needs_header_from: bool
    callout: Callout | None = None
    peer: Peer = _UNKNOWN

    @property
    def accepted(self) -> bool:
        return self.reply.is_positive


@dataclass(frozen=True, slots=True)
class HopPlan:
    """One host, in order. `unused` are addresses that mail does not go to, with the reason; `trouble` is "" where it can be tried.

    `plan` is without what is `published` where that keeps mail from the host.
    """

    hop: HostPort
    plan: TlsPlan
    addresses: tuple[IpAddress, ...]
    unused: tuple[tuple[IpAddress, str], ...] = ()
    trouble: str = ""
    published: Published = UNPUBLISHED

    @property
    def without_starttls(self) -> Step:
        """What happens where the host does not offer STARTTLS."""
        return after_ehlo(self.plan, starttls_offered=False)

    @property
    def with_broken_tls(self) -> Step:
        """What happens where it offers STARTTLS and the handshake fails."""
        return after_broken_tls(self.plan)


@dataclass(frozen=True, slots=True)
class Outbound:
    """`pattern` is the one that chose the connector, "" where the defaults act. `unroutable` is None where there are hops to try."""

    connector: OutboundConnector
    pattern: str
    exception: TlsException | None
    plan: TlsPlan
    hops: tuple[HopPlan, ...]
    unroutable: Unroutable | None


@dataclass(frozen=True, slots=True)
class Explanation:
    """`recipient` is where the mail goes: the configured postmaster for a bare `postmaster`. `inbound` as asked for."""

    recipient: Address
    inbound: Inbound | None
    outbound: Outbound


def destination(book: RuleBook, recipient: Address) -> Address:
    """The address that the delivery is for (RFC 5321 section 4.5.1: a bare postmaster is ours)."""
    return recipient if recipient.domain else book.config.postmaster


def explain(book: RuleBook, question: Question, facts: DnsFacts, now: datetime) -> Explanation:
    """Everything that is decided about one message to one recipient. `now` in UTC."""
    recipient = destination(book, question.recipient)
    arrival, inbound = question.arrival, None
    if arrival is not None:
        inbound = replace(_inbound(book, arrival, question.recipient), peer=arrival.peer)
    return Explanation(recipient, inbound, _outbound(book, recipient.domain, facts, now))


def _inbound(book: RuleBook, arrival: Arrival, recipient: Address) -> Inbound:
    domain = arrival.sender.domain or NO_DOMAIN
    peer, from_header = arrival.peer, asks_header_from(book)
    admission = admit(book, peer, domain)
    findings = admission.findings
    if isinstance(admission, Refused):
        return Inbound(arrival.sender, "MAIL", admission.reply, admission.connector, "", findings, from_header)
    why = _may_relay(book.config, peer, findings) if admission.may_relay else ""
    answer = judge_recipient(book, recipient, may_relay=admission.may_relay)
    callout = answer.callout if isinstance(answer, Asking) else None
    if isinstance(answer, Reply):
        return Inbound(arrival.sender, "RCPT", answer, admission.connector, why, findings, from_header)
    if from_header and domain != NO_DOMAIN:
        # As most messages are: the From: header has the domain of the envelope sender.
        header = admit_header_from(book, peer, domain)
        if isinstance(header, Refused):
            return Inbound(arrival.sender, "DATA", header.reply, header.connector, why, header.findings, from_header)
    return Inbound(arrival.sender, "RCPT", ACCEPTED, admission.connector, why, findings, from_header, callout)


def _may_relay(config: Config, peer: Peer, findings: tuple[Finding, ...]) -> str:
    if in_networks(peer.address, config.accept.networks):
        return f"{peer.address} is in accept.networks"
    names = [each.connector.name for each in findings if each.satisfied and each.connector.grant is not None]
    return f"connector {', '.join(names)} grants it"


def _outbound(book: RuleBook, domain: str, facts: DnsFacts, now: datetime) -> Outbound:
    connector = book.outbound_for(domain)
    pattern = book.outbound.find(domain).pattern
    exception = running_exception(book, domain, now.astimezone(UTC).date())
    found = hops(connector, domain, facts.mx_of(domain), ourselves=facts.ourselves)
    general = choose_plan(book, connector, domain, domain, now)
    if not isinstance(found, tuple):
        return Outbound(connector, pattern, exception, general, (), found)
    planned = tuple(
        _published(_hop(connector, each, choose_plan(book, connector, domain, each.host, now), facts), facts)
        for each in found
    )
    return Outbound(connector, pattern, exception, general, planned, None)


def _published(hop: HopPlan, facts: DnsFacts) -> HopPlan:
    published = facts.published.get(hop.hop, UNPUBLISHED)
    plan = join(hop.plan, published)
    if isinstance(plan, Deferred):
        return replace(hop, published=published, trouble=plan.text)
    return replace(hop, published=published, plan=plan)


def _hop(connector: OutboundConnector, hop: HostPort, plan: TlsPlan, facts: DnsFacts) -> HopPlan:
    answer = facts.addresses_of(hop)
    if isinstance(answer, NoDomain):
        return HopPlan(hop, plan, (), trouble=f"the host {hop.host} does not exist")
    if isinstance(answer, LookupFailed):
        return HopPlan(hop, plan, (), trouble=f"the look-up of {hop.host} failed: {answer.text}")
    own = facts.own.get(hop, ())
    reasons = {each: _why_unused(connector, each, own) for each in answer}
    usable = tuple(each for each in answer if not reasons[each])
    unused = tuple((each, why) for each, why in reasons.items() if why)
    if usable:
        return HopPlan(hop, plan, usable, unused)
    trouble = "none of its addresses may be used" if unused else f"the host {hop.host} has no address"
    return HopPlan(hop, plan, (), unused, trouble)


def _why_unused(connector: OutboundConnector, address: IpAddress, own: Collection[IpAddress]) -> str:
    if address in own:
        return "mail sent there would come back to this relay"
    if not usable_addresses(connector, (address,), ()):
        return "not a public address; `route: {private: allow}` is for closed networks"
    if connector.source is not None and (":" in connector.source) is not (address.version == 6):
        return f"cannot be reached from the source address {connector.source}"
    return ""
