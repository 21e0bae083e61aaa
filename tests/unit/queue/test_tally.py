"""The tally: every attempt and every message counts once, whatever is killed when, whoever writes in what order; its room is bounded."""

import random
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from relay.mail.envelope import LOCAL
from relay.mail.outcome import Deferred
from relay.mail.tally import CLEAR, OTHER, Refusal, Result, Verified, Way
from relay.mail.tls import TlsFailure
from relay.queue import tallies, tallyold
from relay.queue.ids import milliseconds, number
from relay.queue.share import Share
from relay.queue.tally import DAY, HOUR, Room, Step, Tally, write
from relay.queue.tallying import Tallying
from tests.unit.queue.test_slots import settle, workers
from tests.unit.queue.world import DOWN, LATER, NO, OK, START, World, evidence

BROKEN = Deferred(451, "4.7.5", "the handshake breaks", TlsFailure.HANDSHAKE_FAILED)
SPAN = (START - timedelta(days=2), START + timedelta(days=50))


def nobody() -> frozenset[str]:
    return frozenset()


def tallying(queue: World, share: Share | None = None) -> Tallying:
    return Tallying(queue.store, share or Share(), clock=queue.clock, proves=nobody)


@pytest.fixture
async def queue(tmp_path: Path) -> AsyncIterator[World]:
    made = World(tmp_path / "queue.db")
    await made.start()
    yield made
    await made.close()


async def counted(made: Tallying) -> Counter[tuple[str, str, str, str]]:
    """(way, domain, result, failure) to messages."""
    found: Counter[tuple[str, str, str, str]] = Counter()
    for count, _first, _last in await made.lines(*SPAN):
        kind = count.kind
        found[kind.way.value, kind.domain, kind.result.value, kind.failure] += count.messages
    return found


async def test_what_came_and_what_became_of_it(queue: World) -> None:
    queue.hops.evidence = evidence()
    queue.hops.says |= {"a.example": [OK], "b.example": [BROKEN], "c.example": [NO]}
    await queue.put("x@a.example", "y@a.example", "x@b.example", "x@c.example")
    await queue.settle()
    made = tallying(queue)
    await made.say()
    await made.run()
    assert await counted(made) == {
        ("in", "example.org", "accepted", ""): 1,
        ("out", "a.example", "delivered", ""): 1,
        ("out", "b.example", "deferred", "handshake-failed"): 1,
        ("out", "c.example", "bounced", ""): 1,
        ("out", "example.org", "delivered", ""): 1,  # the report about what bounced
    }
    by_domain = {(each.kind.way, each.kind.domain): each for each, _first, _last in await made.lines(*SPAN)}
    delivered = by_domain[Way.OUT, "a.example"]
    assert (delivered.recipients, delivered.kind.connector) == (2, "partner")
    style = delivered.kind.style
    assert (style.version, style.verified, style.asked) == ("TLSv1.3", Verified.ENCRYPTED, "encryption")
    assert by_domain[Way.IN, "example.org"].recipients == 4
    assert await made.counted_to() == queue.clock.now


async def test_counting_again_adds_nothing(queue: World) -> None:
    await queue.put()
    await queue.settle()
    for _round in range(3):
        made = tallying(queue)
        await made.say()
        await made.run()
    assert sum((await counted(made)).values()) == 2
    assert not await queue.store.ask(partial(tallies.has_news, slot=0))


async def test_a_message_that_is_still_arriving_is_counted_when_it_is_there(queue: World) -> None:
    """It had its number before others that were committed, and counted, first."""
    made = tallying(queue)
    slow = queue.intake.begin()
    slow.write(b"Subject: slow\r\n\r\n")
    given_up = queue.intake.begin()
    about = (await queue.put()).envelope
    await queue.settle()
    await made.say()
    await made.run()
    assert (await counted(made))["in", "example.org", "accepted", ""] == 1
    assert await made.counted_to() < queue.clock.now + timedelta(seconds=1)
    accepted = (await queue.put()).accepted
    await slow.commit(about, accepted)
    given_up.abort()
    await queue.settle()
    await made.say()
    await made.run()
    assert (await counted(made))["in", "example.org", "accepted", ""] == 3
    assert await queue.store.ask(lambda db: db.execute("SELECT count(*) FROM tally_open").fetchone()[0]) == 0


async def test_a_process_that_has_not_said_how_far_it_is_holds_the_count(tmp_path: Path) -> None:
    async with workers(tmp_path / "queue.db", 2) as made:
        shares = [Share(slot, 2, locked=True) for slot in range(2)]
        tally, other = (tallying(each, share) for each, share in zip(made, shares, strict=True))
        for each in made:
            await each.put()
        await settle(made)
        await tally.say()
        await tally.run()
        assert not await counted(tally)
        await other.say()
        await tally.run()
        assert (await counted(tally))["in", "example.org", "accepted", ""] == 2


async def test_an_outcome_that_is_written_late_is_counted(tmp_path: Path) -> None:
    """One process has an outcome on its way when another's, with a higher number, is written and counted."""
    async with workers(tmp_path / "queue.db", 2) as made:
        first, second = (tallying(each, Share(slot, 2, locked=True)) for slot, each in enumerate(made))
        late = made[1].store.progress.recording(1)
        await made[0].put()
        await settle(made)
        for each in (first, second):
            await each.say()
        await first.run()
        found = await counted(first)
        assert found["in", "example.org", "accepted", ""] == 1
        assert not found["out", "example.com", "delivered", ""]  # its number is behind the one that is on its way
        made[1].store.progress.recorded(late)
        await made[0].put()
        await settle(made)
        for each in (first, second):
            await each.say()
        await first.run()
        assert (await counted(first))["out", "example.com", "delivered", ""] == 2


async def test_numbers_never_come_behind_a_mark(tmp_path: Path) -> None:
    """All was purged and the clock was set back: what comes then still comes behind what was told to be complete."""
    made = World(tmp_path / "queue.db")
    await made.start()
    await made.put()
    await made.settle()
    tally = tallying(made)
    await tally.say()
    await tally.run()

    def purge(db: sqlite3.Connection) -> tuple[int, int]:
        for table in ("attempt", "recipient", "message"):
            db.execute(f"DELETE FROM {table}")  # noqa: S608
        marks = dict(db.execute("SELECT what, upto FROM tally_mark"))
        return marks["attempts"], marks["messages"]

    attempts, messages = await made.store.work(purge)
    await made.close()
    again = World(tmp_path / "queue.db")
    again.clock.now = START - timedelta(days=100)
    await again.start()
    assert number((await again.put()).id) > messages
    await again.settle()
    assert await again.store.ask(lambda db: db.execute("SELECT min(k) FROM attempt").fetchone()[0]) > attempts
    await again.close()


async def test_a_step_that_was_written_is_not_written_again(queue: World) -> None:
    """Two count the same rows, or one was killed behind its commit and starts over from what it had read."""
    await queue.put()
    await queue.settle()
    await tallying(queue).say()
    tally = Tally(processes=1, proves=nobody)
    steps: list[Step] = [await queue.store.ask(tally.read) for _ in range(2)]
    assert [await queue.store.work(partial(write, step=step)) for step in steps] == [True, False]
    assert sum((await counted(tallying(queue))).values()) == 2


async def test_small_steps_come_to_the_same(queue: World, monkeypatch: pytest.MonkeyPatch) -> None:
    queue.hops.says["b.example"] = [LATER]
    for index in range(25):
        await queue.put(f"{index}@a.example", f"{index}@b.example")
    await queue.settle()
    made = tallying(queue)
    await made.say()
    tally = made._tally
    monkeypatch.setattr(tally, "read", partial(type(tally).read, tally, limit=3))
    await made.run()
    found = await counted(made)
    assert found["in", "example.org", "accepted", ""] == 25
    assert found["out", "a.example", "delivered", ""] == 25
    assert found["out", "b.example", "deferred", ""] >= 1


async def test_rows_are_bounded(queue: World) -> None:
    for index in range(12):
        await queue.put(f"x@d{index:02}.example")
    await queue.settle()
    await tallying(queue).say()
    tally = Tally(processes=1, proves=nobody, room=Room(domains=5))
    assert await queue.store.work(partial(write, step=await queue.store.ask(tally.read)))
    # What is remembered and what the store says are one: a restart in the middle of an hour changes nothing.
    for index in range(12):
        await queue.put(f"x@e{index:02}.example")
    await queue.settle()
    await tallying(queue).say()
    fresh = Tally(processes=1, proves=nobody, room=Room(domains=5))
    assert await queue.store.work(partial(write, step=await queue.store.ask(fresh.read)))
    found = await counted(tallying(queue))
    out = {domain: messages for (way, domain, _result, _failure), messages in found.items() if way == "out"}
    assert len(out) == 6
    assert out[OTHER] == 24 - 5


async def test_lines_of_a_domain_are_bounded(queue: World) -> None:
    queue.hops.says[""] = [OK, LATER, NO, DOWN, BROKEN]
    for _ in range(6):
        await queue.put("x@a.example", sender="alice@a.example")
    await queue.settle()
    await tallying(queue).say()
    tally = Tally(processes=1, proves=nobody, room=Room(lines=2))
    assert await queue.store.work(partial(write, step=await queue.store.ask(tally.read)))
    lines = await tallying(queue).lines(*SPAN)
    kept = [each for each, _first, _last in lines if each.kind.style.version != OTHER and each.kind.way is Way.OUT]
    assert len(kept) <= 2
    attempts = await queue.store.ask(lambda db: db.execute("SELECT count(*) FROM attempt").fetchone()[0])
    assert sum(each.messages for each, _first, _last in lines if each.kind.way is Way.OUT) == attempts


async def test_hours_become_days_and_go(queue: World) -> None:
    await queue.put()
    await queue.settle()
    queue.clock.now += timedelta(hours=3)
    await queue.put()
    await queue.settle()
    made = tallying(queue)
    await made.say()
    await made.run()
    before = await counted(made)
    today = milliseconds(START) // DAY

    def hours(db: sqlite3.Connection) -> set[int]:
        return {row[0] for row in db.execute("SELECT hour FROM tally")}

    assert len(await queue.store.ask(hours)) == 2
    while await queue.store.work(partial(tallyold.roll, today=today + tallyold.ROLL + 1)):
        pass
    assert await queue.store.ask(hours) == {milliseconds(START) // DAY * 24}
    assert await counted(made) == before
    while await queue.store.work(partial(tallyold.forget, today=today + tallyold.KEEP + 1)):
        pass
    assert not await counted(made)
    assert await queue.store.ask(lambda db: db.execute("SELECT count(*) FROM tally_kind").fetchone()[0]) == 0


async def test_many_hours_are_rolled_up_in_steps(queue: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tallyold, "_STEP", 7)
    first = 1000 * 24

    def fill(db: sqlite3.Connection) -> None:
        db.executemany(
            "INSERT INTO tally (hour, c, messages, recipients) VALUES (?, ?, 1, 2)",
            [(first + hour, c) for hour in range(24 * 5 + 5) for c in range(3)],
        )

    await queue.store.work(fill)
    while await queue.store.work(partial(tallyold.roll, today=1005 + tallyold.ROLL)):
        pass

    def rows(db: sqlite3.Connection) -> list[tuple[int, int, int]]:
        return db.execute(
            "SELECT hour - ?, sum(messages), sum(recipients) FROM tally GROUP BY hour", (first,)
        ).fetchall()

    days = [(day * 24, 72, 144) for day in range(5)]
    assert await queue.store.ask(rows) == [*days, *((5 * 24 + hour, 3, 6) for hour in range(5))]


async def test_chains_are_kept_with_their_bytes_and_go(queue: World) -> None:
    from dataclasses import replace

    shown = evidence()
    queue.hops.evidence = replace(shown, chain=(replace(shown.chain[0], der=b"the bytes"),))
    await queue.put("x@a.example")
    await queue.settle()
    made = tallying(queue)
    await made.say()
    await made.run()
    (seen,) = await made.sightings(START - timedelta(days=1))
    assert (seen.way, seen.domain, seen.host, seen.chain, seen.complete) == (
        Way.OUT,
        "a.example",
        "mx.example:25",
        (b"the bytes",),
        True,
    )
    assert (seen.messages, seen.latest) == (1, queue.clock.now)
    today = milliseconds(START) // DAY + tallyold.KEEP_SEEN + 3
    for chore in (tallyold.forget_seen, tallyold.forget_certificates):
        while await queue.store.work(partial(chore, today=today)):
            pass
    assert await made.sightings(START - timedelta(days=1)) == []

    def left(db: sqlite3.Connection) -> list[int]:
        return list(
            db.execute("SELECT (SELECT count(*) FROM tally_chain), (SELECT count(*) FROM certificate)").fetchone()
        )

    assert await queue.store.ask(left) == [0, 0]


async def test_certificates_have_a_limit(queue: World) -> None:
    def fill(db: sqlite3.Connection) -> None:
        rows = [(f"{index:04}", b"x", 20_000 + index) for index in range(50)]
        db.executemany("INSERT INTO certificate (sha256, der, used) VALUES (?, ?, ?)", rows)

    await queue.store.work(fill)
    await queue.store.work(partial(tallyold.forget_certificates, today=20_060, most=10))
    kept = await queue.store.ask(lambda db: [row[0] for row in db.execute("SELECT sha256 FROM certificate ORDER BY 1")])
    assert kept == [f"{index:04}" for index in range(40, 50)]


async def test_refusals_add_up(queue: World) -> None:
    made = tallying(queue)
    refusal = Refusal("command", "mx", "MAIL", "contoso-in", 550, "5.7.1")
    hour = milliseconds(START) // HOUR
    await made.refuse({(hour, refusal): 3, (hour, Refusal("connection", "mx")): 1})
    await made.refuse({(hour, refusal): 2, (hour + 30, refusal): 1})
    span = (START, START + timedelta(hours=1))
    assert await made.refusals(*span) == [(refusal, 5), (Refusal("connection", "mx"), 1)]
    assert await made.refused_series(*span, "hour") == [(START, 6)]


async def test_who_waits_and_why(queue: World) -> None:
    queue.hops.says |= {"tls.example": [BROKEN], "down.example": [DOWN], "busy.example": [LATER], "": [OK]}
    await queue.put("x@tls.example", "y@tls.example", "x@down.example", "x@busy.example", "x@fine.example")
    await queue.settle()
    found, more = await tallying(queue).waiting()
    assert not more
    assert {(each.domain, each.failure, each.recipients) for each in found} == {
        ("tls.example", "handshake-failed", 2),
        ("down.example", "", 1),
    }
    assert {each.since for each in found} == {queue.clock.now}


async def test_what_we_write_is_not_mail_that_came_in(queue: World) -> None:
    queue.hops.says["c.example"] = [NO]
    await queue.put("x@c.example")
    await queue.settle()
    made = tallying(queue)
    await made.say()
    await made.run()
    protocols = await queue.store.ask(
        lambda db: {row[0] for row in db.execute("SELECT json_extract(about, '$.accepted.protocol') FROM message")}
    )
    assert LOCAL in protocols
    assert sum(number for (way, *_rest), number in (await counted(made)).items() if way == "in") == 1


async def test_mail_in_clear_is_told_apart(queue: World) -> None:
    await queue.put("x@a.example")
    await queue.settle()
    made = tallying(queue)
    await made.say()
    await made.run()
    (line,) = [each for each, _first, _last in await made.lines(*SPAN) if each.kind.result is Result.DELIVERED]
    assert (line.kind.style.version, line.kind.style.verified) == (CLEAR, Verified.NONE)


@pytest.mark.parametrize("seed", range(4))
async def test_any_order_of_work_and_crashes_counts_each_once(tmp_path: Path, seed: int) -> None:  # noqa: C901 - one case a step
    """Steps are read, written, read twice, lost behind their reading; processes say how far they are whenever they like."""
    chance = random.Random(seed)
    path = tmp_path / "queue.db"
    async with workers(path, 3) as made:
        shares = [Share(slot, 3, locked=True) for slot in range(3)]
        says = [tallying(each, share) for each, share in zip(made, shares, strict=True)]
        tally = Tally(processes=3, proves=nobody)
        store = made[0].store
        read: list[Step] = []
        arriving: list[tuple[World, Any]] = []
        about = await made[0].put()
        total = 1
        for each in made:
            each.hops.says["b.example"] = [LATER, OK]
        for _turn in range(120):
            who = chance.randrange(3)
            match chance.randrange(8):
                case 0:
                    await made[who].put(f"x{_turn}@a.example", f"x{_turn}@b.example")
                    total += 1
                case 1:
                    incoming = made[who].intake.begin()
                    incoming.write(b"Subject: x\r\n\r\n")
                    arriving.append((made[who], incoming))
                case 2 if arriving:
                    _world, incoming = arriving.pop(chance.randrange(len(arriving)))
                    if chance.random() < 0.3:
                        incoming.abort()
                    else:
                        await incoming.commit(about.envelope, about.accepted)
                        total += 1
                case 3:
                    await says[who].say()
                case 4:
                    read.append(await store.ask(partial(tally.read, limit=chance.choice([1, 2, 5]))))
                case 5 if read:
                    step = read.pop(chance.randrange(len(read)))
                    if not await store.work(partial(write, step=step)):
                        tally.forget()
                case 6:
                    read.clear()
                    tally = Tally(processes=3, proves=nobody)  # it was killed
                case _:
                    made[0].clock.now += timedelta(seconds=chance.choice([0, 1, 90]))
                    for each in made:
                        each.timers.ring()
                    await settle(made)
        for _world, incoming in arriving:
            incoming.abort()
        await settle(made)
        made[0].clock.now += timedelta(seconds=1)  # numbers of all processes go with the clock
        for one in says:
            await one.say()
        await says[0].run()
        attempts = await store.ask(lambda db: db.execute("SELECT count(*) FROM attempt").fetchone()[0])
        found = await counted(says[0])
        assert sum(n for (way, *_rest), n in found.items() if way == "in") == total
        lines = [each for each, _first, _last in await says[0].lines(*SPAN) if each.kind.way is Way.OUT]
        assert sum(each.messages for each in lines) >= attempts > 0
        parts = await store.ask(
            lambda db: db.execute(
                "SELECT count(*) FROM (SELECT DISTINCT a.k, r.domain, o.value ->> 1 ->> 'state', o.value ->> 1 ->> 'failure'"
                " FROM attempt a, json_each(a.outcomes) o JOIN recipient r ON r.n = a.n AND r.i = o.value ->> 0)"
            ).fetchone()[0]
        )
        assert sum(each.messages for each in lines) == parts
