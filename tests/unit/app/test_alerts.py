"""Alerts wired up, without a network: what is looked at, what is heard, what is handed on, and what happens while the store is in trouble."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, cast

from relay.app.alerts import WATCHED, Alerts, Seen
from relay.app.hearing import Hearing
from relay.mail import events as e
from relay.mail.seen import Dated, Direction, SeenCertificate, Spot
from relay.mail.tls import TlsFailure
from relay.policy.book import RuleBook
from relay.queue.alerts import SqliteAlerts
from relay.queue.intake import Intake
from relay.queue.store import StoreUnavailable
from tests.e2e.heard import Heard
from tests.fakes import FakeResolver
from tests.unit.policy.builders import NOW, book

WITHHELD = e.TlsWithheld("01J", "bob@b.example", "mx.b.example:25", TlsFailure.HANDSHAKE_FAILED, "call them")


@dataclass
class FakeStore:
    """The part of the queue that alerts use. `broken`: it takes and gives nothing."""

    text: str = ""
    broken: bool = False
    old: tuple[str, datetime, str] | None = None
    unsafe: bool = False
    states: str = "waiting"
    saved: int = 0

    def _check(self) -> None:
        if self.broken:
            raise StoreUnavailable("disk gone")

    async def load(self) -> str:
        self._check()
        return self.text

    async def save(self, text: str) -> None:
        self._check()
        self.text, self.saved = text, self.saved + 1

    async def oldest(self) -> tuple[str, datetime, str] | None:
        self._check()
        return self.old

    async def withheld(self, domains: Sequence[str]) -> bool:
        self._check()
        return self.unsafe

    async def domains(self) -> tuple[str, ...]:
        self._check()
        return ("b.example",)

    async def state(self, _message: str) -> str:
        self._check()
        return self.states


@dataclass
class World:
    rules: RuleBook = field(default_factory=book)
    store: FakeStore = field(default_factory=FakeStore)
    heard: Heard = field(default_factory=Heard)
    handed_on: list[e.Event] = field(default_factory=list)
    troubles: list[str] = field(default_factory=list)
    ended: int | None = None
    waiting: tuple[str, ...] = ()
    partners: Sequence[SeenCertificate] | None = None
    now: datetime = NOW

    def make(self, *, leads: bool = True) -> Alerts:
        async def troubles() -> Sequence[str]:
            return self.troubles

        async def ended() -> int | None:
            return self.ended

        seen = Seen(
            book=lambda: self.rules,
            keyring=None,
            resolver=FakeResolver(),
            store=cast(SqliteAlerts, self.store),
            intake=cast(Callable[[], Intake], lambda: None),
            store_troubles=troubles,
            ended=ended,
            file="connectors.yaml",
            waiting=lambda: self.waiting,
            partners=lambda: self.partners,
            look=0.02,
        )
        return Alerts(seen, clock=lambda: self.now, emit=self.heard, leads=leads, hand_on=self.handed_on.append)

    @asynccontextmanager
    async def running(self, *, is_anew: bool = True) -> AsyncIterator[Alerts]:
        alerts = self.make()
        await alerts.load(is_anew=is_anew)
        alerts.begin()
        try:
            yield alerts
        finally:
            await alerts.close()

    async def raised(self, count: int = 1) -> list[str]:
        return [each.kind for each in await self.heard.wait(e.AlertRaised, count)]

    async def cleared(self, count: int = 1) -> list[str]:
        return [each.kind for each in await self.heard.wait(e.AlertCleared, count)]


async def test_a_worker_that_does_not_lead_hands_on_what_matters_and_nothing_else() -> None:
    world = World()
    alerts = world.make(leads=False)
    await alerts.load(is_anew=True)
    alerts.begin()
    others = (e.SessionOpened("mx", "192.0.2.1"), e.ConfigurationWaiting("connectors.yaml", ("x",)), e.StoreRecovered())
    emit = Hearing()
    emit.add(alerts.hear, alerts.hears)
    for event in (WITHHELD, *others):
        emit(event)
    assert world.handed_on == [WITHHELD, e.StoreRecovered()]
    assert all(type(each) in WATCHED for each in world.handed_on)
    await alerts.close()
    assert world.store.saved == 0


async def test_a_partner_s_certificate_that_ends_is_told_once_whatever_restarts_and_until_it_is_renewed() -> None:
    connector = {
        "name": "contoso",
        "direction": "outbound",
        "match": {"recipient_domains": ["contoso.example"]},
        "tls": "certificate",
    }
    spot, leaf = Spot(Direction.OUTBOUND, "contoso", "mail:25"), Dated("CN=mail", "01", NOW + timedelta(days=2))
    seen = SeenCertificate(spot, leaf, "CN=ca", (), NOW, "", "contoso.example", "192.0.2.1", "", NOW, NOW)
    world = World(rules=book(connectors=[connector]), partners=[seen])
    async with world.running():
        assert await world.raised() == ["partner-certificate"]
    # After a restart nothing is known of partners until the store has been read: that is no all clear.
    world.partners, world.ended, world.heard = None, 0, Heard()
    async with world.running() as alerts:
        world.ended = 3
        assert await world.raised() == ["worker-dies"]
        assert alerts.counts["partner-certificate"] == 1
        world.partners = [replace(seen, leaf=Dated("CN=mail", "02", NOW + timedelta(days=90)))]
        assert await world.cleared() == ["partner-certificate"]


async def test_partners() -> None:
    world = World()
    world.store.unsafe = True
    async with world.running() as alerts:
        alerts.hear(WITHHELD)
        assert await world.raised() == ["partner-unsafe"]
        world.store.unsafe, world.store.states = False, "delivered"
        assert await world.cleared() == ["partner-unsafe"]


async def test_a_message_that_waits_for_another_reason_now_is_no_all_clear() -> None:
    world = World()
    async with world.running() as alerts:
        alerts.hear(WITHHELD)
        await world.raised()
        saved = world.store.saved
        world.ended = 3  # something else, so that some looks have passed by then
        assert await world.raised(2) == ["partner-unsafe", "worker-dies"]
        assert world.store.saved > saved
        assert not world.heard.of(e.AlertCleared)


async def test_the_store_and_the_queue() -> None:
    world = World()
    world.store.old = ("01J", NOW - timedelta(hours=5), "b.example")
    async with world.running():
        assert await world.raised() == ["queue-old"]
        world.troubles.append("the queue takes no mail: disk full")
        world.store.broken = True
        assert await world.raised(2) == ["queue-old", "store-trouble"]
        world.troubles.clear()
        assert await world.cleared() == ["store-trouble"]  # what cannot be looked at stays as it is
        world.store.broken, world.store.old = False, None
        assert await world.cleared(2) == ["store-trouble", "queue-old"]


async def test_the_surroundings() -> None:
    world = World(book(dns={"resolver": "127.0.0.1:53", "validating": True}))
    stale = e.StsFetchFailed("b.example", TlsFailure.STS_POLICY_FETCH_ERROR, "no answer", "enforce")
    async with world.running() as alerts:
        for event in (e.DaneUnusable("it does not validate"), stale):
            alerts.hear(event)
        assert set(await world.raised(2)) == {"dane-off", "mta-sts-stale"}
        from relay.mail.published import StsMode

        alerts.hear(e.DaneUsable("127.0.0.1:53"))
        alerts.hear(e.StsPolicyFetched("b.example", StsMode.ENFORCE, "1", 86400))
        assert set(await world.cleared(2)) == {"dane-off", "mta-sts-stale"}
        alerts.hear(e.DaneUnusable("again"))
        world.rules = book()  # it is declared to validate no more
        world.ended = 3  # told by a look: the one before, or this one, has seen the new rules
        await world.raised(3)
        world.ended, world.now = 3, NOW + timedelta(hours=2)
        await world.cleared(3)
        assert not alerts.counts


async def test_what_is_heard_while_it_starts_ends_what_is_loaded() -> None:
    """A resolver may have shown that it validates before the board is there."""
    world = World(book(dns={"resolver": "127.0.0.1:53", "validating": True}))
    async with world.running() as alerts:
        alerts.hear(e.DaneUnusable("it does not validate"))
        await world.raised()
    alerts = world.make()
    alerts.hear(e.DaneUsable("127.0.0.1:53"))
    await alerts.load(is_anew=True)
    alerts.begin()
    assert await world.cleared() == ["dane-off"]
    await alerts.close()


async def test_exceptions_and_the_file() -> None:
    ending = {"recipient_domain": "b.example", "allow": "plaintext", "until": "2026-11-24", "reason": "old"}
    world = World(book(exceptions=[ending]), waiting=("line 3: no such key",))
    async with world.running() as alerts:
        assert await world.raised() == ["exception-ends"]
        assert set(alerts.counts) == {"exception-ends", "configuration-waiting"}
        told = {each["kind"]: each["told"] for each in alerts.active()["alerts"]}
        assert told["configuration-waiting"] is None  # somebody may still be at it
        world.now += timedelta(minutes=10)
        assert await world.raised(2) == ["exception-ends", "configuration-waiting"]
        world.waiting, world.rules = (), book()
        assert set(await world.cleared(2)) == {"exception-ends", "configuration-waiting"}


async def test_a_start_tells_nothing_twice_and_settles_what_waited() -> None:
    world = World(waiting=("x",))
    world.store.unsafe = True
    async with world.running() as alerts:
        alerts.hear(WITHHELD)
        alerts.hear(e.ConfigurationWaiting("passwords", ("line 1",)))
        await world.raised()
        world.now += timedelta(minutes=11)
        await world.raised(3)
    async with world.running() as alerts:
        world.waiting = ()
        assert set(await world.cleared(2)) == {"configuration-waiting"}
        assert set(alerts.counts) == {"partner-unsafe"}
    assert len(world.heard.of(e.AlertRaised)) == 3


async def test_a_document_of_another_version_is_begun_anew() -> None:
    for text in ("{", "{}", "[]", '{"standing": [{}]}', "null", '{"standing": 1}'):
        world = World()
        world.store.text = text
        world.ended = 3
        async with world.running():
            assert await world.raised() == ["worker-dies"]


async def test_a_store_that_cannot_be_read_at_the_start(tmp_path: Path) -> None:
    world = World(troubles=["the queue takes no mail: gone"])
    world.store.broken = True
    async with world.running():
        assert await world.raised() == ["store-trouble"]


async def test_a_flood_of_events_is_bounded() -> None:
    world = World(book(alerts={"hourly": 5}))
    world.store.unsafe = True
    async with world.running() as alerts:
        for number in range(20_000):
            alerts.hear(cast(Any, e.TlsWithheld)("01J", f"bob@d{number}.example", "", TlsFailure.HANDSHAKE_FAILED, "x"))
        await world.raised(5)
        assert len(world.heard.of(e.AlertRaised)) == 5
        assert sum(alerts.counts.values()) <= 500
        assert len(world.store.text) < 2**20


async def test_a_flood_of_events_keeps_nothing_of_ours_out() -> None:
    world = World(book(alerts={"hourly": 2}, dns={"resolver": "127.0.0.1:53", "validating": True}))
    world.store.unsafe = True
    async with world.running() as alerts:
        for number in range(2_000):
            alerts.hear(cast(Any, e.TlsWithheld)("01J", f"bob@d{number}.example", "", TlsFailure.HANDSHAKE_FAILED, "x"))
        alerts.hear(e.DaneUnusable("it does not validate"))
        assert "dane-off" in await world.raised(3)
