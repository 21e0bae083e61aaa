"""What is suspended now, and what that does to mail on its way into a lane (relay.policy.suspension).

A suspended destination is parked by the feeder. Mail of a suspended sender is put aside in the store, where no read meets it.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from functools import partial

from relay.policy.reroute import domain_of
from relay.policy.suspension import NONE, Suspensions
from relay.queue.claims import Claims
from relay.queue.feeder import Feeder
from relay.queue.ids import Clock
from relay.queue.lanes import Key, LaneState
from relay.queue.store import Standing, Store, Waiting
from relay.queue.timers import Timer, Timers

_RETRY = timedelta(seconds=1)  # after the store could not be written


class Suspending:
    """`changed` is called when other mail is suspended than before: all that waits is to be sorted anew."""

    def __init__(
        self, store: Store, claims: Claims, feeder: Feeder, *, clock: Clock, timers: Timers, changed: Callable[[], None]
    ) -> None:
        self.held: Suspensions = NONE
        self._store, self._claims, self._feeder = store, claims, feeder
        self._clock, self._timers, self._changed = clock, timers, changed
        self._ending: Timer | None = None  # the first of them

    def hold(self, suspensions: Suspensions) -> None:
        """These from now on, and no others. Each ends at its time."""
        before, self.held = self.held, suspensions.at(self._clock())
        if before.by_sender:
            self._feeder.resume_aside()
        self._changed()
        self._await_end()

    def _await_end(self) -> None:
        """A timer may ring before its time, those of the loop every minute: nothing is sorted anew until one has ended."""
        self.close()
        ends = self.held.ends
        if ends is None:
            return
        if ends <= self._clock():
            self.hold(self.held)
        else:
            self._ending = self._timers.call_at(ends, self._await_end)

    def close(self) -> None:
        if self._ending is not None:
            self._ending.cancel()
            self._ending = None

    def stops(self, destination: str, lane: LaneState) -> bool:
        if not self.held:
            return False
        return self.held.of_destination(domain_of(destination), lane.lane.connector) is not None

    def those_that_may_go(self, waiting: Waiting, lane: LaneState) -> Mapping[int, Standing]:
        """Of these recipients, all of them the lane's. The others are parked, or put aside."""
        message, going = waiting.message, dict(waiting.standing)
        for index in waiting.standing:
            destination = waiting.destination(index)
            if self.stops(destination, lane):
                self._feeder.found(destination)
                del going[index]
        if going and self.held.of_sender(str(message.envelope.sender)) is not None:
            self._put_aside(lane, [(message.id, index) for index in going])
            return {}
        return going

    def _put_aside(self, lane: LaneState, keys: Sequence[Key]) -> None:
        self._feeder.put_aside()
        self._claims.reserve(keys)
        self._store.put_aside(keys).add_done_callback(partial(self._was_put_aside, lane, keys))

    def _was_put_aside(self, lane: LaneState, keys: Sequence[Key], done: asyncio.Future[None]) -> None:
        self._claims.free(keys)
        # A refill that found nothing else has left its window empty, and no delivery ends to ask for more.
        self._feeder.feed(lane)
        if not done.cancelled() and done.exception() is not None:  # still due, and found again
            self._timers.call_at(self._clock() + _RETRY, self._feeder.sweep_again)
        self._feeder.resume()
