"""The tally in a running store: says how far this process has written, has what is complete counted step by step, and answers questions.

Every step waits for the transaction of the one before, which is one operation among others: mail goes first by coming more often.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from functools import partial

from relay.mail.tally import Count, Refusal, Sighting, Waiting
from relay.queue import tallies, tallyold
from relay.queue.ids import Clock, milliseconds, moment
from relay.queue.share import Share
from relay.queue.sqlite import SqliteStore
from relay.queue.tally import DAY, HOUR, Tally, refuse, say_complete, write

_STEPS = 80  # that a question waits for: 10,000 rows
_SHARE = 9  # a step is followed by a pause of so many times what it took: a long backlog takes a tenth of the time, and mail the rest


class Tallying:
    """Every method may raise StoreUnavailable. `proves` as for Tally."""

    def __init__(self, store: SqliteStore, share: Share, *, clock: Clock, proves: Callable[[], frozenset[str]]) -> None:
        self._store, self._share, self._clock = store, share, clock
        self._tally = Tally(processes=share.count, proves=proves)
        self._counting = asyncio.Lock()
        self._old = 0  # the day on which what is old was last seen to

    async def say(self) -> None:
        """Tells how far this process has written. Writes nothing where nobody has written since."""
        if await self._store.ask(partial(tallies.has_news, slot=self._share.slot)):
            complete = self._store.progress.complete()
            await self._store.work(partial(say_complete, slot=self._share.slot, complete=complete))

    async def catch_up(self) -> None:
        """Counts some of what is complete, for somebody who waits for it."""
        for _step in range(_STEPS):
            if not await self._step():
                return

    async def run(self) -> None:
        """Counts all that is complete, with pauses, and sees to what is old once a day. For the first process."""
        await self._all(self._step)
        today = milliseconds(self._clock()) // DAY
        if today != self._old:
            for chore in (tallyold.roll, tallyold.forget, tallyold.forget_seen, tallyold.forget_certificates):
                await self._all(lambda chore=chore: self._store.work(partial(chore, today=today)))  # type: ignore[misc]
            self._tally.forget()
            self._old = today

    @staticmethod
    async def _all(step: Callable[[], Awaitable[bool]]) -> None:
        more = True
        while more:
            begun = time.monotonic()
            more = await step()
            if more:
                await asyncio.sleep(min((time.monotonic() - begun) * _SHARE, 1.0))

    async def _step(self) -> bool:
        """True while there is more."""
        async with self._counting:
            try:
                step = await self._store.ask(self._tally.read)
                if step.is_empty:
                    return False
                if await self._store.work(partial(write, step=step)):
                    self._tally.learn(step)
                    return step.more
            except BaseException:
                self._tally.forget()
                raise
            self._tally.forget()
            return True

    async def refuse(self, group: Mapping[tuple[int, Refusal], int]) -> None:
        await self._store.work(partial(refuse, group=dict(group)))

    # Questions. Times are cut to the hour.

    async def lines(self, since: datetime, until: datetime, domain: str = "") -> list[tuple[Count, datetime, datetime]]:
        """One for each kind, with the first and the last hour (or day) in which it was counted."""
        found = await self._store.ask(partial(tallies.lines, span=_span(since, until), domain=domain))
        return [(count, moment(first * HOUR), moment(last * HOUR)) for count, first, last in found]

    async def series(self, since: datetime, until: datetime, by: str) -> list[tuple[datetime, str, int, int]]:
        """(time, result, messages, recipients) by "hour" or "day"."""
        found = await self._store.ask(partial(tallies.series, span=_span(since, until), by=by))
        return [(moment(hour * HOUR), result, messages, recipients) for hour, result, messages, recipients in found]

    async def refused_series(self, since: datetime, until: datetime, by: str) -> list[tuple[datetime, int]]:
        found = await self._store.ask(partial(tallies.refused_series, span=_span(since, until), by=by))
        return [(moment(hour * HOUR), count) for hour, count in found]

    async def refusals(self, since: datetime, until: datetime) -> list[tuple[Refusal, int]]:
        return await self._store.ask(partial(tallies.refusals, span=_span(since, until)))

    async def sightings(self, since: datetime, domain: str = "") -> list[Sighting]:
        return await self._store.ask(partial(tallies.sightings, since_day=milliseconds(since) // DAY, domain=domain))

    async def counted_to(self) -> datetime:
        return moment(await self._store.ask(partial(tallies.counted_to, now=milliseconds(self._clock()))))

    async def waiting(self) -> tuple[list[Waiting], bool]:
        return await self._store.ask(tallies.waiting)


def _span(since: datetime, until: datetime) -> tuple[int, int]:
    return milliseconds(since) // HOUR, -(-milliseconds(until) // HOUR)
