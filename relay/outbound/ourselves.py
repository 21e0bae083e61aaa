"""Who we are, so that mail is not sent to ourselves for ever (RFC 5321 section 6.3)."""

import contextlib
import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from relay.config.values import HostPort
from relay.policy.book import IpAddress

_IPV4 = Path("/proc/net/fib_trie")
_IPV6 = Path("/proc/net/if_inet6")


@dataclass(frozen=True, slots=True)
class Ourselves:
    """`names` we go by (normalised), `addresses` of this machine, `listening` where we take mail (0.0.0.0 and :: stand for all of it)."""

    names: frozenset[str] = frozenset()
    addresses: frozenset[IpAddress] = frozenset()
    listening: frozenset[HostPort] = frozenset()

    def listens_at(self, address: IpAddress, port: int) -> bool:
        """True where mail sent there comes back to us."""
        if HostPort(str(address), port) in self.listening:
            return True
        ours = address.is_loopback or address.is_unspecified or address in self.addresses
        return ours and any(HostPort(every, port) in self.listening for every in ("0.0.0.0", "::"))  # noqa: S104 - compared, not bound

    def own(self, addresses: Iterable[IpAddress], port: int) -> frozenset[IpAddress]:
        """Those of `addresses` that are this machine, for hosts that an MX record names.

        Loopback counts where we listen on it only: it is private in any case, and two relays of a test share it.
        """
        return frozenset(
            each
            for each in addresses
            if self.listens_at(each, port) or (each in self.addresses and not each.is_loopback)
        )


def interface_addresses(ipv4: Path = _IPV4, ipv6: Path = _IPV6) -> frozenset[IpAddress]:
    """The addresses of this machine's interfaces, from Linux's /proc; what can not be read is left out."""
    found: set[IpAddress] = set()
    with contextlib.suppress(OSError):
        last = ""
        for line in ipv4.read_text().splitlines():
            if "|--" in line:
                last = line.split()[-1]
            elif "/32 host LOCAL" in line:
                found.add(ipaddress.IPv4Address(last))
    with contextlib.suppress(OSError):
        found.update(ipaddress.IPv6Address(bytes.fromhex(line[:32])) for line in ipv6.read_text().splitlines())
    return frozenset(found)
