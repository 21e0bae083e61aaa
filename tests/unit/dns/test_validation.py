"""What a resolver has to show before it is believed, and what silence proves: nothing."""

import dns.rcode
import pytest

from relay.config.models import Dns, SelfTest
from relay.dns.resolver import DnsResolver
from relay.dns.validation import Finding, Probe, find
from relay.mail.events import DaneUnusable, DaneUsable, Event
from tests.unit.dns.server import DnsServer, Zone
from tests.unit.dns.test_cache import Clock

SECURE, INSECURE, SERVFAIL, SILENT = Probe
NAMES = SelfTest(signed="signed.test", broken="broken.test")

TABLE = [
    # signed    broken    proved  what is said
    (SECURE, SERVFAIL, True, ""),
    (SECURE, INSECURE, True, "does not hold to DNSSEC: it answers about broken.test"),
    (SECURE, SECURE, False, "vouches for broken.test, which should be broken: name another in `dns.self_test.broken`"),
    (SECURE, SILENT, False, "gives no sound answer about broken.test"),
    (INSECURE, SERVFAIL, True, "does not validate DNSSEC: it answers about signed.test, which is signed, without the AD bit"),
    (INSECURE, INSECURE, True, "does not validate DNSSEC"),
    (INSECURE, SECURE, True, "does not validate DNSSEC"),
    (INSECURE, SILENT, True, "does not validate DNSSEC"),
    (SERVFAIL, SERVFAIL, False, "says SERVFAIL about signed.test, which is signed"),
    (SERVFAIL, INSECURE, True, "does not hold to DNSSEC"),
    (SERVFAIL, SECURE, False, "says SERVFAIL about signed.test"),
    (SERVFAIL, SILENT, False, "gives no sound answer about broken.test"),
    (SILENT, SERVFAIL, False, "gives no sound answer about signed.test"),
    (SILENT, INSECURE, True, "does not hold to DNSSEC"),
    (SILENT, SECURE, False, "gives no sound answer about signed.test"),
    (SILENT, SILENT, False, "gives no sound answer about signed.test"),
]  # fmt: skip


@pytest.mark.parametrize(("signed", "broken", "proved", "said"), TABLE)
def test_what_follows(signed: Probe, broken: Probe, proved: bool, said: str) -> None:
    found = find("127.0.0.1:53", NAMES, signed, broken)
    assert found.proved is proved
    assert said in found.trouble if said else found == Finding("", proved=True)
    assert not said or found.trouble.startswith("the resolver 127.0.0.1:53 ")


def test_the_table_is_whole() -> None:
    assert len({row[:2] for row in TABLE}) == len(TABLE) == len(Probe) ** 2


class World:
    """A resolver under test, what it told, and the zone that answers."""

    def __init__(self, server: DnsServer) -> None:
        self.zone, self.asked, self.clock = server.zone, server.asked, Clock()
        self.told: list[str] = []
        self.resolver = DnsResolver(
            server.address, self_test=NAMES, told=self.told.append, monotonic=self.clock, lifetime=0.3
        )

    @property
    def tests(self) -> int:
        return self.asked["signed.test DNSKEY"]


def sound() -> Zone:
    return Zone(secure={"signed.test"}, codes={"broken.test": dns.rcode.SERVFAIL})


async def test_it_is_put_to_the_test_once_by_the_first_question() -> None:
    async with DnsServer(sound()) as server:
        world = World(server)
        for name in ("a.test", "b.test"):
            await world.resolver.mx(name)
        assert (world.told, world.resolver.dane, world.tests) == ([""], "", 1)


async def test_silence_takes_nothing_back_and_a_proof_does() -> None:
    async with DnsServer(sound()) as server:
        world = World(server)
        await world.resolver.test()
        world.zone.silent = {"signed.test", "broken.test"}
        await world.resolver.test()
        world.zone.silent, world.zone.codes = set(), {**world.zone.codes, "signed.test": dns.rcode.SERVFAIL}
        await world.resolver.test()
        assert (world.told, world.resolver.dane) == ([""], "")
        world.zone.secure, world.zone.codes = set(), {"broken.test": dns.rcode.SERVFAIL}
        await world.resolver.test()
        assert "does not validate" in world.resolver.dane
        assert world.told == ["", world.resolver.dane]


async def test_while_it_is_not_there_every_question_finds_out_whether_it_is() -> None:
    """Threat: a relay that starts before its resolver, and sends mail without DANE until somebody tests again."""
    async with DnsServer(sound()) as server:
        world = World(server)
        world.zone.silent = {"signed.test", "broken.test", "a.test"}
        await world.resolver.mx("a.test")
        assert "gives no sound answer" in world.resolver.dane
        world.zone.silent = set()
        await world.resolver.mx("b.test")
        assert world.resolver.dane == ""
        assert len(world.told) == 2


async def test_tests_that_prove_nothing_become_rarer() -> None:
    async with DnsServer(sound()) as server:
        world = World(server)
        world.zone.codes["signed.test"] = dns.rcode.SERVFAIL
        tests: list[tuple[int, int]] = []
        for second in range(200):
            await world.resolver.mx(f"n{second}.test")
            world.clock.now += 1
            if not tests or world.tests > tests[-1][1]:
                tests.append((second, world.tests))
        assert [second for second, _ in tests] == [0, 1, 3, 7, 15, 31, 63, 123, 183]
        assert len(world.told) == 1
        assert "says SERVFAIL about signed.test" in world.resolver.dane


async def test_a_test_afresh_says_again_what_it_finds() -> None:
    async with DnsServer(sound()) as server:
        world = World(server)
        await world.resolver.test()
        await world.resolver.test()
        await world.resolver.test(afresh=True)
        assert world.told == ["", ""]


async def test_a_signed_name_need_not_exist_and_a_broken_one_must_be_broken() -> None:
    zone = Zone(secure={"signed.test"}, records={"broken.test A": (60, ("192.0.2.1",))})
    async with DnsServer(zone) as server:
        world = World(server)
        await world.resolver.test()
        assert "does not hold to DNSSEC" in world.resolver.dane
        zone.secure.add("broken.test")
        await world.resolver.close()
        other = World(server)
        await other.resolver.test()
        assert "name another" in other.resolver.dane


async def test_a_resolver_that_refuses_us_is_told_apart_from_one_that_validates() -> None:
    codes = {"signed.test": dns.rcode.REFUSED, "broken.test": dns.rcode.REFUSED}
    async with DnsServer(Zone(codes=codes)) as server:
        world = World(server)
        await world.resolver.test()
        assert "gives no sound answer about signed.test" in world.resolver.dane


async def test_the_resolver_that_the_configuration_names() -> None:
    events: list[Event] = []
    async with DnsServer(sound()) as server:
        names = {"signed": "signed.test", "broken": "broken.test"}
        config = Dns.model_validate({"resolver": str(server.address), "validating": True, "self_test": names})
        resolver = DnsResolver.of(config, events.append)
        await resolver.test()
        assert events == [DaneUsable(str(server.address))]
        server.zone.secure = set()
        await resolver.test()
        assert events[1:] == [DaneUnusable(resolver.dane)]
        undeclared = DnsResolver.of(Dns.model_validate({"resolver": str(server.address)}), events.append)
        await undeclared.test()
        assert len(events) == 2
