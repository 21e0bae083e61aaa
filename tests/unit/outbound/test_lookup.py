"""From a domain to hosts and addresses, with a fake resolver."""

import ipaddress
import random
from pathlib import Path
from typing import Any

import pytest

from relay.config.models import OutboundConnector
from relay.config.values import HostPort
from relay.dns.answers import Resolver
from relay.mail.outcome import Bounced, Deferred
from relay.outbound.lookup import HostGroups, Hosts, ask_addresses, find_hosts, fit_addresses, in_order, shuffled
from relay.outbound.ourselves import Ourselves, interface_addresses
from relay.policy.book import IpAddress
from relay.policy.route import LOOPS, NULL_MX, Unroutable
from tests.fakes import FakeResolver
from tests.unit.policy.builders import book

ME = Ourselves(
    names=frozenset({"relay.example.com"}),
    addresses=frozenset({ipaddress.ip_address("9.9.9.9"), ipaddress.ip_address("10.0.0.1")}),
    listening=frozenset({HostPort("0.0.0.0", 25), HostPort("127.0.0.1", 2525), HostPort("::1", 2526)}),
)
RESOLVER = FakeResolver(
    mx_records={
        "two.example": [(20, "b.example"), (10, "a.example")],
        "equal.example": [(10, "a.example"), (10, "b.example"), (20, "c.example"), (10, "a.example")],
        "null.example": [(0, "")],
        "ours.example": [(10, "relay.example.com")],
        "backup.example": [(10, "a.example"), (20, "relay.example.com"), (30, "b.example")],
    },
    hosts={
        "plain.example": ["192.0.2.1"],
        "public.example": ["8.8.8.8", "2606:4700::1"],
        "mixed.example": ["127.0.0.1", "10.0.0.9", "8.8.8.8", "::1", "fe80::1", "9.9.9.9"],
        "private.example": ["127.0.0.1", "10.0.0.9"],
        "self.example": ["9.9.9.9"],
        "nothing.example": [],
        "loopback.example": ["127.0.0.1"],
        "v6.example": ["2606:4700::1"],
    },
    failing={"broken.example"},
    skipped={"garbage.example": "192.0.2.1 is an IP address"},
)


def connector(**keys: Any) -> OutboundConnector:
    values = {"name": "c", "direction": "outbound", "match": {"recipient_domains": ["*"]}} | keys
    return book(connectors=[values]).outbound_for("any.example")


MX, CLOSED = connector(), connector(route={"private": "allow"})
SMART = connector(route={"smart_hosts": ["a.example:26", "b.example"]})


def groups(*those: list[str], port: int = 25) -> HostGroups:
    return tuple(tuple(HostPort(host, port) for host in group) for group in those)


@pytest.mark.parametrize(
    ("by", "domain", "expected"),
    [
        (MX, "two.example", groups(["a.example"], ["b.example"])),
        (MX, "equal.example", groups(["a.example", "b.example"], ["c.example"])),
        (MX, "plain.example", groups(["plain.example"])),
        (MX, "null.example", NULL_MX),
        (MX, "ours.example", LOOPS),
        (MX, "backup.example", groups(["a.example"])),
        (MX, "unknown.example", Bounced(550, "5.1.2", "the domain unknown.example does not exist")),
        (MX, "broken.example", Deferred(451, "4.4.3", "the MX look-up of broken.example failed: SERVFAIL")),
        (
            MX,
            "garbage.example",
            Bounced(550, "5.4.4", "no MX record of garbage.example names a host: 192.0.2.1 is an IP address"),
        ),
        (MX, "[192.0.2.7]", groups(["192.0.2.7"])),
        (SMART, "two.example", ((HostPort("a.example", 26),), (HostPort("b.example", 25),))),
    ],
)
async def test_hosts(by: OutboundConnector, domain: str, expected: HostGroups | Unroutable) -> None:
    found = await find_hosts(RESOLVER, by, domain, ME, 25)
    assert (found.groups if isinstance(found, Hosts) else found) == expected
    assert not isinstance(found, Hosts) or found.secure is (by is SMART)


async def test_mx_hosts_are_secure_where_dnssec_vouches_for_them() -> None:
    resolver = FakeResolver(mx_records={"a.example": [(10, "mx.example")]}, secure={"a.example"})
    assert await find_hosts(resolver, MX, "a.example", ME, 25) == Hosts(groups(["mx.example"]), secure=True)


async def find_addresses(
    resolver: Resolver, by: OutboundConnector, hop: HostPort, ourselves: Ourselves
) -> tuple[IpAddress, ...] | Unroutable:
    return fit_addresses(by, hop, await ask_addresses(resolver, by, hop), ourselves)


async def test_smart_hosts_ask_for_no_mx() -> None:
    resolver = FakeResolver()
    await find_hosts(resolver, SMART, "two.example", ME, 25)
    await find_hosts(resolver, MX, "[192.0.2.7]", ME, 25)
    assert not resolver.asked


def test_equals_are_shuffled_and_the_rest_keeps_its_order() -> None:
    given = groups(["a", "b", "c"], ["d"], ["e", "f"])
    orders = {in_order(given, random.Random(seed), lambda _hop: False) for seed in range(200)}
    assert len(orders) == 12  # 3! x 1 x 2!
    assert {tuple(sorted(hop.host for hop in order[:3])) for order in orders} == {("a", "b", "c")}
    assert {order[3].host for order in orders} == {"d"}


def test_a_host_that_we_are_connected_to_goes_before_its_equals_only() -> None:
    given = groups(["a", "b", "c"], ["d"])
    for seed in range(20):
        order = in_order(given, random.Random(seed), lambda hop: hop.host in ("c", "d"))
        assert (order[0].host, order[3].host) == ("c", "d")


def ips(*texts: str) -> tuple[IpAddress, ...]:
    return tuple(ipaddress.ip_address(text) for text in texts)


PRIVATE = Bounced(550, "5.4.4", "every address of private.example is private or reserved")


@pytest.mark.parametrize(
    ("by", "host", "port", "expected"),
    [
        (MX, "public.example", 25, ips("8.8.8.8", "2606:4700::1")),
        (MX, "mixed.example", 25, ips("8.8.8.8")),
        (MX, "private.example", 26, PRIVATE),
        (MX, "private.example", 25, LOOPS),  # 127.0.0.1:25 is us
        (MX, "self.example", 25, LOOPS),
        (MX, "nothing.example", 25, Bounced(550, "5.4.4", "nothing.example has no address")),
        (MX, "unknown.example", 25, Bounced(550, "5.4.4", "unknown.example does not exist")),
        (MX, "broken.example", 25, Deferred(451, "4.4.3", "the look-up of broken.example failed: SERVFAIL")),
        (MX, "8.8.8.8", 25, ips("8.8.8.8")),
        (CLOSED, "private.example", 26, ips("127.0.0.1", "10.0.0.9")),
        (CLOSED, "self.example", 26, LOOPS),
        (SMART, "private.example", 26, ips("127.0.0.1", "10.0.0.9")),
        (SMART, "private.example", 25, ips("10.0.0.9")),
        (SMART, "self.example", 26, ips("9.9.9.9")),  # another server on this machine
        (SMART, "self.example", 25, LOOPS),
        (SMART, "loopback.example", 2525, LOOPS),
        (SMART, "::1", 2526, LOOPS),
        (SMART, "127.0.0.1", 2526, ips("127.0.0.1")),
        (SMART, "nothing.example", 25, Deferred(451, "4.3.5", "smart host nothing.example has no address")),
        (SMART, "unknown.example", 25, Deferred(451, "4.3.5", "smart host unknown.example does not exist")),
    ],
)
async def test_addresses(
    by: OutboundConnector, host: str, port: int, expected: tuple[IpAddress, ...] | Unroutable
) -> None:
    assert await find_addresses(RESOLVER, by, HostPort(host, port), ME) == expected


@pytest.mark.parametrize(
    ("source", "host", "expected"),
    [
        ("192.0.2.9", "public.example", ips("8.8.8.8")),
        ("2001:db8::9", "public.example", ips("2606:4700::1")),
        (
            "192.0.2.9",
            "v6.example",
            Deferred(451, "4.3.5", "no address of v6.example can be reached from the source address 192.0.2.9"),
        ),
    ],
)
async def test_a_source_address_has_a_family(
    source: str, host: str, expected: tuple[IpAddress, ...] | Unroutable
) -> None:
    assert await find_addresses(RESOLVER, connector(source=source), HostPort(host, 25), ME) == expected


async def test_hosts_of_the_admin_are_looked_up_as_the_system_does() -> None:
    resolver = FakeResolver(hosts={"mail": ["10.1.1.1"], "mx.example": ["8.8.8.8"]})
    await find_addresses(resolver, SMART, HostPort("mail", 25), ME)
    await find_addresses(resolver, MX, HostPort("mx.example", 25), ME)
    assert set(resolver.asked) == {"configured mail", "host mx.example"}


def test_addresses_of_both_families_in_turns() -> None:
    given = ips("192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4", "2001:db8::1")
    orders = [shuffled(given, lambda each: each.version, random.Random(seed)) for seed in range(200)]
    assert all(set(order) == set(given) for order in orders)
    assert all(6 in {each.version for each in order[:2]} for order in orders), "a bound of two leaves out no family"
    assert {order[0].version for order in orders} == {4, 6}
    assert len({order[0] for order in orders}) == 5


def test_interfaces(tmp_path: Path) -> None:
    (tmp_path / "v4").write_text(
        "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 0.0.0.0\n        /0 universe UNICAST\n"
        "     |-- 10.1.2.3\n        /32 host LOCAL\n     |-- 10.1.2.255\n        /32 link BROADCAST\n"
        "     |-- 127.0.0.1\n        /32 host LOCAL\n"
    )
    (tmp_path / "v6").write_text("00000000000000000000000000000001 01 80 10 80       lo\n")
    found = interface_addresses(tmp_path / "v4", tmp_path / "v6")
    assert found == set(ips("10.1.2.3", "127.0.0.1", "::1"))
    assert interface_addresses(tmp_path / "none", tmp_path / "none") == frozenset()
    assert ipaddress.ip_address("127.0.0.1") in interface_addresses()
