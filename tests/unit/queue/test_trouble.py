"""The store in trouble: what clients hear, what becomes of mail in the queue, and how it ends by itself."""

import asyncio
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pytest

from relay.mail.envelope import Message
from relay.mail.events import StoreRecovered, StoreTrouble
from relay.mail.reply import Reply
from relay.queue import database, writer
from relay.queue.disk import beside
from relay.queue.schema import APPLICATION_ID, MIGRATIONS
from relay.queue.sqlite import SqliteStore
from relay.queue.store import StoreLocked, StoreUnavailable, StoreUnusable
from tests.unit.queue.world import LATER, NO, OK, World, world


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "_RETRY", 0.02)
    monkeypatch.setattr(database, "BUSY", 0.05)


async def until(condition: Callable[[], bool]) -> None:
    """The writer's thread recovers on its own time, not on the test's clock."""
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.to_thread(time.sleep, 0.005)  # another thread's doing, which no event tells of


async def recovered(queue: World) -> None:
    await until(lambda: not queue.store.trouble and bool(queue.of(StoreRecovered)))


async def test_a_client_hears_452_without_our_paths(queue: World) -> None:
    queue.room = 10
    with pytest.raises(StoreUnavailable, match=r"limits\.free_space") as caught:
        await queue.put()
    assert caught.value.reply == Reply(452, "4.3.1", "insufficient system storage, try again later")
    with pytest.raises(StoreUnavailable):
        queue.intake.begin()


async def test_short_of_room_mail_goes_out_but_none_comes_in(queue: World) -> None:
    queue.hops.says["bob@example.com"] = [LATER, OK]
    waiting = await queue.put()
    await queue.settle()
    queue.room = 10
    with pytest.raises(StoreUnavailable):
        await queue.put()
    assert queue.store.writable
    await queue.pass_(timedelta(minutes=1))
    assert await queue.states(waiting) == ["delivered"]
    assert [type(each) for each in queue.events if isinstance(each, StoreTrouble | StoreRecovered)] == [StoreTrouble]
    # A little more than the limit is needed, lest it flaps.
    queue.room = queue.store.free_space
    await queue.store.barrier()
    assert queue.store.trouble
    queue.room = 2 * queue.store.free_space
    await recovered(queue)
    await queue.put()
    assert len(queue.of(StoreTrouble)) == len(queue.of(StoreRecovered)) == 1


async def test_the_limit_can_be_changed(queue: World) -> None:
    queue.room = 10**9
    queue.store.free_space = 2 * 10**9
    with pytest.raises(StoreUnavailable):
        await queue.put()
    queue.store.free_space = 10**8
    await recovered(queue)


async def test_a_folder_that_does_not_answer_has_no_room(tmp_path: Path) -> None:
    def broken(_path: Path) -> int:
        raise OSError("gone")

    store = await SqliteStore.open(tmp_path / "q.db", emit=lambda _e: None, clock=World(tmp_path).clock, probe=broken)
    await store.barrier()
    assert "0 bytes left" in store.trouble
    await store.close()


@pytest.fixture
def blocker(queue: World) -> Iterator[sqlite3.Connection]:
    """Somebody else's connection to the same database."""
    db = sqlite3.connect(queue.path, isolation_level=None)
    yield db
    db.close()


async def test_a_database_locked_by_somebody_else(queue: World, blocker: sqlite3.Connection) -> None:
    queue.hops.gate.clear()
    message = await queue.put()
    await queue.settle()
    blocker.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreUnavailable, match="locked"):
        await queue.put()
    assert not queue.store.writable
    queue.hops.gate.set()
    await until(lambda: bool(queue.hops.delivered))  # its outcome waits for the store
    with pytest.raises(StoreUnavailable, match="locked"):
        queue.intake.begin()
    blocker.execute("ROLLBACK")
    await recovered(queue)
    await queue.settle()
    assert await queue.states(message) == ["delivered"]
    assert len(queue.hops.delivered) == 1


async def test_nothing_is_delivered_while_outcomes_cannot_be_recorded(
    queue: World, blocker: sqlite3.Connection
) -> None:
    queue.hops.says["bob@example.com"] = [LATER, OK]
    message = await queue.put()
    await queue.settle()
    blocker.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreUnavailable):
        await queue.put()
    queue.clock.now += timedelta(minutes=5)
    await queue.settle()
    assert len(queue.hops.seen) == 1
    blocker.execute("ROLLBACK")
    await recovered(queue)
    await queue.pass_(timedelta(seconds=1))
    assert await queue.states(message) == ["delivered"]


async def _limit_pages(queue: World, more: int) -> None:
    def limit(db: sqlite3.Connection) -> None:
        pages = db.execute("PRAGMA page_count").fetchone()[0]
        db.execute(f"PRAGMA max_page_count = {pages + more}")

    await queue.store.work(limit)


async def test_a_full_database_still_takes_outcomes(queue: World) -> None:
    queue.hops.gate.clear()
    first = await queue.put(body=b"x" * 200_000)
    await queue.settle()
    await _limit_pages(queue, 0)
    with pytest.raises(StoreUnavailable, match="full"):
        await queue.put(body=b"x" * 200_000)
    assert queue.store.trouble
    assert queue.store.writable
    queue.hops.gate.set()
    await until(lambda: bool(queue.of(StoreRecovered)))  # the first one's bytes made room
    await queue.settle()
    assert await queue.states(first) == ["delivered"]


async def test_a_full_database_keeps_a_bounce_until_it_fits(queue: World) -> None:
    queue.hops.says["bob@example.com"] = [NO]
    queue.hops.gate.clear()
    message = await queue.put("bob@example.com", "c@example.com", body=b"x" * 10)
    await queue.settle()
    await _limit_pages(queue, 0)
    filler = b"y" * 100_000
    with pytest.raises(StoreUnavailable, match="full"):
        await queue.put(body=filler)
    queue.hops.gate.set()
    await queue.settle()
    await _lift(queue)
    await recovered(queue)
    await queue.settle()
    assert await queue.states(message) == ["bounced", "delivered"]
    assert len([each for each, to in queue.hops.delivered if to == "alice@example.org"]) == 1


async def _lift(queue: World) -> None:
    await queue.store.work(lambda db: db.execute("PRAGMA max_page_count = 1000000") and None)


async def test_a_queue_file_that_was_removed_is_written_anew(queue: World) -> None:
    queue.hops.says["bob@example.com"] = [LATER, OK]
    message = await queue.put(body=b"z" * 600_000)
    await queue.settle()
    for suffix in ("", "-wal", "-shm"):
        beside(queue.path, suffix).unlink()
    with pytest.raises(StoreUnavailable, match="is gone"):
        await queue.put()
    await recovered(queue)
    assert queue.path.stat().st_mode & 0o777 == 0o600
    later = await queue.put("c@example.com")
    await queue.pass_(timedelta(minutes=2))
    assert await queue.states(message) == ["delivered"]
    assert queue.hops.bodies[message.id] == b"z" * 600_000
    await queue.close()
    async with world(queue.path) as after:
        assert await after.states(message) == ["delivered"]
        assert await after.states(later) == ["delivered"]
    await queue.start()


async def test_an_idle_relay_notices_it_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relay.queue.housekeeping._IDLE", 0.01)
    async with world(tmp_path / "queue.db") as queue:
        message = await queue.put()
        await queue.settle()
        for suffix in ("", "-wal", "-shm"):
            beside(queue.path, suffix).unlink()
        await until(lambda: queue.of(StoreRecovered) != [])
        assert "is gone" in queue.of(StoreTrouble)[0].trouble
        assert queue.path.exists()
        assert await queue.states(message) == ["delivered"]


async def test_a_log_that_was_removed_is_written_anew(queue: World) -> None:
    message = await queue.put()
    await queue.settle()
    beside(queue.path, "-wal").unlink()
    with pytest.raises(StoreUnavailable, match="-wal is gone"):
        await queue.put()
    await recovered(queue)
    await queue.settle()
    assert await queue.states(message) == ["delivered"]


async def test_a_folder_that_comes_back(tmp_path: Path) -> None:
    folder, away = tmp_path / "queue", tmp_path / "away"
    folder.mkdir()
    async with world(folder / "queue.db") as made:
        message = await made.put()
        await made.settle()
        folder.rename(away)
        with pytest.raises(StoreUnavailable, match="is gone"):
            await made.put()
        await made.store.barrier()
        assert not made.store.writable
        away.rename(folder)
        await recovered(made)
        await made.put()
        await made.settle()
        assert await made.states(message) == ["delivered"]
        assert len(made.hops.delivered) == 2


async def test_another_database_under_our_name_is_not_ours_to_take(queue: World) -> None:
    message = await queue.put()
    await queue.settle()
    mine = queue.path.with_name("mine.db")
    queue.path.rename(mine)
    queue.path.write_bytes(b"")
    with pytest.raises(StoreUnavailable, match="replaced"):
        await queue.put()
    await queue.store.barrier()
    assert "restart to use the new one" in queue.store.trouble
    mine.rename(queue.path)
    await recovered(queue)
    assert await queue.states(message) == ["delivered"]


async def test_reading_a_broken_database_is_unavailable_not_a_crash(queue: World) -> None:
    def broken(db: sqlite3.Connection) -> None:
        db.execute("SELECT x FROM nowhere")

    with pytest.raises(StoreUnavailable, match="no such table: nowhere"):
        await queue.store.ask(broken)
    assert (await queue.operations.statistics())["messages"] == 0


async def test_a_disk_that_fills_up(small_disk: Path) -> None:
    queue = World(small_disk / "queue.db")
    await queue.start(free_space=0)
    queue.hops.gate.clear()
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"x" * 2**20)
    kept: list[Message] = []
    with suppress(StoreUnavailable):
        while len(kept) < 100:
            kept += [await queue.put(body=b"x" * 100_000)]
    await queue.settle()
    assert 3 < len(kept) < 100
    queue.hops.gate.set()
    await until(lambda: len(queue.hops.delivered) >= 1)
    ballast.unlink()
    await recovered(queue)
    await queue.settle()
    assert sorted(each for each, _to in queue.hops.delivered) == [each.id for each in kept]
    assert {(await queue.states(each))[0] for each in kept} == {"delivered"}
    await queue.put(body=b"x" * 100_000)
    await queue.close()


# --- opening ---


async def test_a_start_while_somebody_else_writes(queue: World, blocker: sqlite3.Connection) -> None:
    """The log cannot be made sure of: mail is refused until it can."""
    await queue.close()
    blocker.execute("BEGIN IMMEDIATE")
    await queue.start()
    with pytest.raises(StoreUnavailable):
        await queue.put()
    blocker.execute("ROLLBACK")
    await recovered(queue)
    await queue.put()


async def test_a_second_relay_is_refused_and_told_by_whom(queue: World) -> None:
    with pytest.raises(StoreLocked, match=rf"in use by process {os.getpid()} on .* since 2026-11-22T12:00:00"):
        await SqliteStore.open(queue.path, emit=lambda _e: None, clock=queue.clock)
    await queue.put()


async def test_the_lock_is_given_back(tmp_path: Path) -> None:
    for _ in range(2):
        async with world(tmp_path / "queue.db") as made:
            assert not made.store.trouble
    (tmp_path / "queue.db").write_bytes(b"not a database at all, but long enough to be looked at" * 10)
    for _ in range(2):
        with pytest.raises(StoreUnusable, match="not a database"):
            await World(tmp_path / "queue.db").open()


async def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    async with world(tmp_path / "queue.db"):
        pass
    db = sqlite3.connect(tmp_path / "queue.db")
    db.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    db.close()
    with pytest.raises(
        StoreUnusable, match=rf"newer version .*schema {len(MIGRATIONS) + 1}, known up to {len(MIGRATIONS)}"
    ):
        await World(tmp_path / "queue.db").open()


async def test_another_programs_database_is_refused_untouched(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    db = sqlite3.connect(path)
    db.execute("CREATE TABLE precious (x)")
    db.close()
    before = path.read_bytes()
    with pytest.raises(StoreUnusable, match="another program"):
        await World(path).open()
    assert path.read_bytes() == before


async def test_an_older_schema_is_brought_up_to_date(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with world(tmp_path / "queue.db") as made:
        message = await made.put()
    monkeypatch.setattr("relay.queue.schema.MIGRATIONS", (*MIGRATIONS, ("CREATE TABLE more (x)",)))
    async with world(tmp_path / "queue.db") as made:
        version, table = await made.store.ask(
            lambda db: (
                db.execute("PRAGMA user_version").fetchone()[0],
                db.execute("SELECT count(*) FROM more").fetchone()[0],
            )
        )
        assert (version, table) == (len(MIGRATIONS) + 1, 0)
        assert await made.states(message) == ["delivered"]


async def test_a_step_to_a_new_schema_that_fails_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world(tmp_path / "queue.db"):
        pass
    with monkeypatch.context() as patch:
        patch.setattr("relay.queue.schema.MIGRATIONS", (*MIGRATIONS, ("CREATE TABLE more (x)", "CREATE NONSENSE")))
        with pytest.raises(StoreUnusable, match="NONSENSE"):
            await World(tmp_path / "queue.db").open()
    async with world(tmp_path / "queue.db") as made:
        assert await made.store.ask(lambda db: db.execute("PRAGMA application_id").fetchone()[0]) == APPLICATION_ID


async def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(StoreUnusable, match="must belong to the relay's user"):
        await World(tmp_path / "nowhere" / "queue.db").open()


@pytest.mark.skipif(os.geteuid() != 0, reason="takes root")
async def test_what_root_makes_belongs_to_the_folder_s_owner(tmp_path: Path) -> None:
    """`relay store hold` as root, then the relay as its own user: it would be shut out by a lock file of root's."""
    os.chown(tmp_path, 4711, 4712)
    path = tmp_path / "queue.db"
    async with world(path) as queue:
        queue.hops.gate.clear()
        message = await queue.put(body=b"x" * 300_000)
        found = {each.name: (each.stat().st_uid, each.stat().st_gid) for each in tmp_path.rglob("*")}  # noqa: ASYNC240
    assert {"queue.db", "queue.db-wal", "queue.db.lock", "queue.db-bodies", message.id[:12]} <= set(found)
    assert set(found.values()) == {(4711, 4712)}


async def test_a_lock_file_that_leads_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("keep")
    (tmp_path / "queue.db.lock").symlink_to(tmp_path / "precious")
    with pytest.raises(StoreUnusable, match="symbolic links"):
        await World(tmp_path / "queue.db").open()
    assert (tmp_path / "precious").read_text() == "keep"


async def test_a_name_that_is_a_folder(tmp_path: Path) -> None:
    (tmp_path / "queue.db").mkdir()
    with pytest.raises(StoreUnusable, match="cannot open the queue"):
        await World(tmp_path / "queue.db").open()


async def test_an_old_sqlite_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relay.queue.schema.OLDEST_SQLITE", (99, 0, 0))
    with pytest.raises(StoreUnusable, match=r"needs 99\.0\.0"):
        await World(tmp_path / "queue.db").open()


async def test_the_files_are_for_us_alone(queue: World) -> None:
    queue.hops.gate.clear()
    message = await queue.put(body=b"x" * 300_000)
    assert {
        str(file.relative_to(queue.path.parent)): file.stat().st_mode & 0o777 for file in queue.path.parent.rglob("*")
    } == {
        "queue.db": 0o600,
        "queue.db-wal": 0o600,
        "queue.db-shm": 0o600,
        "queue.db.lock": 0o600,
        "queue.db-bodies": 0o700,
        f"queue.db-bodies/{message.id[:12]}": 0o600,
    }
