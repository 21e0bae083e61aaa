"""What is published about a host that mail goes to: DNS and MTA-STS policies are asked here, `relay.policy` says what follows.

Deliveries know the Protocol only. `LookedUp` keeps what it decided for as long as nothing that it was decided from is another, so that a
delivery on a known way spends microseconds on policy.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from relay.config.connectors import OutboundConnector
from relay.config.values import HostPort
from relay.dns.answers import Resolver
from relay.dns.dane import dane_facts
from relay.mail.published import StsFound, StsUnknown, Use
from relay.policy.dane import HostFacts, dane_says
from relay.policy.mtasts import policy_domain, sts_says
from relay.policy.published import UNPUBLISHED, Published, Uses

MANY = 10_000


@dataclass(frozen=True, slots=True)
class Way:
    """One host for mail to a recipient domain. `secure`: as in `relay.outbound.lookup.Hosts`."""

    connector: OutboundConnector
    domain: str
    hop: HostPort
    secure: bool


class Publications(Protocol):
    """Never raises for what DNS and HTTPS say or fail to say: a failure is in what comes back."""

    async def find(self, way: Way, uses: Uses) -> Published:
        """Quick where everything is known; an equal answer is the same object as the last time."""
        ...

    async def recheck(self, way: Way) -> bool:
        """Asks anew for an MTA-STS policy that could not be kept (RFC 8461 section 5.1). True where it is another one now."""
        ...


class NothingPublished:
    """For closed networks and tests: nobody is asked."""

    async def find(self, _way: Way, _uses: Uses) -> Published:
        return UNPUBLISHED

    async def recheck(self, _way: Way) -> bool:
        return False


class Policies(Protocol):
    """`relay.dns.sts.StsPolicies`, as far as deliveries need it."""

    def held(self, domain: str) -> StsFound | None: ...
    async def get(self, domain: str) -> StsFound | StsUnknown: ...
    async def recheck(self, domain: str) -> StsFound | StsUnknown: ...


_Found = StsFound | StsUnknown | None
_Key = tuple[str, HostPort, bool, Uses, bool]


@dataclass(frozen=True, slots=True)
class _Decided:
    """`facts` and `found` are what it was decided from, None where nobody was asked."""

    facts: HostFacts | None
    found: _Found
    published: Published


class LookedUp:
    """`clock` is the wall clock in UTC."""

    def __init__(self, resolver: Resolver, policies: Policies, clock: Callable[[], datetime]) -> None:
        self._resolver, self._policies, self._clock = resolver, policies, clock
        self._decided: dict[_Key, _Decided] = {}

    async def find(self, way: Way, uses: Uses) -> Published:
        by_mx = way.connector.route.by_mx
        facts = None if uses.dane is Use.OFF else await self._facts(way)
        found = None if uses.sts is Use.OFF else await self._found(way)
        key = (way.domain, way.hop, way.secure, uses, by_mx)
        decided = self._decided.get(key)
        if decided is None or decided.found is not found or decided.facts != facts:
            if len(self._decided) >= MANY:
                self._decided.clear()
            decided = self._decided[key] = _Decided(facts, found, self._decide(way, uses, facts, found))
        return decided.published

    async def recheck(self, way: Way) -> bool:
        domain = _policy_domain(way)
        if not domain:
            return False
        before = self._policies.held(domain)
        return await self._policies.recheck(domain) is not before

    async def _facts(self, way: Way) -> HostFacts:
        by_mx = way.connector.route.by_mx
        next_hop = way.domain if by_mx else way.hop.host
        return await dane_facts(
            self._resolver, way.hop, mx_secure=way.secure, next_hop=next_hop, configured=not by_mx
        )

    async def _found(self, way: Way) -> StsFound | StsUnknown:
        domain = _policy_domain(way)
        if not domain:
            return _NO_DOMAIN
        return self._policies.held(domain) or await self._policies.get(domain)

    def _decide(self, way: Way, uses: Uses, facts: HostFacts | None, found: _Found) -> Published:
        dane = dane_says(facts or HostFacts(way.hop, way.domain), uses.dane)
        sts = sts_says(uses.sts, found or _NO_DOMAIN, _policy_domain(way), way.hop.host, self._clock())
        return Published(dane, sts, way.secure)


_NO_DOMAIN = StsFound()


def _policy_domain(way: Way) -> str:
    return policy_domain(way.connector, way.domain, way.hop)
