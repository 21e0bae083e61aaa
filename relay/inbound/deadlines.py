"""Time limits of many sessions with one timer: moments are filed by the tick in which they fall, and looked at once.

Moving a deadline later costs one assignment: the session stays filed under the old tick, and is filed anew when that comes. So ten
thousand idle sessions cost ten thousand set entries and no timer handle each.
"""

from collections.abc import Callable
from typing import Protocol

NOT_FILED = -1


class Handle(Protocol):
    def cancel(self) -> None: ...


class Timer(Protocol):
    """The part of an event loop that is used here."""

    def time(self) -> float: ...

    def call_at(self, when: float, callback: Callable[[], None], /) -> Handle: ...


class Timed(Protocol):
    """What has a deadline. `deadline` is in the event loop's seconds; `tick` is this module's own: where it is filed."""

    deadline: float
    tick: int

    def expired(self) -> None:
        """The deadline has passed. May set a new one; must not raise."""


class Deadlines:
    """`width` is a tick in seconds: a deadline is noticed within one tick of its passing, never before."""

    __slots__ = ("_done", "_filed", "_handle", "_loop", "_width")

    def __init__(self, loop: Timer, width: float = 1.0) -> None:
        self._loop, self._width = loop, width
        self._filed: dict[int, set[Timed]] = {}
        self._done = 0  # every tick up to this one has been looked at
        self._handle: Handle | None = None

    def set(self, timed: Timed, deadline: float) -> None:
        timed.deadline = deadline
        tick = self._tick_of(deadline)
        if timed.tick == NOT_FILED or tick < timed.tick:
            self._unfile(timed)
            self._file(timed, tick)

    def remove(self, timed: Timed) -> None:
        """The timer is left to find out by itself that there is nothing to do: the next session comes soon."""
        self._unfile(timed)

    def close(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
        self._filed.clear()

    def __len__(self) -> int:
        return sum(len(filed) for filed in self._filed.values())

    def _tick_of(self, moment: float) -> int:
        """The first tick whose look comes after the moment."""
        return int(moment / self._width) + 1

    def _file(self, timed: Timed, tick: int) -> None:
        if self._handle is None:
            self._done = self._tick_of(self._loop.time()) - 1
            self._arm()
        tick = max(tick, self._done + 1)
        timed.tick = tick
        self._filed.setdefault(tick, set()).add(timed)

    def _unfile(self, timed: Timed) -> None:
        filed = self._filed.get(timed.tick)
        if filed is not None:
            filed.discard(timed)
            if not filed:
                del self._filed[timed.tick]
        timed.tick = NOT_FILED

    def _arm(self) -> None:
        self._handle = self._loop.call_at((self._done + 1) * self._width, self._look)

    def _look(self) -> None:
        now = self._loop.time()
        last = max(int(now / self._width), self._done + 1)
        due: list[Timed] = []
        if last - self._done > len(self._filed):  # the loop stood still, or the clock jumped
            due.extend(timed for tick, filed in self._filed.items() if tick <= last for timed in filed)
        else:
            due.extend(timed for tick in range(self._done + 1, last + 1) for timed in self._filed.get(tick, ()))
        self._done = last
        for timed in due:
            if timed.tick == NOT_FILED or timed.tick > last:
                continue  # taken out, or filed anew, by an `expired` of this same look
            self._unfile(timed)
            if timed.deadline <= now:
                timed.expired()
            else:
                self._file(timed, self._tick_of(timed.deadline))
        if self._filed:
            self._arm()
        else:
            self._handle = None
