"""What the queue needs of a store, and the nouns that go in and out of it.

The Protocol is written so that a store shared by several relays can stand behind it: what `due` returns is its caller's until it is
recorded or given back (a lease there; the SQLite store has one process only, whose scheduler remembers what it holds). Everything that
changes the store is one transaction, and done when its future is.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Protocol

from relay.mail.attempt import Attempt, MessageBytes
from relay.mail.envelope import Message
from relay.mail.outcome import Outcome
from relay.mail.plan import TlsPlan
from relay.mail.reply import Reply

CHUNK = 256 * 1024  # bytes of a small message, in one row, and the most that is held in memory of one that arrives

Json = dict[str, Any]


class StoreError(Exception):
    """Base of all."""


class StoreLocked(StoreError):  # noqa: N818 - says what is, as its siblings do
    """Another relay has this store. str() names it."""


class StoreUnusable(StoreError):  # noqa: N818 - as above
    """The store cannot be opened: a newer schema, another program's database, no permission. str() says what to do."""


class StoreUnavailable(StoreError):  # noqa: N818 - as above
    """The store cannot do it now, and tries to recover by itself. `reason` is for the log; `reply` is what a client hears."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    @property
    def reply(self) -> Reply:
        # RFC 3463 section 3.4: 4.3.1 is "mail system full". The reason stays with us: paths and sizes are not for strangers.
        return Reply(452, "4.3.1", "insufficient system storage, try again later")


class BodyMissing(StoreError):  # noqa: N818 - as above
    """The store does not hold all bytes of a message. It is better not sent than sent in part."""


class State(StrEnum):
    """Where a recipient stands. DELIVERING is known to the scheduler only: after a crash it is WAITING again. SUSPENDED is one that waits and
    is not attempted (relay.policy.suspension)."""

    WAITING = "waiting"
    SUSPENDED = "suspended"
    DELIVERING = "delivering"
    HELD = "held"
    DELIVERED = "delivered"
    BOUNCED = "bounced"
    DELETED = "deleted"

    @property
    def is_final(self) -> bool:
        return self in (State.DELIVERED, State.BOUNCED, State.DELETED)


LIVE = frozenset({State.WAITING, State.SUSPENDED, State.DELIVERING, State.HELD})


@dataclass(frozen=True, slots=True)
class Last:
    """The latest thing that happened to a recipient. `hop` is "" where no hop said it."""

    outcome: Outcome
    at: datetime
    hop: str
    plan: TlsPlan | None = field(default=None, compare=False)
    """What TLS the hop had to have, while that is at hand: it is not kept here, the attempt has it."""


@dataclass(frozen=True, slots=True)
class Standing:
    """A waiting recipient's history. `last` is None before the first attempt; `warned`: the sender was told of the delay. `via` is where an
    operator sends it, "" for its own way (relay.policy.reroute)."""

    attempts: int = 0
    warned: bool = False
    last: Last | None = None
    via: str = ""


NEW = Standing()


@dataclass(frozen=True, slots=True)
class Entry:
    """A message to be stored. `chunks` of at most CHUNK bytes, in order. `in_file`: they are in a file that was sealed before."""

    message: Message
    chunks: tuple[bytes, ...]
    in_file: bool = False


@dataclass(frozen=True, slots=True)
class Change:
    """What a recipient becomes. `due` is the next attempt where `state` is WAITING, else None."""

    index: int
    state: State
    attempts: int
    due: datetime | None
    last: Last | None
    warned: bool = False


@dataclass(frozen=True, slots=True)
class Record:
    """One transaction about one message: what was tried, what became of the recipients, and the reports that this causes."""

    message: Message
    attempts: tuple[Attempt, ...]
    changes: tuple[Change, ...]
    reports: tuple[Entry, ...] = ()


@dataclass(frozen=True, slots=True)
class Waiting:
    """A message read back, with those of its recipients that wait and are due. `in_memory`: its body was read with it."""

    message: Message
    body: MessageBytes
    standing: Mapping[int, Standing]
    in_memory: bool = False

    def destination(self, index: int) -> str:
        """What the scheduler sorts a recipient by: its domain, or the detour that an operator sends it on."""
        return self.standing[index].via or self.message.envelope.recipients[index].address.domain


@dataclass(frozen=True, slots=True)
class Mark:
    """How far the list of due recipients has been read, in the order (due, domain). `due` in milliseconds since 1970."""

    due: int = -1
    domain: str = ""


@dataclass(frozen=True, slots=True)
class DuePage:
    """The destinations (a domain, or a detour's key) that have mail due, up to `mark`. `complete`: up to the time that was asked about."""

    domains: tuple[str, ...]
    mark: Mark
    complete: bool


@dataclass(frozen=True, slots=True)
class DueMessages:
    """`more`: there may be others behind these."""

    found: tuple[Waiting, ...]
    more: bool


Cursor = tuple[int, ...]
"""Where a list goes on: the store's own."""


@dataclass(frozen=True, slots=True)
class Ages:
    """Times: a message begun before `expired` is to be given up, one begun before `late` is worth a warning."""

    now: datetime
    expired: datetime
    late: datetime


@dataclass(frozen=True, slots=True)
class OverduePage:
    """Recipients that may have reached their end or a delay warning. `after` continues the list, None at its end."""

    found: tuple[Waiting, ...]
    after: Cursor | None


class Order(StrEnum):
    """What an operator wants to become of a recipient."""

    RETRY = "retry"
    HOLD = "hold"
    RELEASE = "release"
    BOUNCE = "bounce"
    DELETE = "delete"
    REROUTE = "reroute"

    @property
    def applies_to(self) -> frozenset[State]:
        """The states it changes; it leaves others as they are."""
        match self:
            case Order.RETRY | Order.HOLD:
                return frozenset({State.WAITING})
            case Order.RELEASE:
                return frozenset({State.HELD})
            case _:
                return frozenset({State.WAITING, State.HELD})


@dataclass(frozen=True, slots=True)
class Command:
    """An order with what belongs to it: the `reason` of a bounce, in words for its sender; the `detour` of a reroute as text, "" for back."""

    order: Order
    reason: str = ""
    detour: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """One recipient, as operations handle it. `slot`: whose it is, where a relay has several processes (share.py). `via` as in `Standing`;
    `sender` as in the envelope, "" for the null one."""

    message: str
    index: int
    address: str
    domain: str
    state: State
    slot: int = 0
    via: str = ""
    sender: str = ""

    @property
    def destination(self) -> str:
        """What the scheduler sorts it by."""
        return self.via or self.domain

    @property
    def key(self) -> tuple[str, int]:
        return self.message, self.index


@dataclass(frozen=True, slots=True)
class Query:
    """Which messages to list or to change, oldest first. `domains` None: any. `after` is the last id of the page before."""

    ids: tuple[str, ...] = ()
    domains: tuple[str, ...] | None = None
    states: frozenset[State] = LIVE
    after: str = ""
    limit: int = 100


@dataclass(frozen=True, slots=True)
class TraceQuery:
    """Which traces to read, newest first. All that is given must hold. `recipient`, `sender`: an address, or "@domain".

    `before`: of messages that are older than this one (an id).
    """

    id: str = ""
    recipient: str = ""
    sender: str = ""
    message_id: str = ""
    since: datetime | None = None
    limit: int = 100
    before: str = ""


@dataclass(frozen=True, slots=True)
class TracePurge:
    """Which traces to forget: of messages that ended `before`, to `recipient` or from `sender` (an address, or "@domain"), of one `id`.

    All that is given must hold, and something must be.
    """

    id: str = ""
    recipient: str = ""
    sender: str = ""
    before: datetime | None = None

    def __post_init__(self) -> None:
        if not (self.id or self.recipient or self.sender or self.before):
            raise ValueError("say which traces: an empty purge would be all of them")


@dataclass(frozen=True, slots=True)
class Statistics:
    """`waiting` and `held` count recipients, `messages` those with such. `oldest` is when the oldest of them was begun, None without any.

    `size` is what the store takes on disk, `free` what is left there, both in bytes.
    """

    waiting: int
    held: int
    messages: int
    oldest: datetime | None
    size: int
    free: int


class Arrival(Protocol):
    """Hears what becomes of a message that was put: `stored` or `refused`, once; where it is committed some time before it is durable,
    `written` first."""

    def written(self) -> None: ...
    def stored(self) -> None:
        """It is durable."""
        ...

    def refused(self) -> None:
        """Nothing of it is kept: its client hears so."""
        ...


class Store(Protocol):
    """Every method that returns a future begins its work at the call; a future that is cancelled does not undo it."""

    @property
    def trouble(self) -> str:
        """Why no mail can be taken now, "" while it can."""
        ...

    @property
    def writable(self) -> bool:
        """False while outcomes cannot be recorded either: nothing should be delivered then."""
        ...

    def new_id(self) -> str:
        """An id that no message has, newer than all (ids.py)."""
        ...

    def append(self, message: str, pieces: Sequence[bytes]) -> asyncio.Future[None]:
        """More of a message that is still arriving, to its file. It goes away unless `put` follows. Raises StoreUnavailable in the future."""
        ...

    def seal(self, message: str) -> asyncio.Future[None]:
        """All that was appended is durable once this is done, and `put` may follow. Raises StoreUnavailable in the future."""
        ...

    def take_back(self, message: str) -> asyncio.Future[bytes]:
        """All that was appended, of a message that turns out to be a small one. Raises StoreUnavailable in the future."""
        ...

    def put(self, entry: Entry, arrival: Arrival) -> asyncio.Future[None]:
        """Durable when done: recipients wait, due at once. Raises StoreUnavailable in the future; then nothing is kept.

        `arrival` hears of each step before the future is done, and also where that was cancelled meanwhile.
        """
        ...

    def is_coming(self, message: str) -> bool:
        """True from `put`, or from the `record` that has it as a report, until that is told to be done. It may be seen by readers already;
        `due`, `overdue` and `load` leave it out."""
        ...

    def discard(self, message: str) -> None:
        """What was appended to `message` will not be followed by `put`."""
        ...

    def let_go(self, message: str) -> None:
        """Nothing was put for `message`, and nothing will be."""
        ...

    def record(self, record: Record, done: Callable[[BaseException | None], None]) -> None:
        """Calls `done` once it is durable. While the store is in trouble the record waits.

        A recipient that has ended stays as it is. `done` is told of an exception only for a bug, and at `close` (StoreUnavailable).
        """
        ...

    def amend(self, rows: Sequence[tuple[str, int]], command: Command, now: datetime) -> asyncio.Future[list[bool]]:
        """Carries out RETRY, HOLD, RELEASE, DELETE or REROUTE for (message, index) where it applies; where it did."""
        ...

    def put_aside(self, rows: Sequence[tuple[str, int]]) -> asyncio.Future[None]:
        """Those of (message, index) that wait are not due any more, until `resume_aside`: their sender is suspended."""
        ...

    async def resume_aside(self, now: datetime) -> bool:
        """Some of ours that were put aside are due. False once none is left."""
        ...

    async def aside_destinations(self, after: str, limit: int) -> tuple[str, ...]:
        """The destinations that have mail of ours which was put aside, in their order, from behind `after`. (A domain too where all of that
        goes another way.)"""
        ...

    async def aside(self, domain: str, age: Ages, after: Cursor | None, limit: int) -> OverduePage:
        """As `overdue`, of those that were put aside."""
        ...

    async def detours(self, now: datetime) -> tuple[tuple[str, ...], datetime | None]:
        """The detours (relay.policy.reroute) that have mail of ours due, and when the next one has."""
        ...

    async def due_domains(self, mark: Mark, now: datetime, limit: int) -> DuePage:
        """Reads on from `mark` through at most `limit` due recipients."""
        ...

    @property
    def latest(self) -> datetime | None:
        """The latest time that anything in the store was written by, as it was opened; None for an empty one."""
        ...

    async def hasten(self, now: datetime) -> None:
        """Every recipient that waits is due at once."""
        ...

    async def next_due(self, mark: Mark) -> datetime | None:
        """When the first recipient after `mark` is due; None if none waits."""
        ...

    async def due(
        self, domain: str, now: datetime, limit: int, taken: Set[tuple[str, int]] = frozenset()
    ) -> DueMessages:
        """Messages of ours with recipients at `domain` (or, where it is one, on that detour) that are due, longest due
        first; at most `limit` of its recipients are looked at.

        Those in `taken` (message id, index) are passed over. Each message comes with all its due recipients, at other domains too.
        """
        ...

    def body(self, message: Message) -> MessageBytes:
        """The bytes of a stored message."""
        ...

    async def overdue(self, domain: str, age: Ages, after: Cursor | None, limit: int) -> OverduePage:
        """Recipients of `domain` (or of a detour) that are due, whose messages began before `age.expired`, or before `age.late` and
        without a warning.

        They may be a little younger than that: a message begins before it is accepted.
        """
        ...

    async def load(self, ids: Sequence[str]) -> tuple[Waiting, ...]:
        """The messages, with all recipients that wait or are held. Ids that are not there are left out."""
        ...

    async def abandoned(self) -> tuple[int, ...]:
        """The slots with waiting mail that no process of this relay has (share.py)."""
        ...

    async def adopt(self, slot: int) -> tuple[str, ...]:
        """Makes some of a slot's mail ours; its destinations, none once all of it is. Only while no process has that slot."""
        ...

    def note_orders(self, rows: Sequence[tuple[str, int]], command: Command) -> asyncio.Future[None]:
        """Keeps an order about recipients (message id, index) that are being delivered. Raises StoreUnavailable in the future."""
        ...

    def drop_orders(self, rows: Sequence[tuple[str, int]], order: Order) -> asyncio.Future[None]:
        """It is carried out, or taken back. Raises StoreUnavailable in the future."""
        ...

    async def ordered(self, slot: int) -> tuple[tuple[Row, Command], ...]:
        """Some of the orders that were kept about mail of that slot; none once they are dropped."""
        ...

    async def rows(self, query: Query) -> tuple[Row, ...]:
        """The recipients that match, message by message; `limit` counts messages."""
        ...

    async def listing(self, query: Query) -> list[Json]:
        """The messages that match, each with all its recipients (shape: design section 11, `connector` left out, and `domain` added)."""
        ...

    async def domains(self) -> tuple[str, ...]:
        """Every domain with recipients that wait or are held."""
        ...

    async def destinations(self, after: str, limit: int) -> list[Json]:
        """What waits by domain, from behind `after` in their order: {domain, waiting, held, oldest, next_attempt, last}."""
        ...

    async def traces(self, query: TraceQuery) -> list[Json]:
        """The shape of design section 11."""
        ...

    async def purge_traces(self, purge: TracePurge) -> int:
        """Forgets what is known of messages that have ended, some in a transaction; how many. Live mail stays."""
        ...

    async def statistics(self) -> Statistics: ...
