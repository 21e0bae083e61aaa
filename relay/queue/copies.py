"""A queue's file while no relay of this process serves from it: read for a check, copied for a back-up, held after a restore.

Reading and copying may go on beside a running relay: WAL lets them see one moment while it writes on, and files of bodies stay while a
copy is made. Holding may not, and takes the relay's own lock.

A copy is one file: the bodies that have files of their own are in its `chunk` table, where readers look when no row says otherwise.
"""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import datetime
from pathlib import Path

from relay.queue.bodies import BodyFolder
from relay.queue.check import Report, check
from relay.queue.database import connect
from relay.queue.disk import Lock, beside, create, existing
from relay.queue.schema import CODES
from relay.queue.store import BodyMissing, State, StoreUnusable

_BUSY = 10.0  # seconds to wait for somebody's exclusive lock


@contextmanager
def reading(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection that sees one moment and writes nothing. Raises StoreUnusable where there is no queue."""
    if not path.is_file():
        raise StoreUnusable(f"there is no queue at {path}")
    try:
        # Not mode=ro: a reader that may not write leaves -wal and -shm behind where it is the last one.
        with closing(sqlite3.connect(existing(path), uri=True, timeout=_BUSY)) as db:
            db.isolation_level = None
            db.execute("PRAGMA query_only = ON")
            db.execute("BEGIN")
            yield db
    except sqlite3.Error as error:
        raise StoreUnusable(f"cannot read the queue {path}: {error}") from error


def examine(path: Path) -> Report:
    """The whole check (relay.queue.check). Raises StoreUnusable."""
    with reading(path) as db:
        return check(db, BodyFolder(path))


def back_up(path: Path, target: Path) -> int:
    """A sound copy as of now; its size in bytes. It has its name only once it is whole and on disk. Raises StoreUnusable, OSError."""
    if target.exists():
        raise StoreUnusable(f"{target} is there already: name a file that is not")
    part = beside(target, ".part")
    part.unlink(missing_ok=True)
    create(part)
    try:
        folder = BodyFolder(path)
        with folder.copying():
            # One step: a copy in many would begin anew whenever the relay commits between two of them.
            with reading(path) as source, closing(sqlite3.connect(part)) as copy:
                source.backup(copy)
            with closing(sqlite3.connect(part, isolation_level=None)) as copy:
                _bring_in(copy, folder)
        _sync(part)
        part.rename(target)
    except sqlite3.Error as error:
        raise StoreUnusable(f"cannot write the copy {part}: {error}") from error
    finally:
        for suffix in ("", "-wal", "-shm"):
            beside(part, suffix).unlink(missing_ok=True)
    _sync(target.parent)
    return target.stat().st_size


def _bring_in(copy: sqlite3.Connection, folder: BodyFolder) -> None:
    """The bodies that its live messages have in files. One that is not whole stays out: so it is in the queue itself, and a check says so.
    Raises StoreUnusable where there are none at all, as beside a link to the database."""
    if not copy.execute("SELECT 1 FROM sqlite_schema WHERE name = 'body_file'").fetchone():
        return  # of an older version
    live = "SELECT n, message.size FROM body_file CROSS JOIN message USING (n) WHERE finished IS NULL ORDER BY n"
    needed = copy.execute(live).fetchall()
    if needed and not folder.path.is_dir():
        raise StoreUnusable(
            f"{folder.path} is not there, which has the bytes of {len(needed)} messages: put it back first"
        )
    for row, size in needed:
        copy.execute("BEGIN")
        try:
            for sequence, data in enumerate(folder.pieces(row, size)):
                copy.execute("INSERT INTO chunk (n, seq, data) VALUES (?, ?, ?)", (row, sequence, data))
        except BodyMissing:
            copy.execute("ROLLBACK")
        else:
            copy.execute("COMMIT")
    copy.execute("DELETE FROM body_file")
    # What is in its log is not in the file yet, and `close` says nothing of a checkpoint that failed, as on a disk that is full.
    if copy.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]:
        raise sqlite3.OperationalError("somebody else reads it")


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def hold_all(path: Path, now: datetime) -> int:
    """Everything that waits is held; how many recipients. For a copy that was put back. Raises StoreLocked, StoreUnusable."""
    if not path.is_file():
        raise StoreUnusable(f"there is no queue at {path}")
    lock = Lock(beside(path, ".lock"))
    lock.take(now)
    try:
        with closing(connect(path)) as db:
            held, waiting = CODES[State.HELD], CODES[State.WAITING]
            return db.execute("UPDATE recipient SET state = ?, due = NULL WHERE state = ?", (held, waiting)).rowcount
    except sqlite3.Error as error:
        raise StoreUnusable(f"cannot write the queue {path}: {error}") from error
    finally:
        lock.release()
