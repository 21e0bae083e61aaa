"""Numbers that the processes of one relay tell each other, in memory that all of them map. No locks: each writes its own part only.

What is counted by key (a client, a destination) is in a count-min sketch: four rows of cells, a key has one cell in each, and counts as
the least of its four. So a count may be too high where keys collide in all four rows, and never too low: limits fail closed. With
10,000 keys counted by one process a given key is off with a probability of less than 0.1 %.

The part of a process that died is cleared before it has a successor (`Table.clear`).

Threat: whoever chooses keys could make them collide. So the hash has a secret, made anew at each start.
"""

import os
import secrets
from collections.abc import Sequence
from hashlib import blake2b
from mmap import MADV_REMOVE, PAGESIZE, mmap

_ROWS = 4
_WIDTH = 2**16  # cells in a row; pages that nobody counts in take no memory
_WORD = 4  # bytes of a number
_KNOWN = 4096  # keys whose cells are remembered
_PAGE = PAGESIZE

# Of a process's own page of numbers:
CONNECTIONS = 0  # of clients, that are open
SEEN = 1  # when it last said that it is there: tenths of a second of the monotonic clock, 0 for never
IN_HAND = 2  # recipients that it delivers to, or will soon, as it said then
EMPTIED = 3  # when it last saw that no client was left at any process: as SEEN

Cells = Sequence[int]
"""Where a key is counted: one cell in each row."""


class Sketch:
    """Counts by key: ours are written, those of the others are read. `parts` are one memory of 32-bit numbers a process."""

    def __init__(self, parts: Sequence[memoryview], slot: int, secret: bytes) -> None:
        self._own = parts[slot]
        self._others = tuple(part for number, part in enumerate(parts) if number != slot)
        self._secret = secret
        self._known: dict[str, Cells] = {}

    def cells(self, key: str) -> Cells:
        found = self._known.get(key)
        if found is None:
            if len(self._known) >= _KNOWN:
                self._known.clear()
            found = self._known[key] = self._hash(key)
        return found

    def _hash(self, key: str) -> Cells:
        digest = blake2b(key.encode("utf-8", "surrogateescape"), digest_size=8, key=self._secret).digest()
        return tuple(row * _WIDTH + int.from_bytes(digest[2 * row : 2 * row + 2], "little") for row in range(_ROWS))

    def add(self, cells: Cells) -> None:
        own = self._own
        first, second, third, fourth = cells
        own[first] += 1
        own[second] += 1
        own[third] += 1
        own[fourth] += 1

    def remove(self, cells: Cells) -> None:
        own = self._own
        first, second, third, fourth = cells
        own[first] -= 1
        own[second] -= 1
        own[third] -= 1
        own[fourth] -= 1

    def others(self, cells: Cells) -> int:
        """What the other processes have counted, or a little more."""
        first, second, third, fourth = cells
        count = 0
        for part in self._others:
            least = part[first]
            if least:  # mostly it is none
                count += min(least, part[second], part[third], part[fourth])
        return count


class Table:
    """`count` processes. Made before they are forked: they inherit the mapping, and `fd`, which is also what locks are taken on."""

    SKETCHES = ("clients", "running", "waiting")

    def __init__(self, count: int) -> None:
        self.count = count
        self.fd = os.memfd_create("ironpost", os.MFD_CLOEXEC)
        self._part = _PAGE + len(self.SKETCHES) * _ROWS * _WIDTH * _WORD
        self._shared = _PAGE + 2 * _WIDTH * 8
        size = self._shared + count * self._part
        os.ftruncate(self.fd, size)
        self._map = mmap(self.fd, size)
        self._memory = memoryview(self._map)
        self._secret = secrets.token_bytes(16)

    def close(self) -> None:
        """Where it was made; what was read from it must not be used any more."""
        os.close(self.fd)

    @property
    def common(self) -> memoryview:
        """A page of 32-bit numbers that anybody writes who holds the lock for it."""
        return self._memory[:_PAGE].cast("I")

    @property
    def times(self) -> memoryview:
        """Moments in nanoseconds of the monotonic clock, as 64-bit numbers, that anybody writes who holds the lock for them."""
        return self._memory[_PAGE : self._shared].cast("Q")

    def own(self, slot: int) -> memoryview:
        """A page of 32-bit numbers that the process in `slot` writes and all read."""
        start = self._start(slot)
        return self._memory[start : start + _PAGE].cast("I")

    def sketch(self, name: str, slot: int) -> Sketch:
        """As the process in `slot` sees it."""
        size = _ROWS * _WIDTH * _WORD
        offset = _PAGE + self.SKETCHES.index(name) * size
        parts = [
            self._memory[(start := self._start(each) + offset) : start + size].cast("I") for each in range(self.count)
        ]
        return Sketch(parts, slot, blake2b(name.encode(), digest_size=16, key=self._secret).digest())

    def clear(self, slot: int) -> None:
        """The process in `slot` is dead: it counts nothing any more."""
        self._map.madvise(MADV_REMOVE, self._start(slot), self._part)  # its pages read as zeros, and take no memory

    def _start(self, slot: int) -> int:
        return self._shared + slot * self._part
