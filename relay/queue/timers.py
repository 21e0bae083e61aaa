"""Being called at a time of the wall clock. A parameter of the scheduler, so that its tests own the clock."""

import asyncio
from collections.abc import Callable
from datetime import datetime
from typing import Protocol

from relay.queue.ids import Clock

_LONGEST = 60.0  # seconds: after that the wall clock is asked again, it may have been set


class Timer(Protocol):
    def cancel(self) -> None: ...


class Timers(Protocol):
    def call_at(self, when: datetime, callback: Callable[[], None]) -> Timer:
        """Calls back in the event loop at that time, or earlier: whoever is called looks at the clock and asks again."""
        ...


class LoopTimers:
    """The event loop's timers, for wall clock times."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def call_at(self, when: datetime, callback: Callable[[], None]) -> Timer:
        delay = (when - self._clock()).total_seconds()
        return asyncio.get_running_loop().call_later(min(max(delay, 0.0), _LONGEST), callback)
