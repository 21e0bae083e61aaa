"""From a recipient domain to hosts, and from a host to addresses that mail may go to. DNS is asked here; `relay.policy.route` decides.

RFC 5321 section 5.1. Chance comes in as an argument: equally good hosts and addresses change places.
"""

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from relay.config.models import OutboundConnector
from relay.config.values import HostPort
from relay.dns.answers import AddressAnswer, Addresses, Resolver
from relay.mail.outcome import Bounced, Deferred
from relay.outbound.ourselves import Ourselves
from relay.policy.book import IpAddress
from relay.policy.route import (
    LOOPS,
    LookupFailed,
    MxRecords,
    Unroutable,
    hops,
    look_up_failed,
    needs_mx,
    usable_addresses,
)

HostGroups = tuple[tuple[HostPort, ...], ...]
"""Best first; the hosts of one group are equally good."""


@dataclass(frozen=True, slots=True)
class Hosts:
    """`secure`: nobody but the domain can have named these hosts: DNSSEC vouches for them, or they are the admin's smart hosts."""

    groups: HostGroups
    secure: bool


T = TypeVar("T")
NOT_ASKED = MxRecords(())


async def find_hosts(
    resolver: Resolver, connector: OutboundConnector, domain: str, ourselves: Ourselves, port: int
) -> Hosts | Unroutable:
    """Smart hosts in their order, each for itself; MX hosts by preference."""
    if not needs_mx(connector, domain):
        found = hops(connector, domain, NOT_ASKED, ourselves=ourselves.names, port=port)
        if isinstance(found, Bounced | Deferred):
            return found
        return Hosts(tuple((each,) for each in found), secure=not connector.route.by_mx)
    answer = await resolver.mx(domain)
    found = hops(connector, domain, answer, ourselves=ourselves.names, port=port)
    if isinstance(found, Bounced | Deferred):
        return found
    preferences: dict[str, int] = {}
    for record in answer.records if isinstance(answer, MxRecords) else ():
        preferences[record.host] = min(record.preference, preferences.get(record.host, record.preference))
    groups: dict[int, dict[HostPort, None]] = {}
    for hop in found:
        groups.setdefault(preferences.get(hop.host, 0), {})[hop] = None
    return Hosts(tuple(tuple(group) for group in groups.values()), isinstance(answer, MxRecords) and answer.secure)


def in_order(groups: HostGroups, chance: random.Random, is_warm: Callable[[HostPort], bool]) -> tuple[HostPort, ...]:
    """Shuffled within a group (RFC 5321 section 5.1); a host that we are connected to goes before its equals."""
    ordered: list[HostPort] = []
    for group in groups:
        if len(group) == 1:
            ordered.extend(group)
        else:
            ordered.extend(sorted(_shuffled(group, chance), key=lambda hop: not is_warm(hop)))
    return tuple(ordered)


async def ask_addresses(resolver: Resolver, connector: OutboundConnector, hop: HostPort) -> AddressAnswer:
    """A host that an MX record names is a stranger's word; a smart host is looked up as the system does."""
    ask = resolver.addresses if connector.route.by_mx else resolver.configured_addresses
    return await ask(hop.host)


def fit_addresses(
    connector: OutboundConnector, hop: HostPort, answer: AddressAnswer, ourselves: Ourselves
) -> tuple[IpAddress, ...] | Unroutable:
    """Where mail for this host may go, in DNS order. A host without usable address: why, as it is for the recipients."""
    by_mx = connector.route.by_mx
    if isinstance(answer, LookupFailed):
        return look_up_failed(f"the look-up of {hop.host}", answer)
    if not isinstance(answer, Addresses) or not answer.addresses:
        text = f"{hop.host} has no address" if isinstance(answer, Addresses) else f"{hop.host} does not exist"
        # A smart host is our own configuration, or a container that is not up yet: never the sender's fault.
        return Bounced(550, "5.4.4", text) if by_mx else Deferred(451, "4.3.5", f"smart host {text}")
    own = ourselves.own(answer.addresses, hop.port) if by_mx else frozenset()
    usable = usable_addresses(connector, answer.addresses, own)
    if not by_mx:
        usable = tuple(each for each in usable if not ourselves.listens_at(each, hop.port))
    if not usable:
        looping = own or not by_mx
        return LOOPS if looping else Bounced(550, "5.4.4", f"every address of {hop.host} is private or reserved")
    fitting = tuple(each for each in usable if not connector.source or (":" in connector.source) is (each.version == 6))
    if not fitting:
        return Deferred(
            451, "4.3.5", f"no address of {hop.host} can be reached from the source address {connector.source}"
        )
    return fitting


def shuffled(values: Sequence[T], family: Callable[[T], int], chance: random.Random) -> list[T]:
    """Both address families in turns, each shuffled, so that a bound on the number tried never leaves one of them out."""
    families = [_shuffled((each for each in values if family(each) == version), chance) for version in (4, 6)]
    first, second = _shuffled(families, chance)
    mixed: list[T] = []
    for place in range(max(len(first), len(second))):
        mixed.extend(turn[place] for turn in (first, second) if place < len(turn))
    return mixed


def _shuffled(values: Iterable[T], chance: random.Random) -> list[T]:
    listed = list(values)
    chance.shuffle(listed)
    return listed
