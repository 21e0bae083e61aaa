"""Brings mail that is due from the store to the lanes: whatever the number that waits, a bounded part of it is in memory.

Three reads, one at a time, in turn:

- **The sweep** reads the index by due time from where it stopped, a page of rows at a time, and keeps of them only the domains: each has
  mail due, its lane has a *backlog*. A start with a million due messages finds its first domains in its first page; every row is read
  once. When all that is due has been seen, the next row's time is the next sweep's.
- **A refill** reads the longest due messages of one backlogged domain, through the index by domain, as many as the lane's window has
  room for. Domains of one lane take turns. So a dead destination's million messages cost the others nothing: nobody reads past them.
- **The look at age**: a backlog may wait for long (a destination that is down, or slow). Once a minute its domains are looked through for
  mail that has to be given up, or whose sender should be told. That touches the index only, about 0.15 s for a million.

**A clock that is set back** would keep mail waiting until the old time has come again. So when it is seen to go back, or the store to be
ahead of it at the start, everything that waits is due at once, and every lane is tried.

At most 50,000 domains are remembered as backlogged; the sweep waits beyond that. A domain is forgotten as soon as nothing of it is due.

What these reads go by is a domain, or a detour that an operator sends mail on (relay.policy.reroute): a *destination*. One that is suspended
is *parked*: nothing of it is read but to look at its age. Mail of a suspended sender is put aside in the store, where no read by time or
by domain meets it, and looked at for its age too.
"""

import asyncio
import heapq
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from operator import itemgetter

from relay.mail.events import ClockSetBack, Emit
from relay.mail.outcome import Outcome
from relay.policy.suspension import WHY
from relay.queue.claims import Claims
from relay.queue.ids import Clock, milliseconds, moment, whole
from relay.queue.lanes import Candidate, LaneState, Stage
from relay.queue.recorder import Recorder, Result
from relay.queue.results import Settled, Terms, settle_overdue
from relay.queue.store import Ages, Cursor, Mark, State, Store, StoreUnavailable, Waiting
from relay.queue.timers import Timer, Timers

_PAGE = 2000  # rows of a sweep's page: about 2 ms
_DOMAINS = 50_000
_LOOK = 60_000  # milliseconds between two looks at the age of a backlog
_LOOKS = 1000  # domains in one look
_OVERDUE = 100  # rows of a look's page
_SET_BACK = 5000  # milliseconds; a smaller step of the clock only makes mail wait for that much longer
_SWEEP_PAUSE = 50  # milliseconds at least between two sweeps
_RETRY = timedelta(seconds=1)  # after the store could not be read
_LAST = "\U0010ffff"  # behind every domain

LaneOf = Callable[[str], LaneState]
Stopped = Callable[[str, LaneState], bool]
Lanes = Callable[[], Iterable[LaneState]]
Fed = Callable[[LaneState, tuple[Waiting, ...]], bool]


@dataclass(frozen=True, slots=True)
class _Look:
    """At the age of what is due at a domain, or, `aside`, of what waits there without a time. `after`: behind these."""

    domain: str
    aside: bool = False
    after: Cursor | None = None


class Feeder:
    """`lane_of` gives the lane of a domain by the configuration in force.

    `stopped` says that a destination in that lane is suspended. `fed` takes what was read for a lane;
    False: there was no room for all of it. `lanes` gives all there are.
    """

    def __init__(
        self,
        store: Store,
        claims: Claims,
        recorder: Recorder,
        *,
        lane_of: LaneOf,
        fed: Fed,
        lanes: Lanes,
        stopped: Stopped,
        emit: Emit,
        clock: Clock,
        timers: Timers,
    ) -> None:
        self._store = store
        self._claims = claims
        self._recorder = recorder
        self._lane_of = lane_of
        self._fed = fed
        self._lanes = lanes
        self._stopped = stopped
        self._parked: dict[str, int] = {}  # and when each was last looked through
        self._aside = False  # there may be mail of suspended senders
        self._look_aside = False  # it is time to
        self._aside_after = ""  # from behind this one
        self._resuming = True  # what was put aside is due: a crash may have left some whose sender is suspended no more
        self._emit = emit
        self._clock = clock
        self._timers = timers
        self._latest = 0  # the latest time that the clock, or the store, was seen to have
        self._hurry = False
        self._mark = Mark()
        self._sweeping = True
        self._anew = False  # from the beginning
        self._swept = 0
        self._due: int | None = None
        self._timer: Timer | None = None
        self._hungry: dict[LaneState, None] = {}
        self._looks: deque[_Look] = deque()
        self._backlogged = 0
        self._busy = False
        self._wake = asyncio.Event()
        self._wake.set()

    def found(self, domain: str) -> None:
        """There is due mail for it in the store that nobody holds."""
        lane = self._lane_of(domain)
        if self._stopped(domain, lane):
            if len(self._parked) < _DOMAINS:  # others are found, and given up, once they may go on
                self._parked.setdefault(domain, self._now())
            return
        if domain not in lane.backlog:
            lane.backlog[domain] = self._now()
            self._backlogged += 1
        self.feed(lane)

    def note(self, domain: str, due: int) -> None:
        """A recipient waits, and is due then (milliseconds since 1970). Called once that is committed."""
        if due <= self._now():
            self.found(domain)  # the sweep may have passed that time before the commit
        else:
            self._arm(due)

    def feed(self, lane: LaneState) -> bool:
        """Mail is to be read for it, if it can make use of some now."""
        if not (lane.backlog and len(lane.window) * 2 <= lane.depth and self._is_open(lane)):
            return False
        self._hungry[lane] = None
        self._wake.set()
        return True

    def _is_open(self, lane: LaneState) -> bool:
        now = self._now()
        return lane.opens_at(now) <= now

    def forget(self, lane: LaneState) -> Iterable[str]:
        """Empties the lane's backlog; the domains that were in it."""
        domains = list(lane.backlog)
        lane.backlog.clear()
        self._backlogged -= len(domains)
        self._hungry.pop(lane, None)
        return domains

    def unpark(self) -> Iterable[str]:
        """Forgets what was suspended; the destinations."""
        parked = list(self._parked)
        self._parked.clear()
        return parked

    def resume_aside(self) -> None:
        """Senders are suspended no more: all that was put aside is due, and looked at anew."""
        self._resuming = True
        self._wake.set()

    def put_aside(self) -> None:
        """Some mail was."""
        self._aside = True

    @property
    def keeps_watch(self) -> bool:
        """Suspended mail has to be looked at as the minutes pass."""
        return bool(self._parked) or self._aside

    def look(self) -> None:
        """The minute is over: backlogs that wait longer than that are looked through for mail that grew too old."""
        now = self._now()
        places = [*(lane.backlog for lane in self._lanes()), self._parked]
        waiting = (
            (looked, domain, place) for place in places for domain, looked in place.items() if now - looked >= _LOOK
        )
        # The longest ago first: where there are more than can be looked at, each has its turn.
        for _looked, domain, place in heapq.nsmallest(_LOOKS - len(self._looks), waiting, key=itemgetter(0)):
            place[domain] = now
            self._looks.append(_Look(domain))
        self._look_aside = self._aside
        self._wake.set()

    @property
    def is_quiet(self) -> bool:
        """True while it waits to be told of something."""
        return not self._busy and not self._wake.is_set()

    def sweep_again(self) -> None:
        """Mail has come to this slot that may be due at any time."""
        self._sweeping = self._anew = True
        self._wake.set()

    def resume(self) -> None:
        """The recorder takes more."""
        if self._looks or self._look_aside:
            self._wake.set()

    async def run(self) -> None:
        """Until it is cancelled."""
        self._latest = milliseconds(self._store.latest) if self._store.latest else 0
        self._now()
        while True:
            self._busy = False
            await self._wake.wait()
            self._busy = True
            self._wake.clear()
            try:
                while await self._step():
                    pass
            except StoreUnavailable:
                self._later()
            except Exception:  # noqa: BLE001 - a bug must not stop all mail; what was to be read is read a second later
                self._recorder.unexpected("feeding the lanes")
                self._later()

    def _now(self) -> int:
        now = whole(self._clock())
        if now < self._latest - _SET_BACK:
            self._set_back(now)
        self._latest = now
        return now

    def _set_back(self, now: int) -> None:
        self._emit(ClockSetBack((self._latest - now) / 1000))
        self._hurry = True
        self._swept, self._due = 0, None
        for lane in self._lanes():
            lane.set_back(now)
        self._wake.set()

    def _later(self) -> None:
        self._timers.call_at(self._clock() + _RETRY, self._wake.set)

    async def _step(self) -> bool:
        """One read or two, so that neither refills nor the sweep keep the other waiting. False when there is nothing to do."""
        if self._hurry:
            await self._store.hasten(self._clock())
            self._hurry, self._mark, self._sweeping = False, Mark(), True
        if self._resuming:
            while await self._store.resume_aside(self._clock()):
                self._sweeping = self._anew = True
            self._resuming, self._sweeping, self._anew = False, True, True
        fed = bool(self._hungry)
        if fed:
            await self._refill(next(iter(self._hungry)))
        if self._sweeping and self._backlogged < _DOMAINS:
            await self._sweep()
        elif self._look_aside:
            self._look_aside = False
            found = await self._store.aside_destinations(self._aside_after, _LOOKS)
            self._aside = bool(found or self._aside_after)
            self._aside_after = found[-1] if len(found) == _LOOKS else ""  # the others are looked at a minute later
            self._looks.extend(_Look(destination, aside=True) for destination in found)
        elif self._looks and not self._hungry and self._recorder.ready:
            await self._look(self._looks[0])
        else:
            return fed
        return True

    # --- refills ---

    async def _refill(self, lane: LaneState) -> None:
        self._hungry.pop(lane, None)
        room = lane.depth - len(lane.window)
        if not lane.backlog or room <= 0:
            return
        now = self._clock()
        if milliseconds(now) < self._mark.due:  # the clock was set back: what was due may be no more
            self._sweeping = True
        domain, looked = next(iter(lane.backlog.items()))
        # Taken out first: what is found while we read must put it in again.
        del lane.backlog[domain]
        self._backlogged -= 1
        keep = True
        try:
            with self._claims.reading():
                # Those in hand are due too, and the first in the index.
                limit = room + lane.claimed + self._claims.reserved
                due = await self._store.due(domain, now, limit, frozenset(lane.taken))
                lane = self._lane_of(domain)  # the configuration may be another one now
                keep = not self._fed(lane, due.found) or due.more
        finally:
            if keep and domain not in lane.backlog:
                lane.backlog[domain] = looked
                self._backlogged += 1

    # --- the sweep ---

    async def _sweep(self) -> None:
        now = self._clock()
        if self._anew or milliseconds(now) < self._mark.due:
            self._mark, self._anew = Mark(), False
        page = await self._store.due_domains(self._mark, now, _PAGE)
        self._mark = page.mark
        for domain in page.domains:
            self.found(domain)
        if page.complete and not self._anew:
            self._sweeping = False
            self._swept = milliseconds(now)
            # What is written from now on with a time before now is told by `note`.
            self._mark = Mark(self._swept, _LAST)
            self._due = None
            detours, later = await self._store.detours(now)
            for detour in detours:
                self.found(detour)
            for following in (await self._store.next_due(self._mark), later):
                if following is not None:
                    self._arm(milliseconds(following))

    def _arm(self, due: int) -> None:
        if self._due is None or due < self._due:
            self._due = due
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self._timers.call_at(moment(max(due, self._swept + _SWEEP_PAUSE)), self._rung)

    def _rung(self) -> None:
        due, self._due = self._due, None
        if due is None:
            return
        if max(due, self._swept + _SWEEP_PAUSE) > self._now():
            self._arm(due)
        else:
            self._sweeping = True
            self._wake.set()

    # --- the look at age ---

    async def _look(self, look: "_Look") -> None:
        domain = look.domain
        lane, now = self._lane_of(domain), self._clock()
        retry = lane.lane.retry
        expired = now - retry.expire
        late = now - retry.delay_warning if retry.delay_warning else expired
        read = self._store.aside if look.aside else self._store.overdue
        with self._claims.reading():
            page = await read(domain, Ages(now, expired, late), look.after, _OVERDUE)
            self._looks.popleft()
            if page.after is not None:
                self._looks.appendleft(replace(look, after=page.after))
            trouble = WHY if look.aside or domain in self._parked else lane.trouble
            aged = [found for each in page.found if (found := self._aged(lane, each, now, trouble))]
        for candidate, settled in aged:
            done = partial(self._recorded, candidate, settled)
            await self._recorder.record(Result(candidate.message, candidate.body, settled, (), done))

    def _aged(
        self, lane: LaneState, waiting: Waiting, now: datetime, trouble: Outcome | None
    ) -> tuple[Candidate, Settled] | None:
        """Takes in hand those recipients of the lane that are too old or late."""
        message = waiting.message
        terms = Terms(lane.lane.retry, now, lambda: 0.0)
        free = {
            index: standing
            for index, standing in waiting.standing.items()
            if self._claims.is_free((message.id, index)) and self._lane_of(waiting.destination(index)) is lane
        }
        settled = settle_overdue(message, free, terms, trouble)
        if not settled.changes:
            return None
        candidate = Candidate(lane, message, waiting.body, {each.index: free[each.index] for each in settled.changes})
        candidate.stage = Stage.SETTLING
        self._claims.take(candidate)
        return candidate, settled

    def _recorded(self, candidate: Candidate, settled: Settled) -> None:
        self._claims.free(candidate.keys)
        if any(change.state is State.WAITING for change in settled.changes):
            for destination in candidate.destinations:
                self.found(destination)
