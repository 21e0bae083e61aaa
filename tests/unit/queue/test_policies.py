"""MTA-STS policies in the store: kept over restarts, crashes and trouble; the order of refreshes; and dropped when they have long ended."""

import sqlite3
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from relay.mail.events import StoreRecovered
from relay.mail.published import StsFetched, StsKept, StsMode, StsPolicy, StsUnknown
from relay.queue import database, policies, writer
from relay.queue.keepers import SqlitePolicies
from relay.queue.schema import _STS_POLICIES, MIGRATIONS, prepare
from relay.queue.sqlite import SqliteStore
from relay.queue.store import StoreUnavailable
from relay.queue.work import KeepPolicy
from tests.unit.queue.world import START, World, world

DAY = timedelta(days=1)
POLICY = StsPolicy(
    StsMode.ENFORCE, ("mx.b.example", "*.mail.example"), 7 * 86400, "20261122", ("version: STSv1", "note: für später")
)
KEPT = StsKept("b.example", StsFetched(POLICY, START), START + DAY, START + timedelta(milliseconds=1))


def policies_of(queue: World) -> SqlitePolicies:
    return SqlitePolicies(queue.store)


async def test_a_policy_comes_back_as_it_was(queue: World) -> None:
    assert await policies_of(queue).load_sts("b.example") is None
    policies_of(queue).save_sts(KEPT)
    await queue.store.barrier()
    assert await policies_of(queue).load_sts("b.example") == KEPT
    assert await policies_of(queue).load_sts("B.example") is None


async def test_the_latest_takes_the_place_of_the_one_before(queue: World) -> None:
    policies_of(queue).save_sts(KEPT)
    latest = replace(KEPT, fetched=StsFetched(replace(POLICY, mode=StsMode.NONE, mx=()), START + DAY))
    policies_of(queue).save_sts(latest)
    await queue.store.barrier()
    assert await policies_of(queue).load_sts("b.example") == latest


async def test_an_older_policy_takes_nobodys_place(queue: World) -> None:
    """Another process of the relay has fetched a newer one, while this one could not and says what it has."""
    latest = replace(KEPT, fetched=StsFetched(POLICY, KEPT.fetched.at + DAY))
    policies_of(queue).save_sts(latest)
    policies_of(queue).save_sts(KEPT)
    await queue.store.barrier()
    assert await policies_of(queue).load_sts("b.example") == latest


async def test_a_policy_is_there_after_a_crash(tmp_path: Path) -> None:
    queue = World(tmp_path / "queue.db")
    await queue.start()
    policies_of(queue).save_sts(KEPT)
    await queue.store.barrier()
    after = await queue.crash(tmp_path / "after.db")
    await after.start()
    assert await policies_of(after).load_sts("b.example") == KEPT
    await after.close()


async def test_a_queue_of_before_there_were_policies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch, closing(sqlite3.connect(tmp_path / "queue.db")) as db:
        patch.setattr("relay.queue.schema.MIGRATIONS", MIGRATIONS[: MIGRATIONS.index(_STS_POLICIES)])
        prepare(db, "queue.db")
    async with world(tmp_path / "queue.db") as made:
        policies_of(made).save_sts(KEPT)
        await made.store.barrier()
        assert await policies_of(made).load_sts("b.example") == KEPT


async def test_what_is_due(queue: World) -> None:
    def keep(domain: str, *, refresh: timedelta, used: timedelta = DAY, fetched: timedelta = DAY) -> None:
        when = StsFetched(POLICY, START - fetched)
        policies_of(queue).save_sts(StsKept(domain, when, START + refresh, START - used))

    keep("later.example", refresh=timedelta(milliseconds=1))
    keep("now.example", refresh=timedelta(0))
    keep("long.example", refresh=-DAY, fetched=6 * DAY)
    keep("ended.example", refresh=-DAY, fetched=8 * DAY)
    keep("unused.example", refresh=-2 * DAY, used=31 * DAY)
    await queue.store.barrier()
    assert await policies_of(queue).due_sts(START, START - 30 * DAY, 10) == ("long.example", "now.example")
    assert await policies_of(queue).due_sts(START, START - 30 * DAY, 1) == ("long.example",)
    assert await policies_of(queue).due_sts(START - 3 * DAY, START - 30 * DAY, 10) == ()


async def test_what_has_long_ended_is_dropped(queue: World) -> None:
    policies_of(queue).save_sts(KEPT)
    await policies_of(queue).drop_sts(START + 7 * DAY)
    assert await policies_of(queue).load_sts("b.example") == KEPT
    await policies_of(queue).drop_sts(START + 7 * DAY + timedelta(milliseconds=1))
    assert await policies_of(queue).load_sts("b.example") is None


async def test_a_policy_waits_for_a_store_in_trouble(queue: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """As an outcome does; and nothing is fetched anew that could not be kept."""
    monkeypatch.setattr(writer, "_RETRY", 0.02)
    monkeypatch.setattr(database, "BUSY", 0.05)
    blocker = sqlite3.connect(queue.path, isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    policies_of(queue).save_sts(KEPT)
    with pytest.raises(StoreUnavailable):
        await queue.store.work(lambda _db: None)
    assert await policies_of(queue).due_sts(START + 2 * DAY, START - DAY, 10) == ()
    await policies_of(queue).drop_sts(START + 30 * DAY)
    blocker.execute("ROLLBACK")
    blocker.close()
    while not queue.of(StoreRecovered):
        await queue.store.barrier()
    assert await policies_of(queue).load_sts("b.example") == KEPT


async def test_a_store_that_cannot_be_read_does_not_say_that_there_is_nothing(
    queue: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(db: sqlite3.Connection, **_: object) -> None:
        db.execute("SELECT x FROM nowhere")

    monkeypatch.setattr(policies, "load", broken)
    monkeypatch.setattr(policies, "due", broken)
    found = await policies_of(queue).load_sts("b.example")
    assert isinstance(found, StsUnknown)
    assert "no such table" in found.text
    assert await policies_of(queue).due_sts(START, START, 10) == ()


async def test_a_policy_that_comes_too_late_is_given_up_without_noise(tmp_path: Path) -> None:
    made = World(tmp_path / "queue.db")
    await made.start()
    await made.close()
    policies_of(made).save_sts(KEPT)
    store = await SqliteStore.open(tmp_path / "queue.db", emit=made.events.append, clock=made.clock)
    assert await SqlitePolicies(store).load_sts("b.example") is None
    await store.close()


def test_a_bug_is_not_taken_for_trouble() -> None:
    KeepPolicy(KEPT).settle(None, None)
    KeepPolicy(KEPT).settle(None, StoreUnavailable("closed"))
    with pytest.raises(sqlite3.ProgrammingError):
        KeepPolicy(KEPT).settle(None, sqlite3.ProgrammingError("a bug"))
