"""Every event of a relay, kept, so that a test waits for a fact instead of for time."""

import asyncio
from collections.abc import Callable
from typing import TypeVar

from relay.mail.events import Event

E = TypeVar("E", bound=Event)


class Heard:
    """An observer: `Relay(..., observers=[heard])`."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._more = asyncio.Event()

    def __call__(self, event: Event) -> None:
        self.events.append(event)
        self._more.set()

    def of(self, kind: type[E]) -> list[E]:
        """All events of a kind so far."""
        return [each for each in self.events if isinstance(each, kind)]

    async def wait(self, kind: type[E], count: int = 1, *, seconds: float = 20) -> list[E]:
        """Events of a kind, once there are at least `count`."""
        try:
            async with asyncio.timeout(seconds):
                while len(self.of(kind)) < count:
                    self._more.clear()
                    await self._more.wait()
        except TimeoutError:
            raise TimeoutError(f"{len(self.of(kind))} of {count} {kind.__name__} came within {seconds} s") from None
        return self.of(kind)

    async def until(self, kind: type[E], fits: Callable[[E], bool], *, seconds: float = 20) -> E:
        """The first event of a kind that fits, once there is one."""
        async with asyncio.timeout(seconds):
            while not (found := [each for each in self.of(kind) if fits(each)]):
                self._more.clear()
                await self._more.wait()
        return found[0]
