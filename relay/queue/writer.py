"""The one place that writes: takes the operations that wait, writes them in one transaction, tells all of them once that is on disk.

The transaction runs in the event loop: it goes to the kernel's memory only, and takes less than a millisecond. (In a thread of its own
it had to win the interpreter back from the loop behind each statement, and took ten times as long, with the lock held that the relay's
other processes wait for: docs/decisions/sqlite.md.) The fsync comes behind the transaction, in a thread aside. SQLite runs with
`synchronous=NORMAL`, which keeps the database sound; that a commit outlives the power is this module's: nobody is told of one before the
log that holds it was synced. While a group is on its way to the disk the next operations gather, so groups grow with the load by
themselves; outcomes, which nobody waits for, are written with the next mail where some comes within milliseconds. A bad operation fails
alone: its group is done again one by one.

When SQLite cannot write (disk full, database locked, input/output error, file gone) mail is refused and outcomes are kept until it
can; every half second it is tried again, on a fresh connection where the old one may be at fault. A file that was removed under us is
written anew from the open connection, which still sees all of it.
"""

import asyncio
import sqlite3
import sys
import time
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

from relay.mail.events import Emit, StoreRecovered, StoreTrouble
from relay.queue.aside import Aside
from relay.queue.batch import Batch
from relay.queue.database import AGAIN, Database, Held, Outdated, error_code
from relay.queue.disk import Disk
from relay.queue.facts import Facts, StaleFacts
from relay.queue.store import StoreUnavailable
from relay.queue.work import Confirmed, Kind, Operation, Put

_GROUP = 256  # operations in one transaction
_GROUP_BYTES = 2**20  # a millisecond or two of the loop's time
_COMPANY = 0.02  # seconds that outcomes wait for company
_RETRY = 0.5  # seconds between two tries to recover
_WAL_PAGES = 1000  # 4 MiB of log, and then a checkpoint
_PAGES_EACH = 4  # that an operation changes beside its bytes: an estimate
_SWITCH = 0.0005  # seconds

# Errors that the operation is to blame for (a constraint, a misuse), not disk or database.
_BLAMELESS = (sqlite3.IntegrityError, sqlite3.ProgrammingError, sqlite3.DataError, sqlite3.NotSupportedError)

T = TypeVar("T")


class Writer:
    """`slot` is what new messages get. `loosened` is called when large messages have ended (their bytes are to be deleted), `reopened` when
    readers must reopen. `is_alone`: one message is all that arrives, so that the loop may wait until its sync has begun: what it does next is
    mostly that message's delivery, which ends behind the sync anyway.

    At any moment either the loop or the thread aside works on the connection, never both: `_away`.
    """

    def __init__(
        self,
        database: Database,
        disk: Disk,
        *,
        slot: int,
        emit: Emit,
        loosened: Callable[[], None],
        reopened: Callable[[], None],
        is_alone: Callable[[], bool],
    ) -> None:
        self.trouble = ""  # why no mail is taken
        self.writable = True
        self._database = database
        self._disk = disk
        self._slot = slot
        self._emit = emit
        self._loosened = loosened
        self._reopened = reopened
        self._is_alone = is_alone
        self._facts = Facts()
        self._loop = asyncio.get_running_loop()
        self._aside = Aside("queue-disk")
        self._waiting: deque[Operation[Any]] = deque()
        self._urgent = 0  # of those that wait: not outcomes
        self._kept: list[Operation[Any]] = []
        self._away = False
        self._called = False  # the next round comes at once
        self._timer: asyncio.TimerHandle | None = None
        self._broken = ""  # why nothing can be written
        self._stale = True  # the connection may be at fault
        self._full = ""  # why mail, but not outcomes, cannot be written
        self._shortage = ""
        self._elsewhere = ""  # why the bytes of large mail cannot be written
        self._next_try = self._next_look = 0.0
        self._blocked = 0.0  # since when another process keeps us from writing; 0: none does
        self._pages = 0  # changed since the last checkpoint, about
        self._told = ""
        self._results: list[tuple[Operation[Any], object, BaseException | None]] = []
        self._unsynced = False
        self._closing = False
        self._closed = asyncio.Event()
        # A waiting thread gets the interpreter from a busy one only after this long without a pause of the other, and an event loop under load
        # pauses more often than every 5 ms (the default) without leaving time to take over: the end of an fsync was then noticed 30 s late.
        sys.setswitchinterval(min(sys.getswitchinterval(), _SWITCH))

    def submit(self, operation: Operation[Any]) -> None:
        """Its `settle` will be called."""
        refusal = "the queue is closed" if self._closing else self.trouble
        if self._closing or (refusal and operation.kind is Kind.INTAKE):
            self._loop.call_soon(operation.settle, None, StoreUnavailable(refusal))
        else:
            self._waiting.append(operation)
            self._urgent += operation.kind is not Kind.OUTCOME
            self._call()

    def look(self) -> None:
        """Called now and then: an idle relay, too, is told that its file is gone or its disk full."""
        if not self._waiting:
            self._soon()

    def blame(self, reason: str) -> None:
        """Files beside the database cannot be written, "" once they can be again. No mail is taken meanwhile."""
        self._elsewhere = reason
        self._tell(self._broken or self._full or self._shortage or reason)
        self._soon()

    async def close(self) -> None:
        """Writes what was submitted, closes the database. Outcomes that cannot be written fail with StoreUnavailable."""
        if not self._closing:
            self._closing = True
            self._soon()
        await self._closed.wait()
        await self._aside.close()

    # --- when ---

    def _call(self) -> None:
        """Nobody waits for an outcome: it goes with the next mail, or with other outcomes."""
        if self._urgent or self._closing or len(self._waiting) >= _GROUP:
            self._soon()
        elif not self._away and not self._called:
            self._later(_COMPANY)

    def _soon(self) -> None:
        if not self._away and not self._called:
            self._called = True
            self._loop.call_soon(self._round)

    def _later(self, seconds: float) -> None:
        if self._timer is None:
            self._timer = self._loop.call_later(seconds, self._soon)

    def _round(self) -> None:
        """One group, as far as disk and database allow; then again when there is more to do."""
        self._called = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._away or self._closed.is_set():
            return
        if self._broken and self._may_try():
            stale = self._stale
            self._go_aside(lambda: self._database.recover(stale=stale), self._recovered)
        else:
            self._serve(self._gather())
            self._go_on()

    def _go_aside(
        self, work: Callable[[], T], then: Callable[[T | None, Exception | None], None], *, at_once: bool = False
    ) -> None:
        self._away = True
        (self._aside.begin if at_once else self._aside.do)(work, then)

    def _go_on(self) -> None:
        """Behind a group: to the disk with it, then its callers hear, then whatever is next."""
        if self._unsynced:
            self._unsynced = False
            # Not at once: the thread needs the interpreter for a moment to begin. Asked for before it begins: `_synced` must not come first.
            written = [each for each, _result, error in self._results if error is None]
            self._loop.call_soon(self._tell_written, written)
            alone = self._is_alone() and any(each.kind is Kind.INTAKE for each in written)
            self._go_aside(self._database.sync, self._synced, at_once=alone)
            return
        self._settle()
        if not self._waiting:
            self._blocked = 0.0  # whoever waited was refused meanwhile
        if self._pages >= _WAL_PAGES and not self._broken:
            self._pages = 0
            self._go_aside(self._database.checkpoint, self._checkpointed)
        elif self._blocked:
            self._later(AGAIN)
        elif self._waiting:
            self._call()
        elif self._closing:
            self._end()
        elif self._told or self._kept:
            self._later(_RETRY)

    def _end(self) -> None:
        for operation in self._kept:
            self._answer(operation, None, StoreUnavailable(self._broken or "the queue is closed"))
        self._kept.clear()
        self._settle()
        self._database.close()
        self._closed.set()

    # --- groups ---

    def _gather(self) -> list[Operation[Any]]:
        """What was kept, and of the operations that wait at most a group."""
        group, self._kept = self._kept, []
        weight, waiting = 0, self._waiting
        while waiting and len(group) < _GROUP and weight < _GROUP_BYTES:
            operation = waiting.popleft()
            group.append(operation)
            weight += operation.weight
            self._urgent -= operation.kind is not Kind.OUTCOME
        return group

    def _serve(self, group: list[Operation[Any]]) -> None:
        """Commits the group, as far as disk and database allow. Every operation is answered, kept, or waits again."""
        if not self._broken and self._may_look():
            self._broken, self._shortage = self._disk.loss(), self._disk.shortage()
        if self._broken:
            self._tell(self._broken)
            self._refuse(group, self._broken)
            return
        shortage = self._still_full() or self._shortage or self._elsewhere
        self._tell(shortage)
        if shortage:
            group = self._without_intake(group, shortage)
        if group:
            self._write(group)

    def _without_intake(self, group: list[Operation[Any]], reason: str) -> list[Operation[Any]]:
        self._refuse([each for each in group if each.kind is Kind.INTAKE], reason)
        return [each for each in group if each.kind is not Kind.INTAKE]

    def _write(self, group: list[Operation[Any]], *, afresh: bool = False) -> None:
        """`afresh`: behind a try that found remembered facts missing."""
        try:
            held = self._database.begin()
            if held:
                self._wait(group, held)
                return
            self._blocked = 0.0
            try:
                self._commit(group)
            finally:
                self._database.turn_over()
        except Outdated as error:
            self._fall(group, f"{error} ({self._disk.path})", stale=True)
        except sqlite3.DatabaseError as error:
            if isinstance(error, _BLAMELESS):
                self._one_by_one(group, error)
            else:
                self._break(group, error)
        except StaleFacts as error:
            if afresh:
                self._one_by_one(group, error)
            else:
                self._write(group, afresh=True)
        except Exception as error:  # noqa: BLE001 - what an operation raised is its caller's; its group must not suffer
            self._one_by_one(group, error)

    def _wait(self, group: list[Operation[Any]], held: Held) -> None:
        """Somebody else holds the database. For a moment that is nothing to speak of."""
        now = time.monotonic()
        self._blocked = self._blocked or now
        if now - self._blocked < held.patience:
            self._waiting.extendleft(reversed(group))
            self._urgent += sum(each.kind is not Kind.OUTCOME for each in group)
            return
        self._fall(group, f"{held.why} ({self._disk.path})", stale=False)

    def _fall(self, group: list[Operation[Any]], reason: str, *, stale: bool) -> None:
        """Nothing can be written from here on."""
        self._broken, self._stale, self._blocked = reason, stale, 0.0
        self._tell(reason)
        self._refuse(group, reason)

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
        if error_code(error) == sqlite3.SQLITE_FULL and len(outcomes) < len(group):
            self._full = reason
            self._tell(reason)
            if outcomes:
                self._write(outcomes)
        else:
            self._fall(outcomes, reason, stale=True)

    def _refuse(self, group: list[Operation[Any]], reason: str) -> None:
        for operation in group:
            if operation.kind is Kind.OUTCOME:
                self._kept.append(operation)
            else:
                self._answer(operation, None, StoreUnavailable(reason))

    def _commit(self, group: list[Operation[Any]]) -> None:
        db = self._database.connection
        batch = Batch(db, self._facts, self._slot)
        try:
            results = [operation.run(batch, db) for operation in group]
            batch.flush()
            db.execute("COMMIT")
        except BaseException:
            self._facts.forget()
            raise
        self._unsynced = True
        self._pages += _PAGES_EACH * len(group) + sum(each.weight for each in group) // 4096
        for operation, result in zip(group, results, strict=True):
            self._answer(operation, result, None)
        if batch.loosened:
            self._loosened()

    # --- back from aside ---

    def _synced(self, _nothing: None, error: Exception | None) -> None:
        self._away = False
        if error is not None:
            self._doubt(f"{error} ({self._disk.path})")
        self._go_on()

    def _doubt(self, reason: str) -> None:
        """Committed, and perhaps not on disk. Outcomes are written once more; mail is refused, and taken out again as soon as that can be;
        whoever wants a chore hears of it then."""
        results, self._results = self._results, []
        again: list[Operation[Any]] = []
        for operation, result, error in results:
            if error is not None:
                self._answer(operation, result, error)
            elif operation.kind is Kind.CHORE:
                again.append(Confirmed(operation, result))
            else:
                again.append(operation)
                if isinstance(operation, Put):
                    self._kept.append(operation.undo())
        self._fall(again, reason, stale=True)

    def _checkpointed(self, _nothing: None, _error: Exception | None) -> None:
        """Where it failed the log grows; whatever is the matter, the next group meets it too."""
        self._away = False
        self._go_on()

    def _recovered(self, reason: str | None, error: Exception | None) -> None:
        self._away = False
        self._broken = f"{error} ({self._disk.path})" if reason is None else reason
        if not self._broken:
            self._facts.forget()
            self._reopened()
        self._serve(self._gather())
        self._go_on()

    # --- what may be done when ---

    def _still_full(self) -> str:
        if self._full and self._may_try():
            try:
                if not self._database.try_turn():
                    return self._full
                try:
                    self._database.probe()
                finally:
                    self._database.turn_over()
            except (sqlite3.Error, Outdated) as error:
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
        """True at most every `Disk.pause` seconds: four system calls, each of which gives the interpreter away."""
        now = time.monotonic()
        if now < self._next_look:
            return False
        self._next_look = now + self._disk.pause
        return True

    # --- who hears of it ---

    def _tell(self, trouble: str) -> None:
        """Trouble begins, changes or ends: the log must know (once per spell of it)."""
        if bool(trouble) != bool(self._told):
            self._emit(StoreTrouble(trouble) if trouble else StoreRecovered())
        self._told = self.trouble = trouble
        self.writable = not self._broken

    def _answer(self, operation: Operation[Any], result: object, error: BaseException | None) -> None:
        self._results.append((operation, result, error))

    def _tell_written(self, operations: list[Operation[Any]]) -> None:
        """While the disk is at work: what can be prepared meanwhile needs no time afterwards."""
        for operation in operations:
            try:
                operation.written()
            except Exception as fault:  # noqa: BLE001 - as in `_settle`
                self._complain(fault)

    def _complain(self, fault: Exception) -> None:
        self._loop.call_exception_handler({"message": "a queue operation's caller failed", "exception": fault})

    def _settle(self) -> None:
        results, self._results = self._results, []
        for operation, result, error in results:
            try:
                operation.settle(result, error)
            except Exception as fault:  # noqa: BLE001 - one caller's bug must not keep the others of its group waiting
                self._complain(fault)
