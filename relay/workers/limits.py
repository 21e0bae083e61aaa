"""Limits that hold for all processes of a relay together: connections, deliveries to a destination, their rate.

Each asks what the others have, then counts its own. Nothing is locked meanwhile: where several ask at the same moment for the last place,
each may get it, so a limit can be passed by one less than there are processes. Rates are exact: what was started is always counted.
"""

import time

from relay.workers.locks import Byte, ProcessLock
from relay.workers.table import CONNECTIONS, Cells, Table

_TURN = 0.1  # seconds: how long one process goes first where there are more processes than places
_ROWS = 2  # of the table's times
_SECOND = 1_000_000_000


class SharedConnections:
    """Implements relay.inbound.limits.Elsewhere."""

    def __init__(self, table: Table, slot: int) -> None:
        self._own = table.own(slot)
        self._others = tuple(table.own(each) for each in range(table.count) if each != slot)
        self._clients = table.sketch("clients", slot)

    def total(self) -> int:
        """Connections of the other processes."""
        return sum([other[CONNECTIONS] for other in self._others])

    def of(self, key: int | str) -> int:
        """Those of one client."""
        return self._clients.others(self._clients.cells(str(key)))

    def entered(self) -> None:
        self._own[CONNECTIONS] += 1

    def entered_client(self, key: int | str) -> None:
        self._clients.add(self._clients.cells(str(key)))

    def left(self, key: int | str | None) -> None:
        """`key` is None for one that was never counted for a client."""
        self._own[CONNECTIONS] -= 1
        if key is not None:
            self._clients.remove(self._clients.cells(str(key)))


class SharedLanes:
    """Makes the `SharedLane` of each destination."""

    def __init__(self, table: Table, slot: int) -> None:
        self.slot, self.count = slot, table.count
        self.running = table.sketch("running", slot)
        self.waiting = table.sketch("waiting", slot)
        self.times = table.times
        self.lock = ProcessLock(table.fd, Byte.RATES)

    def __call__(self, key: str) -> "SharedLane":
        return SharedLane(self, key)


class SharedLane:
    """Implements relay.queue.lanes.Allowance: one destination.

    Every process may use all its places while no other wants them. One that finds them taken says so (`waiting`); the others then start
    nothing beyond their equal part until it has its own. Where there are fewer places than processes, they go first in turns.
    """

    __slots__ = ("_cells", "_places", "_shared", "_wants")

    def __init__(self, shared: SharedLanes, key: str) -> None:
        self._shared = shared
        self._cells: Cells = shared.running.cells(key)
        self._wants = False
        half = len(shared.times) // _ROWS
        self._places = tuple(row * half + cell % half for row, cell in enumerate(self._cells[:_ROWS]))

    def may_start(self, running: int, limit: int) -> bool:
        """`running` of `limit` places are ours."""
        shared = self._shared
        if running >= limit:
            return False
        if shared.running.others(self._cells) + running >= limit:
            self._want(running < max(limit // shared.count, 1))
            return False
        if running >= limit // shared.count and shared.waiting.others(self._cells) and not self._goes_first(limit):
            self._want(not running)
            return False
        self._want(False)
        return True

    def _goes_first(self, limit: int) -> bool:
        """Where there is less than a place for each: whose turn it is, by the clock that all share."""
        shared = self._shared
        return limit < shared.count and int(time.monotonic() / _TURN) % shared.count == shared.slot

    def _want(self, wants: bool) -> None:
        if wants is not self._wants:
            self._wants = wants
            cells = self._cells
            (self._shared.waiting.add if wants else self._shared.waiting.remove)(cells)

    def started(self) -> None:
        self._shared.running.add(self._cells)

    def ended(self) -> None:
        self._shared.running.remove(self._cells)

    def wait(self, rate: float) -> int:
        """Nanoseconds until the rate (a second) allows the next delivery; 0: it does now."""
        return max(0, self._next(rate) - time.monotonic_ns())

    def spend(self, rate: float) -> None:
        """A delivery begins."""
        shared = self._shared
        # It is held for microseconds. Whatever keeps its holder from giving it back must not keep the loop: at worst a delivery is not counted.
        locked = shared.lock.insist()
        try:
            following = self._next(rate) + int(_SECOND / rate)
            for place in self._places:
                shared.times[place] = max(shared.times[place], following)
        finally:
            if locked:
                shared.lock.give()

    def _next(self, rate: float) -> int:
        """The moment from which the next delivery may start: a token bucket that holds one second's worth, kept as one moment (GCRA).

        Other destinations in the same cells can only make it later.
        """
        booked = min([self._shared.times[place] for place in self._places])
        return max(booked, time.monotonic_ns() - int((max(rate, 1.0) - 1) * _SECOND / rate))

    def forget(self) -> None:
        """Nothing waits for this destination any more."""
        self._want(False)
