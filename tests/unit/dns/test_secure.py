"""What the resolver says of DNSSEC: the AD bit, when it is believed, and the look-ups that DANE needs."""

import asyncio
from dataclasses import replace

import dns.message
import dns.name
import dns.rcode
import pytest

from relay.config.models import SelfTest
from relay.config.values import HostPort
from relay.dns.answers import Addresses, TlsaRecords, TxtRecords
from relay.dns.resolver import DnsResolver
from relay.mail.published import TlsaRecord
from relay.policy.route import LookupFailed, MxRecords, NoDomain
from tests.unit.dns.server import DnsServer, Zone
from tests.unit.dns.test_cache import Clock
from tests.unit.dns.test_resolver import at, mx

LONG = ".".join(["a" * 62] * 4)
ZONE = Zone(
    records={
        "good.test MX": (60, ("10 mx.good.test.",)),
        "mx.good.test A": (60, ("192.0.2.1",)),
        "mx.good.test AAAA": (60, ("2001:db8::1",)),
        "_25._tcp.mx.good.test TLSA": (60, ("3 1 1 " + "AB" * 32, "2 0 1 " + "CD" * 32)),
        "_26._tcp.mx.good.test TXT": (60, ('"no TLSA"',)),
        "plain.test MX": (60, ("10 mx.good.test.",)),
        "mx.plain.test A": (60, ("192.0.2.2",)),
        "_25._tcp.mx.plain.test TLSA": (60, ("3 1 1 " + "EF" * 32,)),
        "_mta-sts.good.test TXT": (60, ('"v=STSv1; " "id=1;"', '"other"')),
        "half.test A": (60, ("192.0.2.3",)),
        "mixed.test A": (60, ("192.0.2.3",)),
        "mixed.test AAAA": (60, ("2001:db8::3",)),
        "zero.test MX": (0, ("10 mx.good.test.",)),
        "mail.local.test A": (60, ("192.0.2.4",)),
        "odd.target.test A": (60, ("192.0.2.5",)),
    },
    cnames={
        "in.good.test": "mx.good.test",
        "out.good.test": "mx.plain.test",
        "in.plain.test": "mx.good.test",
        "gone.good.test": "none.good.test",
        "bare.good.test": "_26._tcp.mx.good.test",
        "_25._tcp.out.good.test": "_25._tcp.mx.plain.test",
        "odd.good.test": "bad\\032name.test",
    },
    codes={
        "dnssec-failed.org": dns.rcode.SERVFAIL,
        "bogus.test": dns.rcode.SERVFAIL,
        "down.test": dns.rcode.SERVFAIL,
        "half.test AAAA": dns.rcode.SERVFAIL,
        "_25._tcp.bogus.test": dns.rcode.SERVFAIL,
    },
    errors={"bogus.test": 6, "_25._tcp.bogus.test": 7, "down.test": 22},
    secure={
        ".",
        *("good.test", "mx.good.test", "_25._tcp.mx.good.test", "_26._tcp.mx.good.test", "_25._tcp.none.good.test"),
        *(
            "in.good.test",
            "out.good.test",
            "gone.good.test",
            "none.good.test",
            "bare.good.test",
            "half.test",
            "zero.test",
        ),
        *("_25._tcp.out.good.test", "_mta-sts.good.test", "odd.good.test", "bad\\032name.test"),
    },
)
ZONE.records["bad\\032name.test A"] = (60, ("192.0.2.6",))
BOGUS = LookupFailed("its DNSSEC signatures do not verify", bogus=True)
DOWN = LookupFailed("every resolver failed (SERVFAIL, REFUSED or no sound answer)")


INSECURE = mx((10, "mx.good.test"))
CERTAIN = MxRecords(INSECURE.records, secure=True)


def secure(answer: Addresses, canonical: str = "") -> Addresses:
    return Addresses(answer.addresses, secure=True, canonical=canonical)


def validating(address: HostPort, clock: Clock | None = None) -> DnsResolver:
    """A resolver that is declared to validate, and shows it when it is first asked something."""
    return DnsResolver(address, self_test=SelfTest(), monotonic=clock or Clock())


async def test_what_is_secure() -> None:
    both = at("192.0.2.1", "2001:db8::1")
    async with DnsServer(ZONE) as server:
        resolver = validating(server.address)
        assert await resolver.mx("good.test") == MxRecords(mx((10, "mx.good.test")).records, secure=True)
        assert await resolver.mx("plain.test") == mx((10, "mx.good.test"))
        assert await resolver.mx("mx.good.test") == MxRecords((), secure=True)
        assert await resolver.mx("none.good.test") == NoDomain(secure=True)
        assert await resolver.mx("none.plain.test") == NoDomain()
        assert await resolver.mx("bogus.test") == BOGUS
        assert await resolver.mx("down.test") == DOWN
        assert await resolver.addresses("mx.good.test") == secure(both)
        assert await resolver.addresses("mx.plain.test") == at("192.0.2.2")
        assert await resolver.addresses("in.good.test") == secure(both, "mx.good.test")
        assert await resolver.addresses("out.good.test") == Addresses(at("192.0.2.2").addresses, False, "mx.plain.test")
        assert await resolver.addresses("in.plain.test") == Addresses(both.addresses, False, "mx.good.test")
        assert await resolver.addresses("gone.good.test") == NoDomain(secure=True)
        assert await resolver.addresses("bare.good.test") == Addresses((), True, "_26._tcp.mx.good.test")
        assert await resolver.addresses("bogus.test") == BOGUS
        await resolver.close()


async def test_aliases_that_end_at_no_host_name_lead_to_addresses_only() -> None:
    async with DnsServer(ZONE) as server:
        found = Addresses(at("192.0.2.6").addresses, canonical="bad\\032name.test")
        assert await validating(server.address).addresses("odd.good.test") == found


async def test_one_family_that_fails_makes_the_other_no_less_secure() -> None:
    async with DnsServer(ZONE) as server:
        assert await validating(server.address).addresses("half.test") == secure(at("192.0.2.3"))


@pytest.mark.parametrize("family", ["A", "AAAA"])
async def test_both_families_must_be_secure(family: str) -> None:
    class Half(Zone):
        def answer(self, query: dns.message.Message) -> dns.message.Message | None:
            self.secure = {".", "mixed.test"} if query.question[0].rdtype.name in (family, "DNSKEY") else {"."}
            return super().answer(query)

    async with DnsServer(Half(records=ZONE.records, codes=ZONE.codes)) as server:
        resolver = validating(server.address)
        for _ in range(2):  # from the server, and from the cache
            assert await resolver.addresses("mixed.test") == at("192.0.2.3", "2001:db8::3")


async def test_tlsa_records() -> None:
    good = TlsaRecords((TlsaRecord(2, 0, 1, "cd" * 32), TlsaRecord(3, 1, 1, "ab" * 32)), secure=True)
    async with DnsServer(ZONE) as server:
        resolver = validating(server.address)
        assert await resolver.tlsa("mx.good.test", 25) == good
        assert await resolver.tlsa("mx.good.test", 26) == TlsaRecords((), secure=True)
        assert await resolver.tlsa("none.good.test", 25) == TlsaRecords((), secure=True)
        assert await resolver.tlsa("mx.plain.test", 25) == TlsaRecords((TlsaRecord(3, 1, 1, "ef" * 32),))
        assert await resolver.tlsa("out.good.test", 25) == TlsaRecords((TlsaRecord(3, 1, 1, "ef" * 32),))
        assert await resolver.tlsa("none.plain.test", 25) == TlsaRecords(())
        assert await resolver.tlsa("bogus.test", 25) == BOGUS
        assert await resolver.tlsa(LONG, 25) == TlsaRecords(())
        assert await resolver.tlsa("mx.good.test", 25) == good
        assert server.asked["_25._tcp.mx.good.test TLSA"] == 1


async def test_whole_certificates_come_by_tcp() -> None:
    """Three of them are more than a datagram holds."""
    whole = [f"3 0 0 {number:02x}{'ab' * 800}" for number in range(3)]
    async with DnsServer(replace(ZONE, records={"_25._tcp.mx.good.test TLSA": (60, tuple(whole))})) as server:
        answer = await validating(server.address).tlsa("mx.good.test", 25)
    assert isinstance(answer, TlsaRecords)
    assert answer.secure
    assert [str(each) for each in answer.records] == whole


async def test_aliases() -> None:
    async with DnsServer(ZONE) as server:
        resolver = validating(server.address)
        for _ in range(2):
            assert await resolver.is_secure_alias("in.good.test") is True
            assert await resolver.is_secure_alias("out.good.test") is True
            assert await resolver.is_secure_alias("in.plain.test") is False
            assert await resolver.is_secure_alias("mx.good.test") is False
            assert await resolver.is_secure_alias("none.good.test") is False
            assert await resolver.is_secure_alias("bogus.test") == BOGUS
        assert server.asked["in.good.test CNAME"] == server.asked["mx.good.test CNAME"] == 1


async def test_texts() -> None:
    async with DnsServer(ZONE) as server:
        resolver = validating(server.address)
        answer = await resolver.txt("_mta-sts.good.test")
        assert isinstance(answer, TxtRecords)
        assert sorted(answer.texts) == ["other", "v=STSv1; id=1;"]
        assert await resolver.txt("mx.good.test") == await resolver.txt("none.test") == TxtRecords(())
        assert await resolver.txt("down.test") == DOWN


async def test_ad_counts_only_where_it_was_declared() -> None:
    """Threat: whoever can answer for the resolver can set the bit."""
    async with DnsServer(ZONE) as server:
        undeclared = DnsResolver(server.address)
        await undeclared.test()
        assert undeclared.dane == "no resolver is declared to validate DNSSEC (`dns.validating`)"
        assert await undeclared.mx("good.test") == INSECURE
        assert DnsResolver("system", self_test=SelfTest()).dane == undeclared.dane
        assert set(server.asked) == {"good.test MX"}


async def test_ad_counts_only_once_the_resolver_has_shown_it() -> None:
    zone = replace(ZONE, codes={})
    async with DnsServer(zone) as server:
        told: list[str] = []
        resolver = DnsResolver(server.address, self_test=SelfTest(), told=told.append)
        assert resolver.dane == "the resolver has not shown yet that it validates DNSSEC"
        assert await resolver.mx("good.test") == INSECURE
        assert "does not hold to DNSSEC" in resolver.dane
        zone.codes = ZONE.codes
        assert await resolver.mx("good.test") == INSECURE  # a proof stands, until another test
        await resolver.test()
        assert (await resolver.mx("good.test"), resolver.dane) == (CERTAIN, "")
        zone.codes = {}
        await resolver.test()
        assert await resolver.mx("good.test") == INSECURE
        assert [bool(trouble) for trouble in told] == [True, False, True]


async def test_a_question_that_was_under_way_when_belief_ended() -> None:
    zone = replace(ZONE)
    async with DnsServer(zone) as server:
        resolver = validating(server.address)
        await resolver.test()
        server.arrived.clear()
        server.held = asyncio.Event()
        waiting = asyncio.create_task(resolver.mx("good.test"))
        await server.arrived.wait()
        held, server.held = server.held, None
        zone.codes = {}
        await resolver.test()
        assert resolver.dane
        held.set()
        assert await waiting == await resolver.mx("good.test") == INSECURE


async def test_a_secure_answer_is_not_kept_beyond_its_time() -> None:
    clock = Clock()
    async with DnsServer(ZONE) as server:
        resolver = validating(server.address, clock)
        for expected in (1, 2):
            await resolver.mx("zero.test")
            assert server.asked["zero.test MX"] == expected
        insecure = DnsResolver(server.address, monotonic=clock)
        for _ in range(2):
            await insecure.mx("zero.test")
        assert server.asked["zero.test MX"] == 3


async def test_a_name_that_the_search_list_completed_is_not_the_one_that_was_asked_for() -> None:
    async with DnsServer(replace(ZONE, secure={".", "mail", "mail.local.test"})) as server:
        resolver = validating(server.address)
        resolver._source.resolver().search = [dns.name.from_text("local.test")]
        assert await resolver.configured_addresses("mail") == at("192.0.2.4")
        assert await resolver.configured_addresses("mail.local.test") == secure(at("192.0.2.4"))
