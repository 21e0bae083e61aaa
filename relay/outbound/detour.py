"""The way of mail that an operator sends elsewhere: its hosts, what they must satisfy, and addresses. `relay.policy.reroute` decides.

Made for one delivery and forgotten after it, so that nothing that was decided for a detour is found by mail on its own way. What is final on
the own way (no such host, a loop) only defers here: the order is at fault, not the recipient.
"""

from datetime import date, datetime
from typing import TypeVar

from relay.config.models import OutboundConnector
from relay.config.values import HostPort
from relay.dns.answers import AddressAnswer, Resolver
from relay.mail.outcome import Bounced, Deferred
from relay.mail.plan import TlsPlan
from relay.outbound.lookup import Hosts, find_hosts
from relay.outbound.ourselves import Ourselves
from relay.outbound.publications import Publications, Way
from relay.outbound.target import Target
from relay.outbound.ways import Ways
from relay.policy.book import RuleBook
from relay.policy.plan import connector_plan
from relay.policy.published import Published, Uses, join, uses
from relay.policy.requiretls import require_tls
from relay.policy.reroute import Detour, by_connector, by_host, keeps_requiretls
from relay.policy.route import Unroutable

T = TypeVar("T")
_MOST_HOSTS = 8  # of a domain, that are asked what is published about them


class DetourWays(Ways):
    """`connector` is what acts on the way, or why mail waits."""

    def __init__(self, book: RuleBook, day: date, domain: str, detour: Detour, *, requiretls: bool) -> None:
        super().__init__(book, day)
        self._own, self._hop, self._domain = book.outbound_for(domain), detour.hop, domain
        self.acting: OutboundConnector | Deferred
        if detour.hop is None:
            self.acting = by_connector(book, domain, detour)
        else:
            other = by_host(self._own, detour.hop)
            self.acting = (keeps_requiretls(other) if requiretls else None) or other

    async def hosts(self, resolver: Resolver, ourselves: Ourselves, port: int) -> Hosts | Unroutable:
        """Where it goes instead."""
        if isinstance(self.acting, Deferred):
            return self.acting
        return _softer(await find_hosts(resolver, self.acting, self._domain, ourselves, port))

    async def publications(
        self, publications: Publications, resolver: Resolver, ourselves: Ourselves, port: int
    ) -> "Publications | Unroutable":
        """What is published about the hosts of the detour."""
        if self._hop is None:
            return publications
        found = await find_hosts(resolver, self._own, self._domain, ourselves, port)
        if isinstance(found, Deferred):
            return found  # what the domain publishes is not known
        hosts = found if isinstance(found, Hosts) else Hosts((), secure=False)  # it has none: nobody publishes anything
        return _AskedOfAnother(publications, self._own, hosts)

    def uses(self, connector: OutboundConnector, domain: str, *, tls_optional: bool) -> Uses:
        if self._hop is not None:
            return super().uses(connector, domain, tls_optional=tls_optional)
        return uses(connector, None, tls_optional=tls_optional)

    def plan(self, way: Way, now: datetime, published: Published, *, requiretls: bool = False) -> TlsPlan | Deferred:
        if self._hop is not None:
            return super().plan(way, now, published, requiretls=requiretls)
        # An exception is about the domain's own connector.
        plan = join(connector_plan(self.book, way.connector, way.hop.host), published)
        if not requiretls or isinstance(plan, Deferred):
            return plan
        trust = self.book.config.trust
        return require_tls(plan, connector=way.connector, host=way.hop.host, published=published, trust=trust)

    def targets(
        self, connector: OutboundConnector, hop: HostPort, plan: TlsPlan, answer: AddressAnswer, ourselves: Ourselves
    ) -> tuple[Target, ...] | Unroutable:
        return _softer(super().targets(connector, hop, plan, answer, ourselves))


class _AskedOfAnother:
    """What is published about the own hosts, asked of another one. By MX the domain's MTA-STS policy is asked about that host: it must be on its
    list. TLSA records are those of the first of the own hosts that has any: the certificate must be one of these."""

    def __init__(self, publications: Publications, own: OutboundConnector, hosts: Hosts) -> None:
        self._publications, self._own, self._hosts = publications, own, hosts

    async def find(self, way: Way, uses: Uses) -> Published:
        first: Published | None = None
        for hop in [each for group in self._hosts.groups for each in group][:_MOST_HOSTS]:
            published = await self._publications.find(Way(self._own, way.domain, hop, self._hosts.secure), uses)
            asks = bool(published.dane.demands) or published.dane.withheld is not None
            first = published if first is None or asks else first
            if asks:
                break
        if first is None or not self._own.route.by_mx:
            return first if first is not None else await self._at(way, uses)
        return Published(first.dane, (await self._at(way, uses)).sts, first.mx_secure)

    async def _at(self, way: Way, uses: Uses) -> Published:
        found = await self._publications.find(Way(self._own, way.domain, way.hop, secure=False), uses)
        return Published(sts=found.sts)

    async def recheck(self, way: Way, published: Published) -> bool:
        return await self._publications.recheck(Way(self._own, way.domain, way.hop, secure=False), published)


def _softer(found: T | Bounced) -> T | Deferred:
    if isinstance(found, Bounced):
        return Deferred(
            451, f"4{found.status[1:]}", f"an operator sent this mail another way: {found.text}", found.failure
        )
    return found
