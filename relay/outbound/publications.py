"""What is published about a host that mail goes to: the Protocol that deliveries ask, so that they know nothing of TLSA records or HTTPS."""

from dataclasses import dataclass
from typing import Protocol

from relay.config.connectors import OutboundConnector
from relay.config.values import HostPort
from relay.policy.published import UNPUBLISHED, Published, Uses


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
