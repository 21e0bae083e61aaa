"""Where mail goes, from what DNS said."""

import ipaddress
from typing import Any

import pytest

from relay.config.models import OutboundConnector
from relay.config.values import HostPort
from relay.mail.outcome import Bounced, Deferred
from relay.mail.tls import TlsFailure
from relay.policy.route import (
    LOOPS,
    NULL_MX,
    LookupFailed,
    MxAnswer,
    MxRecord,
    MxRecords,
    NoDomain,
    hops,
    lane,
    lane_of,
    needs_mx,
    public_addresses,
    usable_addresses,
)
from tests.unit.policy.builders import book

OURS = {"relay.example.com"}


def connector(**keys: Any) -> OutboundConnector:
    values = {"name": "c", "direction": "outbound", "match": {"recipient_domains": ["contoso.com"]}} | keys
    return book(connectors=[values]).outbound_for("contoso.com")


BY_MX = connector()
BY_HOST = connector(route={"smart_hosts": ["b.example:2525", "a.example"]})


NO_HOST = Bounced(550, "5.4.4", "no MX record of contoso.com names a host: 192.0.2.1 is an IP address")


def mx(*records: tuple[int, str]) -> MxRecords:
    return MxRecords(tuple(MxRecord(*record) for record in records))


def at(*hosts: str, port: int = 25) -> tuple[HostPort, ...]:
    return tuple(HostPort(host, port) for host in hosts)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (mx((20, "b.example"), (10, "a.example")), at("a.example", "b.example")),
        (mx((10, "b.example"), (10, "a.example"), (5, "c.example")), at("c.example", "b.example", "a.example")),
        (mx(), at("contoso.com")),
        (mx((0, "")), NULL_MX),
        (mx((10, "a.example"), (20, "relay.example.com"), (30, "b.example")), at("a.example")),
        (mx((10, "relay.example.com"), (20, "b.example")), LOOPS),
        (mx((10, "a.example"), (10, "relay.example.com")), LOOPS),
        (MxRecords((), ("192.0.2.1 is an IP address",)), NO_HOST),
        (MxRecords((MxRecord(9, "a.example"),), ("192.0.2.1 is an IP address",)), at("a.example")),
        (NoDomain(), Bounced(550, "5.1.2", "the domain contoso.com does not exist")),
        (LookupFailed("SERVFAIL"), Deferred(451, "4.4.3", "the MX look-up of contoso.com failed: SERVFAIL")),
        (
            LookupFailed("forged", bogus=True),
            Deferred(451, "4.7.5", "the MX look-up of contoso.com failed: forged", TlsFailure.DNSSEC_INVALID),
        ),
    ],
)
def test_by_mx(answer: MxAnswer, expected: object) -> None:
    assert hops(BY_MX, "contoso.com", answer, ourselves=OURS) == expected


def test_the_domain_that_is_ourselves_without_mx_loops() -> None:
    assert hops(BY_MX, "relay.example.com", mx(), ourselves=OURS) == LOOPS


def test_smart_hosts_in_their_order_whatever_dns_says() -> None:
    assert not needs_mx(BY_HOST, "contoso.com")
    found = hops(BY_HOST, "contoso.com", NoDomain(), ourselves=OURS)
    assert found == (HostPort("b.example", 2525), HostPort("a.example", 25))


@pytest.mark.parametrize(("literal", "host"), [("[192.0.2.7]", "192.0.2.7"), ("[IPv6:2001:db8::7]", "2001:db8::7")])
def test_an_address_literal_is_its_own_host(literal: str, host: str) -> None:
    assert not needs_mx(BY_MX, literal)
    assert hops(BY_MX, literal, mx(), ourselves=OURS) == at(host)


ADDRESSES = [
    "192.0.2.1",
    "198.51.100.9",
    "8.8.8.8",
    "127.0.0.1",
    "10.1.2.3",
    "169.254.1.1",
    "224.0.0.1",
    "0.0.0.0",
    "2606:4700::1",
    "::1",
    "fe80::1",
    "fd00::1",
    "::ffff:10.0.0.1",
    "64:ff9b::10.0.0.1",
    "2002:0a00:0001::1",
    "::ffff:8.8.8.8",
    "::ffff:9.9.9.9",
    "9.9.9.9",
]
OWN = {ipaddress.ip_address("9.9.9.9")}


def test_an_mx_record_leads_to_no_private_address_and_not_to_ourselves() -> None:
    found = usable_addresses(BY_MX, [ipaddress.ip_address(each) for each in ADDRESSES], OWN)
    assert found == tuple(ipaddress.ip_address(each) for each in ("8.8.8.8", "2606:4700::1", "::ffff:8.8.8.8"))


def test_closed_networks_may_allow_private_addresses_but_never_our_own() -> None:
    allowed = connector(route={"private": "allow"})
    found = usable_addresses(allowed, [ipaddress.ip_address(each) for each in ADDRESSES], OWN)
    assert found == tuple(ipaddress.ip_address(each) for each in ADDRESSES[:-2])


def test_smart_hosts_are_exempt() -> None:
    found = usable_addresses(BY_HOST, [ipaddress.ip_address(each) for each in ADDRESSES], OWN)
    assert len(found) == len(ADDRESSES)


def test_lanes() -> None:
    rules = book(
        connectors=[
            {
                "name": "c",
                "direction": "outbound",
                "match": {"recipient_domains": ["contoso.com", "*.contoso.com"]},
                "route": {"smart_hosts": ["a.example"]},
                "limits": {"concurrency": 3, "rate": "60/m"},
            }
        ]
    )
    found = lane_of(rules, "sub.contoso.com")
    assert (found.key, found.connector, found.concurrency, found.rate) == ("connector c", "c", 3, 1.0)
    other = lane_of(rules, "elsewhere.example")
    assert (other.key, other.connector, other.rate) == ("elsewhere.example", "default", 0.0)
    through = book(defaults={"outbound": {"route": {"smart_hosts": ["a.example"]}}})
    assert lane(through.outbound_for("x.example"), "x.example") == "default"


def test_what_strangers_name_is_fetched_from_public_addresses_only() -> None:
    found = ["1.1.1.1", "10.0.0.1", "127.0.0.1", "2606:4700::1", "fe80::1", "::ffff:10.0.0.1", "64:ff9b::7f00:1"]
    assert [str(each) for each in public_addresses(map(ipaddress.ip_address, found))] == ["1.1.1.1", "2606:4700::1"]
