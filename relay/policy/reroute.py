"""Mail that an operator sends another way: by another connector, or to another host. What it must satisfy never becomes less.

**To another connector** it takes that connector's plan. Where this asks for less than the recipient's own connector, it is refused, here when
it is ordered and again at each delivery (either may be another by then), unless the operator said `weaker`.

**To a host** only the place changes. All that the own connector asks stays, and names above all: where they stand for the configured smart
hosts they go on standing for these. The smart host's password stays at home. What the domain publishes is asked of the new host as it was
of the old one: its TLSA records, and MTA-STS's list of hosts, which the new one has to be on.

Threat: a detour made in a hurry that hands a partner's mail to whoever answers there. In doubt mail waits.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from relay.config.models import OutboundConnector, Route
from relay.config.values import HostPort
from relay.mail.outcome import Deferred
from relay.mail.plan import Level
from relay.mail.published import Use
from relay.policy.book import RuleBook
from relay.policy.compare import weaker_demands
from relay.policy.route import Lane, lane, lane_of

_MARK = ">"  # no domain has it
_CONNECTOR, _WEAKER, _HOST = "connector ", "weaker connector ", "host "


@dataclass(frozen=True, slots=True)
class Detour:
    """Where to: one of `connector` (a name) and `hop`. `weaker`: an admin lets the connector ask for less."""

    connector: str = ""
    hop: HostPort | None = None
    weaker: bool = False

    def __str__(self) -> str:
        if self.hop is not None:
            return f"{_HOST}{self.hop}"
        return f"{_WEAKER if self.weaker else _CONNECTOR}{self.connector}"

    @classmethod
    def parse(cls, text: str) -> "Detour":
        """What str() gave. Raises ValueError."""
        if text.startswith(_HOST):
            return cls(hop=HostPort.parse(text.removeprefix(_HOST)))
        for prefix, weaker in ((_WEAKER, True), (_CONNECTOR, False)):
            if text.startswith(prefix):
                return cls(connector=text.removeprefix(prefix), weaker=weaker)
        raise ValueError(f"{text[:80]!r} is no detour")


def key(domain: str, detour: Detour) -> str:
    """What the queue sorts such mail by, in place of the recipient's domain."""
    return f"{domain}{_MARK}{detour}"


def is_key(destination: str) -> bool:
    return _MARK in destination


def domain_of(destination: str) -> str:
    """The recipient's domain."""
    return destination.partition(_MARK)[0]


def parse_key(destination: str) -> tuple[str, Detour | None]:
    """The recipient's domain, and the detour if there is one. Raises ValueError."""
    domain, mark, text = destination.partition(_MARK)
    return domain, Detour.parse(text) if mark else None


def find_connector(book: RuleBook, name: str) -> OutboundConnector | None:
    """The outbound connector of that name."""
    return next((each for each in book.config.outbound if each.name == name), None)


def lane_of_key(book: RuleBook, destination: str) -> Lane:
    """The lane of a domain or of a `key`. A connector's detours share the lane of its own mail, and with it its limits."""
    if _MARK not in destination:
        return lane_of(book, destination)
    domain, detour = parse_key(destination)
    own = lane_of(book, domain)
    if detour is None or detour.hop is not None:
        where = "" if detour is None else str(detour.hop)
        return Lane(f"{where} for {own.connector}", own.connector, own.concurrency, own.rate, own.retry, own.on_5xx)
    other = find_connector(book, detour.connector)
    if other is None:
        return Lane(
            f"missing connector {detour.connector}", detour.connector, own.concurrency, own.rate, own.retry, own.on_5xx
        )
    name = f"{domain} by {other.name}" if other.route.by_mx else lane(other, domain)
    limits = other.limits
    return Lane(name, other.name, limits.concurrency, limits.rate or 0.0, other.retry, other.on_5xx)


def weaker_than_own(book: RuleBook, domain: str, other: OutboundConnector) -> tuple[str, ...]:
    """All that mail to `domain` by `other` need not satisfy and by its own connector must. Empty: the detour is as safe."""
    own = book.outbound_for(domain)
    return tuple(dict.fromkeys((*weaker_demands(own, other, book.config.trust), *_published(own, other))))


def _published(own: OutboundConnector, other: OutboundConnector) -> Iterator[str]:
    """A smart host is not the domain's MX, so nothing that the domain publishes is asked of it. It must then be known by name or by key."""
    if other.route.by_mx or not own.route.by_mx or (own.dane is Use.OFF and own.mta_sts is Use.OFF):
        return
    if other.tls is Level.DOMAIN or (other.pins and other.tls is not Level.OPPORTUNISTIC):
        return
    yield "what the domain publishes (DANE, MTA-STS) is not asked of a smart host, and neither its name nor its key is"


def by_connector(book: RuleBook, domain: str, detour: Detour) -> OutboundConnector | Deferred:
    """The connector that such mail goes by now, or why it waits."""
    other = find_connector(book, detour.connector)
    if other is None:
        return _waits(f"there is no connector {detour.connector} any more")
    lost = () if detour.weaker else weaker_than_own(book, domain, other)
    if lost:
        return _waits(f"connector {other.name} asks for less than {book.outbound_for(domain).name} does: {lost[0]}")
    return other


def _waits(why: str) -> Deferred:
    text = f"an operator sent this mail another way, and {why}; `relay queue reroute --via default` takes that back"
    return Deferred(451, "4.3.5", text)


def by_host(own: OutboundConnector, hop: HostPort) -> OutboundConnector:
    """The own connector with another place to go to, and without the password of its smart host."""
    names = own.names
    if names is None and own.tls is Level.DOMAIN:
        names = tuple(each.host for each in own.route.hosts)
    return own.model_copy(update={"names": names, "route": Route(smart_hosts=(hop,))})


def keeps_requiretls(connector: OutboundConnector) -> Deferred | None:
    """Whether a REQUIRETLS message may go to the host of `by_host`: where the configuration, not the order, says who that is."""
    if (connector.names and connector.tls is Level.DOMAIN) or (
        connector.pins and connector.tls is not Level.OPPORTUNISTIC
    ):
        return None
    return _waits("its sender asked for REQUIRETLS: only names or pins of its own connector can vouch for another host")


def refusal(book: RuleBook, domains: Iterable[str], detour: Detour) -> str:
    """Why an order to send mail for these domains that way is not carried out; "" where it may be."""
    if detour.hop is not None:
        return ""
    other = find_connector(book, detour.connector)
    if other is None:
        known = ", ".join(each.name for each in book.config.outbound[:10]) or "none is configured"
        return f"there is no outbound connector {detour.connector} ({known})"
    if detour.weaker:
        return ""
    for domain in domains:
        lost = weaker_than_own(book, domain, other)
        if lost:
            own = book.outbound_for(domain).name
            return f"connector {other.name} asks for less than {own} does for {domain}: {'; '.join(lost)}"
    return ""
