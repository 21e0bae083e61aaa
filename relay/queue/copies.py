"""A queue's file while no relay of this process serves from it: read for a check, copied for a back-up, held after a restore.

Reading and copying may go on beside a running relay: WAL lets them see one moment while it writes on. Holding may not, and takes the
relay's own lock.
"""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import datetime
from pathlib import Path

from relay.queue.check import Report, check
from relay.queue.database import connect
from relay.queue.disk import Lock, beside, create, existing
from relay.queue.schema import CODES
from relay.queue.store import State, StoreUnusable

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
        return check(db)


def back_up(path: Path, target: Path) -> int:
    """A sound copy as of now; its size in bytes. It has its name only once it is whole and on disk. Raises StoreUnusable, OSError."""
    if target.exists():
        raise StoreUnusable(f"{target} is there already: name a file that is not")
    part = beside(target, ".part")
    part.unlink(missing_ok=True)
    create(part)
    try:
        # One step: a copy in many would begin anew whenever the relay commits between two of them.
        with reading(path) as source, closing(sqlite3.connect(part)) as copy:
            source.backup(copy)
        _sync(part)
        part.rename(target)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    _sync(target.parent)
    return target.stat().st_size


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
