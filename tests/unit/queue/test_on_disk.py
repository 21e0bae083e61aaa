"""Between a commit and the disk: what readers see already is nobody's yet, and what may not have reached the disk is not promised."""

import asyncio
import errno
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest

from relay.mail.address import NULL, parse_mailbox
from relay.mail.envelope import Accepted, Envelope, Recipient
from relay.mail.events import StoreRecovered, StoreTrouble
from relay.queue import database, writer
from relay.queue.disk import Disk, beside
from relay.queue.operations import Selection
from relay.queue.share import Share
from relay.queue.store import CHUNK, Command, Order, StoreError, StoreUnavailable
from tests.unit.queue.world import LATER, NO, SlowDisk, World, evidence, seen, until


async def test_mail_that_is_seen_before_it_is_safe_is_taken_up_once(queue: World, disk: SlowDisk) -> None:
    queue.intake.ahead = None  # as under load
    await queue.settle()
    disk.free.clear()
    putting = asyncio.create_task(queue.put())
    await until(lambda: disk.waiting == 1)
    assert await seen(queue) == 1
    queue.clock.now += timedelta(seconds=1)
    queue.scheduler.look_again(["example.com"])
    await until(lambda: queue.scheduler.is_quiet)
    assert queue.hops.seen == []
    assert (await queue.operations.hold(Selection(everything=True)))["changed"] == 0
    assert not putting.done()
    disk.free.set()
    message = await putting
    await queue.settle()
    assert queue.hops.seen == [(message.id, ("bob@example.com",))]
    assert await queue.states(message) == ["delivered"]


async def test_a_report_that_is_seen_before_it_is_safe_is_sent_once(queue: World, disk: SlowDisk) -> None:
    queue.hops.says["bob@example.com"] = [NO]
    queue.hops.gate.clear()
    await queue.put()
    await queue.settle()
    assert queue.hops.running == 1
    disk.free.clear()
    queue.hops.gate.set()
    async with asyncio.timeout(10):
        while await seen(queue) < 2:
            pass
    queue.scheduler.look_again(["example.org"])
    await until(lambda: queue.scheduler._feeder.is_quiet)
    assert len(queue.hops.seen) == 1
    disk.free.set()
    await queue.settle()
    assert [to for _message, to in queue.hops.seen] == [("bob@example.com",), ("alice@example.org",)]


async def test_what_comes_during_a_sync_shares_the_next_one(queue: World, disk: SlowDisk) -> None:
    queue.hops.gate.clear()
    await queue.settle()
    disk.free.clear()
    first = asyncio.create_task(queue.put())
    await until(lambda: disk.waiting == 1)
    before = disk.times
    others = [asyncio.create_task(queue.put()) for _ in range(20)]
    await asyncio.sleep(0)
    disk.free.set()
    await asyncio.gather(first, *others)
    assert disk.times - before == 2


async def test_a_sync_that_fails_promises_nothing(queue: World, disk: SlowDisk) -> None:
    """Mail is refused, and is not there either when it can be written again; an outcome is written once more."""
    queue.hops.gate.clear()
    waiting = await queue.put()
    await queue.settle()
    disk.errors.append(OSError(errno.EIO, "Input/output error"))
    with pytest.raises(StoreUnavailable, match="Input/output error"):
        await queue.put("c@example.com")
    await until(lambda: not queue.store.trouble)
    await queue.settle()
    assert await seen(queue) == 1
    assert [type(each) for each in queue.events if isinstance(each, StoreTrouble | StoreRecovered)] == [
        StoreTrouble,
        StoreRecovered,
    ]
    disk.errors.append(OSError(errno.EIO, "Input/output error"))
    queue.hops.gate.set()
    await until(lambda: not disk.errors)
    await until(lambda: not queue.store.trouble)
    await queue.settle()
    assert await queue.states(waiting) == ["delivered"]
    assert len([to for _message, to in queue.hops.delivered if to == "bob@example.com"]) == 1


async def test_an_order_whose_sync_failed_is_answered_with_what_it_did(queue: World, disk: SlowDisk) -> None:
    """It holds; done again it would find nothing to delete."""
    queue.hops.says["bob@example.com"] = [LATER]
    message = await queue.put()
    await queue.settle()
    disk.errors.append(OSError(errno.EIO, "Input/output error"))
    changed = await queue.store.amend([(message.id, 0)], Command(Order.DELETE), queue.clock.now)
    assert changed == [True]
    assert not disk.errors
    assert not queue.store.trouble
    assert await queue.states(message) == ["deleted"]


async def test_the_log_does_not_grow_with_what_was_written(queue: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "_WAL_PAGES", 100)
    for _ in range(300):
        await queue.put(body=b"x" * 10_000)
    await queue.settle()
    log = queue.path.with_name("queue.db-wal").stat().st_size
    assert log < 3 * 2**20, log  # 300 messages fill more than 6 MiB of it


async def test_a_checkpoint_that_fails_stops_nothing(queue: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "_WAL_PAGES", 1)

    def broken(_self: object) -> None:
        raise OSError("no")

    monkeypatch.setattr(database.Database, "checkpoint", broken)
    messages = [await queue.put() for _ in range(3)]
    await queue.settle()
    assert [await queue.states(each) for each in messages] == [["delivered"]] * 3


class Others:
    """The turn among processes, with others that have it as a test likes."""

    def __init__(self) -> None:
        self.theirs = False
        self.ours = False
        self.edition = 1
        self.doubt = False
        self.refused = 0

    def take(self) -> bool:
        assert not self.ours
        self.refused += self.theirs
        self.ours = not self.theirs
        return self.ours

    def give(self) -> None:
        assert self.ours
        self.ours = False

    def new_edition(self) -> None:
        assert self.ours
        self.edition += 1

    def raise_doubt(self) -> None:
        self.doubt = True

    def end_doubt(self) -> None:
        assert self.ours
        self.doubt = False


@pytest.fixture
async def others(queue: World) -> Others:
    made = Others()
    await queue.settle()
    queue.store._writer._database._turn = made
    return made


async def test_a_turn_is_waited_for(queue: World, others: Others) -> None:
    others.theirs = True
    putting = asyncio.create_task(queue.put())
    await until(lambda: others.refused > 3)
    assert not putting.done()
    others.theirs = False
    message = await putting
    await queue.settle()
    assert await queue.states(message) == ["delivered"]
    assert not queue.of(StoreTrouble)


async def test_waiting_for_a_turn_writes_no_pages(queue: World, others: Others) -> None:
    """Else whoever waits long makes a checkpoint with every message."""
    others.theirs = True
    before = queue.store._writer._pages
    putting = asyncio.create_task(queue.put(body=b"x" * 100_000))
    await until(lambda: others.refused > 20)
    assert queue.store._writer._pages == before
    others.theirs = False
    await putting
    assert before + 25 <= queue.store._writer._pages < before + 100


@pytest.mark.parametrize("error", [None, sqlite3.OperationalError("disk I/O error")])
async def test_a_wait_that_ends_without_a_commit_is_over(
    queue: World, others: Others, monkeypatch: pytest.MonkeyPatch, error: Exception | None
) -> None:
    """Refused for want of room, or by an error: the writer waits no more, the next wait begins anew, and the queue can be closed."""
    monkeypatch.setattr(writer, "_RETRY", 0.02)
    it, room = queue.store._writer, queue.room
    others.theirs = True
    putting = asyncio.create_task(queue.put())
    await until(lambda: others.refused > 3)
    with monkeypatch.context() as patch:
        if error is None:
            queue.room = 10
        else:
            patch.setattr(it, "_commit", _raising(error))
            others.theirs = False
        with pytest.raises(StoreUnavailable):
            await putting
        assert not it._blocked
    queue.room, others.theirs = room, False
    await until(lambda: not queue.store.trouble)
    await asyncio.wait_for(queue.store.close(), 10)
    await queue.open()


def _raising(error: Exception) -> Callable[[object], None]:
    def run(_group: object) -> None:
        raise error

    return run


async def test_a_checkpoint_has_its_turn_for_the_end_of_the_log_only(
    queue: World, others: Others, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The long part keeps nobody from writing; what was added meanwhile is brought in too, or the log would never begin anew under load."""
    await queue.put(body=b"x" * 100_000)
    await queue.settle()
    base, bring_in = queue.store._writer._database, database.Database._bring_in
    turns: list[bool] = []

    def watched(self: database.Database) -> None:
        turns.append(others.ours)
        bring_in(self)
        if not others.ours:
            with closing(sqlite3.connect(queue.path)) as other:
                other.execute("PRAGMA wal_autocheckpoint = 0")
                other.execute("INSERT INTO loose (n) VALUES (1)")
                other.commit()

    monkeypatch.setattr(database.Database, "_bring_in", watched)
    base.checkpoint()
    assert turns == [False, True]
    assert base.connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone() == (
        0,
        1,
        1,
    )  # the frame that began it anew


async def test_another_process_may_have_its_turn_for_longer_than_another_program(
    queue: World, others: Others, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be waiting for the disk."""
    monkeypatch.setattr(database, "BUSY", 0.0)
    others.theirs = True
    putting = asyncio.create_task(queue.put())
    await until(lambda: others.refused > 20)
    others.theirs = False
    await putting
    assert not queue.of(StoreTrouble)


async def test_a_turn_that_does_not_come_is_trouble(
    queue: World, others: Others, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "TURN", 0.02)
    monkeypatch.setattr(writer, "_RETRY", 0.02)
    others.theirs = True
    with pytest.raises(StoreUnavailable, match="another process of this relay is writing"):
        await queue.put()
    await until(lambda: bool(queue.of(StoreTrouble)))
    others.theirs = False
    await until(lambda: not queue.store.trouble)
    message = await queue.put()
    await queue.settle()
    assert await queue.states(message) == ["delivered"]


async def test_a_file_that_another_process_wrote_anew_is_opened_anew(
    queue: World, others: Others, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else what we write would go to a file that has no name any more."""
    monkeypatch.setattr(writer, "_RETRY", 0.02)
    first = await queue.put()
    await queue.settle()
    _renew(queue.path, queue)
    others.edition += 1
    with pytest.raises(StoreUnavailable, match=r"replaced|anew"):
        await queue.put()
    await until(lambda: not queue.store.trouble)
    second = await queue.put()
    await queue.settle()
    assert [await queue.states(each) for each in (first, second)] == [["delivered"], ["delivered"]]
    assert await seen(queue) == 2


async def test_a_file_that_was_written_anew_behind_our_last_look_is_noticed(
    queue: World, others: Others, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the group that meets it answered: its clients wait."""
    monkeypatch.setattr(writer, "_RETRY", 0.02)
    queue.store._disk.pause = 3600
    await queue.put()
    await queue.settle()
    _renew(queue.path, queue)
    others.edition += 1
    with pytest.raises(StoreUnavailable, match="anew"):
        await asyncio.wait_for(queue.put(), 10)
    await until(lambda: not queue.store.trouble)
    await queue.put()
    await queue.settle()
    assert await seen(queue) == 2


class Kernel:
    """What reaches the disk of the log: the pages that were written since the last sync; of a sync that fails none, then or later."""

    def __init__(self, queue: World, monkeypatch: pytest.MonkeyPatch) -> None:
        self.fails = 0
        self._log = beside(queue.path, "-wal")
        self._database = queue.path
        self._clean = self._disk = self._log.read_bytes()
        write_again = Disk.write_again

        def written_again(disk: Disk) -> None:
            self._clean = b""  # all its pages are dirty once more
            write_again(disk)

        monkeypatch.setattr(Disk, "sync", lambda _disk: self._sync())
        monkeypatch.setattr(Disk, "write_again", written_again)

    def _sync(self) -> None:
        now, page = self._log.read_bytes(), 512
        dirty = [at for at in range(0, len(now), page) if now[at : at + page] != self._clean[at : at + page]]
        self._clean = now
        if self.fails:
            self.fails -= 1
            raise OSError(errno.EIO, "Input/output error")
        disk = bytearray(self._disk.ljust(len(now), b"\0"))
        for at in dirty:
            disk[at : at + page] = now[at : at + page]
        self._disk = bytes(disk)

    def after_a_cut(self, copy: Path) -> set[str]:
        """The messages that a start then finds."""
        shutil.copy(self._database, copy)
        beside(copy, "-wal").write_bytes(self._disk)
        with closing(sqlite3.connect(copy)) as db:
            assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            return {row[0] for row in db.execute("SELECT id FROM message")}


@pytest.fixture
async def kernel(queue: World, monkeypatch: pytest.MonkeyPatch) -> Kernel:
    monkeypatch.setattr(writer, "_RETRY", 0.02)
    queue.hops.gate.clear()
    await queue.put()
    await queue.settle()
    return Kernel(queue, monkeypatch)


@pytest.mark.parametrize("fails", [1, 3])
async def test_mail_that_is_taken_after_a_sync_that_failed_outlives_the_power(
    queue: World, kernel: Kernel, tmp_path: Path, fails: int
) -> None:
    """The next sync succeeds without the pages of the one that failed, and after a power cut SQLite reads the log up to the first gap."""
    first = await queue.put()
    kernel.fails = fails
    with pytest.raises(StoreUnavailable):
        await queue.put()
    await until(lambda: not queue.store.trouble)
    later = [await queue.put() for _ in range(3)]
    assert {each.id for each in (first, *later)} <= kernel.after_a_cut(tmp_path / "copy.db")


async def test_a_process_that_opens_the_log_behind_a_sync_that_failed_makes_it_whole(
    queue: World, kernel: Kernel, tmp_path: Path
) -> None:
    """Nobody tells it: whoever saw the fault may be dead."""
    await queue.store.barrier()
    connection = queue.store._writer._database.connection
    connection.execute("UPDATE message SET size = size")
    kernel.fails = 1
    with pytest.raises(OSError, match="Input/output"):
        queue.store._disk.sync()
    successor = World(queue.path, queue.clock)
    await successor.open(share=Share(1, 2, locked=True))
    later = await successor.put()
    assert later.id in kernel.after_a_cut(tmp_path / "copy.db")
    await successor.store.close()


async def test_the_doubt_of_one_process_is_that_of_all(queue: World, others: Others, kernel: Kernel) -> None:
    """Another one's sync failed while ours was under way, or before we began: what we wrote is behind its gap."""
    others.raise_doubt()
    with pytest.raises(StoreUnavailable, match="may not be on the disk"):
        await queue.put()
    await until(lambda: not queue.store.trouble)
    assert not others.doubt
    await queue.put()
    sync = kernel._sync

    def meanwhile() -> None:
        sync()
        others.raise_doubt()
        kernel._sync = sync  # type: ignore[method-assign]

    kernel._sync = meanwhile  # type: ignore[method-assign]
    with pytest.raises(StoreUnavailable, match="may not be on the disk"):
        await queue.put()
    await until(lambda: not queue.store.trouble)
    await queue.put()


async def test_a_log_in_doubt_is_not_brought_into_the_database(queue: World, others: Others) -> None:
    others.raise_doubt()
    before = queue.path.read_bytes()
    with pytest.raises(StoreError):
        queue.store._writer._database.checkpoint()
    assert queue.path.read_bytes() == before
    others.doubt = False


def _renew(path: Path, queue: World) -> None:
    """As `Database._rescue` of another process does."""
    connection = queue.store._writer._database.connection
    connection.execute("VACUUM INTO ?", (str(path.with_name("copy")),))
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink()
    path.with_name("copy").rename(path)


def _one(db: sqlite3.Connection, statement: str) -> int:
    return int(db.execute(statement).fetchone()[0])


async def test_large_mail_that_is_taken_out_again_leaves_nothing(queue: World, disk: SlowDisk) -> None:
    tls = evidence()
    await queue.settle()
    incoming = queue.intake.begin()
    incoming.write(b"x" * (3 * CHUNK))
    await incoming.drain()
    disk.errors += [OSError(errno.EIO, "Input/output error")] * 2
    envelope = Envelope(NULL, (Recipient(parse_mailbox("bob@example.com")),))
    accepted = Accepted(queue.clock(), "192.0.2.9", "client.example", "mx", "ESMTPS", tls=tls)
    with pytest.raises(StoreUnavailable, match="Input/output error"):
        await incoming.commit(envelope, accepted)
    await until(lambda: not queue.store.trouble and not disk.errors)
    await queue.settle()
    await queue.store.tidy()
    for count in (
        "count(*) FROM message",
        "count(*) FROM chunk",
        "count(*) FROM loose",
        "count(*) FROM body_file",
        "coalesce(sum(refs), 0) FROM fact",
    ):
        assert await queue.store.ask(partial(_one, statement=f"SELECT {count}")) == 0
    assert queue.files() == {}
    assert queue.hops.seen == []
    await queue.put()
    await queue.settle()
    assert len(queue.hops.delivered) == 1
