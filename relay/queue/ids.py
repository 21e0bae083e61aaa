"""Message ids: 20 characters that sort by time, unique across restarts and nodes, not to be guessed.

The first 12 characters are a number of 60 bits, the store's row key: 42 bits of milliseconds since 1970 (they last until 2109) and
18 bits that count within one, the last 6 of them the slot of the process that took the message: processes that share a queue never
give out the same number. The other 8 characters are 40 random bits: a peer who sees an id in a Received header learns when the message came
(as the header says anyway) and cannot name another message's. The alphabet is base32hex (RFC 4648 section 7): its ASCII order is its
numeric order.
"""

import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUV"
_PAIRS = tuple(high + low for high in _ALPHABET for low in _ALPHABET)
_COUNTER_BITS = 18
SLOTS = 64
"""How many processes can share a queue."""
_TAIL_BYTES = 5
_TAIL_BITS = 8 * _TAIL_BYTES
_NUMBER_LENGTH = 12
_LENGTH = 20
_LETTERS = frozenset(_ALPHABET)

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)

Clock = Callable[[], datetime]


def milliseconds(moment: datetime) -> int:
    """Whole milliseconds since 1970, rounded up: a time that is read back is never before the one that was written."""
    return -((EPOCH - moment) // _MILLISECOND)


def whole(now: datetime) -> int:
    """The nearest whole millisecond: quicker, for the present time."""
    return round(now.timestamp() * 1000)


def moment(since_epoch: int) -> datetime:
    """The time that many milliseconds after 1970, UTC."""
    return EPOCH + since_epoch * _MILLISECOND


def number(message: str) -> int:
    """The row key in an id. Raises ValueError where `message` cannot be an id."""
    if len(message) != _LENGTH or not _LETTERS.issuperset(message):
        raise ValueError(f"{message[:40]!r} is not a message id")
    return int(message[:_NUMBER_LENGTH], 32)


def since_epoch(row: int) -> int:
    """The millisecond at which a row key was given out."""
    return row >> _COUNTER_BITS


def begun(row: int) -> datetime:
    """When the message with that row key began to arrive."""
    return moment(row >> _COUNTER_BITS)


def spell(row: int, tail: int = 0) -> str:
    """The id of a row key and 40 more bits."""
    value = row << _TAIL_BITS | tail
    return "".join([_PAIRS[value >> shift & 1023] for shift in range(90, -1, -10)])


def name_of(row: int) -> str:
    """The part of an id that is its row key: for file names."""
    return spell(row)[:_NUMBER_LENGTH]


def row_of(name: str) -> int | None:
    """The row key of `name_of`; None for what is none."""
    if len(name) != _NUMBER_LENGTH or not _LETTERS.issuperset(name):
        return None
    return int(name, 32)


def first_number(millisecond: int) -> int:
    """The lowest row key that a message begun at that millisecond since 1970 can have."""
    return millisecond << _COUNTER_BITS


def slot_of(row: int) -> int:
    """The slot of the process that gave that number out."""
    return row % SLOTS


class Numbers:
    """Gives out row keys that grow with time. `after` is the highest one that the store holds: a clock set back never gives one out twice."""

    def __init__(self, clock: Clock, after: int = 0, slot: int = 0) -> None:
        self._clock = clock
        self._slot = slot
        self._last = after - after % SLOTS + slot

    def take(self, count: int) -> range:
        """The next `count` ones."""
        first = max(self._last + SLOTS, (milliseconds(self._clock()) << _COUNTER_BITS) + self._slot)
        taken = range(first, first + count * SLOTS, SLOTS)
        if count:
            self._last = taken[-1]
        return taken


class Ids:
    """Gives out ids, with the numbers of `Numbers`."""

    def __init__(self, clock: Clock, after: int = 0, slot: int = 0) -> None:
        self._numbers = Numbers(clock, after, slot)
        self._random = b""

    def mark(self) -> int:
        """A number that all later ids come behind."""
        return self._numbers.take(1)[0]

    def new(self) -> str:
        if not self._random:
            self._random = os.urandom(_TAIL_BYTES * 100)
        tail, self._random = self._random[:_TAIL_BYTES], self._random[_TAIL_BYTES:]
        return spell(self._numbers.take(1)[0], int.from_bytes(tail, "big"))
