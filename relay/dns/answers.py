"""What the look-ups answer, and the Protocol that everyone who asks is written against (tests have a fake of it).

MX answers are `relay.policy.route` nouns, since the decisions read them; addresses are here.
"""

import ipaddress
from dataclasses import dataclass
from typing import Protocol

from relay.policy.route import LookupFailed, MxAnswer, NoDomain

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True, slots=True)
class Addresses:
    """A and AAAA together, IPv4 first, each in the server's order. Empty: the name exists and has no address."""

    addresses: tuple[IpAddress, ...]


AddressAnswer = Addresses | NoDomain | LookupFailed


class Resolver(Protocol):
    """Look-ups never raise for what DNS says or fails to say. Names are normalised (relay.mail.address); an IP address is its own answer."""

    async def mx(self, domain: str) -> MxAnswer:
        """The MX records of a domain, in the server's order; a null MX (RFC 7505) is a record whose host is ""."""
        ...

    async def addresses(self, host: str) -> AddressAnswer:
        """The addresses of a host that a stranger named (an MX record): DNS only, and no search list."""
        ...

    async def configured_addresses(self, host: str) -> AddressAnswer:
        """The addresses of a host that the admin named: /etc/hosts first, then DNS with the system's search list, as getaddrinfo does."""
        ...
