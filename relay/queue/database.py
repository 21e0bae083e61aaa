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
from dataclasses import dataclass
from pathlib import Path

from relay.queue.disk import Disk, beside, create, existing, sync_folder
from relay.queue.schema import prepare
from relay.queue.store import StoreError, StoreUnusable
from relay.queue.turn import Turn

BUSY = 1.0  # seconds for which another program may hold the database
TURN = 10.0  # and another process of this relay: it may be waiting for the disk, and the kernel ends the turn of one that dies
AGAIN = 0.001  # seconds until it is asked again whether it still does
_PATIENCE = 10.0  # seconds that a file which is gone has to come back
_LOOK = 0.05
_CACHE_KIB = 16 * 1024
_WAL_LIMIT = 64 * 2**20  # bytes it may keep on disk after a rush
_PROBE = 64 * 1024
_THEIRS = "another process of this relay is writing"


def connect(path: Path) -> sqlite3.Connection:
    """The writing connection to a file that is there, schema up to date. Raises StoreUnusable, sqlite3.Error."""
    db = sqlite3.connect(
        existing(path), uri=True, timeout=BUSY, isolation_level=None, cached_statements=512, check_same_thread=False
    )
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


class Outdated(StoreError):  # noqa: N818 - says what is
    """The queue's file was written anew, or its log is in doubt: this connection must not write before `recover`."""


@dataclass(frozen=True, slots=True)
class Held:
    """Somebody else writes: ask again in a moment, for `patience` seconds."""

    why: str
    patience: float


class Database:
    """`connection` is the present one. Never used by two threads at a time: its owner sees to that."""

    def __init__(self, disk: Disk, turn: Turn) -> None:
        """Waits: not in the event loop. Raises StoreError, sqlite3.Error, OSError."""
        self._disk = disk
        self._turn = turn
        self._sure = False  # of what is in the log
        end = time.monotonic() + _PATIENCE
        while not self._is_open():
            if time.monotonic() > end:
                raise StoreUnusable(f"{disk.path} is gone, and no process of this relay has written it anew")
            time.sleep(_LOOK)

    def _is_open(self) -> bool:
        """Opens it where it is there. Only the first process of a relay makes it: later there may be one left that has the content of a file
        that was removed, and an empty file under the name would keep it from writing that anew."""
        with self._our_turn():
            if self._turn.edition == 0:
                create(self._disk.path)
                self._turn.new_edition()
            elif not self._disk.path.exists():
                return False
            self.connection, self._edition = connect(self._disk.path), self._turn.edition
            with contextlib.suppress(sqlite3.Error, OSError):  # then `recover` does it, before anything is written
                self._secure()
            return True

    def try_turn(self) -> bool:
        """True: no other process of this relay writes until `turn_over`. Raises Outdated where this connection must not be used."""
        if not self._turn.take():
            return False
        why = self._outdated()
        if why:
            self._turn.give()
            raise Outdated(why)
        return True

    def _outdated(self) -> str:
        if self._turn.edition != self._edition:
            return "another process of this relay has written it anew"
        return self._in_doubt()

    def _in_doubt(self) -> str:
        return "" if self._sure and not self._turn.doubt else "what was written last may not be on the disk"

    def sync(self) -> None:
        """Returns when all that was committed is on the disk, with all in front of it in the log. Raises OSError, Outdated."""
        try:
            self._disk.sync()
        except OSError:
            self._turn.raise_doubt()
            raise
        why = self._in_doubt()
        if why:
            raise Outdated(why)

    def begin(self) -> Held | None:
        """None: it is our turn, and a transaction was begun. Raises Outdated, sqlite3.Error."""
        if not self.try_turn():
            return Held(_THEIRS, TURN)
        try:
            self.connection.execute("BEGIN IMMEDIATE")
        except sqlite3.Error as error:
            self.turn_over()
            if error_code(error) != sqlite3.SQLITE_BUSY:
                raise
            return Held(str(error), BUSY)
        return None

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
        end = time.monotonic() + TURN
        while not self._turn.take():
            if time.monotonic() > end:
                raise StoreError(_THEIRS)
            time.sleep(AGAIN)
        try:
            yield
        finally:
            self._turn.give()

    def checkpoint(self) -> None:
        """Brings what is in the log into the database, and begins the log anew. Raises StoreError, sqlite3.Error.

        Nobody waits for most of it: SQLite lets others write meanwhile. Only what they added is left for our turn, in which the log must
        come to its end. The write behind that begins it anew, which SQLite syncs: better not in the loop.
        """
        try:
            self._bring_in()
            with self._our_turn():
                self._bring_in()
                version = self.connection.execute("PRAGMA user_version").fetchone()[0]
                self.connection.execute(f"PRAGMA user_version = {version}")
        except sqlite3.Error as error:
            if error_code(error) == sqlite3.SQLITE_IOERR:
                self._turn.raise_doubt()  # the log is synced there too, and the kernel tells of a fault once
            raise

    def _bring_in(self) -> None:
        """Not of a log in doubt: after a power cut SQLite would put older pages from it over what was brought in."""
        why = self._in_doubt()
        if why:
            raise Outdated(why)
        self.connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()

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
                if loss or renewed or stale or self._in_doubt():
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
        self._secure()

    def _secure(self) -> None:
        """Makes sure of the files that were just opened. A sync of the log that failed before would not be told to us: so it is written again.

        (A checkpoint instead would bring pages into the database whose log is not on the disk yet, and after a power cut in the middle
        SQLite would put older ones over them. It would wait for readers, too.)
        """
        self._sure = False
        self._disk.note()
        db = self.connection
        db.execute(f"PRAGMA busy_timeout = {int(BUSY * 1000)}")
        try:
            db.execute("BEGIN IMMEDIATE")  # nor may another program write meanwhile
            try:
                self._disk.write_again()
            except OSError:
                self._turn.raise_doubt()
                raise
            finally:
                db.execute("ROLLBACK")
        finally:
            db.execute("PRAGMA busy_timeout = 0")
        self._turn.end_doubt()
        self._sure = True
