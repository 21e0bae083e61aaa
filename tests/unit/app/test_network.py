"""A resolver that can be changed for another answers as the one in use does, and is watched over."""

import asyncio

import dns.rcode
import pytest

from relay.app.network import DaneWatch, ResolverSwitch
from relay.config.models import SelfTest
from relay.dns.answers import Resolver, TxtRecords
from relay.dns.resolver import DnsResolver
from relay.mail.events import Event, Unexpected
from relay.policy.route import MxRecord, MxRecords, NoDomain
from tests.fakes import FakeResolver
from tests.unit.dns.server import DnsServer, Zone


async def test_every_question_goes_to_the_resolver_in_use() -> None:
    fake = FakeResolver(
        mx_records={"a.test": [(10, "mx.a.test")]},
        hosts={"mx.a.test": ["192.0.2.1"]},
        secure={"a.test", "mx.a.test", "alias.a.test"},
        aliases={"alias.a.test": "mx.a.test"},
        tlsa_records={"mx.a.test:25": ["3 1 1 ab"]},
        texts={"_x.a.test": ["text"]},
        dane="not today",
    )
    switch: Resolver = ResolverSwitch(fake)
    assert await switch.mx("a.test") == await fake.mx("a.test")
    assert await switch.addresses("mx.a.test") == await fake.addresses("mx.a.test")
    assert await switch.configured_addresses("mx.a.test") == await fake.configured_addresses("mx.a.test")
    assert await switch.tlsa("mx.a.test", 25) == await fake.tlsa("mx.a.test", 25)
    assert await switch.is_secure_alias("alias.a.test") is True
    assert await switch.txt("_x.a.test") == TxtRecords(("text",))
    assert switch.dane == "not today"


async def test_a_look_up_under_way_gets_its_answer_when_the_resolver_is_changed() -> None:
    zone = Zone(records={"a.test MX": (60, ("10 mx.a.test.",))})
    async with DnsServer(zone) as server:
        switch = ResolverSwitch(DnsResolver(server.address))
        server.held = asyncio.Event()
        waiting = asyncio.create_task(switch.mx("a.test"))
        await server.arrived.wait()
        switch.to(FakeResolver())
        assert await switch.mx("a.test") == NoDomain()
        server.held.set()
        assert await waiting == MxRecords((MxRecord(10, "mx.a.test"),))
        switch.to(FakeResolver())
        assert switch._leaving == []
        await switch.close()


async def test_closing_ends_the_look_ups_of_all() -> None:
    async with DnsServer(Zone(silent={"a.test"})) as server:
        switch = ResolverSwitch(DnsResolver(server.address))
        waiting = asyncio.create_task(switch.mx("a.test"))
        await server.arrived.wait()
        switch.to(DnsResolver(server.address))
        await switch.close()
        with pytest.raises(asyncio.CancelledError):
            await waiting


class Told:
    """What a resolver under test told, as things to wait for."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[str] = asyncio.Queue()

    async def next(self) -> str:
        async with asyncio.timeout(5):
            return await self.queue.get()


async def test_a_resolver_is_tested_at_the_start_while_it_fails_and_after_a_reload() -> None:
    zone = Zone(codes={"broken.test": dns.rcode.SERVFAIL})
    names = SelfTest(signed="signed.test", broken="broken.test")
    told = Told()
    async with DnsServer(zone) as server:
        resolver = DnsResolver(server.address, self_test=names, told=told.queue.put_nowait)
        switch = ResolverSwitch(resolver)
        faults: list[Event] = []
        watch = DaneWatch(switch, faults.append, failing=0.01, passing=60)
        running = asyncio.create_task(watch.run())
        assert "does not validate" in await told.next()
        zone.secure = {"signed.test"}
        assert await told.next() == switch.dane == ""
        watch.reconfigured()
        assert await told.next() == ""
        zone.secure = set()
        switch.to(DnsResolver(server.address, self_test=names, told=told.queue.put_nowait))
        watch.reconfigured()
        assert "does not validate" in await told.next()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await switch.close()
        assert not faults


async def test_a_resolver_that_is_declared_to_nothing_is_not_tested() -> None:
    switch = ResolverSwitch(FakeResolver())
    await switch.test(afresh=True)
    async with DnsServer(Zone()) as server:
        switch.to(DnsResolver(server.address))
        await switch.test()
        assert not server.asked


async def test_a_resolver_that_is_no_longer_in_use_tells_nothing() -> None:
    told = Told()
    zone = Zone(secure={"signed.test"}, codes={"broken.test": dns.rcode.SERVFAIL})
    async with DnsServer(zone) as server:
        server.held = asyncio.Event()
        names = SelfTest(signed="signed.test", broken="broken.test")
        switch = ResolverSwitch(DnsResolver(server.address, self_test=names, told=told.queue.put_nowait))
        testing = asyncio.create_task(switch.test())
        await server.arrived.wait()
        switch.to(FakeResolver())
        server.held.set()
        await testing
        assert told.queue.empty()
        await switch.close()


async def test_watching_goes_on_after_a_fault_of_ours() -> None:
    class Faulty(ResolverSwitch):
        tests = 0

        async def test(self, *, afresh: bool = False) -> None:
            self.tests += 1
            raise RuntimeError("a bug")

    heard: asyncio.Queue[Event] = asyncio.Queue()
    switch = Faulty(FakeResolver())
    running = asyncio.create_task(DaneWatch(switch, heard.put_nowait, failing=0.01).run())
    async with asyncio.timeout(5):
        events = [await heard.get() for _ in range(2)]
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert all(isinstance(each, Unexpected) and "a bug" in each.trace for each in events)
    assert switch.tests >= 2
