"""Several processes on one queue: each delivers its own slot's mail and no other's, what one leaves behind is adopted, facts are shared."""

import asyncio
import re
import sqlite3
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from relay.config.models import Retry
from relay.policy.suspension import Stops, Suspension, Suspensions
from relay.queue import chores
from relay.queue.bodies import BodyFolder
from relay.queue.disk import beside
from relay.queue.facts import StaleFacts
from relay.queue.ids import SLOTS, number, slot_of
from relay.queue.operations import Selection
from relay.queue.schema import _SLOTS, MIGRATIONS, prepare
from relay.queue.share import Share
from relay.queue.store import CHUNK, Command, Order, Query, Row, State, StoreUnavailable, StoreUnusable, TraceQuery
from relay.queue.turn import Alone
from tests.unit.queue.world import LATER, OK, START, World, evidence

MINUTE, DAY = timedelta(minutes=1), timedelta(days=1)


@asynccontextmanager
async def workers(path: Path, count: int = 2) -> AsyncIterator[list[World]]:
    """As the processes of one relay: each with a store and a scheduler of its own."""
    made = [World(path) for _ in range(count)]
    for slot, each in enumerate(made):
        each.timers._clock = each.clock = made[0].clock
        each.hops.clock = each.clock
        await each.start(share=Share(slot, count, locked=True))
    try:
        yield made
    finally:
        for each in made:
            await each.close(grace=0.01)  # what waits at a closed gate is not delivered


async def settle(made: Sequence[World]) -> None:
    for each in made:
        await each.settle()


async def slots(queue: World) -> list[int]:
    """Of all recipients."""
    return await queue.store.ask(lambda db: [row[0] for row in db.execute("SELECT slot FROM recipient ORDER BY n, i")])


async def test_each_delivers_what_it_took(tmp_path: Path) -> None:
    async with workers(tmp_path / "queue.db", 3) as made:
        for each in made:
            each.hops.says["bob@example.com"] = [LATER]
        taken = [await each.put() for each in made for _ in range(3)]
        await settle(made)
        assert [slot_of(number(each.id)) for each in taken] == [0, 0, 0, 1, 1, 1, 2, 2, 2]
        assert await slots(made[0]) == [slot_of(number(each)) for each in sorted(message.id for message in taken)]
        made[0].clock.now += 5 * MINUTE
        for each in made:
            each.hops.says["bob@example.com"] = [OK]
            each.timers.ring()
        await settle(made)
        for slot, each in enumerate(made):
            own = [message.id for message in taken[3 * slot : 3 * slot + 3]]
            assert sorted(message for message, _to in each.hops.delivered) == own
            assert len(each.hops.seen) == 6


async def test_a_successor_finds_what_its_slot_held(tmp_path: Path) -> None:
    path = tmp_path / "queue.db"
    async with workers(path) as made:
        made[1].hops.gate.clear()
        message = await made[1].put()
        await made[0].settle()
        successor = World(path, made[0].clock)
        await successor.start(share=Share(1, 2, locked=True))
        await successor.settle()
        await made[0].settle()
        assert [each.hops.delivered for each in (made[0], successor)] == [[], [(message.id, "bob@example.com")]]
        later = await successor.put()
        assert number(later.id) > number(message.id)
        await successor.close()


async def test_what_a_slot_left_behind_is_adopted_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chores, "_ADOPT", 3)
    path = tmp_path / "queue.db"
    async with workers(path, 3) as made:
        for each in made:
            each.hops.says["later.example"] = [LATER, OK]
        made[2].hops.gate.clear()
        due = [await made[2].put(f"{i}@a.example", f"{i}@b.example") for i in range(5)]
        await made[1].put("x@later.example")
        await settle(made[:2])
    waiting = World(path)
    waiting.hops.says["later.example"] = [OK]
    await waiting.start(share=Share(0, 1, locked=True))
    assert await waiting.store.abandoned() == (1, 2)
    for slot in await waiting.store.abandoned():
        await waiting.scheduler.adopt(slot)
    await waiting.settle()
    assert await waiting.store.abandoned() == ()
    assert sorted({message for message, _to in waiting.hops.delivered}) == sorted(each.id for each in due)
    assert len(waiting.hops.delivered) == 10
    # What is not due yet is found when it is.
    await waiting.pass_(5 * MINUTE)
    assert waiting.hops.delivered[-1][1] == "x@later.example"
    assert set(await slots(waiting)) == {0}
    await waiting.close()


async def test_what_was_adopted_in_part_stays_adopted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The store fails in the middle: the rest comes when it works again."""
    monkeypatch.setattr(chores, "_ADOPT", 1)
    path = tmp_path / "queue.db"
    async with workers(path) as made:
        made[1].hops.gate.clear()
        for i in range(3):
            await made[1].put(f"{i}@d{i}.example")
    queue = World(path)
    await queue.start(share=Share(0, 1, locked=True))
    adopt, times = queue.store.adopt, 0

    async def failing(slot: int) -> tuple[str, ...]:
        nonlocal times
        times += 1
        if times == 2:
            raise StoreUnavailable("no")
        return await adopt(slot)

    monkeypatch.setattr(queue.store, "adopt", failing)
    with pytest.raises(StoreUnavailable):
        await queue.scheduler.adopt(1)
    await queue.settle()
    assert len(queue.hops.delivered) == 1
    await queue.scheduler.adopt(1)
    await queue.settle()
    assert len(queue.hops.delivered) == 3
    await queue.close()


async def test_what_is_held_goes_to_whoever_releases_it(tmp_path: Path) -> None:
    async with workers(tmp_path / "queue.db") as made:
        made[1].hops.gate.clear()
        made[1].hops.says[""] = [LATER]
        message = await made[1].put()
        await made[1].operations.hold(Selection(ids=(message.id,)))
        made[1].hops.gate.set()
        await settle(made)
        (row,) = await made[0].store.rows(Query(states=frozenset({State.HELD})))
        assert row == Row(message.id, 0, "bob@example.com", "example.com", State.HELD, 1, sender="alice@example.org")
        assert await made[0].operations.carry_out([row], Command(Order.RELEASE)) == (1, 0)
        await settle(made)
        assert made[0].hops.delivered == [(message.id, "bob@example.com")]
        assert await slots(made[0]) == [0]


def _there(queue: World) -> list[int]:
    """The slots of the messages that have files."""
    return sorted(slot_of(row) for row in BodyFolder(queue.path).rows())


async def _arriving(made: Sequence[World]) -> None:
    for each in made:
        incoming = each.intake.begin()
        incoming.write(b"x" * (2 * CHUNK))
        await asyncio.shield(incoming._pending[0])


async def _die(made: Sequence[World]) -> None:
    """What arrives stays as it is."""
    for each in made:
        each.store._bodies._bodies.clear()
        await each.close()


async def test_a_start_sweeps_what_its_own_slot_left_behind(tmp_path: Path) -> None:
    async with workers(tmp_path / "queue.db", 3) as made:
        await _arriving(made)
        await _die(made[1:])
        await made[1].start(share=Share(1, 3, locked=True))
        await made[1].store.tidy()
        assert _there(made[0]) == [0, 2]
        await made[0].store.tidy()
        assert _there(made[0]) == [0, 2]
        await made[2].start(share=Share(2, 3, locked=True))
        await made[2].store.tidy()
        assert _there(made[0]) == [0]


async def test_the_first_sweeps_slots_that_nobody_has_any_more(tmp_path: Path) -> None:
    async with workers(tmp_path / "queue.db", 3) as made:
        made[2].hops.says[""] = [LATER]
        waiting = await made[2].put(body=b"z" * 3 * CHUNK)
        await made[2].settle()
        await _arriving(made)
        await _die(made)
        await made[0].start(share=Share(0, 2, locked=True))
        await made[0].store.tidy()
        assert _there(made[0]) == [1, 2]
        assert made[0].files()[waiting.id[:12]] == waiting.size
        for slot in (1, 2):
            await made[slot].start(share=Share(slot, 3, locked=True))


async def test_who_adopts_a_slot_sweeps_it(tmp_path: Path) -> None:
    async with workers(tmp_path / "queue.db", 2) as made:
        made[1].hops.says[""] = [LATER]
        message = await made[1].put(body=b"y" * 3 * CHUNK)
        await made[1].settle()
        await _arriving(made)
        await _die(made[1:])
        assert _there(made[0]) == [0, 1, 1]
        await made[0].operations.adopt(1)
        await made[0].pass_(timedelta(hours=1))
        assert made[0].hops.bodies[message.id] == b"y" * 3 * CHUNK
        await made[0].store.tidy()
        assert _there(made[0]) == [0]
        await made[1].start(share=Share(1, 2, locked=True))


async def test_only_the_first_purges(tmp_path: Path) -> None:
    async with workers(tmp_path / "queue.db") as made:
        message = await made[1].put()
        await settle(made)
        made[0].clock.now += 31 * DAY
        await made[1].store.tidy()
        assert await made[0].operations.show(message.id)
        await made[0].store.tidy()
        assert await made[0].operations.show(message.id) is None


async def test_a_fact_that_another_process_forgot_is_written_again(tmp_path: Path) -> None:
    """Else a trace would name a plan or evidence that is not there."""
    async with workers(tmp_path / "queue.db") as made:
        tls = evidence()
        made[1].hops.evidence = tls
        await made[1].put(tls=tls)
        await settle(made)
        made[0].clock.now += 31 * DAY
        await made[0].store.tidy()
        assert await _facts(made[0]) == 0
        again = await made[1].put(tls=tls)
        await settle(made)
        assert await _facts(made[0]) == 2
        (trace,) = await made[0].operations.trace(TraceQuery(id=again.id))
        assert trace["accepted"]["tls"]["cipher"] == trace["attempts"][0]["evidence"]["cipher"] == tls.cipher
        assert trace["attempts"][0]["plan"]["level"] == "encryption"


async def _facts(queue: World) -> int:
    return await queue.store.ask(lambda db: int(db.execute("SELECT count(*) FROM fact WHERE refs > 0").fetchone()[0]))


async def test_a_fact_that_is_never_there_is_no_endless_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with workers(tmp_path / "queue.db", 1) as (queue,):
        calls = 0

        def stale(_facts: object, _db: sqlite3.Connection) -> None:
            nonlocal calls
            calls += 1
            raise StaleFacts

        with monkeypatch.context() as patch:
            patch.setattr("relay.queue.facts.Facts.write_counts", stale)
            with pytest.raises(StaleFacts):
                await queue.put()
        assert 2 <= calls < 10
        await queue.put()


async def test_attempts_of_two_processes_are_all_there_in_order(tmp_path: Path) -> None:
    """Their keys never meet: a second one of the same key would be thrown away in silence."""
    path = tmp_path / "queue.db"
    async with workers(path) as made:
        for each in made:
            each.hops.says[""] = [LATER]
        messages = [await each.put() for each in made for _ in range(20)]
        await settle(made)
        keys = await made[0].store.ask(lambda db: [row[0] for row in db.execute("SELECT k FROM attempt")])
        assert len(keys) == len(messages)
        assert {each % SLOTS for each in keys} == {0, 1}
    (queue,) = [World(path)]
    queue.hops.says[""] = [LATER]
    await queue.start(share=Share(0, 1, locked=True))
    await queue.scheduler.adopt(1)
    await queue.pass_(5 * MINUTE)
    for message in messages:
        (trace,) = await queue.operations.trace(TraceQuery(id=message.id))
        at = [each["at"] for each in trace["attempts"]]
        assert len(at) >= 2
        assert at == sorted(at)
    await queue.close()


class Elsewhere:
    """Implements relay.queue.operations.Others by other worlds in this process."""

    def __init__(self, others: dict[int, World]) -> None:
        self.others = others
        self.asked: list[tuple[int, Order, int]] = []

    def has(self, slot: int) -> bool:
        return slot in self.others

    async def running(self) -> list[tuple[str, int]]:
        return [key for each in self.others.values() for key in each.scheduler.claims.running()]

    async def carry_out(self, slot: int, rows: Sequence[Row], command: Command) -> tuple[int, int]:
        self.asked.append((slot, command.order, len(rows)))
        return await self.others[slot].operations.carry_out(rows, command)


async def test_orders_go_to_whoever_has_the_mail(tmp_path: Path) -> None:
    async with workers(tmp_path / "queue.db", 3) as made:
        elsewhere = made[0].operations._others = Elsewhere({1: made[1], 2: made[2]})
        for each in made:
            each.hops.says["later.example"] = [LATER]
            each.hops.gate.clear()
        for each in made:
            await each.put("a@later.example")
        listed = await made[0].operations.list(Selection(everything=True))
        assert {each["recipients"][0]["state"] for each in listed["messages"]} == {"delivering"}
        assert (await made[0].operations.statistics())["delivering"] == 3
        shown = await made[0].operations.list(Selection(everything=True, states=frozenset({State.DELIVERING})))
        assert len(shown["messages"]) == 3
        held = await made[0].operations.hold(Selection(everything=True))
        assert (held["changed"], held["running"]) == (0, 3)
        for each in made:
            each.hops.gate.set()
        await settle(made)
        assert (await made[0].operations.release(Selection(domain="later.example")))["changed"] == 3
        await settle(made)
        assert [len(each.hops.seen) for each in made] == [2, 2, 2]
        assert (await made[0].operations.delete(Selection(everything=True)))["changed"] == 3
        assert elsewhere.asked == [
            (slot, order, 1) for order in (Order.HOLD, Order.RELEASE, Order.DELETE) for slot in (1, 2)
        ]


class OneAtATime(Alone):
    """A turn that several stores of this process share."""

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()

    def take(self) -> bool:
        return self._lock.acquire(blocking=False)

    def give(self) -> None:
        self._lock.release()


async def test_a_successor_leaves_a_file_that_was_removed_to_whoever_has_it_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An empty file under the name would keep its mail from being written anew."""
    monkeypatch.setattr("relay.queue.writer._RETRY", 0.02)
    path, turn = tmp_path / "queue.db", OneAtATime()
    living, successor = World(path), World(path)
    await living.start(share=Share(0, 2, turn, locked=True))
    living.hops.gate.clear()
    message = await living.put()
    for suffix in ("", "-wal", "-shm"):
        beside(path, suffix).unlink()
    living.store._reopened()
    with pytest.raises(StoreUnavailable):
        await living.store.load([message.id])  # a reader that is opened anew makes no file either
    absent, exists = threading.Event(), Path.exists

    def looked(self: Path) -> bool:
        found = exists(self)
        if self == path and not found:
            absent.set()
        return found

    monkeypatch.setattr(Path, "exists", looked)
    opening = asyncio.create_task(successor.open(share=Share(1, 2, turn, locked=True)))
    await asyncio.wait_for(asyncio.to_thread(absent.wait), 10)
    with pytest.raises(StoreUnavailable, match="is gone"):
        await living.put()
    await asyncio.wait_for(opening, 10)
    assert [each.message.id for each in await living.store.load([message.id])] == [message.id]
    assert await successor.states(message) == ["waiting"]
    await successor.put()
    await successor.store.close()
    await living.close(grace=0.01)


async def test_a_file_that_nobody_has_any_more_is_not_made_anew_in_silence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relay.queue.database._PATIENCE", 0.0)
    turn = Alone()
    turn.new_edition()
    with pytest.raises(StoreUnusable, match="is gone"):
        await World(tmp_path / "queue.db").open(share=Share(1, 2, turn, locked=True))
    assert not (tmp_path / "queue.db").exists()


def _plans(db: sqlite3.Connection) -> dict[str, str]:
    asked = {
        "due domains": "SELECT domain FROM recipient INDEXED BY recipient_by_due WHERE state = 0 AND slot = 1 AND due <= 5"
        " AND (due, domain) > (1, 'x') ORDER BY due, domain LIMIT 10",
        "due": "SELECT n FROM recipient INDEXED BY recipient_by_domain WHERE state = 0 AND domain = 'x' AND via IS NULL"
        " AND slot = 1 AND due <= 5 ORDER BY due LIMIT 10",
        "due on a detour": "SELECT n FROM recipient INDEXED BY recipient_by_via WHERE state = 0 AND via IS NOT NULL AND via = 'x>host y:25'"
        " AND slot = 1 AND due <= 5 ORDER BY due LIMIT 10",
        "aside": "SELECT n, i FROM recipient INDEXED BY recipient_by_due WHERE state = 0 AND slot = 1 AND due IS NULL"
        " AND domain = 'x' AND n < 7 AND (n, i) > (1, 0) ORDER BY n, i LIMIT 10",
        "overdue": "SELECT due, warned, n, i FROM recipient INDEXED BY recipient_by_domain WHERE state = 0 AND domain = 'x' AND slot = 1"
        " AND via IS NULL AND due <= 5 AND (due, warned, n, i) > (1, 0, 1, 0) ORDER BY due, warned, n, i LIMIT 10",
        "hasten": "SELECT n, i FROM recipient INDEXED BY recipient_by_due WHERE state = 0 AND slot = 1 AND due > 5 ORDER BY due DESC LIMIT 10",
        "abandoned": "SELECT slot FROM recipient INDEXED BY recipient_by_due WHERE state = 0 AND slot > 1 ORDER BY slot LIMIT 1",
    }
    return {
        name: " / ".join(row[3] for row in db.execute(f"EXPLAIN QUERY PLAN {text}")) for name, text in asked.items()
    }


async def test_questions_about_a_slot_use_their_indexes(queue: World) -> None:
    found: dict[str, Any] = await queue.store.ask(_plans)
    for name, plan in found.items():
        assert plan.startswith("SEARCH recipient USING"), (name, plan)
        assert "TEMP B-TREE" not in plan, (name, plan)


def _drop_what_came_later(db: sqlite3.Connection, place: Path) -> None:
    """The tables that a database of the migrations in force has not got."""
    with closing(sqlite3.connect(place)) as old:
        prepare(old, "old.db")
        kept = {row[0] for row in old.execute("SELECT name FROM sqlite_schema")}
    for (name,) in db.execute(
        "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
    ).fetchall():
        if name not in kept:
            db.execute(f"DROP TABLE {name}")
    db.commit()


async def test_a_queue_of_before_there_were_slots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it holds is the first slot's."""
    path = tmp_path / "queue.db"
    async with workers(path, 1) as (queue,):
        queue.hops.says[""] = [LATER]
        message = await queue.put()
        await queue.settle()
    with closing(sqlite3.connect(path)) as db:
        later = " ".join(each for migration in MIGRATIONS[MIGRATIONS.index(_SLOTS) + 1 :] for each in migration)
        for statement in (
            *(f"DROP TABLE {name}" for name in re.findall(r"CREATE TABLE (\w+)", later)),
            "DROP INDEX recipient_by_due",
            "DROP INDEX recipient_by_domain",
            "DROP INDEX recipient_by_via",
            "ALTER TABLE recipient DROP COLUMN via",
            "ALTER TABLE recipient DROP COLUMN slot",
            "CREATE INDEX recipient_by_domain ON recipient (domain, due, warned) WHERE state = 0",
            "CREATE INDEX recipient_by_due ON recipient (due, domain) WHERE state = 0",
            f"PRAGMA user_version = {MIGRATIONS.index(_SLOTS)}",
        ):
            db.execute(statement)
        db.commit()
        with monkeypatch.context() as patch:
            patch.setattr("relay.queue.schema.MIGRATIONS", MIGRATIONS[: MIGRATIONS.index(_SLOTS)])
            _drop_what_came_later(db, tmp_path / "old.db")
            prepare(db, "queue.db")
    async with workers(path, 2) as made:
        made[0].clock.now = START + 10 * MINUTE
        for each in made:
            each.timers.ring()
        await settle(made)
        assert made[0].hops.delivered == [(message.id, "bob@example.com")]
        assert made[1].hops.delivered == []


async def test_one_in_trouble_does_not_stop_the_others(tmp_path: Path) -> None:
    """A reader that was closed under it, as when a descriptor is lost."""
    async with workers(tmp_path / "queue.db") as made:
        made[0].room = 10
        with pytest.raises(StoreUnavailable):
            await made[0].put()
        message = await made[1].put()
        await asyncio.wait_for(made[1].settle(), 10)
        assert await made[1].states(message) == ["delivered"]


@pytest.mark.parametrize("is_over", [False, True])
async def test_what_was_put_aside_is_adopted_too(tmp_path: Path, is_over: bool) -> None:
    """Its sender is still suspended, and its age is looked at here from then on; or is not any more, and it goes out."""
    queue = World(tmp_path / "queue.db")
    held = Suspensions((Suspension(Stops.FROM, "@example.org", "", "uid 0", START),))
    await queue.start(share=Share(1, 2))
    queue.scheduler.suspend(held)
    message = await queue.put("bob@a.example", "eve@b.example")
    await queue.settle()
    after = await queue.crash(tmp_path / "after.db")
    after.retry = Retry(expire=timedelta(hours=4))
    await after.open(share=Share(0, 1))
    if not is_over:
        after.scheduler.suspend(held)
    await after.scheduler.start()
    await after.settle()
    assert after.hops.seen == []
    await after.operations.adopt(1)
    await after.settle()
    assert await slots(after) == [0, 0]
    if is_over:
        assert await after.states(message) == ["delivered", "delivered"]
    else:
        assert await after.states(message) == ["suspended", "suspended"]
        assert after.hops.seen == []
        await after.pass_(timedelta(hours=5))
        assert await after.states(message) == ["bounced", "bounced"]
    await after.close()
