"""What is published about a host that mail goes to: DNS and MTA-STS policies are asked here, `relay.policy` says what follows.

Deliveries know the Protocol only. `LookedUp` keeps what it decided for as long as nothing that it was decided from is another, so that a
delivery on a known way spends microseconds on policy.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from relay.config.connectors import OutboundConnector
from relay.config.values import HostPort
from relay.dns.answers import Resolver
from relay.dns.dane import Dane
from relay.mail.published import StsFound, StsUnknown, Use
from relay.policy.mtasts import in_force, is_another, policy_domain, sts_says
from relay.policy.published import UNPUBLISHED, Published, Says, Uses

_MANY = 10_000


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

    async def recheck(self, way: Way, published: Published) -> bool:
        """Asks anew for an MTA-STS policy that could not be kept (RFC 8461 section 5.1). True where it is another one than in `published`."""
        ...


class NothingPublished:
    """For closed networks and tests: nobody is asked."""

    async def find(self, _way: Way, _uses: Uses) -> Published:
        return UNPUBLISHED

    async def recheck(self, _way: Way, _published: Published) -> bool:
        return False


class Policies(Protocol):
    """`relay.dns.sts.StsPolicies`, as far as deliveries need it."""

    def held(self, domain: str) -> StsFound | None: ...
    async def get(self, domain: str) -> StsFound | StsUnknown: ...
    async def recheck(self, domain: str) -> StsFound | StsUnknown: ...


_Key = tuple[str, HostPort, bool, Uses, bool]
_NO_DOMAIN = StsFound()


@dataclass(frozen=True, slots=True)
class _Kept:
    """`dane` and `found` are what `published` was put together from."""

    dane: Says
    found: StsFound | StsUnknown
    published: Published


class LookedUp:
    """`clock` is the wall clock in UTC."""

    def __init__(self, resolver: Resolver, policies: Policies, clock: Callable[[], datetime]) -> None:
        self._dane, self._policies, self._clock = Dane(resolver), policies, clock
        self._kept: OrderedDict[_Key, _Kept] = OrderedDict()

    async def find(self, way: Way, uses: Uses) -> Published:
        by_mx = way.connector.route.by_mx
        next_hop = way.domain if by_mx else way.hop.host
        dane = await self._dane.says(way.hop, uses.dane, mx_secure=way.secure, next_hop=next_hop, configured=not by_mx)
        domain = policy_domain(way.connector, way.domain, way.hop)
        found: StsFound | StsUnknown = _NO_DOMAIN
        if domain and uses.sts is not Use.OFF:
            found = self._policies.held(domain) or await self._policies.get(domain)
        key = (way.domain, way.hop, way.secure, uses, by_mx)
        kept = self._kept.get(key)
        if kept is None or kept.dane is not dane or kept.found is not found:
            sts = sts_says(uses.sts, found, domain, way.hop.host, self._clock())
            kept = self._kept[key] = _Kept(dane, found, Published(dane, sts, way.secure))
            if len(self._kept) > _MANY:
                self._kept.popitem(last=False)
        return kept.published

    async def recheck(self, way: Way, published: Published) -> bool:
        domain = policy_domain(way.connector, way.domain, way.hop)
        if not domain:
            return False
        after = await self._policies.recheck(domain)
        if isinstance(after, StsUnknown):
            return False
        # Compared with what this mail went by: hosts that do not answer take minutes, and what is held may be newer.
        return is_another(in_force(after, self._clock()), published.sts.applied)
