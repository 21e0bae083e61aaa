"""Large bodies on their way to the disk: each into a file of its own as it comes, by threads aside.

A body is *sealed* before the row that needs it is committed: its bytes are on the disk, then its name. What was not sealed counts for
nothing: it is dropped, or left for the next start to sweep.

Threat: a sync that failed. The kernel forgets which pages it could not write, and the next sync of the file succeeds without them. So a
file that anything went wrong with is never written to, synced or sealed again; its client hears 452. While files cannot be written no mail
is taken at all (`blame`); every half second a small file is tried.
"""

import asyncio
import contextlib
import os
import resource
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from relay.config.owner import give
from relay.queue.aside import Aside
from relay.queue.bodies import PRIVATE, BodyFolder
from relay.queue.store import CHUNK, BodyMissing, StoreUnavailable

_THREADS = 4  # a sync of one file must not keep all others waiting
_MOST_OPEN = 1000  # descriptors of bodies that arrive; beyond, the slowest client's is closed meanwhile
_PART_OPEN = 4  # nor more than that part of what the process may open: without a descriptor no mail is taken at all
_VECTOR = 64  # pieces in one call
_RETRY = 0.5  # seconds between two tries to recover

T = TypeVar("T")


class _Body:
    """One file. All but the first two attributes belong to whichever thread has its job: one at a time."""

    def __init__(self, path: Path) -> None:
        self.jobs: deque[tuple[Callable[[], Any], asyncio.Future[Any]]] = deque()
        self.busy = False
        self._path = path
        self._descriptor = -1
        self._size = 0
        self._fault: OSError | None = None

    def run(self, work: Callable[[], T]) -> T:
        """Raises OSError; StoreUnavailable where something had gone wrong before: that says nothing of the disk as it is now."""
        if self._fault is not None:
            raise StoreUnavailable(str(self._fault))
        try:
            return work()
        except OSError as error:
            self._fault = error
            raise

    def write(self, pieces: Sequence[bytes]) -> None:
        self._open()
        if len(pieces) > _VECTOR:
            pieces = (b"".join(pieces),)
        size = sum(map(len, pieces))
        done = os.writev(self._descriptor, pieces)
        if done < size:  # the disk is nearly full
            rest = memoryview(b"".join(pieces))[done:]
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
        self._size += size

    def _open(self) -> None:
        if self._descriptor >= 0:
            return
        flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
        if not self._size:
            self._descriptor = os.open(self._path, flags | os.O_CREAT | os.O_EXCL, PRIVATE)
            give(self._descriptor, self._path.parent)
            return
        self._descriptor = os.open(self._path, flags)
        if os.lseek(self._descriptor, 0, os.SEEK_END) != self._size:
            raise OSError(f"{self._path} was changed by somebody else")

    def park(self) -> None:
        """Closes it until there is more. What a later sync would tell of is heard now: it tells only who had the file open before."""
        if self._descriptor >= 0:
            os.fdatasync(self._descriptor)
            self._close()

    def seal(self, folder: BodyFolder) -> None:
        """Whole and on the disk, and so is its name."""
        self._open()
        os.fdatasync(self._descriptor)
        folder.sync()
        # A folder that was moved away takes writes and syncs as before.
        found, ours = self._path.stat(), os.fstat(self._descriptor)
        if (found.st_dev, found.st_ino, found.st_size) != (ours.st_dev, ours.st_ino, self._size):
            raise OSError(f"{self._path} is not where it was written")
        self._close()

    def content(self) -> bytes:
        self._open()
        data, offset = bytearray(), 0
        while piece := os.pread(self._descriptor, CHUNK, offset):
            data += piece
            offset += len(piece)
        if offset != self._size:
            raise OSError(f"{self._path} has {offset} bytes of {self._size}")
        return bytes(data)

    def discard(self) -> None:
        """What cannot be removed now is left to the next start."""
        with contextlib.suppress(OSError):
            self._close()
            self._path.unlink(missing_ok=True)

    def _close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


class Bodies:
    """For one event loop; `slot` is this process's. `blame` is called with the reason why files cannot be written, and with "" once they can be
    again."""

    def __init__(self, folder: BodyFolder, slot: int, blame: Callable[[str], None]) -> None:
        self.folder = folder
        self._slot = slot
        self._blame = blame
        self._loop = asyncio.get_running_loop()
        self._aside = Aside("queue-bodies", _THREADS)
        self._bodies: dict[int, _Body] = {}
        self._may_open = resource.getrlimit(resource.RLIMIT_NOFILE)[0] // _PART_OPEN
        self._open: dict[_Body, None] = {}  # the one that was longest without a write first
        self._buffer = bytearray(CHUNK)  # for all who read: none waits while it is in use
        self._under_way = 0
        self._quiet = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._closing = False

    def append(self, row: int, pieces: Sequence[bytes]) -> asyncio.Future[None]:
        """Raises StoreUnavailable in the future."""
        if self._closing:
            return self._refused()
        body = self._bodies.get(row)
        if body is None:
            body = self._bodies[row] = _Body(self.folder.file(row))
        self._open.pop(body, None)
        self._open[body] = None
        if len(self._open) > min(_MOST_OPEN, self._may_open):
            oldest = next(iter(self._open))
            del self._open[oldest]
            self._do(oldest, oldest.park).add_done_callback(_heard)
        return self._do(body, partial(body.write, pieces))

    def seal(self, row: int) -> asyncio.Future[None]:
        """Done once all that was appended is on the disk, under its name. Raises StoreUnavailable in the future."""
        if self._closing:
            return self._refused()
        body = self._bodies[row]
        self._open.pop(body, None)
        return self._do(body, partial(body.seal, self.folder))

    def content(self, row: int) -> asyncio.Future[bytes]:
        """All that was appended: for a small one. Raises StoreUnavailable in the future."""
        if self._closing:
            return self._refused()
        body = self._bodies[row]
        return self._do(body, body.content)

    def keep(self, row: int) -> None:
        """A row names it, on the disk."""
        self._bodies.pop(row, None)

    def drop(self, row: int) -> None:
        """No row names it, and none will."""
        body = self._bodies.pop(row, None)
        if body is not None:
            self._open.pop(body, None)
            body.jobs.append((body.discard, self._loop.create_future()))
            self._go_on(body)

    def remove(self, rows: Iterable[int]) -> asyncio.Future[None]:
        """Files that no row names any more."""
        return self.run(partial(self.folder.remove, tuple(rows)))

    def run(self, work: Callable[[], T]) -> asyncio.Future[T]:
        """Has a thread call it."""
        future: asyncio.Future[T] = self._loop.create_future()
        self._aside.do(work, partial(_tell, future))
        return future

    async def read(self, row: int, size: int) -> AsyncIterator[bytes]:
        """A body, in chunks. Raises BodyMissing before the end where it is not whole, StoreUnavailable where it cannot be read."""
        try:
            descriptor = await self._opened(row, size)
            try:
                offset = 0
                while offset < size:
                    data = _at_hand(descriptor, self._buffer, offset)
                    if not data:
                        data = await self.run(partial(os.pread, descriptor, CHUNK, offset))
                    if not data or offset + len(data) > size:
                        raise BodyMissing(f"{self.folder.file(row)} has changed while it was read")
                    offset += len(data)
                    yield data
            finally:
                os.close(descriptor)
        except OSError as error:
            raise StoreUnavailable(f"{error} ({self.folder.file(row)})") from error

    async def _opened(self, row: int, size: int) -> int:
        opening = self.run(partial(self.folder.open, row, size))
        try:
            return await asyncio.shield(opening)
        except asyncio.CancelledError:  # of whoever reads; the thread opens it all the same
            opening.add_done_callback(_close)
            raise

    async def close(self) -> None:
        """Ends what was begun. What arrives still will never be whole."""
        self._closing = True
        if self._timer is not None:
            self._timer.cancel()
        for row in tuple(self._bodies):
            self.drop(row)
        while self._under_way:
            self._quiet.clear()
            await self._quiet.wait()
        await self._aside.close()

    def _refused(self) -> asyncio.Future[Any]:
        future: asyncio.Future[Any] = self._loop.create_future()
        future.set_exception(StoreUnavailable("the queue is closed"))
        return future

    # --- one job of a file after the other ---

    def _do(self, body: _Body, work: Callable[[], T]) -> asyncio.Future[T]:
        future: asyncio.Future[T] = self._loop.create_future()
        body.jobs.append((partial(body.run, work), future))
        self._go_on(body)
        return future

    def _go_on(self, body: _Body) -> None:
        if not body.busy and body.jobs:
            body.busy = True
            self._under_way += 1
            work, future = body.jobs.popleft()
            self._aside.do(work, partial(self._done, body, future))

    def _done(self, body: _Body, future: asyncio.Future[Any], result: Any, error: Exception | None) -> None:
        body.busy = False
        self._under_way -= 1
        if isinstance(error, OSError):
            reason = f"{error}" if error.filename else f"{error} ({self.folder.path})"
            self._trouble(reason)
            error = StoreUnavailable(reason)
        _tell(future, result, error)
        self._go_on(body)
        self._quiet.set()

    # --- trouble ---

    def _trouble(self, reason: str) -> None:
        if not self._closing:
            self._blame(reason)
            if self._timer is None:
                self._timer = self._loop.call_later(_RETRY, self._try)

    def _try(self) -> None:
        self._under_way += 1
        self._aside.do(partial(self.folder.probe, self._slot), self._tried)

    def _tried(self, _nothing: None, error: Exception | None) -> None:
        self._under_way -= 1
        self._timer = None
        self._quiet.set()
        if error is not None:
            self._trouble(str(error))
        elif not self._closing:
            self._blame("")


def _heard(future: asyncio.Future[Any]) -> None:
    """Whatever is wrong with it, the next job says it."""
    if not future.cancelled():
        future.exception()


def _close(opening: asyncio.Future[int]) -> None:
    if not opening.cancelled() and opening.exception() is None:
        os.close(opening.result())


def _tell(future: asyncio.Future[T], result: T, error: Exception | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)


def _at_hand(descriptor: int, buffer: bytearray, offset: int) -> bytes:
    """What can be read without waiting for the disk, b"" where nothing can: mail that has just come is in the kernel's memory."""
    try:
        size = os.preadv(descriptor, [buffer], offset, os.RWF_NOWAIT)
    except OSError:  # also: not this kernel, not this file system
        return b""
    return bytes(memoryview(buffer)[:size])
