"""When the store's chores are done: as soon as something asks for them, and every minute. What each does is in chores.py."""

import asyncio
import contextlib
import secrets
import traceback
from collections.abc import Callable, Set
from functools import partial
from typing import TYPE_CHECKING

from relay.mail.events import Emit, Unexpected
from relay.queue import chores
from relay.queue.ids import Clock, milliseconds
from relay.queue.share import Share
from relay.queue.store import StoreError

if TYPE_CHECKING:
    from relay.queue.sqlite import SqliteStore

_PAUSE = 60.0  # seconds between two rounds of chores when nothing asks for one
_IDLE = 2.0  # seconds between two looks at the files while nothing is written


class Housekeeping:
    """`arriving` are the messages (row keys) that still come: their chunks stay. `look` has the writer look after its files."""

    def __init__(
        self,
        store: "SqliteStore",
        share: Share,
        *,
        arriving: Set[int],
        emit: Emit,
        clock: Clock,
        look: Callable[[], None],
    ) -> None:
        self._store, self._share, self._arriving = store, share, arriving
        self._emit, self._clock, self._look = emit, clock, look
        self._asked = asyncio.Event()
        self._tidying = asyncio.Lock()
        self._task = asyncio.create_task(self._run(), name="queue-chores")

    def ask(self) -> None:
        """There is something to do."""
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

    async def _run(self) -> None:
        while True:
            self._asked.clear()
            try:
                await self.tidy()
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
                    return
            self._look()

    async def _drop_loose(self) -> None:
        """Chunks that no message needs: left by a crash, given up while they arrived, or of a large message that has ended."""
        loose = partial(chores.loose, slot=self._share.slot, count=self._share.count)
        for message in await self._store.look_up(loose):
            drop = partial(chores.drop_chunks, message=message)
            while message not in self._arriving and not await self._store.work(drop):
                pass

    async def _purge(self) -> None:
        before = milliseconds(self._clock() - self._store.keep)
        purged = False
        while await self._store.work(partial(chores.purge, before=before)):
            purged = True
        if purged:
            await self._store.forget_facts()
