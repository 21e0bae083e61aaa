"""Connections kept for the next message. `fitness` and `Shelf` only decide; `Pool` carries out what they say.

A connection is used again for an equal `Target` only: hop address, port, plan, client certificate, AUTH, SNI, source, HELO name.
Threat: mail on a connection that today's rules would not have made. So every connection goes with the configuration it was made
under, and the verdict is asked again before each MAIL (`Connection.judge`).
"""

import asyncio
import ssl
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Generic, Protocol, TypeVar

from relay.config.values import HostPort
from relay.outbound.target import Target


class Pooled(Protocol):
    """What the pool needs of a connection."""

    target: Target
    context: ssl.SSLContext | None
    transactions: int
    reusable: bool

    @property
    def is_sound(self) -> bool: ...
    @property
    def is_gone(self) -> bool: ...
    def holds_at(self, now: datetime) -> bool: ...
    def when_lost(self, call: Callable[[], None]) -> None: ...
    def leave(self) -> None: ...
    def cut(self) -> None: ...
    async def gone(self) -> None: ...


C = TypeVar("C", bound=Pooled)


@dataclass(frozen=True, slots=True)
class PoolLimits:
    """`idle` seconds is less than servers wait (RFC 5321 section 4.5.3.2.7; many cut at 60). `age` bounds how old trust data may get.

    Connections on behalf of one client are good for that client's next message only, and each holds a process of the mail server inside:
    no more than `clients` of them are kept, for `client_idle` seconds.
    """

    idle: float = 30.0
    age: float = 600.0
    total: int = 500
    client_idle: float = 1.0
    clients: int = 16


@dataclass(frozen=True, slots=True)
class Moment:
    """`tick` in seconds of a clock that never goes back. `generation` is the configuration in force."""

    now: datetime
    tick: float
    generation: object


@dataclass(slots=True, eq=False)
class Kept(Generic[C]):
    """A connection with its history. `opened` and `since` (when its last message ended) are ticks."""

    connection: C
    generation: object
    opened: float
    since: float


class Fitness(StrEnum):
    """May a connection carry another message? If not, why not."""

    FIT = "fit"
    LOST = "the hop closed it"
    RELOADED = "the configuration is another now"
    RENEWED = "our client certificate is another now"
    ENDED = "an exception or a certificate has ended"
    SPENT = "it has carried its share of messages"
    OLD = "it is too old"
    IDLE = "it was idle for too long"


@dataclass(frozen=True, slots=True)
class Wish:
    """What the next delivery needs. `messages`: how many one connection may carry. `context`: what TLS would be made with now."""

    target: Target
    messages: int
    context: ssl.SSLContext


def fitness(kept: Kept[C], wish: Wish, moment: Moment, limits: PoolLimits) -> Fitness:
    connection = kept.connection
    reason = Fitness.FIT
    if not connection.is_sound or not connection.reusable:
        reason = Fitness.LOST
    elif kept.generation is not moment.generation:
        reason = Fitness.RELOADED
    elif connection.context is not None and connection.context is not wish.context:
        reason = Fitness.RENEWED
    elif not connection.holds_at(moment.now):
        reason = Fitness.ENDED
    elif connection.transactions >= wish.messages:
        reason = Fitness.SPENT
    elif moment.tick - kept.opened >= limits.age:
        reason = Fitness.OLD
    elif moment.tick - kept.since >= limits.idle:
        reason = Fitness.IDLE
    return reason


class Shelf(Generic[C]):
    """Which connection to take, and which to close. Does nothing to them."""

    def __init__(self, limits: PoolLimits) -> None:
        self._limits = limits
        self._by_target: dict[Target, list[Kept[C]]] = {}
        self._by_hop: dict[HostPort, int] = {}
        self._all: dict[Kept[C], None] = {}  # the longest idle first

    def __len__(self) -> int:
        return len(self._all)

    def has_hop(self, hop: HostPort) -> bool:
        return hop in self._by_hop

    def has(self, target: Target) -> bool:
        return target in self._by_target

    def put(self, kept: Kept[C]) -> list[Kept[C]]:
        """Returns what has to be closed to stay within the total: the longest idle."""
        target = kept.connection.target
        self._by_target.setdefault(target, []).append(kept)
        self._by_hop[target.hop] = self._by_hop.get(target.hop, 0) + 1
        self._all[kept] = None
        return [self.remove(next(iter(self._all)))] if len(self._all) > self._limits.total else []

    def take(self, wish: Wish, moment: Moment) -> tuple[Kept[C] | None, list[Kept[C]]]:
        """The most recently used one that is fit, and those that were found unfit. Both are off the shelf."""
        unfit: list[Kept[C]] = []
        while waiting := self._by_target.get(wish.target):
            kept = self.remove(waiting[-1])
            if fitness(kept, wish, moment, self._limits) is Fitness.FIT:
                return kept, unfit
            unfit.append(kept)
        return None, unfit

    def expired(self, tick: float) -> list[Kept[C]]:
        """Those that were idle for too long, taken off the shelf."""
        found: list[Kept[C]] = []
        for kept in self._all:
            if tick - kept.since < self._limits.idle:
                break
            found.append(kept)
        return [self.remove(kept) for kept in found]

    def everything(self) -> list[Kept[C]]:
        """All, taken off the shelf."""
        return [self.remove(kept) for kept in tuple(self._all)]

    def holds(self, kept: Kept[C]) -> bool:
        return kept in self._all

    def remove(self, kept: Kept[C]) -> Kept[C]:
        target = kept.connection.target
        del self._all[kept]
        same = self._by_target[target]
        same.remove(kept)
        if not same:
            del self._by_target[target]
        self._by_hop[target.hop] -= 1
        if not self._by_hop[target.hop]:
            del self._by_hop[target.hop]
        return kept


class Pool(Generic[C]):
    """`tick` is the clock of `Moment.tick`."""

    def __init__(self, limits: PoolLimits, tick: Callable[[], float]) -> None:
        self._limits, self._tick = limits, tick
        self._shelf: Shelf[C] = Shelf(limits)
        self._leaving: set[C] = set()
        self._of_clients: OrderedDict[Kept[C], asyncio.TimerHandle] = OrderedDict()
        self._timer: asyncio.TimerHandle | None = None
        self._generation: object = None

    def __len__(self) -> int:
        return len(self._shelf)

    def is_warm(self, hop: HostPort) -> bool:
        """True where a connection to this host is kept, whatever its plan."""
        return self._shelf.has_hop(hop)

    def has(self, target: Target) -> bool:
        return self._shelf.has(target)

    def take(self, wish: Wish, moment: Moment) -> Kept[C] | None:
        """A connection fit for the wish; it is the caller's now. None: make one."""
        if self._generation is not moment.generation:
            # A reload holds at once, for connections that nobody would ask for again as well.
            self._generation = moment.generation
            self._close(self._shelf.everything())
        kept, unfit = self._shelf.take(wish, moment)
        self._close(unfit)
        if kept is not None:
            kept.connection.when_lost(_nothing)
            self._forget_client(kept)
        return kept

    def put(self, kept: Kept[C]) -> None:
        """Keeps a connection for the next message, or says QUIT on it where it is of no more use."""
        connection = kept.connection
        if not connection.is_sound or not connection.reusable or kept.generation is not self._generation:
            self.leave(connection)
            return
        kept.since = self._tick()
        connection.when_lost(lambda: self._lost(kept))
        self._close(self._shelf.put(kept))
        if connection.target.client is not None:
            self._keep_of_client(kept)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._limits.idle, self._sweep)

    def leave(self, connection: C) -> None:
        """QUIT; nobody waits for it but `close`."""
        if connection.is_gone:
            return
        self._leaving.add(connection)
        connection.when_lost(lambda: self._leaving.discard(connection))
        connection.leave()

    async def close(self, grace: float = 1.0) -> None:
        """QUIT to all; those that do not go within `grace` seconds are cut."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._generation = None
        self._close(self._shelf.everything())
        if self._leaving:
            goings = [asyncio.ensure_future(each.gone()) for each in self._leaving]
            _, late = await asyncio.wait(goings, timeout=grace)
            for each in tuple(self._leaving):
                each.cut()
            if late:
                await asyncio.wait(late, timeout=grace)
        self._leaving.clear()

    def _keep_of_client(self, kept: Kept[C]) -> None:
        loop = asyncio.get_running_loop()
        self._of_clients[kept] = loop.call_later(self._limits.client_idle, self._let_go, kept)
        if len(self._of_clients) > self._limits.clients:
            self._let_go(next(iter(self._of_clients)))

    def _let_go(self, kept: Kept[C]) -> None:
        self._forget_client(kept)
        if self._shelf.holds(kept):
            self._close([self._shelf.remove(kept)])

    def _forget_client(self, kept: Kept[C]) -> None:
        timer = self._of_clients.pop(kept, None)
        if timer is not None:
            timer.cancel()

    def _close(self, those: list[Kept[C]]) -> None:
        for kept in those:
            self._forget_client(kept)
            self.leave(kept.connection)

    def _lost(self, kept: Kept[C]) -> None:
        self._forget_client(kept)
        if self._shelf.holds(kept):
            self._shelf.remove(kept)

    def _sweep(self) -> None:
        self._timer = None
        self._close(self._shelf.expired(self._tick()))
        if len(self._shelf):
            self._timer = asyncio.get_running_loop().call_later(self._limits.idle / 4, self._sweep)


def _nothing() -> None:
    """The connection is in use: whoever uses it sees what happens to it."""
