"""Carries out what operators want of recipients: retry, hold, release, bounce, delete, reroute.

Against deliveries there are three cases. A recipient that nobody has in hand is reserved, changed in the store, and given back. One that
waits in a lane's window is taken out of it first. One that is being delivered keeps its order, in the store too: when the attempt is
over, the order is carried out unless the recipient was delivered, or bounced by the hop (a deletion holds even then: no report is sent).
One that is to go another way does so once the attempt is over, if it still waits then. Where a crash cuts the attempt off, what was ordered
is done before the mail is tried again.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from relay.policy.reroute import Detour, key
from relay.queue.claims import Claims
from relay.queue.ids import Clock
from relay.queue.lanes import Candidate, Key
from relay.queue.recorder import Recorder, Result
from relay.queue.results import Terms, settle_bounced
from relay.queue.scheduler import Scheduler
from relay.queue.store import Command, Order, Row, Store, StoreUnavailable, Waiting

_LATER = frozenset(
    {Order.HOLD, Order.BOUNCE, Order.DELETE, Order.REROUTE}
)  # those that a delivery under way has to end for
_AGAIN = 1.0  # seconds after the store could not be written

_Which = tuple[Key, bool]
"""A recipient, and whether it is about where it goes (ordered.py)."""


class Orders:
    """Works on batches of rows; the caller pages through the store."""

    def __init__(self, store: Store, scheduler: Scheduler, clock: Clock) -> None:
        self._store = store
        self._scheduler = scheduler
        self._claims: Claims = scheduler.claims
        self._recorder: Recorder = scheduler.recorder
        self._clock = clock
        self._later: set[asyncio.Task[None]] = set()
        self._kept: dict[_Which, Command] = {}  # the last word on each

    async def carry_out(self, rows: Sequence[Row], command: Command) -> tuple[int, int]:
        """How many recipients it changed, and how many will be once their attempt is over. Raises StoreUnavailable."""
        order = command.order
        let_go = await self._take_back_holds(rows) if order is Order.RELEASE else 0
        rows = [row for row in rows if row.state in order.applies_to and not self._store.is_coming(row.message)]
        free: list[Row] = []
        running: dict[Row, Candidate] = {}
        for row in rows:
            candidate = await self._running(row.key)
            if candidate is None:
                free.append(row)
                self._claims.reserve([row.key])
            elif order in _LATER:
                running[row] = candidate
        try:
            if running:
                await self._keep(running, command)
            changed = await self._change(free, command) if free else 0
            for row in free:
                self._overrule(row, order)
        finally:
            self._claims.free(row.key for row in free)
        if order in (Order.RETRY, Order.RELEASE):
            self._scheduler.look_again(row.destination for row in rows)
        elif order is Order.REROUTE:
            self._scheduler.look_again(_sent_to(row, command.detour) for row in rows)
        return changed + let_go, len(running)

    async def finish(self, slot: int) -> None:
        """Carries out what was ordered of mail of that slot whose attempt a crash has cut off. Raises StoreUnavailable."""
        while found := await self._store.ordered(slot):
            for row, command in found:
                await self.carry_out([row], command)
                await self._store.drop_orders([row.key], command.order)

    async def _running(self, key: Key) -> Candidate | None:
        """Where it is being delivered. None: it is in nobody's hands when this returns."""
        while self._claims.is_held(key) and not self._scheduler.withdraw(key):
            candidate = self._claims.candidate(key)
            if candidate is not None and candidate.is_running:
                return candidate
            await self._claims.freed(key)  # an outcome or another order is being written
        return None

    async def _keep(self, running: Mapping[Row, Candidate], command: Command) -> None:
        """Until the attempts are over: there are no more of them than deliveries may run."""
        before = {row: self._put(row, candidate, command) for row, candidate in running.items()}
        try:
            await self._store.note_orders([row.key for row in running], command)
        except StoreUnavailable:
            for row, earlier in before.items():
                if self._kept.get(_which(row, command.order)) is command:
                    self._put(row, running[row], earlier or command, forget=earlier is None)
            raise
        for row, candidate in running.items():
            task = asyncio.create_task(self._when_over(row, candidate, command), name="queue-order")
            self._later.add(task)
            task.add_done_callback(self._later.discard)

    def _put(self, row: Row, candidate: Candidate, command: Command, *, forget: bool = False) -> Command | None:
        """The last word on it; what that was before."""
        which = _which(row, command.order)
        earlier = self._kept.pop(which, None)
        if not forget:
            self._kept[which] = command
        if command.order is not Order.REROUTE:  # whoever settles the attempt has to know
            candidate.orders.pop(row.index, None)
            if not forget:
                candidate.orders[row.index] = command
        return earlier

    def _overrule(self, row: Row, order: Order) -> None:
        """Another order about it was carried out, and what was kept before it has gone with that (chores.amend)."""
        if order is not Order.RETRY:
            self._kept.pop(_which(row, order), None)

    async def _when_over(self, row: Row, candidate: Candidate, command: Command) -> None:
        await self._claims.freed(row.key)
        was_cut_off = candidate.is_running  # the relay stops: nothing was settled
        which = _which(row, command.order)
        while self._kept.get(which) is command:  # nobody said otherwise since
            try:
                if was_cut_off or command.order is Order.REROUTE:
                    _changed, runs = await self.carry_out([row], command)
                    if runs:
                        return  # it is being delivered again, and kept until that is over
                await self._store.drop_orders([row.key], command.order)
            except StoreUnavailable:
                if not self._scheduler.is_open:
                    return  # it is kept: the next start finds it
                await asyncio.sleep(_AGAIN)
            else:
                if self._kept.get(which) is command:
                    del self._kept[which]

    async def _take_back_holds(self, rows: Sequence[Row]) -> int:
        """Of what is being delivered and was to be held behind that."""
        found: list[Row] = []
        for row in rows:
            candidate = self._claims.candidate(row.key)
            if candidate is None or not candidate.is_running:
                continue
            command = candidate.orders.get(row.index)
            if command is not None and command.order is Order.HOLD:
                self._put(row, candidate, command, forget=True)
                found.append(row)
        if found:
            await self._store.drop_orders([row.key for row in found], Order.HOLD)
        return len(found)

    async def _change(self, rows: Sequence[Row], command: Command) -> int:
        if command.order is Order.BOUNCE:
            return await self._bounce(rows, command.reason)
        return await self._amend(rows, command)

    async def _amend(self, rows: Sequence[Row], command: Command) -> int:
        changed = await self._store.amend([row.key for row in rows], command, self._clock())
        if command.order is Order.DELETE:
            for row, done in zip(rows, changed, strict=True):
                if done:
                    self._recorder.deleted(row)
        return sum(changed)

    async def _bounce(self, rows: Sequence[Row], reason: str) -> int:
        """Each message's bounces are one transaction with their reports."""
        wanted = {row.key for row in rows}
        changed = 0
        for waiting in await self._store.load(list(dict.fromkeys(row.message for row in rows))):
            standing = {i: each for i, each in waiting.standing.items() if (waiting.message.id, i) in wanted}
            if standing:
                await self._record(Waiting(waiting.message, waiting.body, standing), reason)
                changed += len(standing)
        return changed

    async def _record(self, waiting: Waiting, reason: str) -> None:
        message = waiting.message
        lane = self._scheduler.lane(waiting.destination(next(iter(waiting.standing))))
        settled = settle_bounced(message, waiting.standing, Terms(lane.retry, self._clock(), lambda: 0.0), reason)
        written: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        done: Callable[[], None] = partial(_finish, written)
        await self._recorder.record(Result(message, waiting.body, settled, (), done))
        await written


def _which(row: Row, order: Order) -> _Which:
    return row.key, order is Order.REROUTE


def _sent_to(row: Row, detour: str) -> str:
    return key(row.domain, Detour.parse(detour)) if detour else row.domain


def _finish(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
