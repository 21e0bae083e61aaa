"""Groups of operations, the chores, and facts that are kept once."""

import asyncio
import sqlite3
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import relay.queue.writer as writer
from relay.mail.attempt import Attempt, Delivery
from relay.mail.codec import evidence_json
from relay.mail.envelope import Message
from relay.mail.events import Unexpected
from relay.mail.outcome import Delivered
from relay.mail.tls import TlsEvidence
from relay.queue.bodies import BodyFolder
from relay.queue.check import Report as Checked
from relay.queue.check import check
from relay.queue.operations import Selection
from relay.queue.reports import Report
from relay.queue.store import CHUNK, Change, Entry, Last, Mark, Record, State, StoreUnavailable, TraceQuery
from tests.unit.queue.world import LATER, OK, START, Hears, World, evidence, world

DAY = timedelta(days=1)


async def one(queue: World, statement: str) -> Any:
    return await queue.store.ask(lambda db: db.execute(statement).fetchone()[0])


async def count(queue: World) -> tuple[int, ...]:
    """Rows of message, recipient, attempt and chunk."""
    return (
        await one(queue, "SELECT count(*) FROM message"),
        await one(queue, "SELECT count(*) FROM recipient"),
        await one(queue, "SELECT count(*) FROM attempt"),
        await one(queue, "SELECT count(*) FROM chunk"),
    )


async def test_operations_that_come_together_share_a_transaction(queue: World) -> None:
    def counter(db: sqlite3.Connection) -> int:
        return db.total_changes

    commits: list[str] = []

    def trace(db: sqlite3.Connection) -> None:
        db.set_trace_callback(lambda statement: commits.append(statement) if statement == "COMMIT" else None)

    await queue.store.work(trace)
    commits.clear()
    await asyncio.gather(*(queue.put() for _ in range(100)))
    await queue.settle()
    assert len(commits) < 60  # 200 without groups; the first goes alone
    assert await queue.store.work(counter) > 0


async def test_outcomes_wait_for_company(queue: World, monkeypatch: pytest.MonkeyPatch) -> None:
    message = await queue.put()
    await queue.settle()
    monkeypatch.setattr(writer, "_COMPANY", 600.0)
    told: list[str] = []
    recorded = asyncio.Event()

    def done(error: BaseException | None) -> None:
        told.append(f"outcome {error}")
        recorded.set()

    queue.store.record(Record(message, (), ()), done)
    for _turn in range(10):
        await asyncio.sleep(0)
    assert not told, "nobody waits for it"
    await queue.store.work(lambda _db: None)
    async with asyncio.timeout(10):
        await recorded.wait()
    assert told == ["outcome None"]


async def test_a_bad_operation_fails_alone(queue: World) -> None:
    def bad(_db: sqlite3.Connection) -> None:
        raise ValueError("a bug")

    first, broken, second = asyncio.create_task(queue.put()), queue.store.work(bad), asyncio.create_task(queue.put())
    with pytest.raises(ValueError, match="a bug"):
        await broken
    messages = [await first, await second]
    await queue.settle()
    assert [await queue.states(each) for each in messages] == [["delivered"], ["delivered"]]
    assert not queue.store.trouble


async def test_the_same_id_twice_is_a_bug_and_overwrites_nothing(queue: World) -> None:
    message = await queue.put()
    await queue.settle()
    heard: list[str] = []
    with pytest.raises(sqlite3.IntegrityError):
        await queue.store.put(Entry(message, (b"other",)), Hears(heard))
    assert heard == ["refused"]
    assert not queue.store.trouble
    assert await queue.states(message) == ["delivered"]


async def test_a_record_that_is_written_twice_counts_once(queue: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """As after an input/output error at COMMIT, when nobody knows whether it happened."""
    queue.hops.says["example.com"] = [LATER]
    queue.hops.evidence = evidence()
    message = await queue.put()
    await queue.settle()
    last = Last(OK, START, "mx.example:25")
    report = Entry(await _report(queue, message), (b"report",))
    record = Record(
        message,
        (queue.hops.attempt(message, {0: OK}),),
        (Change(0, State.DELIVERED, 2, None, last),),
        (report,),
    )
    done: asyncio.Queue[BaseException | None] = asyncio.Queue()
    monkeypatch.setattr(queue.store.progress, "recording", lambda _count: range(50, 51))
    queue.store.record(record, done.put_nowait)
    assert await done.get() is None
    queue.store.record(record, done.put_nowait)
    assert await done.get() is None
    (trace,) = await queue.operations.trace(TraceQuery(id=message.id))
    assert len(trace["attempts"]) == 2
    assert await one(queue, "SELECT count(*) FROM message") == 2
    assert await queue.store.ask(lambda db: check(db, BodyFolder(queue.path))) == Checked(
        1, 1, ()
    )  # its plan and evidence too: else they would never be forgotten


async def _report(queue: World, about: Message) -> Message:
    return Message(queue.store.new_id(), about.envelope, about.accepted, 6)


async def test_an_ended_recipient_stays_ended(queue: World) -> None:
    message = await queue.put()
    await queue.settle()
    done: asyncio.Queue[BaseException | None] = asyncio.Queue()
    queue.store.record(Record(message, (), (Change(0, State.WAITING, 5, START, None),)), done.put_nowait)
    assert await done.get() is None
    assert await queue.states(message) == ["delivered"]


async def test_what_a_caller_does_wrong_hurts_no_other(queue: World) -> None:
    caught: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: caught.append(context))
    message = await queue.put()
    await queue.settle()

    def broken(_error: BaseException | None) -> None:
        raise RuntimeError("bug")

    queue.store.record(Record(message, (), ()), broken)
    await queue.put()
    await queue.settle()
    assert [str(each["exception"]) for each in caught] == ["bug"]


async def test_an_outcome_that_cannot_be_written_is_written_without_its_trace(
    queue: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Odd(Delivered):
        __slots__ = ()

    monkeypatch.setattr(queue.hops, "_outcome", lambda _recipient: Odd(250, "2.0.0", "the codec does not know this"))
    message = await queue.put()
    await queue.settle()
    assert "KeyError" in queue.of(Unexpected)[0].trace
    assert await queue.states(message) == ["delivered"]
    assert len(queue.hops.delivered) == 1


async def test_an_outcome_that_cannot_be_written_at_all_is_not_tried_again(
    queue: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_record: Record, done: Any) -> None:
        done(ValueError("never"))

    monkeypatch.setattr(queue.store, "record", refuse)
    await queue.put()
    await queue.pass_(timedelta(hours=2))
    assert len(queue.hops.delivered) == 1
    assert len(queue.of(Unexpected)) == 2


async def test_evidence_and_plans_are_kept_once(queue: World) -> None:
    tls = evidence()
    queue.hops.evidence = tls
    for _ in range(5):
        await queue.put(tls=tls)
    queue.hops.evidence = evidence()  # another connection, word for word the same
    await queue.put()
    await queue.settle()
    assert await one(queue, "SELECT count(*) FROM fact") == 2
    assert await one(queue, "SELECT group_concat(refs) FROM (SELECT refs FROM fact ORDER BY refs)") == "6,11"


async def test_rounds_of_chores_follow_each_other(queue: World) -> None:
    """Else one that found nothing left to purge would end before the other has dropped the facts of what it purged."""
    for _ in range(120):
        await queue.put()
    await queue.settle()
    queue.clock.now += 31 * DAY
    first = asyncio.create_task(queue.store.tidy())
    await asyncio.sleep(0)
    await queue.store.tidy()
    assert first.done()


async def test_old_traces_are_purged_with_their_facts(queue: World) -> None:
    queue.hops.evidence = evidence()
    old = [await queue.put("a@example.com", "b@example.com") for _ in range(60)]
    await queue.settle()
    queue.clock.now += 20 * DAY
    queue.hops.says["late.example"] = [LATER]
    young, waiting = await queue.put(), await queue.put("x@late.example")
    await queue.settle()
    queue.clock.now += 11 * DAY
    await queue.store.tidy()
    assert await count(queue) == (2, 2, 2, 1)
    assert await queue.operations.show(old[0].id) is None
    (trace,) = await queue.operations.trace(TraceQuery(id=young.id))
    assert trace["attempts"][0]["evidence"]["cipher"] == "TLS_AES_256_GCM_SHA384"
    queue.clock.now += 400 * DAY
    await queue.store.tidy()
    assert await count(queue) == (1, 1, 1, 1)
    assert await queue.states(waiting) == ["waiting"]
    await queue.operations.delete(_everything())
    queue.clock.now += 31 * DAY
    await queue.store.tidy()
    assert await count(queue) == (0, 0, 0, 0)
    assert await one(queue, "SELECT count(*) FROM fact") == 0
    again = await queue.put()
    await queue.settle()
    (trace,) = await queue.operations.trace(TraceQuery(id=again.id))
    assert trace["attempts"][0]["evidence"]["cipher"] == "TLS_AES_256_GCM_SHA384"


def _everything() -> Selection:
    return Selection(everything=True)


async def test_room_is_given_back_to_the_disk(queue: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relay.queue.chores._WORTH", 100)
    queue.hops.gate.clear()
    for _ in range(100):
        await queue.put(body=b"x" * CHUNK)
    await queue.store.barrier()
    full = await one(queue, "PRAGMA page_count")
    queue.hops.gate.set()
    await queue.settle()
    await queue.store.tidy()
    left = await one(queue, "PRAGMA page_count")
    assert left < full / 4
    await queue.store.work(lambda db: None)
    statistics = await queue.store.statistics()
    assert statistics.size > 0


async def test_chores_outlive_a_bug(queue: World, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = asyncio.Event()

    async def broken() -> None:
        seen.set()
        raise RuntimeError("broom")

    monkeypatch.setattr(queue.store._housekeeping, "tidy", broken)
    for _ in range(2):
        seen.clear()
        queue.store._housekeeping.ask()
        await asyncio.wait_for(seen.wait(), 5)
    await asyncio.sleep(0)
    assert "broom" in queue.of(Unexpected)[0].trace


async def test_closing_twice_and_writing_afterwards(tmp_path: Path) -> None:
    made = World(tmp_path / "queue.db")
    await made.open()
    await made.store.close()
    with pytest.raises(StoreUnavailable, match="closed"):
        await made.store.work(lambda db: None)
    done: asyncio.Queue[BaseException | None] = asyncio.Queue()
    message = Message(made.store.new_id(), None, None, 0)  # type: ignore[arg-type]  # it is refused unseen
    made.store.record(Record(message, (), ()), done.put_nowait)
    assert isinstance(await done.get(), StoreUnavailable)


async def test_pages_of_due_domains_leave_none_out(tmp_path: Path) -> None:
    made = World(tmp_path / "queue.db")
    await made.open()
    for i in range(100):
        if i % 10 == 0:
            made.clock.now += timedelta(seconds=1)
        await made.put(f"u@d{i * 7 % 31}.example")
    seen: set[str] = set()
    mark, pages = Mark(), 0
    while True:
        page = await made.store.due_domains(mark, made.clock.now, 7)
        seen.update(page.domains)
        mark, pages = page.mark, pages + 1
        if page.complete:
            break
    assert len(seen) == 31
    assert pages > 5
    assert await made.store.next_due(mark) is None
    assert await made.store.next_due(Mark()) == START + timedelta(seconds=1)
    early = await made.store.due_domains(Mark(), START, 100)
    assert (early.domains, early.complete) == ((), True)
    await made.store.close()


async def test_queries_of_the_hot_path_use_their_indexes(queue: World) -> None:
    def plans(db: sqlite3.Connection) -> dict[str, str]:
        asked = {
            "update": "UPDATE recipient SET state = v.column3 FROM (VALUES (1, 0, 2)) AS v"
            " WHERE recipient.n = v.column1 AND recipient.i = v.column2",
            "finish": "UPDATE message SET finished = 1 WHERE n IN (SELECT value FROM json_each('[1]'))",
            "drop": "DELETE FROM chunk WHERE n IN (SELECT value FROM json_each('[1]'))",
            "purge": "SELECT n FROM message WHERE finished IS NOT NULL AND finished < 5 ORDER BY finished LIMIT 5",
        }
        return {
            name: " / ".join(row[3] for row in db.execute(f"EXPLAIN QUERY PLAN {text}")) for name, text in asked.items()
        }

    found = await queue.store.ask(plans)
    assert "SEARCH recipient USING PRIMARY KEY (n=? AND i=?)" in found["update"]
    assert "SEARCH message USING INTEGER PRIMARY KEY" in found["finish"]
    assert "SEARCH chunk USING PRIMARY KEY" in found["drop"]
    assert "message_finished" in found["purge"]


async def test_a_large_report_is_stored_whole(queue: World) -> None:
    async def large(_message: Message, _body: Any, _ended: Any) -> Sequence[Any]:
        back = (await queue.store.load([made.id]))[0].message.envelope
        return [Report("failure", "bob@example.com", back, b"r" * (2 * CHUNK + 5))]

    queue.hops.says["bob@example.com"] = [LATER]
    made = await queue.put()
    await queue.settle()
    queue.scheduler.recorder._compose = large
    await queue.operations.bounce(_everything())
    await queue.settle()
    report = next(each for each in queue.hops.bodies if each != made.id)
    assert queue.hops.bodies[report] == b"r" * (2 * CHUNK + 5)


class Probe:
    """Counts how often evidence is turned into text."""

    def __init__(self) -> None:
        self.times = 0


async def test_a_connections_evidence_is_serialised_once(queue: World, monkeypatch: pytest.MonkeyPatch) -> None:
    probe = Probe()

    def counted(tls: TlsEvidence | None) -> Any:
        probe.times += 1
        return evidence_json(tls)

    monkeypatch.setattr("relay.queue.facts.evidence_json", counted)
    queue.hops.evidence = evidence()
    for _ in range(20):
        await queue.put()
    await queue.settle()
    assert probe.times == 1


async def test_the_memory_of_facts_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relay.queue.facts._KNOWN", 2)
    monkeypatch.setattr("relay.queue.loading._EVIDENCE", 2)
    async with world(tmp_path / "queue.db") as made:
        made.hops.says[""] = [LATER]
        for i in range(6):
            tls = TlsEvidence("TLSv1.3", f"cipher{i}", "X25519")
            made.hops.evidence = tls
            await made.put(tls=tls)
            await made.settle()
        found = await made.operations.trace(TraceQuery())
        assert [each["attempts"][0]["evidence"]["cipher"] for each in found] == [
            f"cipher{i}" for i in (5, 4, 3, 2, 1, 0)
        ]
        loaded = await made.store.load([each["id"] for each in found])
        assert [each.message.accepted.tls.cipher for each in loaded if each.message.accepted.tls] == [
            f"cipher{i}" for i in (5, 4, 3, 2, 1, 0)
        ]


async def test_attempts_of_one_delivery_over_several_hops(queue: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async def two_hops(delivery: Delivery) -> Sequence[Attempt]:
        message = delivery.message
        return [queue.hops.attempt(message, {0: LATER, 1: OK}), queue.hops.attempt(message, {0: OK})]

    monkeypatch.setattr(queue.scheduler, "_deliver", two_hops)
    message = await queue.put("a@example.com", "b@example.com")
    await queue.settle()
    assert await queue.states(message) == ["delivered", "delivered"]
    (trace,) = await queue.operations.trace(TraceQuery(id=message.id))
    assert [[each["state"] for each in one["outcomes"]] for one in trace["attempts"]] == [
        ["deferred", "delivered"],
        ["delivered"],
    ]
