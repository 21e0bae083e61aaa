"""The store's check: a sound store in every state it can be in, and each thing that can be wrong with one."""

# ruff: noqa: S608 - the statements are of this file's own making

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest

from relay.mail.events import StoreDamaged
from relay.queue.bodies import BodyFolder
from relay.queue.check import glance
from relay.queue.copies import back_up, examine, hold_all, reading
from relay.queue.store import StoreLocked, StoreUnusable
from tests.unit.queue.world import LATER, NO, OK, START, World, evidence, into_chunks, world


@pytest.fixture
async def filled(tmp_path: Path) -> Path:
    """A queue with messages that wait, are held, have ended and have bounced, small and large, with evidence; closed."""
    path = tmp_path / "queue.db"
    async with world(path) as queue:
        queue.hops.says = {"busy@example.com": [LATER], "nobody@example.com": [NO]}
        queue.hops.evidence = evidence()
        await queue.put("bob@example.com")
        await queue.put("busy@example.com", "bob@example.com", body=b"x" * 600_000)
        await queue.put("busy@example.com")
        await queue.put("nobody@example.com", "bob@example.com", body=b"x" * 300_000)
        await queue.settle()
        await queue.store.tidy()
    return path


def change(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path)) as db:
        for statement in statements:
            assert db.execute(statement).rowcount
        db.commit()


def test_a_sound_store(filled: Path) -> None:
    report = examine(filled)
    assert report.problems == ()
    assert report.is_sound
    assert (report.live, report.ended) == (2, 3)  # one of those that have ended is the bounce


async def test_a_store_in_use_is_sound_too(tmp_path: Path) -> None:
    async with world(tmp_path / "queue.db") as queue:
        queue.hops.gate.clear()
        await queue.put("bob@example.com", body=b"x" * 600_000)
        arriving = queue.intake.begin()
        arriving.write(b"y" * 600_000)
        await arriving.drain()
        await queue.store.barrier()
        report = examine(queue.path)
        arriving.abort()
    assert report.problems == ()
    assert report.live == 1


LIVE = "(SELECT min(n) FROM message WHERE finished IS NULL)"
SMALL = "(SELECT n FROM message WHERE finished IS NULL AND size < 1000)"
WRONG = {
    "UPDATE message SET finished = NULL WHERE finished IS NOT NULL AND size < 1000": "without a recipient that waits",
    f"UPDATE recipient SET i = 7 WHERE n = {LIVE} AND i = 0": "a gap in their list of recipients",
    f"DELETE FROM chunk WHERE n = {LIVE} AND seq = 1": "whose bytes are not all there",
    f"UPDATE chunk SET data = x'00' WHERE n = {SMALL}": "whose bytes are not all there",
    f"UPDATE chunk SET seq = 9 WHERE n = {LIVE} AND seq = 2": "whose bytes are not all there",
    f"UPDATE recipient SET state = 1 WHERE n = {SMALL}": "do not wait and have a time for their next attempt",
    f"UPDATE message SET finished = 1 WHERE n = {SMALL}": "ended with recipients that wait",
    f"DELETE FROM message WHERE n = {SMALL}": "recipients without a message",
    "UPDATE attempt SET n = 5": "attempts without a message",
    "DELETE FROM fact WHERE k = 1": "that are not there",
    "UPDATE fact SET refs = refs - 1": "counted too low",
}


@pytest.mark.parametrize("statement", WRONG)
def test_what_is_wrong_is_found(filled: Path, statement: str) -> None:
    into_chunks(filled)
    assert examine(filled).problems == ()
    change(filled, statement)
    report = examine(filled)
    assert not report.is_sound
    assert any(WRONG[statement] in str(each) for each in report.problems), report.problems


@pytest.mark.parametrize(
    ("statement", "problem"),
    [
        ("INSERT INTO chunk VALUES (77, 0, x'00')", "pieces of messages that nobody needs"),
        ("UPDATE fact SET refs = refs + 1", "kept for longer than needed"),
        ("UPDATE recipient SET due = NULL WHERE state = 0", "wait without a time for their next attempt"),
    ],
)
def test_what_only_costs_room_is_harmless(filled: Path, statement: str, problem: str) -> None:
    change(filled, statement)
    report = examine(filled)
    assert report.is_sound
    assert [problem in str(each) and each.harmless for each in report.problems] == [True]


def test_mail_of_a_suspended_sender_may_wait_without_a_time(filled: Path) -> None:
    change(
        filled,
        "UPDATE recipient SET due = NULL WHERE state = 0",
        "INSERT INTO suspension (kind, what, reason, who, since) VALUES ('from', '@example.org', '', '', 0)",
    )
    assert examine(filled).problems == ()


def test_an_older_files_check_is_no_problem(filled: Path) -> None:
    change(filled, "UPDATE recipient SET due = NULL WHERE state = 0")
    with closing(sqlite3.connect(filled)) as db:
        db.execute("DROP TABLE suspension")
    assert examine(filled).problems == ()


def test_examples_are_ids(filled: Path) -> None:
    with closing(sqlite3.connect(filled)) as db:
        (name,) = db.execute(f"SELECT id FROM message WHERE n = {SMALL}").fetchone()
    change(filled, f"DELETE FROM chunk WHERE n = {SMALL}")
    (problem,) = examine(filled).problems
    assert problem.examples == (name,)
    assert str(problem) == f"1 messages whose bytes are not all there (such as {name})"


def scribble(path: Path, table: str) -> None:
    """Overwrites the root page of a table."""
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA journal_mode = DELETE")
        (page,) = db.execute("SELECT rootpage FROM sqlite_schema WHERE name = ?", (table,)).fetchone()
        (size,) = db.execute("PRAGMA page_size").fetchone()
    with path.open("r+b") as file:
        file.seek((page - 1) * size)
        file.write(b"\xff" * size)


def test_a_damaged_file_is_reported_not_raised(filled: Path) -> None:
    scribble(filled, "recipient")
    report = examine(filled)
    assert not report.is_sound
    assert any("SQLite" in str(each) for each in report.problems)


async def test_a_relay_does_not_start_on_a_damaged_file(filled: Path) -> None:
    scribble(filled, "chunk")  # nothing that opening the store reads
    with pytest.raises(StoreUnusable, match=r"cannot open the queue .*relay store check"):
        await World(filled).open()


async def test_a_start_tells_of_messages_that_are_not_whole(filled: Path) -> None:
    change(filled, f"DELETE FROM chunk WHERE n = {SMALL}")
    async with world(filled) as queue:
        (event,) = queue.of(StoreDamaged)
    assert "1 messages whose bytes are not all there" in event.problems[0]


async def test_a_start_on_a_sound_store_tells_nothing(filled: Path) -> None:
    async with world(filled) as queue:
        assert not queue.of(StoreDamaged)


def test_a_glance_does_not_read_a_long_queue(filled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relay.queue.check._SMALL", 1000)
    monkeypatch.setattr("relay.queue.check._LATEST", 1)
    into_chunks(filled)
    change(filled, f"DELETE FROM chunk WHERE n = {LIVE}")  # the older one of two
    asked: list[str] = []
    with reading(filled) as db:
        db.set_trace_callback(asked.append)
        assert glance(db, BodyFolder(filled)) == ()
    assert not any("_check" in each for each in asked)


# --- copies ---


@pytest.fixture
def copy(tmp_path: Path) -> Iterator[Path]:
    target = tmp_path / "copy.db"
    yield target
    assert not target.with_name("copy.db.part").exists()


def size_and_mode(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mode & 0o777


async def test_a_copy_of_a_queue_in_use_holds_all_of_it(tmp_path: Path, copy: Path) -> None:
    async with world(tmp_path / "queue.db") as queue:
        queue.hops.says = {"": [LATER]}
        messages = [await queue.put(body=b"x" * 300_000) for _ in range(3)]
        await queue.settle()
        size = back_up(queue.path, copy)
        await queue.put()
    assert size_and_mode(copy) == (size, 0o600)
    assert examine(copy).live == 3
    async with world(copy) as restored:
        restored.hops.says = {"": [OK]}
        await restored.pass_(timedelta(hours=2))
        assert sorted(restored.hops.bodies) == [each.id for each in messages]


def test_a_copy_never_overwrites(filled: Path, copy: Path) -> None:
    copy.write_text("precious")
    with pytest.raises(StoreUnusable, match=r"copy\.db is there already"):
        back_up(filled, copy)
    assert copy.read_text() == "precious"


def test_a_copy_that_fails_leaves_nothing(filled: Path, copy: Path) -> None:
    filled.write_bytes(b"not a database, but long enough to be looked at " * 100)
    with pytest.raises(StoreUnusable, match="not a database"):
        back_up(filled, copy)
    assert not copy.exists()


def test_there_must_be_a_queue(tmp_path: Path, copy: Path) -> None:
    for act in (examine, lambda path: back_up(path, copy), lambda path: hold_all(path, START)):
        with pytest.raises(StoreUnusable, match="there is no queue at"):
            act(tmp_path / "queue.db")
    assert list(tmp_path.iterdir()) == []


async def test_what_was_held_in_the_file_waits_for_a_word(filled: Path) -> None:
    assert hold_all(filled, START) == 2
    assert examine(filled).is_sound
    async with world(filled) as queue:
        await queue.pass_(timedelta(hours=3))
        assert not queue.hops.delivered
        assert (await queue.operations.statistics())["held"] == 2


async def test_a_queue_in_use_is_not_held_behind_its_back(queue: World) -> None:
    with pytest.raises(StoreLocked):
        hold_all(queue.path, START)


def test_a_file_that_is_no_queue_is_not_held(tmp_path: Path) -> None:
    path = tmp_path / "queue.db"
    path.write_bytes(b"not a database, but long enough to be looked at " * 100)
    with pytest.raises(StoreUnusable, match="not a database"):
        hold_all(path, START)
