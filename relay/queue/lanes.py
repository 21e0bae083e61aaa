"""A destination as it is now: what waits for it, how much of it runs, its rate, and whether it can be reached at all.

**A destination that is down** is not hammered by each of its messages in turn. After five deliveries in a row that did not get through to
it (no connection, no DNS, TLS broken: nothing that is about the message) the lane is closed: nothing is tried until a wait is over, then
one delivery as a probe. A probe that fails doubles the wait, from the connector's `retry.initial` up to its `retry.maximum`; one that gets
through opens the lane at once. Messages of a closed lane keep waiting and being due; they are not deferred one by one.
"""

from collections import deque
from collections.abc import Iterable, Mapping
from enum import Enum, auto
from typing import Protocol

from relay.mail.attempt import MessageBytes
from relay.mail.envelope import Message
from relay.mail.outcome import Deferred, Outcome
from relay.policy.route import Lane
from relay.queue.store import Command, Standing

_FAILURES = 5  # deliveries in a row that close a lane
_SHALLOW, _DEEP = 16, 512  # fewest and most messages in memory for one lane, beside those under way
_ROUNDS = 16  # messages in memory for each delivery that may run: half of them are read at a time, with what is in hand passed over
_SECOND = 1000  # all times here are milliseconds since 1970
_NANOSECONDS = 1_000_000

Key = tuple[str, int]
"""A recipient: message id and index."""


class Stage(Enum):
    """Where a message that the scheduler holds is."""

    QUEUED = auto()  # in its lane's window
    RUNNING = auto()  # being delivered
    SETTLING = auto()  # its outcome is being recorded, or an order about it carried out


class Candidate:
    """A message in memory with the recipients of one lane.

    `weight`: bytes of its body in memory. `orders`: what operators want of recipients, to be carried out when the attempt is over.
    """

    __slots__ = ("body", "indexes", "lane", "message", "orders", "stage", "standing", "weight")

    def __init__(
        self, lane: "LaneState", message: Message, body: MessageBytes, standing: Mapping[int, Standing], weight: int = 0
    ) -> None:
        self.lane = lane
        self.message = message
        self.body = body
        self.standing = standing
        self.indexes = tuple(standing)
        self.weight = weight
        self.stage = Stage.QUEUED
        self.orders: dict[int, Command] = {}

    @property
    def is_running(self) -> bool:
        return self.stage is Stage.RUNNING

    @property
    def keys(self) -> list[Key]:
        return [(self.message.id, index) for index in self.indexes]

    @property
    def destinations(self) -> set[str]:
        return {self.destination(index) for index in self.indexes}

    def destination(self, index: int) -> str:
        """What the lane of a recipient goes by: its domain, or the detour that an operator sends it on."""
        return self.standing[index].via or self.message.envelope.recipients[index].address.domain


def concerns_destination(outcome: Outcome) -> bool:
    """True where an outcome says that the destination cannot be reached now, whatever the message.

    RFC 3463 section 3.5: X.4.x is network and routing. RFC 5321 section 3.8: 421 closes the channel. A TLS failure is the host's.
    """
    return isinstance(outcome, Deferred) and (
        outcome.failure is not None or outcome.status.startswith("4.4.") or outcome.code == 421
    )


class Allowance(Protocol):
    """What all processes of a relay together may do to one destination: each asks before it starts a delivery, and counts it.

    Two that ask at the same moment for the last place both get it: concurrency can be passed by one less than there are processes.
    """

    def may_start(self, running: int, limit: int) -> bool:
        """`running` of `limit` places are ours already."""
        ...

    def started(self) -> None: ...
    def ended(self) -> None: ...

    def wait(self, rate: float) -> int:
        """Nanoseconds until the rate (a second) allows the next delivery; 0: it does now."""
        ...

    def spend(self, rate: float) -> None:
        """A delivery begins."""
        ...

    def forget(self) -> None:
        """Nothing waits for it any more."""
        ...


class LaneState:
    """`lane` is its configuration, renewed at every selection. `allowance` is None where this process is the only one.

    `backlog` names the destinations that have due mail in the store beyond `window`, with the time at which each was last looked through for
    mail that grew too old.
    """

    __slots__ = (
        "_allowance",
        "_closed",
        "_failures",
        "_opens",
        "_stamp",
        "_tokens",
        "answers",
        "backlog",
        "lane",
        "running",
        "taken",
        "trouble",
        "window",
    )

    def __init__(self, lane: Lane, now: int, allowance: Allowance | None = None) -> None:
        self.lane = lane
        self._allowance = allowance
        self.window: deque[Candidate] = deque()
        self.backlog: dict[str, int] = {}
        self.running = 0
        self.taken: set[Key] = set()  # recipients in memory, under way and settling ones too
        self.answers = False  # a delivery got through to it, and it is not down
        self.trouble: Outcome | None = None  # what the last delivery that did not get through said
        self._failures = 0
        self._closed = 0  # how often in a row it was closed
        self._opens = 0
        self._stamp = now
        self._tokens = self._burst

    @property
    def claimed(self) -> int:
        return len(self.taken)

    @property
    def has_place(self) -> bool:
        """May another delivery start, as far as their number matters?"""
        if self.running >= self.slots:
            return False
        return self._allowance is None or self._allowance.may_start(self.running, self.slots)

    @property
    def slots(self) -> int:
        """Deliveries at the same time: one is a probe while the lane is down."""
        return 1 if self._closed else self.lane.concurrency

    @property
    def depth(self) -> int:
        """Messages to hold in memory."""
        return 1 if self._closed else min(max(_ROUNDS * self.lane.concurrency, _SHALLOW), _DEEP)

    @property
    def is_timed(self) -> bool:
        """False where a delivery may start at any time."""
        return bool(self.lane.rate) or self._closed > 0

    @property
    def is_down(self) -> bool:
        return self._closed > 0

    @property
    def _burst(self) -> float:
        return max(self.lane.rate, 1.0)

    def opens_at(self, now: int) -> int:
        """When the next delivery may start, as far as time matters; not after `now`: at once."""
        if self._opens > now:
            return self._opens
        if not self.lane.rate:
            return now
        if self._allowance is not None:
            return now - -self._allowance.wait(self.lane.rate) // _NANOSECONDS  # rounded up
        # A token bucket of one second's worth. A clock that was set must neither fill nor starve it for long.
        elapsed = min(max(now - self._stamp, 0), _SECOND)
        self._tokens = min(self._tokens + elapsed * self.lane.rate / _SECOND, self._burst)
        self._stamp = now
        # Rounded up: the token must be there when the time has come.
        return (
            now
            if self._tokens >= 1
            else now + min(int((1 - self._tokens) * _SECOND / self.lane.rate) + 1, 60 * _SECOND)
        )

    def start(self) -> None:
        """A delivery begins; `has_place` and `opens_at` were asked."""
        self.running += 1
        if self._allowance is not None:
            self._allowance.started()
            if self.lane.rate:
                self._allowance.spend(self.lane.rate)
        elif self.lane.rate:
            self._tokens -= 1

    def end(self) -> None:
        """A delivery is over."""
        self.running -= 1
        if self._allowance is not None:
            self._allowance.ended()

    def rest(self) -> None:
        """Nothing waits for it: others need not leave a place to us."""
        if self._allowance is not None:
            self._allowance.forget()

    def learn(self, outcomes: Iterable[Outcome], now: int) -> bool:
        """A delivery ended so, for all its recipients. True if that closed the lane (again)."""
        failed = None
        for outcome in outcomes:
            if not concerns_destination(outcome):
                self.open()
                self.answers = True
                return False
            failed = outcome
        if failed is None:
            return False
        self.trouble = failed
        self._failures += 1
        # While it is closed, what was under way before ends as it may: only a probe's end counts.
        if self._opens > now or (not self._closed and self._failures < _FAILURES):
            return False
        retry = self.lane.retry
        wait = min(retry.initial * 2 ** min(self._closed, 32), retry.maximum)
        self._closed += 1
        self.answers = False
        self._opens = now + max(int(wait.total_seconds() * _SECOND), 1)
        return True

    def open(self) -> None:
        """It can be reached, or an operator wants it to be tried."""
        self._failures = self._closed = self._opens = 0
        self.trouble = None

    def set_back(self, now: int) -> None:
        """The clock was set back to `now`: no time that was noted before means anything."""
        self.open()
        self.backlog = dict.fromkeys(self.backlog, now)

    def is_idle(self, now: int) -> bool:
        """True where forgetting it loses nothing."""
        quiet = not (self.window or self.backlog or self.running or self.taken)
        if not quiet or self.opens_at(now) > now:
            return False
        return not self.lane.rate or self._allowance is not None or self._tokens >= self._burst
