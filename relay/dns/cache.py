"""Answers kept for as long as they are good, and one question asked once however many wait for its answer.

Knows nothing of DNS. Memory is bounded by the weight of the entries, each 1 unless told otherwise; the least recently used goes first.
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
    """`ask` finds an answer; `monotonic` is a clock in seconds that never goes back. All answers together weigh at most `size`."""

    def __init__(
        self,
        ask: Callable[[K], Awaitable[Timed[V]]],
        *,
        size: int,
        monotonic: Callable[[], float],
        weigh: Callable[[V], int] = lambda _value: 1,
    ) -> None:
        self._ask, self._size, self._monotonic, self._weigh = ask, size, monotonic, weigh
        self._held: OrderedDict[K, Timed[V]] = OrderedDict()  # `seconds` is the moment of expiry here
        self._weight = 0
        self._asked: dict[K, asyncio.Task[V]] = {}

    def held(self, key: K) -> V | None:
        """The answer that is here and good; None where it has to be asked for."""
        held = self._held.get(key)
        if held is None or held.seconds <= self._monotonic():
            return None
        self._held.move_to_end(key)
        return held.value

    def last(self, key: K) -> V | None:
        """The latest answer, good or not, for a question that builds on it; None where it is not here any more."""
        held = self._held.get(key)
        return None if held is None else held.value

    def put(self, key: K, answer: Timed[V]) -> None:
        """An answer that nobody asked for, or the one to a question."""
        replaced = self._held.pop(key, None)
        self._weight += self._weigh(answer.value) - (0 if replaced is None else self._weigh(replaced.value))
        self._held[key] = Timed(answer.value, self._monotonic() + answer.seconds)
        while self._weight > self._size and self._held:
            self._weight -= self._weigh(self._held.popitem(last=False)[1].value)

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
        self.put(key, answer)
        return answer.value

    def _answered(self, key: K, task: asyncio.Task[V]) -> None:
        self._asked.pop(key, None)
        if not task.cancelled():
            task.exception()  # whoever still waits gets it; where nobody does, it is not an unhandled one

    def __len__(self) -> int:
        return len(self._held)

    @property
    def is_idle(self) -> bool:
        """True where no question is under way."""
        return not self._asked

    def clear(self) -> None:
        """Forgets every answer. Questions under way go on."""
        self._held.clear()
        self._weight = 0

    async def close(self) -> None:
        """Cancels the questions under way; those who wait get CancelledError."""
        tasks = tuple(self._asked.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
