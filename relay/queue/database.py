"""The connection that writes: how it is opened, made to work again, and kept from growing without end.

What waits for the disk here (`checkpoint`, `recover`) runs in the thread aside; the transactions are relay.queue.writer's, in the loop.
Both take their turn first, where several processes share the queue.
"""

import contextlib
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from relay.queue.disk import Disk, beside, sync_folder
from relay.queue.schema import prepare
from relay.queue.store import StoreError
from relay.queue.turn import Turn

BUSY = 1.0  # seconds for which another process may hold the database
AGAIN = 0.001  # seconds until it is asked again whether it still does
_CACHE_KIB = 16 * 1024
_WAL_LIMIT = 64 * 2**20  # bytes it may keep on disk after a rush
_PROBE = 64 * 1024


def connect(path: Path) -> sqlite3.Connection:
    """The writing connection, schema up to date. Raises StoreUnusable, sqlite3.Error."""
    db = sqlite3.connect(path, timeout=BUSY, isolation_level=None, cached_statements=512, check_same_thread=False)
    try:
        prepare(db, str(path))
        for pragma in (
            "synchronous = NORMAL",  # the log is synced by the writer, outside of the transaction
            "wal_autocheckpoint = 0",  # it would wait for the disk in the loop
            f"journal_size_limit = {_WAL_LIMIT}",
            f"cache_size = -{_CACHE_KIB}",
            "secure_delete = OFF",  # else every deleted body is written once more; freed pages are used again at once
            "temp_store = MEMORY",
            "busy_timeout = 0",  # nothing may sleep in the loop: the writer asks again
        ):
            db.execute(f"PRAGMA {pragma}")
    except BaseException:
        db.close()
        raise
    return db


def error_code(error: sqlite3.Error) -> int:
    """SQLite's primary code; 0 for what Python itself raised."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


class Edition(StoreError):  # noqa: N818 - says what is
    """Another process of this relay has written the queue's file anew; this connection is to the old one."""


class Database:
    """`connection` is the present one. Never used by two threads at a time: its owner sees to that."""

    def __init__(self, connection: sqlite3.Connection, disk: Disk, turn: Turn) -> None:
        self.connection = connection
        self._disk = disk
        self._turn = turn
        self._edition = turn.edition

    def try_turn(self) -> bool:
        """True: no other process of this relay writes until `turn_over`. Raises Edition where this connection must not be used."""
        if not self._turn.take():
            return False
        if self._turn.edition != self._edition:
            self._turn.give()
            raise Edition(f"{self._disk.path} was written anew")
        return True

    def begin(self) -> str:
        """ "": it is our turn, and a transaction was begun. Else who is writing; ask again in a moment. Raises Edition, sqlite3.Error."""
        if not self.try_turn():
            return "another process of this relay is writing"
        try:
            self.connection.execute("BEGIN IMMEDIATE")
        except sqlite3.Error as error:
            self.turn_over()
            if error_code(error) != sqlite3.SQLITE_BUSY:
                raise
            return str(error)
        return ""

    def turn_over(self) -> None:
        """What was begun and not committed is undone."""
        if self.connection.in_transaction:
            with contextlib.suppress(sqlite3.Error):
                self.connection.execute("ROLLBACK")
        self._turn.give()

    def close(self) -> None:
        with contextlib.suppress(sqlite3.Error):
            self.connection.close()

    @contextmanager
    def _our_turn(self) -> Iterator[None]:
        """In the thread: waits for it. Raises StoreError where it does not come."""
        end = time.monotonic() + BUSY
        while not self._turn.take():
            if time.monotonic() > end:
                raise StoreError("another process of this relay is writing")
            time.sleep(AGAIN)
        try:
            yield
        finally:
            self._turn.give()

    def checkpoint(self) -> None:
        """Brings what is in the log into the database. The write behind it begins the log anew, which SQLite syncs: better not in the loop."""
        with self._our_turn():
            db = self.connection
            db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
            version = db.execute("PRAGMA user_version").fetchone()[0]
            db.execute(f"PRAGMA user_version = {version}")

    def recover(self, *, stale: bool) -> str:
        """Tries to make the store work again. "" when it does, else why it does not yet. `stale`: the connection may be at fault."""
        loss = ""
        try:
            with self._our_turn():
                loss = self._disk.loss()
                renewed = self._turn.edition != self._edition
                if loss and not renewed:
                    if self._disk.is_replaced:
                        return f"{loss}; put it back, or restart to use the new one"
                    self._rescue()
                if loss or renewed or stale:
                    self._reopen()
                self.probe()
        except (sqlite3.Error, StoreError, OSError) as error:
            return f"{loss}: {error}" if loss else f"{error} ({self._disk.path})"
        return ""

    def probe(self) -> None:
        """Writes as much as a message in earnest; the turn is ours. Raises sqlite3.Error while that cannot be done."""
        self.connection.execute("INSERT OR REPLACE INTO chunk (n, seq, data) VALUES (-1, 0, zeroblob(?))", (_PROBE,))
        self.connection.execute("DELETE FROM chunk WHERE n = -1")

    def _rescue(self) -> None:
        """The name is gone, the content is not: the open connection still reads it. Writes it to a new file under the name."""
        path = self._disk.path
        copy = beside(path, ".rescue")
        copy.unlink(missing_ok=True)
        with contextlib.closing(sqlite3.connect(copy)) as target:
            copy.chmod(0o600)
            self.connection.backup(target)
        with copy.open("rb") as file:
            os.fsync(file.fileno())
        beside(path, "-wal").unlink(missing_ok=True)
        beside(path, "-shm").unlink(missing_ok=True)
        copy.rename(path)
        sync_folder(path)
        self._turn.new_edition()

    def _reopen(self) -> None:
        fresh = connect(self._disk.path)
        self.close()
        self.connection, self._edition = fresh, self._turn.edition
        self._disk.note()
