"""When the store's chores are done: as soon as something asks for them, and every minute. What each does is in chores.py."""

import asyncio
import contextlib
import secrets
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from relay.mail.events import Emit, Unexpected
from relay.queue import chores
from relay.queue.arriving import Bodies
from relay.queue.ids import Clock, milliseconds
from relay.queue.share import Share
from relay.queue.store import StoreError

if TYPE_CHECKING:
    from relay.queue.sqlite import SqliteStore

_PAUSE = 60.0  # seconds between two rounds of chores when nothing asks for one
_IDLE = 2.0  # seconds between two looks at the files while nothing is written
_FILES = 50  # removed at once
_COMPANY = 0.1  # seconds that the bytes of ended messages wait for others': each round is a commit


class Housekeeping:
    """`strays` are files that no row names. `look` has the writer look after its files."""

    def __init__(
        self,
        store: "SqliteStore",
        bodies: Bodies,
        share: Share,
        *,
        strays: Sequence[int],
        emit: Emit,
        clock: Clock,
        look: Callable[[], None],
    ) -> None:
        self._store, self._bodies, self._share = store, bodies, share
        self._strays = list(strays)
        self._emit, self._clock, self._look = emit, clock, look
        self._asked = asyncio.Event()
        self._all = True  # not only what is loose
        self._tidying = asyncio.Lock()
        self._task = asyncio.create_task(self._run(), name="queue-chores")

    def ask(self) -> None:
        """There is something to do."""
        self._all = True
        self._asked.set()

    def ask_to_drop(self) -> None:
        """There are bytes that no message needs."""
        self._asked.set()

    def sweep(self, strays: Sequence[int]) -> None:
        """These files are nobody's."""
        self._strays += strays
        self._asked.set()

    async def close(self) -> None:
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    async def tidy(self) -> None:
        """One round, a step at a time, each waiting for the transaction that carries the one before. One at a time. Raises StoreUnavailable."""
        async with self._tidying:
            await self._drop_loose()
            if self._share.leads:
                await self._purge()
                while await self._store.work(chores.give_back):
                    pass

    async def drop(self) -> None:
        """Only what gives room back."""
        async with self._tidying:
            await self._drop_loose()

    async def _run(self) -> None:
        while True:
            self._asked.clear()
            all_of_it, self._all = self._all, False
            try:
                await (self.tidy() if all_of_it else self.drop())
            except StoreError:
                pass  # in trouble: the next round will do it
            except Exception:  # noqa: BLE001 - a bug in the chores must not end them; mail goes on
                self._emit(Unexpected(secrets.token_hex(4), "queue chores", traceback.format_exc()))
            await self._rest()

    async def _rest(self) -> None:
        """Until there is something to do."""
        for _ in range(round(_PAUSE / _IDLE)):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_IDLE):
                    await self._asked.wait()
                if not self._all:
                    await asyncio.sleep(_COMPANY)
                return
            self._look()
        self._all = True

    async def _drop_loose(self) -> None:
        """Bytes that no message needs: left by a crash, or of a large message that has ended."""
        found = await self._store.look_up(chores.loose)
        kept = False
        if self._strays or found.in_files:
            kept = not await self._drop_files(found.in_files)
        for message in found.in_chunks:
            while not await self._store.work(partial(chores.drop_chunks, message=message)):
                pass
        if found.in_chunks or (found.more and not kept):
            self.ask()  # pages are free now

    async def _drop_files(self, loose: Sequence[int]) -> bool:
        """Not while the queue is copied: the next round does it (False). Nor is a copy kept waiting for more than some files."""
        folder = self._bodies.folder
        with folder.removing() as may_go:
            if not may_go:
                return False
        if loose:
            await self._store.work(partial(chores.unname, messages=loose))
            self._strays += loose
        while self._strays:
            some = self._strays[:_FILES]
            nameless = await self._store.look_up(partial(chores.nameless, messages=some))
            with folder.removing() as may_go:
                if not may_go:
                    return False
                del self._strays[: len(some)]
                await self._bodies.remove(nameless)
        return True

    async def _purge(self) -> None:
        before = milliseconds(self._clock() - self._store.keep)
        purged = False
        while await self._store.work(partial(chores.purge, before=before)):
            purged = True
        if purged:
            await self._store.forget_facts()
