"""The queue's store on SQLite: one database, one writing connection (writer.py), two reading ones, large bodies in files beside it
(arriving.py), and the chores in between.

For the processes of one relay, each with its own share of the mail (share.py); a second relay is refused. A commit that was answered survives
kill -9 and power loss: it is in the log (WAL), and that was synced.
"""

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable, Sequence, Set
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from relay.mail.attempt import MessageBytes
from relay.mail.envelope import Message
from relay.mail.events import Emit, StoreDamaged
from relay.queue import chores, loading, ordered, questions
from relay.queue.arriving import Bodies
from relay.queue.bodies import BodyFolder
from relay.queue.destinations import destinations
from relay.queue.disk import Disk, Lock, beside, room
from relay.queue.housekeeping import Housekeeping
from relay.queue.ids import Clock, Ids, Numbers, begun, milliseconds, moment, number
from relay.queue.loading import Loaded, Loader
from relay.queue.opening import Opened, find_strays, open_queue
from relay.queue.progress import Progress
from relay.queue.reader import MemoryBody, Reader, StoredBody
from relay.queue.share import Share
from relay.queue.store import (
    Ages,
    Arrival,
    Command,
    Cursor,
    DueMessages,
    DuePage,
    Entry,
    Json,
    Mark,
    Order,
    OverduePage,
    Query,
    Record,
    Row,
    Statistics,
    StoreUnavailable,
    TracePurge,
    TraceQuery,
    Waiting,
)
from relay.queue.work import Asked, Chore, Ends, ForgetFacts, Keep, Operation, Put
from relay.queue.writer import Writer

FREE_SPACE = 500 * 2**20
KEEP = timedelta(days=30)

_LOOK = 0.2
_COUNTS_FOR = timedelta(seconds=5)  # how long counted figures are good enough

T = TypeVar("T")


def _listed(rows: Sequence[tuple[str, int]]) -> list[tuple[int, int]]:
    return [(number(message), index) for message, index in rows]


class SqliteStore:
    """Implements relay.queue.store.Store. Made by `open`."""

    def __init__(
        self, opened: Opened, share: Share, lock: Lock, disk: Disk, *, emit: Emit, clock: Clock, keep: timedelta
    ) -> None:
        self._ids = Ids(clock, opened.newest, share.slot)
        self.progress = Progress(self._ids, Numbers(clock, opened.attempt, share.slot))
        self._share = share
        self._lock = lock
        self._disk = disk
        self._emit = emit
        self._clock = clock
        self._keep = keep
        self._coming: set[str] = set()  # messages that readers may see already, and whose commit nobody was told of yet
        self._latest = opened.latest
        self._statistics: tuple[datetime, Statistics] | None = None
        self._loader = Loader(share.slot)
        self._scheduling = Reader(disk.path, "scheduling")
        self._asking = Reader(disk.path, "asking")
        self._writer = Writer(
            opened.database,
            disk,
            slot=share.slot,
            emit=emit,
            loosened=lambda: self._housekeeping.ask_to_drop(),
            reopened=self._reopened,
            is_alone=lambda: self.progress.arriving == 1,
        )
        self._bodies = Bodies(BodyFolder(disk.path), share.slot, self._writer.blame)
        self._housekeeping = Housekeeping(
            self, self._bodies, share, strays=opened.strays, emit=emit, clock=clock, look=self._writer.look
        )

    @classmethod
    async def open(
        cls,
        path: Path,
        *,
        emit: Emit,
        clock: Clock,
        free_space: int = FREE_SPACE,
        keep: timedelta = KEEP,
        probe: Callable[[Path], int] = room,
        pause: float = _LOOK,
        share: Share | None = None,
    ) -> "SqliteStore":
        """`free_space` in bytes; ended messages stay for traces for `keep`; `probe` tells the bytes left in a folder,
        and is asked, with what else is looked at on disk, every `pause` seconds while mail comes.

        Raises StoreLocked, StoreUnusable.
        """
        share = share or Share()
        lock = Lock(beside(path, ".lock"))
        if not share.locked:
            lock.take(clock())
        disk = Disk(path, free_space, probe, pause)
        try:
            opened = await asyncio.to_thread(open_queue, disk, share, BodyFolder(path))
        except BaseException:
            disk.close()
            lock.release()
            raise
        if opened.problems:
            emit(StoreDamaged(tuple(map(str, opened.problems))))
        return cls(opened, share, lock, disk, emit=emit, clock=clock, keep=keep)

    async def close(self) -> None:
        """Writes what was submitted, closes the files, gives the lock back."""
        await self._housekeeping.close()
        await self._writer.close()
        await self._bodies.close()
        self._disk.close()
        await self._scheduling.close()
        await self._asking.close()
        self._lock.release()

    @property
    def trouble(self) -> str:
        return self._writer.trouble

    @property
    def writable(self) -> bool:
        return self._writer.writable

    @property
    def free_space(self) -> int:
        """`limits.free_space`; may be set at any time."""
        return self._disk.limit

    @free_space.setter
    def free_space(self, limit: int) -> None:
        self._disk.limit = limit

    @property
    def keep(self) -> timedelta:
        """`retention.traces`; may be set at any time."""
        return self._keep

    @keep.setter
    def keep(self, keep: timedelta) -> None:
        if keep != self._keep:
            self._keep = keep
            self._housekeeping.ask()

    # --- writing ---

    def new_id(self) -> str:
        message = self._ids.new()
        self.progress.began(message)
        return message

    def append(self, message: str, pieces: Sequence[bytes]) -> asyncio.Future[None]:
        self._writer.look()  # at the room that is left
        if self._writer.trouble:
            refused: asyncio.Future[None] = self._future()
            refused.set_exception(StoreUnavailable(self._writer.trouble))
            return refused
        return self._bodies.append(number(message), pieces)

    def seal(self, message: str) -> asyncio.Future[None]:
        return self._bodies.seal(number(message))

    def take_back(self, message: str) -> asyncio.Future[bytes]:
        row = number(message)
        content = self._bodies.content(row)
        self._bodies.drop(row)
        return content

    def put(self, entry: Entry, arrival: Arrival) -> asyncio.Future[None]:
        message = entry.message.id

        def stored() -> None:
            self._coming.discard(message)
            self.progress.ended(message)
            if entry.in_file:
                self._bodies.keep(number(message))

        def gone() -> None:
            """Its row may be there all the same, as after an error at COMMIT: the chores look before they remove its file."""
            self._coming.discard(message)
            self.progress.ended(message)
            if entry.in_file:
                self._bodies.keep(number(message))
                self._housekeeping.sweep([number(message)])

        self._coming.add(message)
        return self._submit(Put(self._future(), entry, arrival, Ends(stored, gone)))

    def let_go(self, message: str) -> None:
        self.progress.ended(message)

    def discard(self, message: str) -> None:
        self.progress.ended(message)
        self._bodies.drop(number(message))

    def record(self, record: Record, done: Callable[[BaseException | None], None]) -> None:
        attempts = self.progress.recording(len(record.attempts))
        now = milliseconds(self._clock())
        coming = [report.message.id for report in record.reports]

        def kept(error: BaseException | None) -> None:
            self.progress.recorded(attempts)
            self._coming.difference_update(coming)
            done(error)

        self._coming.update(coming)
        for message in coming:
            self.progress.ended(message)  # what we write ourselves is not counted as mail that came in
        self._writer.submit(Keep(record, attempts, now, kept))

    def is_coming(self, message: str) -> bool:
        return message in self._coming

    def amend(self, rows: Sequence[tuple[str, int]], command: Command, now: datetime) -> asyncio.Future[list[bool]]:
        future = self.work(
            partial(chores.amend, rows=_listed(rows), command=command, now=milliseconds(now), slot=self._share.slot)
        )
        if command.order is Order.DELETE:
            future.add_done_callback(lambda _done: self._housekeeping.ask())
        return future

    def note_orders(self, rows: Sequence[tuple[str, int]], command: Command) -> asyncio.Future[None]:
        return self.work(partial(ordered.note, rows=_listed(rows), command=command))

    def drop_orders(self, rows: Sequence[tuple[str, int]], order: Order) -> asyncio.Future[None]:
        return self.work(partial(ordered.drop, rows=_listed(rows), order=order))

    async def ordered(self, slot: int) -> tuple[tuple[Row, Command], ...]:
        return await self._asking.run(ordered.read, slot)

    def put_aside(self, rows: Sequence[tuple[str, int]]) -> asyncio.Future[None]:
        return self.work(partial(chores.put_aside, rows=_listed(rows)))

    async def resume_aside(self, now: datetime) -> bool:
        step = partial(chores.resume_aside, slot=self._share.slot, now=milliseconds(now))
        return await self.work(step) == chores.HASTENED

    async def barrier(self) -> None:
        """Returns when what was submitted before has been written, or refused."""
        with contextlib.suppress(StoreUnavailable):
            await self.work(lambda _db: None)

    def _future(self) -> asyncio.Future[T]:
        return asyncio.get_running_loop().create_future()

    async def ask(self, question: Callable[[sqlite3.Connection], T]) -> T:
        """The answer of a function of a reading connection."""
        return await self._asking.run(question)

    async def look_up(self, question: Callable[[sqlite3.Connection], T]) -> T:
        """As `ask`, for what mail waits for: an operator's long question is not in its way."""
        return await self._scheduling.run(question)

    def work(self, work: Callable[[sqlite3.Connection], T]) -> asyncio.Future[T]:
        """Has a function of the writing connection called in the next transaction."""
        return self._submit(Chore(self._future(), work))

    def submit(self, operation: Operation[Any]) -> None:
        """Any other operation for the next transaction."""
        self._writer.submit(operation)

    def _submit(self, operation: Asked[T]) -> asyncio.Future[T]:
        self._writer.submit(operation)
        return operation.future

    # --- reading, for the scheduler ---

    async def due_domains(self, mark: Mark, now: datetime, limit: int) -> DuePage:
        return await self._scheduling.run(loading.due_domains, self._share.slot, mark, milliseconds(now), limit)

    @property
    def latest(self) -> datetime | None:
        return moment(self._latest) if self._latest else None

    async def hasten(self, now: datetime) -> None:
        while await self.work(partial(chores.hasten, slot=self._share.slot, now=milliseconds(now))) == chores.HASTENED:
            pass

    async def next_due(self, mark: Mark) -> datetime | None:
        found = await self._scheduling.run(loading.next_due, self._share.slot, mark)
        return None if found is None else moment(found)

    async def due(
        self, domain: str, now: datetime, limit: int, taken: Set[tuple[str, int]] = frozenset()
    ) -> DueMessages:
        coming = self._coming.copy()
        loaded, more = await self._scheduling.run(self._loader.due, domain, milliseconds(now), limit, taken)
        return DueMessages(self._waiting(loaded, coming), more)

    def body(self, message: Message) -> MessageBytes:
        return StoredBody(self._scheduling, self._bodies, message.id, message.size)

    async def overdue(self, domain: str, age: Ages, after: Cursor | None, limit: int) -> OverduePage:
        times = (milliseconds(age.now), milliseconds(age.expired), milliseconds(age.late))
        coming = self._coming.copy()
        loaded, cursor = await self._scheduling.run(self._loader.overdue, domain, times, after, limit)
        return OverduePage(self._waiting(loaded, coming), cursor)

    async def aside_destinations(self, after: str, limit: int) -> tuple[str, ...]:
        return await self._scheduling.run(loading.aside_destinations, self._share.slot, after, limit)

    async def aside(self, domain: str, age: Ages, after: Cursor | None, limit: int) -> OverduePage:
        times = (milliseconds(age.expired), milliseconds(age.late))
        coming = self._coming.copy()
        loaded, cursor = await self._scheduling.run(self._loader.aside, domain, times, after, limit)
        return OverduePage(self._waiting(loaded, coming), cursor)

    async def detours(self, now: datetime) -> tuple[tuple[str, ...], datetime | None]:
        found, following = await self._scheduling.run(loading.detours, self._share.slot, milliseconds(now))
        return found, None if following is None else moment(following)

    async def load(self, ids: Sequence[str]) -> tuple[Waiting, ...]:
        coming = self._coming.copy()
        return self._waiting(await self._scheduling.run(self._loader.load, ids), coming)

    def _waiting(self, loaded: Sequence[Loaded], coming: Set[str]) -> tuple[Waiting, ...]:
        """Without those whose commit was not told yet when the read began, or is not yet: whoever put them takes them up by itself then, or
        has taken them out again behind the read."""
        return tuple(
            Waiting(each.message, MemoryBody((each.content,)), each.standing, in_memory=True)
            if each.content
            else Waiting(each.message, self.body(each.message), each.standing)
            for each in loaded
            if each.message.id not in self._coming and each.message.id not in coming
        )

    # --- what other processes left behind ---

    async def abandoned(self) -> tuple[int, ...]:
        """The slots with waiting mail that no process of this relay has."""
        return await self._scheduling.run(chores.abandoned, self._share.count)

    async def adopt(self, slot: int) -> tuple[str, ...]:
        """Makes some of a slot's mail ours; its destinations. None: all of it is. Only while no process has that slot."""
        moved = await self.work(partial(chores.adopt, slot=slot, into=self._share.slot))
        if not moved:
            with contextlib.suppress(OSError):  # a later start finds them
                self._housekeeping.sweep(await self.look_up(lambda db: find_strays(db, self._bodies.folder, {slot})))
        return moved

    # --- reading, for operators ---

    async def rows(self, query: Query) -> tuple[Row, ...]:
        return await self._asking.run(questions.rows, query)

    async def listing(self, query: Query) -> list[Json]:
        return await self._asking.run(questions.listing, query)

    async def domains(self) -> tuple[str, ...]:
        return await self._asking.run(questions.domains)

    async def destinations(self, after: str, limit: int) -> list[Json]:
        return await self._asking.run(destinations, after, limit)

    async def traces(self, query: TraceQuery) -> list[Json]:
        return await self._asking.run(questions.traces, query)

    async def purge_traces(self, purge: TracePurge) -> int:
        """Looked for by a reader, so that no message waits for the search; forgotten a few in a transaction."""
        forgotten, after = 0, -1
        while found := await self._asking.run(questions.ended, purge, after, chores.PURGED):
            forgotten += await self.work(partial(chores.forget, numbers=found))
            after = found[-1]
        if forgotten:
            await self.forget_facts()
        return forgotten

    async def statistics(self) -> Statistics:
        """Counted at most every five seconds."""
        now = self._clock()
        if self._statistics is None or not timedelta(0) <= now - self._statistics[0] < _COUNTS_FOR:
            self._statistics = (now, await self._asking.run(self._count))
        return self._statistics[1]

    def _count(self, db: sqlite3.Connection) -> Statistics:
        waiting, held, messages, oldest = questions.counts(db)
        (bodies,) = db.execute("SELECT coalesce(sum(size), 0) FROM body_file").fetchone()
        files = (self._disk.path, beside(self._disk.path, "-wal"), beside(self._disk.path, "-shm"))
        size = sum(file.stat().st_size for file in files if file.exists()) + bodies
        since = None if oldest is None else begun(oldest)
        return Statistics(waiting, held, messages, since, size, self._disk.free())

    # --- what was imported ---

    async def known_as(self, origin: str) -> str:
        """The id under which a message that was exported as `origin` is here, or was until its trace ended; "" where it is not."""
        return await self._asking.run(questions.known_as, origin)

    async def note_import(self, origin: str, message: str) -> None:
        """`message`, which is about to be put, was exported as `origin`."""
        row = (origin, number(message))
        await self.work(lambda db: db.execute("INSERT OR REPLACE INTO imported (origin, n) VALUES (?, ?)", row))

    # --- chores ---

    def _reopened(self) -> None:
        self._scheduling.reopen()
        self._asking.reopen()

    async def tidy(self) -> None:
        """One round of chores, a step at a time. Raises StoreUnavailable."""
        await self._housekeeping.tidy()

    async def forget_facts(self) -> None:
        """Those that no row names any more."""
        await self._submit(ForgetFacts(self._future()))
