"""A queue's database and its folder of bodies as a process opens them: what is in them, what is wrong, what a crash has left behind."""

import sqlite3
from collections.abc import Collection
from dataclasses import dataclass

from relay.queue.bodies import BodyFolder
from relay.queue.check import Problem, glance
from relay.queue.database import Database
from relay.queue.disk import Disk
from relay.queue.ids import SLOTS, begun, milliseconds, slot_of
from relay.queue.share import Share
from relay.queue.store import StoreUnusable

_REMEDY = "`relay store check` says more, docs/operations.md what to do about it"

# Few messages are large. In the other order, which SQLite prefers, every message that waits is looked at: a second for a million.
_IN_NEED = "SELECT count(*) FROM body_file CROSS JOIN message USING (n) WHERE finished IS NULL"


@dataclass(frozen=True, slots=True)
class Opened:
    """The database, the highest row keys in it (of messages, and of attempts; 0 for none), and the latest time in it (milliseconds since
    1970, 0 for none). `strays`: files of this process's slot that no row names."""

    database: Database
    newest: int
    attempt: int
    latest: int
    problems: tuple[Problem, ...]
    strays: tuple[int, ...]


def open_queue(disk: Disk, share: Share, folder: BodyFolder) -> Opened:
    """Waits for the disk. Raises StoreError."""
    database: Database | None = None
    try:
        database = Database(disk, share.turn)
        db = database.connection
        newest = db.execute(
            "SELECT max(n) FROM (SELECT max(n) AS n FROM message UNION ALL SELECT max(n) FROM loose)"
        ).fetchone()
        attempts = db.execute("SELECT k, at FROM attempt ORDER BY k DESC LIMIT 1").fetchone() or (0, 0)
        told = db.execute("SELECT coalesce(max(messages), 0), coalesce(max(attempts), 0) FROM tally_slot").fetchone()
        prepare(db, folder)
        problems = glance(db, folder)
        nobodys = range(share.count, SLOTS) if share.leads else ()
        strays = find_strays(db, folder, {share.slot, *nobodys})
    except BaseException as error:
        if database is not None:
            database.close()
        if isinstance(error, sqlite3.Error | OSError):
            raise StoreUnusable(f"cannot open the queue {disk.path}: {error}; {_REMEDY}") from error
        raise
    # Nothing may come with a number that was told to be complete (progress.py), nor with a stray's, which is yet to be removed: whatever
    # was purged and whatever the clock says.
    last = max(newest[0] or 0, told[0], *strays)
    began = milliseconds(begun(last)) if last else 0
    return Opened(database, last, max(attempts[0], told[1]), max(began, attempts[1]), problems, strays)


def prepare(db: sqlite3.Connection, folder: BodyFolder) -> None:
    """The folder is there, or is made where no mail that waits needs it. Raises StoreUnusable."""
    folder.prepare(db.execute(_IN_NEED).fetchone()[0])


def find_strays(db: sqlite3.Connection, folder: BodyFolder, slots: Collection[int]) -> tuple[int, ...]:
    """The files of messages of these slots that no row names, while nobody takes mail there: what arrived at a crash, or had just ended.
    Raises OSError."""
    # The folder first: what is added to it meanwhile is another slot's.
    there = [row for row in folder.rows() if slot_of(row) in slots]
    if not there:
        return ()
    named = {row[0] for row in db.execute("SELECT n FROM body_file")}
    return tuple(row for row in there if row not in named)
