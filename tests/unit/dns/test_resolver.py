"""The real resolver against a name server on loopback."""

import asyncio
import ipaddress
from pathlib import Path

import dns.rcode
import pytest
import uvloop

from relay.config.values import HostPort
from relay.dns.answers import AddressAnswer, Addresses, NameAnswer, Names
from relay.dns.hosts import HostsFile
from relay.dns.reading import MAX_RECORDS
from relay.dns.resolver import DnsResolver
from relay.policy.route import LookupFailed, MxAnswer, MxRecord, MxRecords, NoDomain
from tests.unit.dns.server import DnsServer, Zone
from tests.unit.dns.test_cache import Clock


def mx(*records: tuple[int, str], skipped: tuple[str, ...] = ()) -> MxRecords:
    return MxRecords(tuple(MxRecord(*record) for record in records), skipped)


def at(*texts: str) -> Addresses:
    return Addresses(tuple(ipaddress.ip_address(text) for text in texts))


def as_set(answer: AddressAnswer) -> object:
    """dnspython puts the records of a set into any order."""
    return frozenset(answer.addresses) if isinstance(answer, Addresses) else answer


BOTH = at("192.0.2.1", "192.0.2.2", "2001:db8::1")
SERVFAIL = LookupFailed("every resolver failed (SERVFAIL, REFUSED or no sound answer)")
ZONE = Zone(
    records={
        "two.test MX": (60, ("20 B.Two.test.", "10 a.two.test.")),
        "null.test MX": (60, ("0 .",)),
        "odd.test MX": (60, ("5 192.0.2.1.", "6 bad\\032name.", "7 .", "10 good.test.")),
        "literal.test MX": (60, ("5 192.0.2.1.",)),
        "none.test A": (60, ("192.0.2.9",)),
        "target.test MX": (60, ("1 mx.target.test.",)),
        "both.test A": (60, ("192.0.2.1", "192.0.2.2")),
        "both.test AAAA": (60, ("2001:db8::1",)),
        "four.test A": (60, ("192.0.2.4",)),
        "text.test TXT": (60, ('"no address"',)),
        "many.test MX": (60, tuple(f"{number} h{number}.test." for number in range(1, MAX_RECORDS + 20))),
        "mail.search.test A": (60, ("192.0.2.7",)),
        "7.2.0.192.in-addr.arpa PTR": (60, ("Mail.Two.test.", "bad\\032name.")),
        f"{ipaddress.ip_address('2001:db8::7').reverse_pointer} PTR": (60, ("six.test.",)),
    },
    cnames={"alias.test": "target.test", "www.test": "both.test"},
    codes={
        "broken.test": dns.rcode.SERVFAIL,
        "half.test AAAA": dns.rcode.SERVFAIL,
        "66.2.0.192.in-addr.arpa": dns.rcode.SERVFAIL,
    },
)
ZONE.records["half.test A"] = (60, ("192.0.2.5",))
ZONE.codes["empty-half.test AAAA"] = dns.rcode.SERVFAIL
ZONE.records["empty-half.test TXT"] = (60, ('"x"',))

MX_TABLE: list[tuple[str, MxAnswer]] = [
    ("two.test", mx((10, "a.two.test"), (20, "b.two.test"))),
    ("null.test", mx((0, ""))),
    (
        "odd.test",
        mx(
            (10, "good.test"),
            skipped=("192.0.2.1 is an IP address, not a host name", "'bad\\\\032name' is not a domain name"),
        ),
    ),
    ("literal.test", mx(skipped=("192.0.2.1 is an IP address, not a host name",))),
    ("none.test", mx()),
    ("alias.test", mx((1, "mx.target.test"))),
    ("unknown.test", NoDomain()),
    ("broken.test", SERVFAIL),
]

ADDRESS_TABLE: list[tuple[str, AddressAnswer]] = [
    ("both.test", BOTH),
    ("www.test", BOTH),
    ("four.test", at("192.0.2.4")),
    ("half.test", at("192.0.2.5")),
    ("empty-half.test", SERVFAIL),
    ("text.test", at()),
    ("unknown.test", NoDomain()),
    ("broken.test", SERVFAIL),
    ("192.0.2.77", at("192.0.2.77")),
    ("2001:db8::77", at("2001:db8::77")),
]


NAME_TABLE: list[tuple[str, NameAnswer]] = [
    ("192.0.2.7", Names(("mail.two.test",))),
    ("2001:db8::7", Names(("six.test",))),
    ("192.0.2.8", Names(())),
    ("192.0.2.66", SERVFAIL),
]


async def _tables() -> None:
    async with DnsServer(ZONE) as server:
        resolver = DnsResolver(server.address)
        for domain, answer in MX_TABLE:
            assert await resolver.mx(domain) == answer, domain
        for address, named in NAME_TABLE:
            assert await resolver.names(ipaddress.ip_address(address)) == named, address
        for host, addresses in ADDRESS_TABLE:
            assert as_set(await resolver.addresses(host)) == as_set(addresses), host
        await resolver.close()


async def test_what_the_server_says_is_what_we_hear() -> None:
    await _tables()


def test_the_same_under_uvloop() -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_tables())


async def test_the_number_of_mx_records_is_bounded_and_the_worst_are_dropped() -> None:
    async with DnsServer(ZONE) as server:
        answer = await DnsResolver(server.address).mx("many.test")
    assert isinstance(answer, MxRecords)
    assert [each.preference for each in answer.records] == list(range(1, MAX_RECORDS + 1))
    assert answer.skipped == ("more MX records than anyone needs",)


@pytest.mark.parametrize(
    ("name", "soa", "seconds"),
    [
        ("two.test", None, 60),
        ("unknown.test", (300, "ns.test. a.test. 1 1 1 1 120"), 120),
        ("unknown.test", (30, "ns.test. a.test. 1 1 1 1 120"), 30),
        ("unknown.test", (90000, "ns.test. a.test. 1 1 1 1 90000"), 300),
        ("unknown.test", None, 5),
        ("none.test", None, 5),
        ("none.test", (300, "ns.test. a.test. 1 1 1 1 0"), 5),
        ("broken.test", None, 5),
    ],
)
async def test_how_long_an_answer_is_good(name: str, soa: tuple[int, str] | None, seconds: int) -> None:
    clock = Clock()
    zone = Zone(records=ZONE.records, codes=ZONE.codes, soa=soa)
    async with DnsServer(zone) as server:
        resolver = DnsResolver(server.address, monotonic=clock)
        await resolver.mx(name)
        asked = server.asked[f"{name} MX"]
        clock.now += seconds - 0.5
        await resolver.mx(name)
        assert server.asked[f"{name} MX"] == asked
        clock.now += 1
        await resolver.mx(name)
        assert server.asked[f"{name} MX"] > asked


async def test_an_answer_that_is_here_is_not_asked_for_again() -> None:
    async with DnsServer(ZONE) as server:
        resolver = DnsResolver(server.address)
        for host in ("both.test", "four.test", "text.test", "unknown.test"):
            first = await resolver.addresses(host)
            assert await resolver.addresses(host) == first
        assert set(server.asked.values()) == {1}


async def test_one_question_in_flight() -> None:
    async with DnsServer(ZONE) as server:
        server.held = asyncio.Event()
        resolver = DnsResolver(server.address)
        waiting = [asyncio.create_task(resolver.addresses("both.test")) for _ in range(10)]
        await server.arrived.wait()
        server.held.set()
        assert set(map(as_set, await asyncio.gather(*waiting))) == {as_set(BOTH)}
        assert dict(server.asked) == {"both.test A": 1, "both.test AAAA": 1}


async def test_a_server_that_never_answers_is_a_failure_not_a_no() -> None:
    zone = Zone(records={"slow.test A": (60, ("192.0.2.1",))}, silent={"slow.test AAAA", "dead.test"})
    async with DnsServer(zone) as server:
        resolver = DnsResolver(server.address, lifetime=0.1)
        assert await resolver.mx("dead.test") == LookupFailed("no answer in time")
        assert await resolver.addresses("slow.test") == at("192.0.2.1")


async def test_hosts_that_the_admin_named(tmp_path: Path) -> None:
    """/etc/hosts first, then the search list; a name from an MX record sees neither."""
    (tmp_path / "hosts").write_text("10.9.8.7 both.test inner\n")
    hosts = HostsFile(tmp_path / "hosts", monotonic=Clock())
    async with DnsServer(ZONE) as server:
        (tmp_path / "resolv.conf").write_text("nameserver 127.0.0.1\nsearch search.test\noptions ndots:2\n")
        resolver = DnsResolver("system", hosts=hosts, resolv_conf=tmp_path / "resolv.conf")
        resolver._source.resolver().port = server.address.port  # resolv.conf has no ports
        assert await resolver.configured_addresses("both.test") == at("10.9.8.7")
        assert await resolver.configured_addresses("inner") == at("10.9.8.7")
        assert await resolver.configured_addresses("mail") == at("192.0.2.7")
        assert await resolver.configured_addresses("four.test") == at("192.0.2.4")
        assert await resolver.configured_addresses("192.0.2.5") == at("192.0.2.5")
        assert await resolver.addresses("mail") == NoDomain()
        assert as_set(await resolver.addresses("both.test")) == as_set(BOTH)


async def test_resolv_conf_is_read_again_when_it_changes(tmp_path: Path) -> None:
    path, clock = tmp_path / "resolv.conf", Clock()
    resolver = DnsResolver("system", resolv_conf=path, monotonic=clock)
    assert await resolver.mx("two.test") == LookupFailed("this machine has no DNS resolver configured")
    path.write_text("nameserver 127.0.0.1\n")
    clock.now += 10
    first = resolver._source.resolver()
    clock.now += 10
    assert resolver._source.resolver() is first
    path.write_text("nameserver 127.0.0.1\nnameserver 127.0.0.2\n")
    assert resolver._source.resolver() is first
    clock.now += 10
    assert len(resolver._source.resolver().nameservers) == 2
    path.unlink()
    path.write_text("nameserver nonsense\n")
    clock.now += 10
    assert await resolver.mx("two.test") == LookupFailed("ValueError")


async def test_a_port_where_nobody_listens_is_a_failure() -> None:
    async with DnsServer(ZONE) as server:
        address = server.address
    assert isinstance(
        await DnsResolver(HostPort(address.host, address.port), lifetime=0.3).mx("two.test"), LookupFailed
    )
