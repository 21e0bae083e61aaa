"""Which recipients the scheduler, or an operator's order, has in hand: nobody else may take them up until their change is committed.

A read that began before that commit still shows the recipient as it was. What is given back while reads are under way therefore stays
out of reach until they have ended: else a message could be delivered twice.
"""

import asyncio
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from relay.queue.lanes import Candidate, Key


class Claims:
    """For one event loop."""

    def __init__(self) -> None:
        self._held: dict[Key, Candidate | None] = {}
        self._freed: set[Key] = set()
        self._reads = 0
        self._awaited: dict[Key, list[asyncio.Future[None]]] = {}
        self.reserved = 0  # those without a candidate: an order's

    def __len__(self) -> int:
        return len(self._held)

    def take(self, candidate: Candidate) -> None:
        message = candidate.message.id
        for index in candidate.indexes:
            key = message, index
            self._held[key] = candidate
            candidate.lane.taken.add(key)

    def reserve(self, keys: Iterable[Key]) -> None:
        """For an order, without a candidate."""
        for key in keys:
            self._held[key] = None
            self.reserved += 1

    def free(self, keys: Iterable[Key]) -> None:
        for key in keys:
            candidate = self._held.pop(key)
            if candidate is None:
                self.reserved -= 1
            else:
                candidate.lane.taken.discard(key)
            if self._reads:
                self._freed.add(key)
            if self._awaited:
                for future in self._awaited.pop(key, ()):
                    if not future.done():
                        future.set_result(None)

    def is_free(self, key: Key) -> bool:
        """True where what a read shows of it may be acted upon."""
        return key not in self._held and key not in self._freed

    def is_held(self, key: Key) -> bool:
        return key in self._held

    def candidate(self, key: Key) -> Candidate | None:
        return self._held.get(key)

    def running(self) -> list[Key]:
        """The recipients that are being delivered to."""
        return [key for key, candidate in self._held.items() if candidate is not None and candidate.is_running]

    async def freed(self, key: Key) -> None:
        """Returns when nobody holds it."""
        while key in self._held:
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._awaited.setdefault(key, []).append(future)
            await future

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Around every read whose result is acted upon, up to that action."""
        self._reads += 1
        try:
            yield
        finally:
            self._reads -= 1
            if not self._reads:
                self._freed.clear()
