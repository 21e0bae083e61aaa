"""What the look-ups answer, and the Protocol that everyone who asks is written against (tests have a fake of it).

MX answers are `relay.policy.route` nouns, since the decisions read them; addresses are here.
"""

import ipaddress
from dataclasses import dataclass
from typing import Protocol

from relay.mail.published import TlsaRecord
from relay.policy.route import LookupFailed, MxAnswer, NoDomain

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True, slots=True)
class Addresses:
    """A and AAAA together, IPv4 first, each in the server's order. Empty: the name exists and has no address.

    `secure`: all of it, aliases included, is DNSSEC-secure. `canonical` is the name at the end of the aliases, "" where there are none.
    """

    addresses: tuple[IpAddress, ...]
    secure: bool = False
    canonical: str = ""


@dataclass(frozen=True, slots=True)
class TlsaRecords:
    """Empty: the name does not exist, or has no TLSA record. `secure` says whether DNSSEC vouches for that, or for the records."""

    records: tuple[TlsaRecord, ...]
    secure: bool = False


@dataclass(frozen=True, slots=True)
class TxtRecords:
    """Each record with its strings joined (RFC 7208 section 3.3). Empty: no such name, or no TXT record."""

    texts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Names:
    """Host names that a PTR look-up gave, normalised. Empty: the address has no name."""

    names: tuple[str, ...]


NameAnswer = Names | LookupFailed
AddressAnswer = Addresses | NoDomain | LookupFailed
TlsaAnswer = TlsaRecords | LookupFailed
TxtAnswer = TxtRecords | LookupFailed


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

    async def tlsa(self, host: str, port: int) -> TlsaAnswer:
        """The TLSA records at _PORT._tcp.HOST (RFC 6698 section 3)."""
        ...

    async def is_secure_alias(self, host: str) -> bool | LookupFailed:
        """True where the name itself is a DNSSEC-secure CNAME, wherever that leads (RFC 7672 section 2.2.2)."""
        ...

    async def txt(self, name: str) -> TxtAnswer:
        """The TXT records of a name; underscores are fine in it."""
        ...

    async def names(self, address: IpAddress) -> NameAnswer:
        """The names that the owner of an address gives it (RFC 1035 section 3.5): a claim, until a look-up of the name leads back."""
        ...

    @property
    def dane(self) -> str:
        """Why DANE cannot be used with this resolver, "" where it can: it is declared to validate, is near, and has shown it."""
        ...
