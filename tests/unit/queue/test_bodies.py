"""Large bodies in files of their own: on the disk before the 250, there until the outcome is on the disk, gone afterwards."""

import asyncio
import contextlib
import errno
import os
import resource
import shutil
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from relay.mail.events import StoreDamaged, StoreRecovered, StoreTrouble
from relay.queue import arriving, chores, copies, opening, schema
from relay.queue.arriving import Bodies
from relay.queue.bodies import BodyFolder
from relay.queue.check import _STRAY
from relay.queue.copies import back_up, examine
from relay.queue.disk import Disk, beside
from relay.queue.ids import name_of, number, row_of
from relay.queue.operations import Selection
from relay.queue.store import CHUNK, BodyMissing, StoreUnavailable, StoreUnusable
from tests.unit.queue.world import LATER, OK, World, into_chunks, until, world

LARGE = b"0123456789abcdef" * 50_000


async def body_of(queue: World, message: Any) -> bytes:
    return b"".join([chunk async for chunk in queue.store.body(message).chunks()])


async def rows(queue: World) -> dict[str, int]:
    def count(db: Any) -> dict[str, int]:
        tables = ("message", "chunk", "body_file", "loose")
        return {each: db.execute(f"SELECT count(*) FROM {each}").fetchone()[0] for each in tables}  # noqa: S608 - of ours

    return await queue.store.ask(count)


@pytest.fixture
def held(queue: World) -> World:
    """Its deliveries wait."""
    queue.hops.gate.clear()
    return queue


def test_names_are_the_beginning_of_ids() -> None:
    row = number("0AVF3M2C1G40XXXXXXXX".replace("X", "A"))
    assert name_of(row) == "0AVF3M2C1G40"
    assert row_of(name_of(row)) == row
    assert [row_of(each) for each in ("", "probe-0", "0AVF3M2C1G4", "0avf3m2c1g40", "0AVF3M2C1G4Z")] == [None] * 5


# --- on the disk, in this order ---


class Calls:
    """What is done to the files of the folder, in order; `stop` is waited for at the first of that name, `fail` is raised by it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.done: list[str] = []
        self.stop = self.fail = ""
        self.error = errno.EIO
        self.at = threading.Event()
        self.go = threading.Event()
        for name in ("writev", "fdatasync", "fsync", "open"):
            monkeypatch.setattr(os, name, self._wrapped(name, getattr(os, name)))

    def _wrapped(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(what: Any, *rest: Any) -> Any:
            path = str(what) if name == "open" else str(Path(f"/proc/self/fd/{what}").readlink())
            if "-bodies" not in path or "probe" in path:
                return real(what, *rest)
            if name == "open" and not rest[0] & os.O_CREAT:
                return real(what, *rest)
            kind = "folder" if path.endswith("-bodies") else name
            self.done.append(kind)
            if kind == self.stop:
                self.at.set()
                assert self.go.wait(10)
            if kind == self.fail:
                raise OSError(self.error, os.strerror(self.error))
            return real(what, *rest)

        return call


@pytest.fixture
def calls(held: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[Calls]:
    monkeypatch.setattr(arriving, "_RETRY", 0.02)
    made = Calls(monkeypatch)
    yield made
    made.go.set()


@pytest.mark.parametrize("stop", ["writev", "fdatasync", "folder"])
async def test_no_250_before_the_file_and_its_name_are_on_the_disk(held: World, calls: Calls, stop: str) -> None:
    calls.stop = stop
    putting = asyncio.create_task(held.put(body=LARGE))
    await until(calls.at.is_set)
    await held.store.barrier()
    assert not putting.done()
    assert await rows(held) == {"message": 0, "chunk": 0, "body_file": 0, "loose": 0}
    calls.go.set()
    message = await putting
    assert await rows(held) == {"message": 1, "chunk": 0, "body_file": 1, "loose": 0}
    assert [each for each in calls.done if each != "writev"] == ["open", "fdatasync", "folder"]
    assert calls.done[-2:] == ["fdatasync", "folder"]
    assert await body_of(held, message) == LARGE


async def test_small_mail_needs_no_file(held: World, calls: Calls) -> None:
    await held.put(body=b"x" * CHUNK)
    assert calls.done == []
    assert held.files() == {}


async def test_a_file_stays_until_the_outcome_is_on_the_disk(queue: World, monkeypatch: pytest.MonkeyPatch) -> None:
    queue.hops.gate.clear()
    message = await queue.put("a@example.com", "b@b.example", body=LARGE)
    await queue.settle()
    free, waiting = threading.Event(), threading.Event()

    def slow(disk: Disk) -> None:
        waiting.set()
        assert free.wait(10)
        os.fdatasync(disk._log)

    monkeypatch.setattr(Disk, "sync", slow)
    try:
        queue.hops.gate.set()
        await until(waiting.is_set)
        # A reader sees the end of it, and a round of chores that begins now waits.
        async with asyncio.timeout(10):
            while not (await rows(queue))["loose"]:  # what a reader sees, no event tells
                pass
        tidying = asyncio.create_task(queue.store.tidy())
        await until(lambda: queue.store._housekeeping._tidying.locked())
        for _ in range(20):
            await asyncio.sleep(0)
        assert queue.files() == {message.id[:12]: message.size}
    finally:
        free.set()
    await queue.settle()
    await tidying
    await queue.until_files()
    assert await rows(queue) == {"message": 1, "chunk": 0, "body_file": 0, "loose": 0}


async def test_a_file_stays_until_the_last_recipient_has_ended(queue: World) -> None:
    queue.hops.says["busy@b.example"] = [LATER, OK]
    message = await queue.put("a@example.com", "busy@b.example", body=LARGE)
    await queue.settle()
    await queue.store.tidy()
    assert await queue.states(message) == ["delivered", "waiting"]
    assert queue.files() == {message.id[:12]: message.size}
    await queue.pass_(timedelta(hours=1))
    await queue.until_files()
    assert queue.hops.bodies[message.id] == LARGE


@pytest.mark.parametrize("order", ["delete", "bounce"])
async def test_what_an_operator_ends_leaves_no_file(queue: World, order: str) -> None:
    queue.hops.says[""] = [LATER]
    await queue.put(body=LARGE)
    await queue.settle()
    selection = Selection(everything=True)
    await (queue.operations.delete(selection) if order == "delete" else queue.operations.bounce(selection, ""))
    await queue.settle()
    await queue.until_files()


# --- a disk in trouble ---

FAULTS = [
    ("open", errno.ENOSPC),
    ("open", errno.EACCES),
    ("open", errno.EMFILE),
    ("writev", errno.ENOSPC),
    ("writev", errno.EIO),
    ("fdatasync", errno.EIO),
    ("fdatasync", errno.ENOSPC),
    ("folder", errno.EIO),
]


@pytest.mark.parametrize(("call", "error"), FAULTS)
async def test_a_disk_in_trouble_refuses_keeps_nothing_and_recovers(
    held: World, calls: Calls, monkeypatch: pytest.MonkeyPatch, call: str, error: int
) -> None:
    before = await held.put(body=LARGE)
    calls.fail, calls.error = call, error
    probe = BodyFolder.probe
    failing = threading.Event()
    failing.set()

    def honest(folder: BodyFolder, slot: int) -> None:
        if failing.is_set():
            raise OSError(error, os.strerror(error))
        probe(folder, slot)

    monkeypatch.setattr(BodyFolder, "probe", honest)
    with pytest.raises(StoreUnavailable, match=os.strerror(error)) as caught:
        await held.put(body=LARGE)
    assert str(caught.value.reply) == "452 4.3.1 insufficient system storage, try again later"
    assert (await rows(held))["message"] == 1
    await held.until_files(before)
    # Nor is small mail taken, and nothing is promised, until a file could be written in earnest.
    with pytest.raises(StoreUnavailable):
        await held.put(body=b"small")
    assert len(held.of(StoreTrouble)) == 1
    calls.fail = ""
    failing.clear()
    await until(lambda: not held.store.trouble)
    assert len(held.of(StoreRecovered)) == 1
    after = await held.put(body=LARGE)
    held.hops.gate.set()
    await held.settle()
    assert held.hops.bodies == {before.id: LARGE, after.id: LARGE}
    await held.until_files()


async def test_a_file_whose_sync_failed_is_never_synced_again(held: World, calls: Calls) -> None:
    """The second one would succeed, without the pages that the first one lost."""
    calls.fail = "fdatasync"
    incoming = held.intake.begin()
    incoming.write(LARGE)
    await incoming.drain()
    row = number(incoming.id)
    with pytest.raises(StoreUnavailable):
        await held.store._bodies.seal(row)
    calls.fail = ""
    for again in (
        held.store._bodies.seal,
        held.store._bodies.content,
        lambda row: held.store._bodies.append(row, [b"x"]),
    ):
        with pytest.raises(StoreUnavailable, match="Input/output error"):
            await again(row)
    assert calls.done.count("fdatasync") == 1
    incoming.abort()
    await held.until_files()


async def test_what_went_wrong_once_is_held_against_the_disk_once(held: World, calls: Calls) -> None:
    """A client that goes on sending, long after the disk has recovered, has nobody else's mail refused."""
    incoming = held.intake.begin()
    calls.fail = "writev"
    incoming.write(LARGE)
    await until(lambda: bool(held.store.trouble))
    calls.fail = ""
    await until(lambda: not held.store.trouble)
    incoming.write(LARGE)
    with pytest.raises(StoreUnavailable, match="Input/output error"):
        await incoming._pending[-1]
    assert not held.store.trouble
    await held.put(body=b"small")
    assert len(held.of(StoreTrouble)) == 1
    incoming.abort()


async def test_too_little_room_stops_a_message_in_its_middle(held: World) -> None:
    incoming = held.intake.begin()
    incoming.write(LARGE)
    await incoming.drain()
    held.room = 0

    async def go_on() -> None:
        while True:
            incoming.write(LARGE)
            await incoming.drain()
            await asyncio.sleep(0)

    with pytest.raises(StoreUnavailable, match=r"limits\.free_space"):
        await asyncio.wait_for(go_on(), 10)
    incoming.abort()
    await held.until_files()
    held.room = 10**12
    await until(lambda: not held.store.trouble)
    assert await body_of(held, await held.put(body=LARGE)) == LARGE


async def test_bodies_on_a_file_system_of_their_own_keep_its_room_free(tmp_path: Path) -> None:
    path, room = tmp_path / "queue.db", 0
    disk = Disk(path, 1000, lambda each: room if each == BodyFolder(path).path else 5000)
    assert disk.free() == 0
    assert disk.shortage() == f"0 bytes left in {path}-bodies, limits.free_space is 1000"
    room = 2000
    assert (disk.free(), disk.shortage()) == (2000, "")
    disk.limit = 6000
    room = 7000
    assert disk.shortage() == f"5000 bytes left beside {path}, limits.free_space is 6000"


async def test_a_disk_that_takes_less_than_it_is_given(held: World, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.writev
    monkeypatch.setattr(os, "writev", lambda descriptor, pieces: real(descriptor, [pieces[0][:1000]]))
    assert await body_of(held, await held.put(body=LARGE)) == LARGE


@pytest.mark.parametrize("act", ["moved away", "moved and made anew"])
async def test_a_folder_that_is_gone_is_missed_before_the_250(
    held: World, monkeypatch: pytest.MonkeyPatch, act: str
) -> None:
    """Open files are written and synced as before there: nobody would find them again."""
    monkeypatch.setattr(arriving, "_RETRY", 0.02)
    before = await held.put(body=LARGE)
    incoming = held.intake.begin()
    incoming.write(LARGE)
    await asyncio.gather(*incoming._pending)
    folder, aside = BodyFolder(held.path).path, held.path.with_name("aside")
    folder.rename(aside)
    if act == "moved and made anew":
        folder.mkdir(0o700)
    with pytest.raises(StoreUnavailable):
        await incoming.commit(before.envelope, before.accepted)
    assert (await rows(held))["message"] == 1
    if act == "moved away":
        with pytest.raises(StoreUnavailable):
            await held.put(body=b"small")
    else:
        folder.rmdir()
    synced: list[Path] = []
    monkeypatch.setattr("relay.queue.bodies.sync_folder", synced.append)
    aside.rename(folder)
    await until(lambda: not held.store.trouble)
    assert folder in synced  # what is beside it: its own name
    after = await held.put(body=LARGE)
    assert await body_of(held, before) == await body_of(held, after) == LARGE


# --- a start ---


async def _waiting(path: Path) -> Any:
    async with world(path) as queue:
        queue.hops.says[""] = [LATER]
        message = await queue.put(body=LARGE)
        await queue.settle()
    return message


async def test_a_start_without_the_folder_that_mail_needs_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "queue.db"
    await _waiting(path)
    folder = BodyFolder(path).path
    shutil.rmtree(folder)
    with pytest.raises(StoreUnusable, match=r"is gone, which has the bytes of 1 messages: put it back.*mkdir -m 0700"):
        await World(path).open()
    assert not folder.exists()
    folder.mkdir()  # as the remedy says
    async with world(path) as queue:
        assert "bytes are not all there" in queue.of(StoreDamaged)[0].problems[0]


async def test_a_start_without_the_folder_that_only_ended_mail_had(doomed: World, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BodyFolder, "removing", lambda _folder: contextlib.nullcontext(False))
        await doomed.put(body=LARGE)
        await doomed.settle()
        assert (await rows(doomed))["body_file"] == 1
        after = await doomed.crash(tmp_path / "after.db")
    shutil.rmtree(BodyFolder(after.path).path)
    await after.start()
    await after.store.tidy()
    assert await rows(after) == {"message": 1, "chunk": 0, "body_file": 0, "loose": 0}
    await after.close()


async def test_a_start_makes_the_folder_where_nobody_needs_it(tmp_path: Path) -> None:
    path = tmp_path / "queue.db"
    async with world(path) as queue:
        await queue.put(body=LARGE)
        await queue.settle()
        await queue.until_files()
    BodyFolder(path).path.rmdir()
    async with world(path) as queue:
        await queue.put(body=LARGE)


def test_a_start_asks_no_small_message_whether_it_needs_the_folder(tmp_path: Path) -> None:
    """A million may wait."""
    with closing(sqlite3.connect(tmp_path / "queue.db", isolation_level=None)) as db:
        schema.prepare(db, "queue.db")
        db.executemany(
            "INSERT INTO message (id, size, message_id, sender, eight_bit, header, about) VALUES (?, 1, '', '', 0, x'', '{}')",
            [(f"M{n}",) for n in range(5000)],
        )
        steps: list[None] = []
        db.set_progress_handler(lambda: steps.append(None), 1000)
        opening.prepare(db, BodyFolder(tmp_path / "queue.db"))
    assert not steps


def _a_file(folder: Path) -> None:
    folder.write_text("precious")


def _a_link(folder: Path) -> None:
    folder.symlink_to(folder.parent)


@pytest.mark.parametrize("make", [_a_file, _a_link])
async def test_something_else_in_the_folder_s_place(tmp_path: Path, make: Callable[[Path], None]) -> None:
    path = tmp_path / "queue.db"
    make(BodyFolder(path).path)
    with pytest.raises(StoreUnusable, match="must be a folder"):
        await World(path).open()


async def test_a_folder_that_is_not_ours_to_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda _path, _how: False)
    with pytest.raises(StoreUnusable, match=r"must belong to the relay's user \(chown"):
        await World(tmp_path / "queue.db").open()


# --- crashes ---


@pytest.fixture
async def doomed(tmp_path: Path) -> World:
    """A queue that the test has crash."""
    made = World(tmp_path / "queue.db")
    await made.start()
    return made


async def test_a_crash_between_the_sync_and_the_row(doomed: World, tmp_path: Path) -> None:
    incoming = doomed.intake.begin()
    incoming.write(LARGE)
    await doomed.store.seal(incoming.id)
    assert doomed.files() == {incoming.id[:12]: len(LARGE)}
    after = await doomed.crash(tmp_path / "after.db")
    await after.start()
    await after.store.tidy()
    assert (after.files(), (await rows(after))["message"]) == ({}, 0)
    await after.close()


@pytest.mark.parametrize("step", ["unname", "remove"])
async def test_a_crash_between_the_end_and_the_file(
    doomed: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    with monkeypatch.context() as patch:
        if step == "remove":
            patch.setattr(BodyFolder, "remove", lambda _folder, _rows: None)
        else:
            patch.setattr(BodyFolder, "removing", lambda _folder: contextlib.nullcontext(False))
        message = await doomed.put(body=LARGE)
        await doomed.settle()
        await doomed.store.tidy()
        assert await doomed.states(message) == ["delivered"]
        assert doomed.files() == {message.id[:12]: message.size}
        assert (await rows(doomed))["loose"] == (step == "unname")
        after = await doomed.crash(tmp_path / "after.db")
    await after.start()
    await after.store.tidy()
    await after.until_files()
    assert await rows(after) == {"message": 1, "chunk": 0, "body_file": 0, "loose": 0}
    assert after.hops.seen == []
    await after.close()


async def test_what_was_kept_is_delivered_after_a_crash(doomed: World, tmp_path: Path) -> None:
    doomed.hops.gate.clear()
    message = await doomed.put(body=LARGE)
    after = await doomed.crash(tmp_path / "after.db")
    await after.start()
    await after.settle()
    assert after.hops.bodies == {message.id: LARGE}
    await after.until_files()
    await after.close()


async def test_no_file_that_a_row_names_is_ever_swept(held: World) -> None:
    message = await held.put(body=LARGE)
    held.store._housekeeping.sweep([number(message.id)])
    await held.store.tidy()
    assert await body_of(held, message) == LARGE


async def test_a_commit_that_failed_is_looked_at_before_its_file_goes(
    held: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no(*_given: Any) -> None:
        raise ValueError("a bug")

    with monkeypatch.context() as patch:
        patch.setattr("relay.queue.batch.Batch.entry", no)
        with pytest.raises(ValueError, match="a bug"):
            await held.put(body=LARGE)
    await held.store.tidy()
    await held.until_files()


# --- reading ---


@pytest.mark.parametrize("size", [0, CHUNK, len(LARGE) - 1, len(LARGE) + 1])
async def test_a_body_of_another_size_is_not_sent_in_part(held: World, size: int) -> None:
    message = await held.put(body=LARGE)
    os.truncate(BodyFolder(held.path).file(number(message.id)), size)
    with pytest.raises(BodyMissing, match=rf"{message.id[:12]} has {size} bytes of {len(LARGE)}"):
        await anext(held.store.body(message).chunks())


async def test_a_body_that_is_gone_is_missing_whatever_lies_in_chunks(held: World) -> None:
    """The row says where it is, not what is there."""
    message = await held.put(body=LARGE)
    BodyFolder(held.path).file(number(message.id)).unlink()
    await held.store.work(
        lambda db: db.execute("INSERT INTO chunk VALUES (?, 0, ?)", (number(message.id), LARGE)) and None
    )
    with pytest.raises(BodyMissing):
        await anext(held.store.body(message).chunks())


async def test_a_body_that_shrinks_while_it_is_read(held: World) -> None:
    message = await held.put(body=LARGE)
    chunks = held.store.body(message).chunks()
    await anext(chunks)
    os.truncate(BodyFolder(held.path).file(number(message.id)), CHUNK)
    with pytest.raises(BodyMissing, match="has changed"):
        await anext(chunks)


async def test_a_body_is_read_where_the_kernel_has_to_wait_for_it(held: World, monkeypatch: pytest.MonkeyPatch) -> None:
    message = await held.put(body=LARGE)

    def busy(*_given: Any) -> int:
        raise BlockingIOError(errno.EAGAIN, "not at hand")

    monkeypatch.setattr(os, "preadv", busy)
    assert await body_of(held, message) == LARGE


async def test_whoever_gives_up_while_a_file_is_opened_leaves_none_open(
    held: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    message = await held.put(body=LARGE)
    at, go, real = threading.Event(), threading.Event(), BodyFolder.open

    def slow(folder: BodyFolder, row: int, size: int) -> int:
        at.set()
        assert go.wait(10)
        return real(folder, row, size)

    monkeypatch.setattr(BodyFolder, "open", slow)
    reading = asyncio.create_task(body_of(held, message))
    await until(at.is_set)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    go.set()
    await held.store._bodies.run(lambda: None)
    await until(lambda: not any(message.id[:12] in _target(each) for each in os.listdir("/proc/self/fd")))  # noqa: PTH208 - of this process


async def test_a_disk_that_does_not_read_is_a_later(held: World, monkeypatch: pytest.MonkeyPatch) -> None:
    message = await held.put(body=LARGE)

    def broken(*_given: Any) -> bytes:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "preadv", broken)
    monkeypatch.setattr(os, "pread", broken)
    with pytest.raises(StoreUnavailable, match="Input/output error"):
        await body_of(held, message)
    assert not held.store.trouble


async def test_large_mail_of_an_older_version_is_delivered(tmp_path: Path) -> None:
    path = tmp_path / "queue.db"
    message = await _waiting(path)
    into_chunks(path)
    assert examine(path).problems == ()
    async with world(path) as queue:
        await queue.pass_(timedelta(hours=1))
        assert queue.hops.bodies == {message.id: LARGE}
        await queue.store.tidy()
        assert await rows(queue) == {"message": 1, "chunk": 0, "body_file": 0, "loose": 0}


# --- many at once ---


async def test_files_of_slow_clients_are_closed_meanwhile(held: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arriving, "_MOST_OPEN", 3)
    template = await held.put()
    crowd = [held.intake.begin() for _ in range(12)]
    pieces = [b"%07d" % number * 50_000 for number in range(4)]
    most = 0
    for piece in pieces:
        for each in crowd:
            each.write(piece)
            await each.drain()
        await asyncio.gather(*(future for each in crowd for future in each._pending))
        await held.store._bodies.run(lambda: None)
        most = max(most, sum("-bodies" in _target(each) for each in os.listdir("/proc/self/fd")))  # noqa: PTH208 - of this process
    assert most <= 3 + 4  # those, and one with each thread
    for each in crowd:
        message = await each.commit(template.envelope, template.accepted)
        assert await body_of(held, message) == b"".join(pieces)


async def test_slow_clients_leave_descriptors_to_others(tmp_path: Path) -> None:
    """Without one nothing could be tried, and all mail would be refused until they go."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, limits[1]))
    try:
        async with world(tmp_path / "queue.db") as queue:
            crowd = [queue.intake.begin() for _ in range(300)]
            for each in crowd:
                each.write(LARGE)
                await asyncio.gather(*each._pending)
            await queue.put(body=LARGE)
            assert queue.of(StoreTrouble) == []
            for each in crowd:
                each.abort()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def _target(descriptor: str) -> str:
    try:
        return str(Path(f"/proc/self/fd/{descriptor}").readlink())
    except OSError:
        return ""


async def test_a_file_that_somebody_else_wrote_to_while_it_was_closed(
    held: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arriving, "_MOST_OPEN", 1)
    first, second = held.intake.begin(), held.intake.begin()
    for each in (first, second):
        each.write(LARGE)
        await asyncio.gather(*each._pending)
    with BodyFolder(held.path).file(number(first.id)).open("ab") as file:
        file.write(b"x")
    template = await held.put()
    first.write(LARGE)
    with pytest.raises(StoreUnavailable, match="changed by somebody else"):
        await first.commit(template.envelope, template.accepted)
    second.abort()
    await held.until_files()


async def test_a_message_in_tiny_pieces(held: World) -> None:
    template = await held.put()
    incoming = held.intake.begin()
    for number_ in range(300_000):
        incoming.write(b"%d" % (number_ % 10))
    message = await incoming.commit(template.envelope, template.accepted)
    assert await body_of(held, message) == b"0123456789" * 30_000


@pytest.mark.parametrize("written", [CHUNK + 1, 20_000])
@pytest.mark.parametrize("more", [0, CHUNK + 1])
async def test_closing_ends_what_arrives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: int, more: int
) -> None:
    monkeypatch.setattr("relay.queue.intake._ALL_PARTS", 0)
    queue = World(tmp_path / "queue.db")
    await queue.start()
    template = await queue.put()
    incoming = queue.intake.begin()
    incoming.write(b"x" * written)
    await asyncio.gather(*incoming._pending)
    await queue.close()
    assert queue.files() == {}
    incoming.write(b"x" * more)
    with pytest.raises(StoreUnavailable, match="the queue is closed"):
        await asyncio.wait_for(incoming.commit(template.envelope, template.accepted), 10)
    assert queue.files() == {}


# --- what is said of it ---


async def test_the_store_s_size_includes_the_bodies(held: World) -> None:
    before = (await held.operations.statistics())["bytes"]
    for _ in range(10):
        await held.put(body=LARGE)
    held.clock.now += timedelta(minutes=1)
    after = (await held.operations.statistics())["bytes"]
    assert after - before >= 10 * len(LARGE)


def _cut(file: Path) -> None:
    os.truncate(file, 5)


@pytest.mark.parametrize("harm", [Path.unlink, _cut])
async def test_a_check_compares_files_with_rows(tmp_path: Path, harm: Callable[[Path], None]) -> None:
    path = tmp_path / "queue.db"
    message = await _waiting(path)
    assert examine(path).problems == ()
    harm(BodyFolder(path).file(number(message.id)))
    (problem,) = examine(path).problems
    assert str(problem) == f"1 messages whose bytes are not all there (such as {message.id})"
    assert not problem.harmless
    async with world(path) as queue:
        assert queue.of(StoreDamaged)[0].problems == (str(problem),)


async def test_a_check_tells_of_stray_files_once_they_are_old(tmp_path: Path) -> None:
    path = tmp_path / "queue.db"
    await _waiting(path)
    stray = BodyFolder(path).file(77)
    stray.write_bytes(b"x")
    assert examine(path).problems == ()
    old = stray.stat().st_mtime - _STRAY - 1
    os.utime(stray, (old, old))
    (problem,) = examine(path).problems
    assert (problem.count, problem.harmless) == (1, True)
    assert "files of messages that nobody needs" in problem.what


async def test_mail_that_ends_while_it_is_checked_is_no_problem(held: World, monkeypatch: pytest.MonkeyPatch) -> None:
    await held.put(body=LARGE)
    size, loop = BodyFolder.size, asyncio.get_running_loop()

    async def deliver() -> None:
        held.hops.gate.set()
        await held.settle()
        await held.store.tidy()

    def late(folder: BodyFolder, row: int) -> int | None:
        asyncio.run_coroutine_threadsafe(deliver(), loop).result(10)
        return size(folder, row)

    monkeypatch.setattr(BodyFolder, "size", late)
    report = await asyncio.to_thread(examine, held.path)
    assert (report.problems, report.live) == ((), 0)
    assert held.files() == {}


# --- copies ---


async def test_a_copy_is_one_file(held: World, tmp_path: Path) -> None:
    messages = [await held.put(body=LARGE + b"%d" % each) for each in range(3)]
    copy = tmp_path / "copy.db"
    await asyncio.to_thread(back_up, held.path, copy)
    assert await asyncio.to_thread(lambda: [each.name for each in tmp_path.glob("copy*")]) == ["copy.db"]
    report = await asyncio.to_thread(examine, copy)
    assert (report.problems, report.live) == ((), 3)
    async with world(copy) as restored:
        await restored.settle()
        assert restored.hops.bodies == {each.id: LARGE + b"%d" % i for i, each in enumerate(messages)}


async def test_a_copy_holds_what_ends_while_it_is_made(
    held: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    message = await held.put(body=LARGE)
    real, loop = copies._bring_in, asyncio.get_running_loop()
    left: list[dict[str, int]] = []

    async def deliver() -> None:
        held.hops.gate.set()
        await held.settle()
        await held.store.tidy()
        left.append(held.files())

    def late(copy: Any, folder: BodyFolder) -> None:
        asyncio.run_coroutine_threadsafe(deliver(), loop).result(10)
        real(copy, folder)

    monkeypatch.setattr(copies, "_bring_in", late)
    copy = tmp_path / "copy.db"
    await asyncio.to_thread(back_up, held.path, copy)
    assert held.hops.bodies == {message.id: LARGE}
    assert left == [{message.id[:12]: message.size}]
    await held.store.tidy()
    await held.until_files()
    report = await asyncio.to_thread(examine, copy)
    assert (report.problems, report.live) == ((), 1)


async def test_a_copy_does_not_wait_for_the_commits_of_those_who_remove(
    held: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each takes as long as the disk does, and with many processes one of them is always at it."""
    message = await held.put(body=LARGE)
    monkeypatch.setattr("relay.queue.bodies._PATIENCE", 0.0)
    real, at, go, ours = chores.unname, threading.Event(), threading.Event(), Disk.sync

    def unname(db: Any, messages: Any) -> None:
        real(db, messages)
        at.set()

    def slow(disk: Disk) -> None:
        if at.is_set():
            assert go.wait(10)
        ours(disk)

    monkeypatch.setattr(chores, "unname", unname)
    monkeypatch.setattr(Disk, "sync", slow)
    held.hops.gate.set()
    await until(at.is_set)
    try:
        with BodyFolder(held.path).copying():
            go.set()
            await held.settle()
            for _ in range(3):
                await held.store._housekeeping.drop()
            assert held.files() == {message.id[:12]: message.size}
    finally:
        go.set()
    await held.store.tidy()
    await held.until_files()


async def test_chores_rest_while_a_copy_keeps_them_from_files(held: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chores, "_LOOSE", 2)
    for _ in range(5):
        await held.put(body=LARGE)
    rounds, real = 0, chores.loose

    def loose(db: Any) -> chores.Loose:
        nonlocal rounds
        rounds += 1
        return real(db)

    monkeypatch.setattr(chores, "loose", loose)
    with BodyFolder(held.path).copying():
        held.hops.gate.set()
        await held.settle()
        await asyncio.sleep(0.5)
        assert (await rows(held))["loose"] == 5
        assert 0 < rounds < 10
    await held.store.tidy()
    await held.until_files()


async def test_a_copy_leaves_out_what_has_ended(queue: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(BodyFolder, "removing", lambda _folder: contextlib.nullcontext(False))
        await queue.put(body=LARGE)
        await queue.settle()
        await asyncio.to_thread(back_up, queue.path, tmp_path / "copy.db")
    async with world(tmp_path / "copy.db") as restored:
        await restored.store.tidy()
        assert await rows(restored) == {"message": 1, "chunk": 0, "body_file": 0, "loose": 0}


async def test_a_copy_of_what_is_not_whole_says_so(held: World, tmp_path: Path) -> None:
    message = await held.put(body=LARGE)
    BodyFolder(held.path).file(number(message.id)).unlink()
    await asyncio.to_thread(back_up, held.path, tmp_path / "copy.db")
    (problem,) = (await asyncio.to_thread(examine, tmp_path / "copy.db")).problems
    assert problem.examples == (message.id,)


async def test_a_copy_that_a_disk_has_no_room_for_is_none(held: World, tmp_path: Path) -> None:
    """SQLite closes a file without a word about the log that it could not bring in."""
    for _ in range(10):
        await held.put(body=LARGE)
    copy, limits = tmp_path / "copy.db", resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8 * len(LARGE), limits[1]))  # of each file: its log is shorter
    try:
        with pytest.raises(StoreUnusable, match="cannot write the copy"):
            back_up(held.path, copy)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not any(map(os.path.exists, (copy, beside(copy, ".part"), beside(copy, ".part-wal"))))


async def test_a_copy_is_not_made_without_the_folder_that_mail_needs(held: World, tmp_path: Path) -> None:
    await held.put(body=LARGE)
    link = tmp_path / "elsewhere.db"
    link.symlink_to(held.path)
    with pytest.raises(StoreUnusable, match=r"elsewhere\.db-bodies is not there, which has the bytes of 1 messages"):
        back_up(link, tmp_path / "copy.db")
    assert not any(map(os.path.exists, (tmp_path / "copy.db", tmp_path / "copy.db.part")))


async def test_a_copy_says_which_file_cannot_be_read(
    held: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    message = await held.put(body=LARGE)

    def broken(*_given: Any) -> bytes:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "read", broken)
    with pytest.raises(OSError, match="Input/output error") as caught:
        back_up(held.path, tmp_path / "copy.db")
    assert caught.value.filename == str(BodyFolder(held.path).file(number(message.id)))


async def test_two_copies_at_once_do_not_meet(held: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("relay.queue.bodies._PATIENCE", 0.0)
    with BodyFolder(held.path).copying(), pytest.raises(StoreUnusable, match="another copy"):
        await asyncio.to_thread(back_up, held.path, tmp_path / "copy.db")
    await asyncio.to_thread(back_up, held.path, tmp_path / "copy.db")


async def test_jobs_of_a_file_are_done_in_their_order(held: World) -> None:
    bodies: Bodies = held.store._bodies
    for row in range(1, 9):
        for piece in range(20):
            bodies.append(row, [b"%02d" % piece])
    found = await asyncio.gather(*(bodies.content(row) for row in range(1, 9)))
    assert set(found) == {b"".join(b"%02d" % piece for piece in range(20))}
    for row in range(1, 9):
        bodies.drop(row)
    await held.until_files()
