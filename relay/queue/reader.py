"""Reading the SQLite store: one connection in one thread of its own, so that neither the loop nor the writer waits for it.

The store has two: one for the scheduler and for bodies, one for operators, whose questions may take long.
"""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

from relay.queue.arriving import Bodies
from relay.queue.disk import existing
from relay.queue.ids import number
from relay.queue.store import CHUNK, BodyMissing, StoreError, StoreUnavailable

_CACHE_KIB = 8 * 1024
_BUSY = 1.0

T = TypeVar("T")
P = ParamSpec("P")


class Reader:
    """Runs functions of a connection in its thread, one after the other, each in one read transaction: what it sees is of one moment."""

    def __init__(self, path: Path, name: str) -> None:
        self._path = path
        self._db: sqlite3.Connection | None = None
        self._stale = False
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"queue-{name}")

    async def run(self, query: Callable[Concatenate[sqlite3.Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Raises StoreUnavailable where SQLite cannot read."""
        return await asyncio.get_running_loop().run_in_executor(
            self._pool, lambda: self._call(lambda db: query(db, *args, **kwargs))
        )

    def reopen(self) -> None:
        """The next call uses a fresh connection: the file may be another one now."""
        self._stale = True

    async def close(self) -> None:
        await asyncio.get_running_loop().run_in_executor(self._pool, self._drop)
        self._pool.shutdown(wait=False)

    def _call(self, query: Callable[[sqlite3.Connection], T]) -> T:
        if self._stale:
            self._stale = False
            self._drop()
        try:
            db = self._connection()
            db.execute("BEGIN")
            try:
                return query(db)
            finally:
                db.execute("ROLLBACK")
        except sqlite3.Error as error:
            self._drop()
            raise StoreUnavailable(f"{error} ({self._path})") from error

    def _connection(self) -> sqlite3.Connection:
        if self._db is None:
            self._db = sqlite3.connect(
                existing(self._path), uri=True, timeout=_BUSY, isolation_level=None, check_same_thread=False
            )
            self._db.execute("PRAGMA query_only = ON")
            self._db.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
        return self._db

    def _drop(self) -> None:
        if self._db is not None:
            self._db.close()
            self._db = None


def _in_file(db: sqlite3.Connection, row: int) -> bool:
    return db.execute("SELECT 1 FROM body_file WHERE n = ?", (row,)).fetchone() is not None


def _chunk(db: sqlite3.Connection, row: int, sequence: int) -> bytes | None:
    found = db.execute("SELECT data FROM chunk WHERE n = ? AND seq = ?", (row, sequence)).fetchone()
    return bytes(found[0]) if found else None


class StoredBody:
    """A message's bytes (relay.mail.attempt.MessageBytes), read one chunk at a time: from its file where its row says so."""

    __slots__ = ("_bodies", "_message", "_reader", "_size")

    def __init__(self, reader: Reader, bodies: Bodies, message: str, size: int) -> None:
        self._reader = reader
        self._bodies = bodies
        self._message = message
        self._size = size

    async def chunks(self) -> AsyncIterator[bytes]:
        """Raises BodyMissing before the end where bytes are missing, StoreUnavailable."""
        row, sequence, left = number(self._message), 0, self._size
        if left > CHUNK and await self._reader.run(_in_file, row):
            async for piece in self._bodies.read(row, left):
                yield piece
            return
        while left > 0:
            data = await self._reader.run(_chunk, row, sequence)
            if not data or len(data) > left:
                raise BodyMissing(f"message {self._message}: {left} bytes are not in the store")
            yield data
            sequence += 1
            left -= len(data)


class NotKept(StoreError):  # noqa: N818 - says what is
    """The message did not come to the disk, so nobody is to get it: its client was told to come again."""


class Coming:
    """The bytes of a small message that is written and may not be on the disk yet. They can be read at once; that they were all is said
    only when it is, or not at all.

    So a delivery can be under way while the disk still is, up to what ends the message: a hop takes nothing that we do not keep
    (`MessageBytes.chunks`).
    """

    __slots__ = ("_chunks", "_kept", "_waiting")

    def __init__(self, chunks: tuple[bytes, ...]) -> None:
        self._chunks = chunks
        self._kept: bool | None = None
        self._waiting: list[asyncio.Future[bool]] = []

    def tell(self, *, kept: bool) -> None:
        """It is on the disk, or it was refused."""
        self._kept = kept
        for future in self._waiting:
            if not future.done():
                future.set_result(kept)
        self._waiting.clear()

    async def is_kept(self) -> bool:
        """Returns when that is known."""
        if self._kept is None:
            future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
            self._waiting.append(future)
            return await future
        return self._kept

    async def chunks(self) -> AsyncIterator[bytes]:
        """Raises NotKept behind the last one."""
        for chunk in self._chunks:
            yield chunk
        if not await self.is_kept():
            raise NotKept


class MemoryBody:
    """The bytes of a small message that has just come in, or of a report."""

    __slots__ = ("_chunks",)

    def __init__(self, chunks: tuple[bytes, ...]) -> None:
        self._chunks = chunks

    async def chunks(self) -> AsyncIterator[bytes]:
        for chunk in self._chunks:
            yield chunk
