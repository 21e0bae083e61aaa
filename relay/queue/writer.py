"""The one thread that writes: takes the operations that wait, writes them in one transaction, tells all of them.

A lone operation is committed at once. While a commit waits for the disk the next operations gather, so groups grow with the load by
themselves, and one fsync serves them all. A bad operation fails alone: its group is done again one by one.

When SQLite cannot write (disk full, database locked, input/output error, file gone) mail is refused and outcomes are kept until it
can; every half second it is tried again, on a fresh connection where the old one may be at fault. A file that was removed under us is
written anew from the open connection, which still sees all of it.
"""

import asyncio
import contextlib
import os
import sqlite3
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from relay.mail.events import Emit, StoreRecovered, StoreTrouble
from relay.queue.batch import Batch
from relay.queue.disk import Disk, beside
from relay.queue.facts import Facts
from relay.queue.schema import prepare
from relay.queue.store import StoreError, StoreUnavailable
from relay.queue.work import Kind, Operation

_GROUP = 256  # operations in one transaction
_GROUP_BYTES = 4 * 2**20
_RETRY = 0.5  # seconds between two tries to recover
_BUSY = 1.0  # seconds that SQLite waits for somebody else's lock
_CACHE_KIB = 16 * 1024
_WAL_LIMIT = 64 * 2**20  # bytes it may keep on disk after a rush
_PROBE = 64 * 1024
_SWITCH = 0.0005  # seconds

# Errors that the operation is to blame for (a constraint, a misuse), not disk or database.
_BLAMELESS = (sqlite3.IntegrityError, sqlite3.ProgrammingError, sqlite3.DataError, sqlite3.NotSupportedError)


def connect(path: Path) -> sqlite3.Connection:
    """The writing connection, schema up to date. Raises StoreUnusable, sqlite3.Error."""
    db = sqlite3.connect(path, timeout=_BUSY, isolation_level=None, cached_statements=512, check_same_thread=False)
    try:
        prepare(db, str(path))
        for pragma in (
            "synchronous = FULL",  # design section 7: a 250 is a promise that outlives the power
            "wal_autocheckpoint = 1000",  # 4 MiB: a checkpoint then takes 3 ms, seen as the p99 of commits
            f"journal_size_limit = {_WAL_LIMIT}",
            f"cache_size = -{_CACHE_KIB}",
            "secure_delete = OFF",  # else every deleted body is written once more; freed pages are used again at once
            "temp_store = MEMORY",
        ):
            db.execute(f"PRAGMA {pragma}")
    except BaseException:
        db.close()
        raise
    return db


class Writer:
    """`loosened` is called in the loop when large messages have ended (their chunks are to be deleted), `reopened` when readers must reopen."""

    def __init__(
        self,
        db: sqlite3.Connection,
        disk: Disk,
        *,
        emit: Emit,
        loosened: Callable[[], None],
        reopened: Callable[[], None],
    ) -> None:
        self.trouble = ""  # as the loop sees it: why no mail is taken
        self.writable = True
        self._db = db
        self._disk = disk
        self._emit = emit
        self._loosened = loosened
        self._reopened = reopened
        self._facts = Facts()
        self._loop = asyncio.get_running_loop()
        self._queue: SimpleQueue[Operation[Any] | None] = SimpleQueue()
        self._kept: list[Operation[Any]] = []
        self._broken = ""  # in the thread: why nothing can be written
        self._stale = True  # the connection may be at fault
        self._full = ""  # why mail, but not outcomes, cannot be written
        self._shortage = ""
        self._next_try = self._next_look = 0.0
        self._told = ""
        self._results: list[tuple[Operation[Any], object, BaseException | None]] = []
        self._closing = False
        # A waiting thread gets the interpreter from a busy one only after this long without a pause of the other, and an event loop under load
        # pauses more often than every 5 ms (the default) without leaving time to take over: commits then took 30 s.
        sys.setswitchinterval(min(sys.getswitchinterval(), _SWITCH))
        self._thread = threading.Thread(target=self._run, name="queue-writer", daemon=True)
        self._thread.start()

    def submit(self, operation: Operation[Any]) -> None:
        """Its `settle` will be called."""
        refusal = "the queue is closed" if self._closing else self.trouble
        if self._closing or (refusal and operation.kind is Kind.INTAKE):
            self._loop.call_soon(operation.settle, None, StoreUnavailable(refusal))
        else:
            self._queue.put(operation)

    async def close(self) -> None:
        """Writes what was submitted, closes the database. Outcomes that cannot be written fail with StoreUnavailable."""
        if not self._closing:
            self._closing = True
            self._queue.put(None)
        await asyncio.to_thread(self._thread.join)
        await asyncio.sleep(0)  # the last results come by call_soon

    # --- below here: the writer's thread ---

    def _run(self) -> None:
        stop = False
        while not stop:
            group, stop = self._gather()
            self._serve(group)
            if stop:
                for operation in self._kept:
                    self._answer(operation, None, StoreUnavailable(self._broken or "the queue is closed"))
                self._kept.clear()
            self._deliver()
        with contextlib.suppress(sqlite3.Error):
            self._db.close()

    def _gather(self) -> tuple[list[Operation[Any]], bool]:
        """The operations that wait, at most a group; blocks for the first one, while all is well without end."""
        group: list[Operation[Any]] = []
        weight = 0
        try:
            operation = self._queue.get(timeout=_RETRY if self._told or self._kept else None)
            while operation is not None:
                group.append(operation)
                weight += operation.weight
                if len(group) >= _GROUP or weight >= _GROUP_BYTES:
                    return group, False
                operation = self._queue.get_nowait()
        except Empty:
            return group, False
        return group, True

    def _serve(self, group: list[Operation[Any]]) -> None:
        """Commits the group and what was kept, as far as disk and database allow. Every operation is answered or kept."""
        group = self._kept + group
        self._kept = []
        if self._broken and self._may_try():
            self._broken = self._recover()
        elif not self._broken and self._may_look():
            self._broken, self._shortage = self._disk.loss(), self._disk.shortage()
        if self._broken:
            self._tell(self._broken)
            self._refuse(group, self._broken)
            return
        shortage = self._still_full() or self._shortage
        self._tell(shortage)
        if shortage:
            group = self._without_intake(group, shortage)
        if group:
            self._write(group)

    def _without_intake(self, group: list[Operation[Any]], reason: str) -> list[Operation[Any]]:
        self._refuse([each for each in group if each.kind is Kind.INTAKE], reason)
        return [each for each in group if each.kind is not Kind.INTAKE]

    def _write(self, group: list[Operation[Any]]) -> None:
        try:
            self._commit(group)
        except sqlite3.DatabaseError as error:
            if isinstance(error, _BLAMELESS):
                self._one_by_one(group, error)
            else:
                self._break(group, error)
        except Exception as error:  # noqa: BLE001 - what an operation raised is its caller's; its group must not suffer
            self._one_by_one(group, error)

    def _one_by_one(self, group: list[Operation[Any]], error: Exception) -> None:
        if len(group) == 1:
            self._answer(group[0], None, error)
            return
        while group and not self._broken:
            self._write([group.pop(0)])
        self._refuse(group, self._broken)

    def _break(self, group: list[Operation[Any]], error: sqlite3.DatabaseError) -> None:
        """SQLite cannot write. On a full disk outcomes are tried by themselves: they need little room, and give some back."""
        reason = f"{error} ({self._disk.path})"
        outcomes = self._without_intake(group, reason)
        if error.sqlite_errorcode == sqlite3.SQLITE_FULL and len(outcomes) < len(group):
            self._full = reason
            self._tell(reason)
            if outcomes:
                self._write(outcomes)
            return
        self._broken = reason
        self._stale = error.sqlite_errorcode != sqlite3.SQLITE_BUSY
        self._tell(reason)
        self._refuse(outcomes, reason)

    def _refuse(self, group: list[Operation[Any]], reason: str) -> None:
        for operation in group:
            if operation.kind is Kind.OUTCOME:
                self._kept.append(operation)
            else:
                self._answer(operation, None, StoreUnavailable(reason))

    def _commit(self, group: list[Operation[Any]]) -> None:
        db = self._db
        batch = Batch(db, self._facts)
        try:
            db.execute("BEGIN IMMEDIATE")
            results = [operation.run(batch, db) for operation in group]
            batch.flush()
            db.execute("COMMIT")
        except BaseException:
            self._facts.forget()
            if db.in_transaction:
                with contextlib.suppress(sqlite3.Error):
                    db.execute("ROLLBACK")
            raise
        for operation, result in zip(group, results, strict=True):
            self._answer(operation, result, None)
        if batch.loosened:
            self._loop_call(self._loosened)

    def _recover(self) -> str:
        """Tries to make the store work again. "" when it does, else why it does not yet."""
        loss = self._disk.loss()
        try:
            if loss and self._disk.is_replaced:
                return f"{loss}; put it back, or restart to use the new one"
            if loss:
                self._rescue()
            if loss or self._stale:
                self._reopen()
            self._probe()
        except (sqlite3.Error, StoreError, OSError) as error:
            return f"{loss}: {error}" if loss else f"{error} ({self._disk.path})"
        return ""

    def _still_full(self) -> str:
        if self._full and self._may_try():
            try:
                self._probe()
            except sqlite3.Error as error:
                return f"{error} ({self._disk.path})"
            self._full = ""
        return self._full

    def _may_try(self) -> bool:
        """True at most every half second: a try may cost as much as a message, and operations come faster than that."""
        now = time.monotonic()
        if now < self._next_try:
            return False
        self._next_try = now + _RETRY
        return True

    def _may_look(self) -> bool:
        """True at most every `Disk.pause` seconds: three system calls, each of which gives the interpreter away."""
        now = time.monotonic()
        if now < self._next_look:
            return False
        self._next_look = now + self._disk.pause
        return True

    def _rescue(self) -> None:
        """The name is gone, the content is not: the open connection still reads it. Writes it to a new file under the name."""
        path = self._disk.path
        copy = beside(path, ".rescue")
        copy.unlink(missing_ok=True)
        with contextlib.closing(sqlite3.connect(copy)) as target:
            copy.chmod(0o600)
            self._db.backup(target)
        with copy.open("rb") as file:
            os.fsync(file.fileno())
        beside(path, "-wal").unlink(missing_ok=True)
        beside(path, "-shm").unlink(missing_ok=True)
        copy.rename(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _reopen(self) -> None:
        fresh = connect(self._disk.path)
        with contextlib.suppress(sqlite3.Error):
            self._db.close()
        self._db = fresh
        self._facts.forget()
        self._disk.note()
        self._loop_call(self._reopened)

    def _probe(self) -> None:
        """Writes as much as a message in earnest. Raises sqlite3.Error while that cannot be done."""
        self._db.execute("INSERT OR REPLACE INTO chunk (n, seq, data) VALUES (-1, 0, zeroblob(?))", (_PROBE,))
        self._db.execute("DELETE FROM chunk WHERE n = -1")

    def _tell(self, trouble: str) -> None:
        """Trouble begins, changes or ends: the loop must know, and so must the log (once per spell of it)."""
        if bool(trouble) != bool(self._told):
            event = StoreTrouble(trouble) if trouble else StoreRecovered()
            self._loop_call(lambda: self._emit(event))
        self._told = trouble
        writable = not self._broken
        if (trouble, writable) != (self.trouble, self.writable):
            self.trouble, self.writable = trouble, writable

    def _answer(self, operation: Operation[Any], result: object, error: BaseException | None) -> None:
        self._results.append((operation, result, error))

    def _deliver(self) -> None:
        if self._results:
            results, self._results = self._results, []
            self._loop_call(lambda: self._settle(results))

    def _loop_call(self, callback: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(callback)

    def _settle(self, results: list[tuple[Operation[Any], object, BaseException | None]]) -> None:
        """In the loop."""
        for operation, result, error in results:
            try:
                operation.settle(result, error)
            except Exception as fault:  # noqa: BLE001 - one caller's bug must not keep the others of its group waiting
                self._loop.call_exception_handler({"message": "a queue operation's caller failed", "exception": fault})
