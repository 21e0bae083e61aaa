"""Starts each delivery when it is due and its destination has room, so that no destination waits for another.

Messages come from two sides: fresh ones from the intake, with their bytes still in memory, and due ones from the store (feeder.py).
Each waits in the window of its lane. A lane starts deliveries as its concurrency, its rate and its health allow (lanes.py); beyond the
number that may run altogether, lanes take turns. What an attempt means is decided in results.py and recorded by recorder.py.

In memory are at most `Limits.candidates` messages that wait, `Limits.memory` bytes of bodies (windows.py), and what is under way; all
else stays in the store until there is room. What is suspended is kept out (suspending.py).
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from types import MappingProxyType

from relay.mail.attempt import Attempt, Delivery, MessageBytes
from relay.mail.envelope import Message
from relay.mail.events import Emit
from relay.mail.outcome import Deferred
from relay.policy.route import Lane
from relay.policy.suspension import Suspensions
from relay.queue.claims import Claims
from relay.queue.feeder import Feeder
from relay.queue.ids import Clock, milliseconds, moment, whole
from relay.queue.lanes import Allowance, Candidate, Key, LaneState, Stage
from relay.queue.reader import Coming, NotKept
from relay.queue.recorder import Recorder, Result, Tried
from relay.queue.reports import Compose
from relay.queue.results import Settled, Terms, last_outcomes, settle
from relay.queue.store import NEW, Last, Standing, Store, Waiting
from relay.queue.suspending import Suspending
from relay.queue.timers import LoopTimers, Timer, Timers
from relay.queue.windows import Windows

_MINUTE = timedelta(seconds=60)
_RETRY = timedelta(seconds=1)  # after the store could not be written
_ASK_AGAIN = 25  # milliseconds: whether another process has left a place
_SETTLING = 10.0  # seconds that stopping waits for reports and commits
_FRESH: Mapping[int, Standing] = MappingProxyType({0: NEW})

Deliver = Callable[[Delivery], Awaitable[Sequence[Attempt]]]


@dataclass(frozen=True, slots=True)
class Limits:
    """`deliveries` at the same time, all destinations together; `candidates` are messages in memory that wait; `memory` in bytes."""

    deliveries: int = 1000
    candidates: int = 5000
    memory: int = 64 * 2**20

    def share(self, lane: LaneState) -> int:
        """How many deliveries may run in all for the lane to start one more.

        Threat: hundreds of destinations that accept connections and never answer hold what they have for minutes. So half of all is for
        the first delivery of each destination, and one that has not shown yet that it answers gets few more.
        """
        if not lane.running:
            return self.deliveries
        return self.deliveries // (2 if lane.answers else 16)


class Scheduler:
    """`lane_of` is asked at every selection. `deliver` and `compose` may raise; nothing is lost by it. `allowance` gives what a lane has in
    common with the lanes of the relay's other processes, None where there are none. `tried` is told of a delivery's attempts when they are
    recorded.
    """

    def __init__(
        self,
        store: Store,
        *,
        deliver: Deliver,
        compose: Compose,
        lane_of: Callable[[str], Lane],
        emit: Emit,
        clock: Clock,
        timers: Timers | None = None,
        limits: Limits | None = None,
        spread: Callable[[], float] = random.random,
        allowance: Callable[[str], Allowance] | None = None,
        tried: Tried = lambda _message, _attempts: None,
    ) -> None:
        self.claims = Claims()
        self.recorder = Recorder(
            store, compose, emit=emit, clock=clock, submit=self.submit, resume=self._resume, tried=tried
        )
        self._store = store
        self._deliver = deliver
        self._lane_of = lane_of
        self._clock = clock
        self._timers = timers or LoopTimers(clock)
        self._limits = limits or Limits()
        self._spread = spread
        self._allowance = allowance
        self._lanes: dict[str, LaneState] = {}
        self._workers: dict[asyncio.Task[None], Candidate] = {}
        self._starved: dict[LaneState, None] = {}  # could run but for the total
        self._held_up: dict[LaneState, None] = {}  # could run but for the store
        self._alarms: dict[LaneState, Timer] = {}
        self._open = False
        self._feeder = Feeder(
            store,
            self.claims,
            self.recorder,
            lane_of=self._lane,
            fed=self._fed,
            lanes=lambda: self._lanes.values(),
            stopped=lambda destination, lane: self._suspending.stops(destination, lane),
            emit=emit,
            clock=clock,
            timers=self._timers,
        )
        self._suspending = Suspending(
            store, self.claims, self._feeder, clock=clock, timers=self._timers, changed=self._sort_anew
        )
        self._windows = Windows(
            store,
            self.claims,
            most=self._limits.candidates,
            memory=self._limits.memory,
            feed=self._feeder.feed,
        )
        self._feeding: asyncio.Task[None] | None = None
        self._minute: Timer | None = None
        self._retry: Timer | None = None

    # --- life ---

    async def start(self) -> None:
        self._open = True
        self._feeding = asyncio.create_task(self._feeder.run(), name="queue-feeder")

    async def stop(self, grace: float = 30.0) -> None:
        """Starts nothing more. Deliveries under way have `grace` seconds to end; those then cancelled are tried again after the next start."""
        self._open = False
        if self._feeding is not None:
            self._feeding.cancel()
            await asyncio.wait([self._feeding])
        self._suspending.close()
        for timer in (*self._alarms.values(), self._minute, self._retry):
            if timer is not None:
                timer.cancel()
        if self._workers:
            await asyncio.wait(self._workers, timeout=grace)
        for task, candidate in self._workers.items():
            if candidate.stage is Stage.RUNNING:  # one whose attempt is over is about to be recorded
                task.cancel()
        if self._workers:
            await asyncio.wait(self._workers, timeout=_SETTLING)
        try:
            async with asyncio.timeout(_SETTLING):
                await self.recorder.flush()
        except TimeoutError:
            return  # the store cannot write: what it was not told of is delivered once more after the next start

    def reconfigured(self) -> None:
        """The configuration in force changed: all that waits is sorted into its lanes anew, and destinations that were down are tried."""
        for lane in self._lanes.values():
            lane.open()
        self._sort_anew()
        self._resume()

    @property
    def suspensions(self) -> Suspensions:
        """That hold now."""
        return self._suspending.held

    def suspend(self, suspensions: Suspensions) -> None:
        """What is suspended from now on: all of it. A delivery under way is let finish. Each ends at its time."""
        self._suspending.hold(suspensions)

    def _sort_anew(self) -> None:
        """Into lanes, and what is suspended into none."""
        destinations: dict[str, None] = dict.fromkeys(self._feeder.unpark())
        for lane in self._lanes.values():
            destinations |= dict.fromkeys(self._feeder.forget(lane)) | dict.fromkeys(self._windows.clear(lane))
        for each in destinations:
            self._feeder.found(each)
        self._feeder.sweep_again()  # there may have been more suspended destinations than are remembered

    def submit(self, message: Message, body: MessageBytes | None) -> None:
        """A message that has just become durable: tried at once where its destination has room.

        `body` is None where its bytes are in the store only.
        """
        if not self._open:
            return  # the sweep of the next start finds it
        try:
            for lane, fresh in self._by_lane(message):
                standing = self._untaken(message, fresh)
                if self._suspending.held:
                    waiting = Waiting(message, body or self._store.body(message), standing)
                    standing = self._suspending.those_that_may_go(waiting, lane)
                if standing and self._windows.has_room(lane):
                    self._windows.enlist(lane, message, body, standing)
                    self._pump(lane)
                else:
                    for index in standing:
                        self._feeder.found(message.envelope.recipients[index].address.domain)
        except Exception:  # noqa: BLE001 - the message is durable and its client must hear so, whatever happens here
            self.recorder.unexpected("taking up a message")

    def ahead(self, message: Message, coming: Coming) -> bool:
        """Takes up a message that is on its way to the disk, where its delivery can begin at once; the hop gets its end when it is there.

        False: it is to be submitted when it is.
        """
        try:
            lanes = tuple(self._by_lane(message))
            if len(lanes) == 1 and self._is_idle(lanes[0][0]) and self._windows.has_memory(message.size):
                ((lane, standing),) = lanes
                self._windows.enlist(lane, message, coming, standing)
                try:
                    self._pump(lane)
                finally:
                    self._windows.clear(lane)  # another process had the place a moment sooner
        except Exception:  # noqa: BLE001 - as in `submit`
            self.recorder.unexpected("taking up a message ahead")
        return self.claims.is_held((message.id, 0))

    def _is_idle(self, lane: LaneState) -> bool:
        """What is put into its window begins at once."""
        return (
            self._open
            and not (lane.window or lane.backlog or lane.is_timed or self._suspending.held or self._starved)
            and self.recorder.ready
            and self._windows.has_room(lane)
            and self._has_place(lane)
            and len(self._workers) < self._limits.share(lane)
        )

    async def adopt(self, slot: int) -> None:
        """Takes over the mail of a slot that no process has, step by step. Raises StoreUnavailable; what was taken by then is ours."""
        try:
            while domains := await self._store.adopt(slot):
                for domain in domains:
                    self._feeder.found(domain)
        finally:
            self._feeder.sweep_again()
            self._feeder.resume_aside()  # what its process had put aside has no due time for a sweep to find

    def look_again(self, destinations: Iterable[str]) -> None:
        """An operator made mail for them due. Where a destination was down, it is tried."""
        for each in set(destinations):
            self._lane(each).open()
            self._feeder.found(each)

    # --- what operations need ---

    @property
    def is_open(self) -> bool:
        """False before it was started, and from the moment in which it is to stop."""
        return self._open

    @property
    def is_quiet(self) -> bool:
        """True while nothing is being read or recorded: all there is to do waits for hops, for time, or for mail."""
        return self._feeder.is_quiet and self.recorder.is_quiet

    def lane(self, destination: str) -> Lane:
        """The lane of a domain, or of a detour, by the configuration in force."""
        return self._lane_of(destination)

    def withdraw(self, key: Key) -> bool:
        """Takes a recipient out of its lane's window. False where it is not in one."""
        return self._windows.withdraw(key)

    # --- lanes ---

    def _lane(self, domain: str) -> LaneState:
        lane = self._lane_of(domain)
        state = self._lanes.get(lane.key)
        if state is None:
            allowance = self._allowance(lane.key) if self._allowance is not None else None
            state = self._lanes[lane.key] = LaneState(lane, self._now(), allowance)
            if self._minute is None:
                self._minute = self._timers.call_at(self._clock() + _MINUTE, self._each_minute)
        else:
            state.lane = lane
        return state

    def _now(self) -> int:
        return whole(self._clock())

    def _by_lane(self, message: Message) -> Iterable[tuple[LaneState, Mapping[int, Standing]]]:
        recipients = message.envelope.recipients
        if len(recipients) == 1:
            return ((self._lane(recipients[0].address.domain), _FRESH),)
        found: dict[LaneState, dict[int, Standing]] = {}
        for index, recipient in enumerate(recipients):
            found.setdefault(self._lane(recipient.address.domain), {})[index] = NEW
        return found.items()

    def _untaken(self, message: Message, standing: Mapping[int, Standing]) -> Mapping[int, Standing]:
        """A read may show a commit, and the feeder take up what it wrote, before the loop hears of it: else that goes out twice."""
        taken = [index for index in standing if self.claims.is_held((message.id, index))]
        return {index: each for index, each in standing.items() if index not in taken} if taken else standing

    def _fed(self, lane: LaneState, found: tuple[Waiting, ...]) -> bool:
        """What the feeder read: those of the recipients that are this lane's and in nobody's hands. False where not all had room."""
        room = True
        for waiting in found:
            room = self._open and self._windows.takes(lane)
            if not room:
                break
            message = waiting.message
            standing: Mapping[int, Standing] = {
                index: each
                for index, each in waiting.standing.items()
                if self.claims.is_free((message.id, index)) and self._lane(waiting.destination(index)) is lane
            }
            if self._suspending.held and standing:
                standing = self._suspending.those_that_may_go(Waiting(message, waiting.body, standing), lane)
            if standing:
                self._windows.enlist(lane, message, waiting.body if waiting.in_memory else None, standing)
        self._pump(lane)
        self._windows.pass_on()
        return room

    # --- deliveries ---

    def _pump(self, lane: LaneState) -> None:
        """Starts what may start."""
        while self._open and self._has_place(lane):
            if len(self._workers) >= self._limits.deliveries:
                if lane.window or lane.backlog:
                    self._starved[lane] = None
                return
            if len(self._workers) >= self._limits.share(lane):
                return  # the end of one of its own calls again
            candidate = self._take(lane)
            if candidate is None:
                return
            task = asyncio.create_task(self._work(lane, candidate))
            self._workers[task] = candidate
            task.add_done_callback(self._worked)

    def _has_place(self, lane: LaneState) -> bool:
        """Where other processes have the places, nobody tells us when one is free: then it is asked again in a moment."""
        if lane.has_place:
            return True
        if lane.running < lane.slots:
            if lane.window or lane.backlog:
                self._call_at(lane, self._now() + _ASK_AGAIN)
            else:
                lane.rest()
        return False

    def _take(self, lane: LaneState) -> Candidate | None:
        """The next message of the lane, if it may be delivered now. What keeps it from it is arranged to call again."""
        if not self._open or not (lane.window or lane.backlog):
            return None
        if not self.recorder.ready:
            self._held_up[lane] = None
            if not self._store.writable:
                self._resume_later()
            return None
        if lane.is_timed:
            now = self._now()
            opens = lane.opens_at(now)
            if opens > now:
                self._call_at(lane, opens)
                return None
        candidate = self._windows.begin(lane)
        self._windows.feed(lane)
        return candidate

    async def _work(self, lane: LaneState, candidate: Candidate) -> None:
        """One delivery of the lane after the other, as long as there is one and no other lane waits for the place."""
        task = asyncio.current_task()
        following: Candidate | None = candidate
        while following is not None:
            if task is not None:
                self._workers[task] = following
            await self._attempt(lane, following)
            if self._starved:
                if lane.window or lane.backlog:
                    self._starved[lane] = None
                return
            following = self._take(lane) if self._has_place(lane) else None
            if following is not None and lane.window:
                self._pump(lane)

    def _worked(self, task: asyncio.Task[None]) -> None:
        del self._workers[task]
        if not task.cancelled() and task.exception() is not None:
            self.recorder.unexpected("a delivery's worker", task.exception())
        for lane in list(self._starved):
            if len(self._workers) >= self._limits.deliveries:
                break
            del self._starved[lane]
            self._pump(lane)

    async def _attempt(self, lane: LaneState, candidate: Candidate) -> None:
        message = candidate.message
        trouble = ""
        try:
            via = {index: each.via for index, each in candidate.standing.items() if each.via}
            attempts = tuple(await self._deliver(Delivery(message, candidate.indexes, candidate.body, via)))
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                self._windows.free(candidate)
                raise
            # Nobody cancelled us: something within the delivery was, and let it out.
            trouble, attempts = self.recorder.unexpected(f"delivery of {message.id}"), ()
        except NotKept:
            trouble, attempts = "not kept", ()
        except Exception:  # noqa: BLE001 - the boundary to outbound: whatever goes wrong there, the message waits
            trouble, attempts = self.recorder.unexpected(f"delivery of {message.id}"), ()
        finally:
            lane.end()
        candidate.stage = Stage.SETTLING
        if isinstance(candidate.body, Coming) and not await candidate.body.is_kept():
            self._windows.free(candidate)  # refused: there is nothing to record it at
            return
        now = self._clock()
        lasts = last_outcomes(attempts)
        if not trouble and lane.learn(
            [lasts[index].outcome for index in candidate.indexes if index in lasts], self._now()
        ):
            self._closed(lane)
        for index in candidate.indexes:
            if index not in lasts:
                trouble = trouble or self.recorder.unexpected(f"delivery of {message.id}", LookupError("no outcome"))
                lasts[index] = Last(Deferred(451, "4.3.0", f"internal error {trouble}"), now, "")
        terms = Terms(lane.lane.retry, now, self._spread, lane.lane.on_5xx)
        settled = settle(message, candidate.standing, lasts, terms, candidate.orders)
        done = partial(self._recorded, candidate, settled)
        await self.recorder.record(Result(message, candidate.body, settled, attempts, done))

    def _recorded(self, candidate: Candidate, settled: Settled) -> None:
        self._windows.free(candidate)
        for change in settled.changes:
            if change.due is not None:
                self._feeder.note(candidate.destination(change.index), milliseconds(change.due))

    def _closed(self, lane: LaneState) -> None:
        """It is down: what waits for it goes back to the store, all but one probe later on."""
        for domain in self._windows.clear(lane):
            self._feeder.found(domain)
        self._call_at(lane, lane.opens_at(self._now()))

    # --- time ---

    def _call_at(self, lane: LaneState, when: int) -> None:
        timer = self._alarms.pop(lane, None)
        if timer is not None:
            timer.cancel()
        self._alarms[lane] = self._timers.call_at(moment(when), partial(self._alarm, lane))

    def _alarm(self, lane: LaneState) -> None:
        self._alarms.pop(lane, None)
        self._pump(lane)

    def _resume(self) -> None:
        """The store takes outcomes (again)."""
        self._feeder.resume()
        if not self._held_up or not self._open:
            return
        if self.recorder.ready:
            lanes = list(self._held_up)
            self._held_up.clear()
            for lane in lanes:
                self._pump(lane)
        elif not self._store.writable:
            self._resume_later()

    def _resume_later(self) -> None:
        """In trouble the store may have nothing of ours whose end would tell us that it is over."""
        if self._retry is not None:
            self._retry.cancel()
        self._retry = self._timers.call_at(self._clock() + _RETRY, self._resume)

    def _each_minute(self) -> None:
        """Lanes that nothing waits for are forgotten; backlogs are looked through for mail that grew too old."""
        now = self._now()
        for lane in self._lanes.values():
            if not (lane.window or lane.backlog):
                lane.rest()
        self._lanes = {key: lane for key, lane in self._lanes.items() if not lane.is_idle(now)}
        self._feeder.look()
        watching = self._lanes or self._feeder.keeps_watch
        self._minute = self._timers.call_at(self._clock() + _MINUTE, self._each_minute) if watching else None
