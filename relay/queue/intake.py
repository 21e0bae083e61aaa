"""The way into the queue: a message's bytes as they come, then its envelope, then durable (design section 7).

A small message is one row, written once. A larger one goes to the store chunk by chunk while it arrives, so that no more of it is in
memory than a few chunks; its chunks count for nothing until the envelope is there, and are deleted if it never comes.

Threat: a client that sends without end, or goes away in mid-commit. The first is slowed down (`full`, `drain`); the second leaves either
the whole message, which is then delivered, or nothing. And ten thousand clients that each stop short of a whole chunk: once there is too
much of that in memory, pieces go to the store before they are whole chunks.
"""

import asyncio
from collections import deque
from collections.abc import Callable

from relay.mail.attempt import MessageBytes
from relay.mail.envelope import Accepted, Envelope, Message
from relay.mail.events import Emit, MessageAccepted
from relay.queue.reader import Coming, MemoryBody
from relay.queue.store import CHUNK, Entry, Store, StoreUnavailable

_UNWRITTEN = 2  # chunks of one message that may wait for the store before its client must
_ALL_UNWRITTEN = 64 * 2**20  # bytes of all messages together
_ALL_PARTS = (
    64 * 2**20
)  # bytes of unfinished chunks of all messages together, beyond which they are written as they are
_WORTH_A_ROW = 16 * 1024

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

    __slots__ = ("_intake", "_over", "_parts", "_pending", "_sequence", "_store", "_waiting", "id", "size")

    def __init__(self, intake: Intake, store: Store, message: str) -> None:
        self.id = message
        self.size = 0
        self._intake = intake
        self._store = store
        self._parts: list[bytes] = []
        self._waiting = 0  # bytes in _parts
        self._sequence = 0  # of the next chunk
        self._pending: deque[asyncio.Future[None]] = deque()
        self._over = False

    def write(self, data: bytes) -> None:
        """Takes the bytes object as it is. What the store has against it comes out in `drain` or `commit`."""
        self._parts.append(data)
        self._hold(len(data))
        self.size += len(data)
        if self._waiting > CHUNK:
            self._put_chunks()
        elif self._intake.parts > _ALL_PARTS and self._waiting >= _WORTH_A_ROW:
            self._put(self._join())

    def _hold(self, more: int) -> None:
        self._waiting += more
        self._intake.parts += more

    def _join(self) -> bytes:
        """What waits, in one piece; it waits no more."""
        data = b"".join(self._parts)
        self._parts.clear()
        self._hold(-self._waiting)
        return data

    def _put_chunks(self) -> None:
        """All whole chunks go to the store. The last byte stays here, so that a message of exactly one chunk is a small one."""
        data = self._join()
        start = 0
        while len(data) - start > CHUNK:
            self._put(data[start : start + CHUNK])
            start += CHUNK
        self._parts.append(data[start:])
        self._hold(len(data) - start)

    def _put(self, chunk: bytes) -> None:
        future = self._store.put_chunk(self.id, self._sequence, chunk)
        self._sequence += 1
        self._intake._started(len(chunk))
        future.add_done_callback(lambda _done: self._intake._written(len(chunk)))
        self._pending.append(future)

    @property
    def full(self) -> bool:
        """True while the store is behind: read no more from the client until `drain` returns."""
        while self._pending and self._pending[0].done() and self._is_written(self._pending[0]):
            self._pending.popleft()
        return len(self._pending) > _UNWRITTEN or (bool(self._pending) and self._intake.is_behind)

    @staticmethod
    def _is_written(future: asyncio.Future[None]) -> bool:
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
        data = self._join()
        if not self._sequence:
            return Entry(message, (data,) if data else ())
        if data:
            self._put(data)
        for future in self._pending:
            await asyncio.shield(future)
        return Entry(message, ())

    def abort(self) -> None:
        """Throws the message away. Harmless any number of times, and after `commit`."""
        if not self._over:
            self._over = True
            self._parts.clear()
            self._hold(-self._waiting)
            if self._sequence:
                for future in self._pending:
                    future.add_done_callback(self._is_written)  # its exception is of no interest any more
                self._store.discard(self.id)
            else:
                self._store.let_go(self.id)
