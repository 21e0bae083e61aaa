"""Answers kept for as long as they are good, and one question asked once however many wait for its answer.

Knows nothing of DNS. Memory is bounded by the number of entries; the least recently used goes first.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class Timed(Generic[V]):
    """An answer and for how many seconds it is good."""

    value: V
    seconds: float


class Cache(Generic[K, V]):
    """`ask` finds an answer; `monotonic` is a clock in seconds that never goes back."""

    def __init__(self, ask: Callable[[K], Awaitable[Timed[V]]], *, size: int, monotonic: Callable[[], float]) -> None:
        self._ask, self._size, self._monotonic = ask, size, monotonic
        self._held: OrderedDict[K, Timed[V]] = OrderedDict()  # `seconds` is the moment of expiry here
        self._asked: dict[K, asyncio.Task[V]] = {}

    def held(self, key: K) -> V | None:
        """The answer that is here and good; None where it has to be asked for."""
        held = self._held.get(key)
        if held is None or held.seconds <= self._monotonic():
            return None
        self._held.move_to_end(key)
        return held.value

    async def get(self, key: K) -> V:
        """The answer. Raises what `ask` raises. Cancelling one who waits cancels nobody else's question."""
        held = self.held(key)
        if held is not None:
            return held
        task = self._asked.get(key)
        if task is None:
            task = asyncio.get_running_loop().create_task(self._fetch(key))
            self._asked[key] = task
            task.add_done_callback(lambda done: self._answered(key, done))
        return await asyncio.shield(task)

    async def _fetch(self, key: K) -> V:
        answer = await self._ask(key)
        self._held[key] = Timed(answer.value, self._monotonic() + answer.seconds)
        self._held.move_to_end(key)
        if len(self._held) > self._size:
            self._held.popitem(last=False)
        return answer.value

    def _answered(self, key: K, task: asyncio.Task[V]) -> None:
        self._asked.pop(key, None)
        if not task.cancelled():
            task.exception()  # whoever still waits gets it; where nobody does, it is not an unhandled one

    def __len__(self) -> int:
        return len(self._held)

    def clear(self) -> None:
        """Forgets every answer. Questions under way go on."""
        self._held.clear()

    async def close(self) -> None:
        """Cancels the questions under way; those who wait get CancelledError."""
        tasks = tuple(self._asked.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
