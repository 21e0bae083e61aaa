"""The operations that the writer carries out: what each writes, and who hears of it."""

import asyncio
import sqlite3
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from functools import partial
from typing import Generic, TypeVar

from relay.mail.published import StsKept
from relay.queue import policies
from relay.queue.batch import Batch
from relay.queue.ids import number
from relay.queue.store import Arrival, Entry, Record, StoreUnavailable

T = TypeVar("T")


class Kind(Enum):
    """What becomes of an operation while the store is in trouble."""

    INTAKE = auto()  # refused: the client keeps its message
    OUTCOME = auto()  # kept until it can be written
    CHORE = auto()  # refused, done again later by whoever wants it; needs no room


class Operation(Generic[T]):
    """One caller's share of a transaction. `weight` in bytes."""

    kind = Kind.CHORE
    weight = 0

    @abstractmethod
    def run(self, batch: Batch, db: sqlite3.Connection) -> T:
        """In the writer's thread, perhaps more than once."""

    def written(self) -> None:
        """In the event loop: it is committed, and on its way to the disk. `settle` says whether it came there."""

    @abstractmethod
    def settle(self, result: T, error: BaseException | None) -> None:
        """In the event loop, once: it is durable, or `error` says why not (then `result` means nothing)."""


class Asked(Operation[T]):
    """An operation with a future. A caller that was cancelled has given its future up; what was written stays."""

    def __init__(self, future: asyncio.Future[T]) -> None:
        self.future = future

    def settle(self, result: T, error: BaseException | None) -> None:
        if self.future.done():
            return
        if error is None:
            self.future.set_result(result)
        else:
            self.future.set_exception(error)


@dataclass(frozen=True, slots=True)
class Ends:
    """How a message that is put ends for the store itself: `stored` when it is durable, `gone` when nothing of it is left."""

    stored: Callable[[], None]
    gone: Callable[[], None]


class Put(Asked[None]):
    """`arrival` hears what becomes of the message, whether its caller is still there or not."""

    kind = Kind.INTAKE

    def __init__(self, future: asyncio.Future[None], entry: Entry, arrival: Arrival, ends: Ends) -> None:
        super().__init__(future)
        self._entry = entry
        self._arrival = arrival
        self._ends = ends
        self._in_doubt = False
        self.weight = 0 if entry.in_file else entry.message.size

    def undo(self) -> "Withdraw":
        """It was committed, and may not have reached the disk: its caller hears that it was not taken. What makes that true."""
        self._in_doubt = True
        return Withdraw(self._entry.message.id, self._ends.gone)

    def run(self, batch: Batch, _db: sqlite3.Connection) -> None:
        batch.entry(self._entry)

    def written(self) -> None:
        self._arrival.written()

    def settle(self, result: None, error: BaseException | None) -> None:
        if error is None:
            self._ends.stored()
            self._arrival.stored()
        else:
            self._arrival.refused()
            if not self._in_doubt:
                self._ends.gone()
        super().settle(result, error)


class Withdraw(Operation[None]):
    """Takes a message out again whose client was told that we have not got it. Kept until it can be written."""

    kind = Kind.OUTCOME

    def __init__(self, message: str, gone: Callable[[], None]) -> None:
        self._row = number(message)
        self._gone = gone

    def run(self, batch: Batch, db: sqlite3.Connection) -> None:
        batch.flush()
        row = (self._row,)
        db.execute("UPDATE fact SET refs = refs - 1 WHERE k = (SELECT tls FROM message WHERE n = ?)", row)
        db.execute("INSERT OR IGNORE INTO loose (n) SELECT n FROM message WHERE n = ?", row)
        db.execute("DELETE FROM recipient WHERE n = ?", row)
        db.execute("DELETE FROM message WHERE n = ?", row)

    def settle(self, _result: None, _error: BaseException | None) -> None:
        self._gone()


class Keep(Operation[None]):
    kind = Kind.OUTCOME

    def __init__(
        self, record: Record, attempt_rows: range, now: int, done: Callable[[BaseException | None], None]
    ) -> None:
        self._record = record
        self._attempt_rows = attempt_rows
        self._now = now
        self._done = done

    def run(self, batch: Batch, _db: sqlite3.Connection) -> None:
        batch.record(self._record, self._attempt_rows, self._now)

    def settle(self, _result: None, error: BaseException | None) -> None:
        self._done(error)


class Chore(Asked[T]):
    """Any piece of work on the database, behind what came before it."""

    def __init__(self, future: asyncio.Future[T], work: Callable[[sqlite3.Connection], T]) -> None:
        super().__init__(future)
        self._work = work

    def run(self, batch: Batch, db: sqlite3.Connection) -> T:
        batch.flush()
        return self._work(db)


class Confirmed(Operation[None]):
    """Committed, and perhaps not on the disk: its caller hears what came of it once a later commit is there. (Done again it might give another
    answer: nothing is left to delete.) Kept until then."""

    kind = Kind.OUTCOME

    def __init__(self, operation: Operation[T], result: T) -> None:
        self._tell = partial(operation.settle, result)

    def run(self, _batch: Batch, _db: sqlite3.Connection) -> None:
        """The log is whole before anything is written again."""

    def settle(self, _result: None, error: BaseException | None) -> None:
        self._tell(error)


class KeepPolicy(Operation[None]):
    """Kept until it can be written, as outcomes are: a policy that is forgotten is one that somebody may go around."""

    kind = Kind.OUTCOME

    def __init__(self, kept: StsKept) -> None:
        self._kept = kept

    def run(self, _batch: Batch, db: sqlite3.Connection) -> None:
        policies.save(db, self._kept)

    def settle(self, _result: None, error: BaseException | None) -> None:
        if error is not None and not isinstance(error, StoreUnavailable):
            raise error  # a bug; at the end of a store in trouble it is fetched again after the restart


class ForgetFacts(Asked[None]):
    """Deletes the facts that no row names any more. There are few facts: all are looked at."""

    def run(self, batch: Batch, db: sqlite3.Connection) -> None:
        batch.flush()
        db.execute("DELETE FROM fact WHERE refs <= 0")
        batch.facts.forget()
