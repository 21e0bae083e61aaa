"""What `relay doctor` finds out about the network: the resolver, what our addresses are called, whether mail can leave."""

import asyncio
import ipaddress
import os
import socket
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass

import dns.asyncresolver
import dns.exception
import dns.resolver

from relay.config.models import Config
from relay.config.values import HostPort
from relay.dns.answers import AddressAnswer, Addresses, Resolver
from relay.dns.source import RESOLV_CONF, Source
from relay.policy.route import LookupFailed, MxRecords
from relay.policy.surroundings import IpAddress, Names, Reach

_PATIENCE = 8.0  # seconds for a connection
LookUp = Callable[[str], Awaitable[AddressAnswer]]

_MOST = 10  # hosts that are tried
_ADDRESSES = 4  # of each
_SILENCE = f"no answer within {_PATIENCE:g} seconds"
_OUTSIDE = (
    "192.0.2.1",
    "2001:db8::1",
)  # RFC 5737, RFC 3849: nobody; a socket that is meant for them says where it would leave


@dataclass(frozen=True, slots=True)
class Answered:
    """`answers`: does the resolver know the root's name servers, after how many seconds."""

    answers: bool
    seconds: float


class Asking:
    """Asks the resolver that the configuration names what stands in no relay's way: the root, and names of addresses."""

    def __init__(self, config: Config) -> None:
        self._source = Source(config.dns.resolver, RESOLV_CONF, time.monotonic)

    async def root(self) -> Answered:
        begun = time.monotonic()
        answers = await self._ask(".", "NS") is not None
        return Answered(answers, time.monotonic() - begun)

    async def names_of(self, address: IpAddress) -> tuple[str, ...] | None:
        """Its PTR records; None where DNS does not say."""
        found = await self._ask(address.reverse_pointer + ".", "PTR")
        return None if found is None else tuple(str(each).rstrip(".").lower() for each in found)[:5]

    async def _ask(self, name: str, kind: str) -> tuple[object, ...] | None:
        try:
            resolver: dns.asyncresolver.Resolver = self._source.resolver()
            answer = await resolver.resolve(name, kind, lifetime=_PATIENCE)
        except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer):
            return ()
        except (dns.exception.DNSException, OSError):
            return None
        return tuple(answer)


async def names(config: Config, resolver: Resolver) -> tuple[tuple[Names, ...], bool | None]:
    """What our own addresses are called, and whether the hostname leads to one of them (None: it leads nowhere)."""
    ask, addresses = Asking(config), sources(config)
    found = await asyncio.gather(*(_names(ask, resolver, each) for each in addresses))
    ours = await resolver.addresses(config.hostname)
    leads = bool(set(ours.addresses) & set(addresses)) if isinstance(ours, Addresses) and ours.addresses else None
    return tuple(found), leads


async def _names(ask: Asking, resolver: Resolver, address: IpAddress) -> Names:
    called = await ask.names_of(address) if address.is_global else None
    confirmed = []
    for name in called or ():
        back = await resolver.addresses(name)
        if isinstance(back, Addresses) and address in back.addresses:
            confirmed.append(name)
    return Names(address, called, tuple(confirmed))


def sources(config: Config) -> tuple[IpAddress, ...]:
    """The addresses that mail leaves from: those that connectors name, and what the kernel would take. No packet is sent for it."""
    found: list[IpAddress] = [ipaddress.ip_address(str(each.source)) for each in config.outbound if each.source]
    for outside in _OUTSIDE:
        family = socket.AF_INET6 if ":" in outside else socket.AF_INET
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as trial:
                trial.connect((outside, 25))
                found.append(ipaddress.ip_address(trial.getsockname()[0]))
        except OSError:
            continue  # no route of that kind
    return tuple(dict.fromkeys(found))


async def reach(config: Config, resolver: Resolver, wanted: Iterable[str]) -> tuple[Reach, ...]:
    """Tries hosts that mail goes to: `wanted` (domains, or HOST:PORT), else the smart hosts and domains that connectors name."""
    targets: dict[HostPort, LookUp] = {}
    for each in tuple(wanted) or _named(config):
        if ":" in each:
            targets.setdefault(HostPort.parse(each, default_port=25), resolver.configured_addresses)
        else:
            for host in await _hosts(resolver, each):
                targets.setdefault(HostPort(host, 25), resolver.addresses)
    return tuple(await asyncio.gather(*(_try(*each) for each in tuple(targets.items())[:_MOST])))


def _named(config: Config) -> tuple[str, ...]:
    named: list[str] = []
    for each in config.outbound:
        if each.route.by_mx:
            named += [domain for domain in each.match.recipient_domains if not domain.startswith("*")][:1]
        else:
            named += [str(host) for host in (each.route.smart_hosts or ())]
    return tuple(dict.fromkeys(named))


async def _hosts(resolver: Resolver, domain: str) -> tuple[str, ...]:
    answer = await resolver.mx(domain)
    if isinstance(answer, MxRecords):
        return tuple(each.host for each in sorted(answer.records, key=lambda each: each.preference) if each.host)[:2]
    return (domain,)


async def _try(target: HostPort, look_up: LookUp) -> Reach:
    """One address that answers is enough. They are looked up as for a delivery, by the relay's own resolver."""
    found = await look_up(target.host)
    if isinstance(found, LookupFailed):
        return Reach(str(target), f"DNS does not say where that is: {found.text}")
    addresses = found.addresses[:_ADDRESSES] if isinstance(found, Addresses) else ()
    if not addresses:
        return Reach(str(target), "DNS knows no address of that name")
    tries = await asyncio.gather(*(_connect(str(each), target.port) for each in addresses))
    best = next((each for each in tries if not each), tries[0])
    return Reach(str(target), best, silent=best == _SILENCE)


async def _connect(address: str, port: int) -> str:
    """Why nobody answers there, "" where somebody does."""
    try:
        async with asyncio.timeout(_PATIENCE):
            _reader, writer = await asyncio.open_connection(address, port)
    except TimeoutError:
        return _SILENCE
    except OSError as error:
        return _words(error)
    writer.close()
    return ""


def _words(error: OSError) -> str:
    """Not the text that asyncio puts in their place; getaddrinfo's codes are negative."""
    return os.strerror(error.errno).lower() if error.errno and error.errno > 0 else str(error.strerror or error).lower()
