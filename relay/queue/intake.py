"""The way into the queue: a message's bytes as they come, then its envelope, then durable (design section 7).

A small message is one row, written once. A larger one goes to a file of its own while it arrives (arriving.py), so that no more of it is
in memory than a few chunks; the file counts for nothing until the envelope is there, and is removed if it never comes.

Threat: a client that sends without end, or goes away in mid-commit. The first is slowed down (`full`, `drain`); the second leaves either
the whole message, which is then delivered, or nothing. And ten thousand clients that each stop short of a whole chunk: once there is too
much of that in memory, pieces go to files before they are whole chunks. (A message that turns out to be small is read back from there.)
"""

import asyncio
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from relay.mail.attempt import MessageBytes
from relay.mail.envelope import Accepted, Envelope, Message
from relay.mail.events import Emit, MessageAccepted
from relay.queue.reader import Coming, MemoryBody
from relay.queue.store import CHUNK, Entry, Store, StoreUnavailable

_UNWRITTEN = 2  # chunks of one message that may wait for the store before its client must
_ALL_UNWRITTEN = 64 * 2**20  # bytes of all messages together
_ALL_PARTS = 64 * 2**20  # bytes of unfinished chunks of all messages together, beyond which they go to files
_WORTH_A_FILE = 16 * 1024

T = TypeVar("T")

Take = Callable[[Message, MessageBytes | None], None]
"""Told of each message that has become durable, with its bytes where they are still in memory."""

Ahead = Callable[[Message, Coming], bool]
"""Asked, while a small message is on its way to the disk, whether it is taken up now. True: `Take` is not told of it."""


class Intake:
    """`accepted` is called once for each durable message that `ahead` did not take up before, before `commit` returns. Not for several event
    loops."""

    def __init__(self, store: Store, *, emit: Emit, accepted: Take, ahead: Ahead | None = None) -> None:
        self._store = store
        self.emit = emit
        self.accepted = accepted
        self.ahead = ahead
        self._unwritten = 0
        self.parts = 0  # bytes in memory of messages that are still arriving

    def begin(self) -> "Incoming":
        """Raises StoreUnavailable where no mail can be taken now."""
        if self._store.trouble:
            raise StoreUnavailable(self._store.trouble)
        return Incoming(self, self._store, self._store.new_id())

    @property
    def is_behind(self) -> bool:
        return self._unwritten > _ALL_UNWRITTEN

    def _started(self, size: int) -> None:
        self._unwritten += size

    def _written(self, size: int) -> None:
        self._unwritten -= size


class _Arrival:
    """A message between `commit` and its end (relay.queue.store.Arrival)."""

    __slots__ = ("_coming", "_entry", "_intake")

    def __init__(self, intake: Intake, entry: Entry) -> None:
        self._intake, self._entry = intake, entry
        self._coming: Coming | None = None  # where it was taken up before its end

    def written(self) -> None:
        intake, entry = self._intake, self._entry
        if entry.chunks and intake.ahead is not None:
            coming = Coming(entry.chunks)
            if intake.ahead(entry.message, coming):
                self._coming = coming

    def stored(self) -> None:
        intake, entry = self._intake, self._entry
        accepted = MessageAccepted(entry.message)
        if self._coming is not None:
            self._coming.tell(kept=True)
            # Behind the delivery that this lets go on, and before any outcome of it: that takes a commit.
            asyncio.get_running_loop().call_soon(intake.emit, accepted)
        else:
            intake.emit(accepted)
            intake.accepted(entry.message, MemoryBody(entry.chunks) if entry.chunks else None)

    def refused(self) -> None:
        if self._coming is not None:
            self._coming.tell(kept=False)


class Incoming:
    """One message on its way in. Ends with `commit` or `abort`."""

    __slots__ = ("_appended", "_intake", "_over", "_parts", "_pending", "_store", "_waiting", "id", "size")

    def __init__(self, intake: Intake, store: Store, message: str) -> None:
        self.id = message
        self.size = 0
        self._intake = intake
        self._store = store
        self._parts: list[bytes] = []
        self._waiting = 0  # bytes in _parts
        self._appended = False  # some are in a file
        self._pending: deque[asyncio.Future[None]] = deque()
        self._over = False

    def write(self, data: bytes) -> None:
        """Takes the bytes object as it is. What the store has against it comes out in `drain` or `commit`."""
        self._parts.append(data)
        self._hold(len(data))
        self.size += len(data)
        if self._waiting > CHUNK or (self._intake.parts > _ALL_PARTS and self._waiting >= _WORTH_A_FILE):
            self._append()

    def _hold(self, more: int) -> None:
        self._waiting += more
        self._intake.parts += more

    def _take(self) -> list[bytes]:
        """What waits; it waits no more."""
        parts, self._parts = self._parts, []
        self._hold(-self._waiting)
        return parts

    def _append(self) -> None:
        size, self._appended = self._waiting, True
        future = self._store.append(self.id, self._take())
        self._intake._started(size)
        future.add_done_callback(partial(self._written, size))
        self._pending.append(future)

    def _written(self, size: int, future: asyncio.Future[None]) -> None:
        self._intake._written(size)
        self._is_written(future)

    @property
    def full(self) -> bool:
        """True while the store is behind: read no more from the client until `drain` returns."""
        while self._pending and self._pending[0].done() and self._is_written(self._pending[0]):
            self._pending.popleft()
        return len(self._pending) > _UNWRITTEN or (bool(self._pending) and self._intake.is_behind)

    @staticmethod
    def _is_written(future: asyncio.Future[Any]) -> bool:
        """And whatever is wrong with it has been heard."""
        return not future.cancelled() and future.exception() is None

    async def drain(self) -> None:
        """Returns when the store has caught up. Raises StoreUnavailable."""
        while self.full:
            # shield: a client that goes away must not cancel what the store is told to do
            await asyncio.shield(self._pending[0])

    async def commit(
        self,
        envelope: Envelope,
        accepted: Accepted,
        *,
        header: bytes = b"",
        message_id: str = "",
        eight_bit: bool = False,
    ) -> Message:
        """Durable when it returns: the client may have its 250. Raises StoreUnavailable; nothing is kept then.

        Cancelled while the store is at it, the message is kept and delivered all the same if the store succeeds.
        """
        if self._over:
            raise RuntimeError(f"message {self.id} was committed or aborted before")
        message = Message(self.id, envelope, accepted, self.size, header, message_id, eight_bit)
        try:
            entry = await self._entry(message)
        except BaseException:
            self.abort()
            raise
        self._over = True
        await self._store.put(entry, _Arrival(self._intake, entry))
        return message

    async def _entry(self, message: Message) -> Entry:
        if not self._appended:
            data = b"".join(self._take())
            return Entry(message, (data,) if data else ())
        large = self.size > CHUNK
        if large and self._parts:
            self._append()
        for future in self._pending:
            await asyncio.shield(future)
        if large:
            await self._of(self._store.seal(self.id))
            return Entry(message, (), in_file=True)
        # Some of it went to a file while memory was short.
        return Entry(message, (await self._of(self._store.take_back(self.id)) + b"".join(self._take()),))

    async def _of(self, future: asyncio.Future[T]) -> T:
        future.add_done_callback(self._is_written)  # where we are cancelled, nobody else hears of it
        return await asyncio.shield(future)

    def abort(self) -> None:
        """Throws the message away. Harmless any number of times, and after `commit`."""
        if not self._over:
            self._over = True
            self._take()
            if self._appended:
                self._store.discard(self.id)
            else:
                self._store.let_go(self.id)
