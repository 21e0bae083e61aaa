"""What the recorded evidence adds up to, in a running relay: the tally is kept going, refusals are counted, operators are answered.

Wiring only: what counts is decided in `relay.policy.counted`, what may be suggested in `relay.policy.suggest`, shapes are
`relay.report.security`'s.
"""

import asyncio
import contextlib
import secrets
import traceback
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from relay.admin.endpoint import BadQuestionError, Unavailable
from relay.admin.security import PartnersQuery, Span, SuggestQuery
from relay.app.suggestions import Suggester
from relay.config.models import Config
from relay.mail.codec import time_text
from relay.mail.events import CommandRefused, ConnectionRefused, Emit, Event, Unexpected
from relay.mail.tally import OTHER, Refusal, Way
from relay.policy.book import RuleBook
from relay.queue.store import StoreUnavailable
from relay.queue.tallies import MOST_LINES
from relay.queue.tally import HOUR
from relay.queue.tallying import Tallying
from relay.report.security import figures
from relay.report.security.document import Found, Subject, report
from relay.report.security.figures import Json
from relay.report.suggested import yaml_of

_TICK = 30.0  # seconds: refusals that a kill loses
_REFUSALS = 2000  # kinds of them in one tick; past that they are summed up
_VERBS = frozenset({"HELO", "EHLO", "STARTTLS", "AUTH", "MAIL", "RCPT", "DATA", "BDAT", "RSET", "NOOP", "VRFY", "QUIT"})
_LONGEST = timedelta(days=400)
_PATIENCE = 20.0  # seconds for the other processes


REFUSALS: frozenset[type[Event]] = frozenset((CommandRefused, ConnectionRefused))


class Refused:
    """Counts REFUSALS: an observer of events."""

    def __init__(self, clock: Callable[[], datetime]) -> None:
        self._clock = clock
        self._counts: Counter[tuple[int, Refusal]] = Counter()

    def __call__(self, event: Event) -> None:
        if isinstance(event, CommandRefused):
            verb = event.command.partition(" ")[0].upper()
            command = verb if verb in _VERBS else "other"
            reply = event.reply
            self._add(Refusal("command", event.listener, command, event.connector, reply.code, reply.status))
        elif isinstance(event, ConnectionRefused):
            self._add(Refusal("connection", event.listener))

    def _add(self, refusal: Refusal) -> None:
        key = (int(self._clock().timestamp() * 1000) // HOUR, refusal)
        if key not in self._counts and len(self._counts) >= _REFUSALS:
            key = (key[0], Refusal(refusal.what, OTHER))
        self._counts[key] += 1

    async def flush(self, write: Callable[[Mapping[tuple[int, Refusal], int]], Awaitable[None]]) -> None:
        """What cannot be written is kept."""
        counts, self._counts = self._counts, Counter()
        if not counts:
            return
        try:
            await write(counts)
        except BaseException:
            self._counts += counts
            raise


@dataclass(frozen=True, slots=True)
class Around:
    """`flush_others` has the relay's other processes say how far they are and write what they counted. `connector_of`: who governs a domain."""

    book: Callable[[], RuleBook]
    clock: Callable[[], datetime]
    emit: Emit
    flush_others: Callable[[], Awaitable[None]]
    leads: bool = True


class Evidence:
    """Implements relay.admin.security.Security. Every process counts refusals and says how far it has written; the first one adds up."""

    def __init__(self, tallying: Tallying, refused: Refused, around: Around) -> None:
        self._tallying, self._refused, self._around = tallying, refused, around
        self._suggester = Suggester(around.book, around.clock)
        self._closing = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        self._tasks = [asyncio.create_task(self._keep_saying(), name="evidence")]
        if self._around.leads:
            self._tasks.append(asyncio.create_task(self._keep_counting(), name="tally"))

    async def close(self) -> None:
        self._closing.set()
        for task in self._tasks[1:]:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        await self._guarded(self.flush)

    async def flush(self) -> None:
        """Refusals are written, and how far we are is said. Raises StoreUnavailable."""
        await self._refused.flush(self._tallying.refuse)
        await self._tallying.say()

    async def _keep_saying(self) -> None:
        while True:
            await self._guarded(self.flush)
            if await self._waited():
                return

    async def _keep_counting(self) -> None:
        while True:
            await self._guarded(self._tallying.run)
            if await self._waited():
                return

    async def _waited(self) -> bool:
        """True where it is time to close."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_TICK):
                await self._closing.wait()
        return self._closing.is_set()

    async def _guarded(self, work: Callable[[], Awaitable[None]]) -> None:
        """A store in trouble is told of elsewhere; the next round does it."""
        try:
            await work()
        except StoreUnavailable:
            pass
        except Exception:  # noqa: BLE001 - figures are not worth a relay
            self._around.emit(Unexpected(secrets.token_hex(6), "the tally", traceback.format_exc()))

    # For operators.

    async def overview(self, span: Span, step: str) -> Json:
        since, until = self._span(span, timedelta(days=1))
        if (until - since) / figures.STEPS[step] > 24 * 35:
            raise BadQuestionError("step: more than 840 steps; ask for days, or for less time")
        async with self._asking():
            counted = await self._tallying.series(since, until, step)
            refused = await self._tallying.refused_series(since, until, step)
            return figures.overview((since, until), step, counted, refused) | await self._counted_to()

    async def shares(self, span: Span, way: Way) -> Json:
        since, until = self._span(span, timedelta(days=1))
        async with self._asking():
            lines = await self._tallying.lines(since, until)
            return _times(since, until) | figures.shares(lines, way) | await self._counted_to()

    async def partners(self, query: PartnersQuery) -> Json:
        since, until = self._span(query.span, timedelta(days=1))
        async with self._asking():
            rows = figures.partners(await self._tallying.lines(since, until, query.domain))
            shown = {"partners": rows[: query.limit], "more": len(rows) > query.limit}
            return _times(since, until) | shown | await self._counted_to()

    async def troubled(self) -> Json:
        rows, more = await self._troubles()
        return {"at": time_text(self._around.clock()), "troubled": rows, "more": more}

    async def security_report(self, span: Span, domain: str) -> Json:
        """In the shape of `relay.report.security.document`. Without a span: yesterday, UTC."""
        if span.since is None and span.until is None:
            midnight = self._around.clock().astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
            span = Span(midnight - timedelta(days=1), midnight)
        since, until = self._span(span, timedelta(days=1))
        async with self._asking():
            lines = await self._tallying.lines(since, until, domain)
            refusals = await self._tallying.refusals(since, until)
            troubles, _more = await self._troubles()
            counted_to = await self._tallying.counted_to()
            subject = Subject(since, until, self._around.clock(), counted_to, domain)
            return report(self._around.book().config, subject, Found(lines, refusals, troubles))

    async def suggest(self, query: SuggestQuery) -> Json:
        # From a midnight on: what is old is kept by day, and so are the chains that were shown.
        until = self._around.clock().astimezone(UTC)
        since = (until - timedelta(days=query.days)).replace(hour=0, minute=0, second=0, microsecond=0)
        async with self._asking():
            lines = await self._tallying.lines(since, until)
            seen = await self._tallying.sightings(since)
            if max(len(lines), len(seen)) >= MOST_LINES:  # what was left out may be what failed
                raise BadQuestionError(
                    "days: so much was counted in that time that it cannot all be looked at; ask for fewer days"
                )
            made = await asyncio.to_thread(self._suggester.made_of, lines, seen, query.min_messages)
            answer = {
                **_times(since, until),
                "days": query.days,
                "min_messages": query.min_messages,
                "suggestions": made,
            }
            return answer | {"yaml": yaml_of(answer)} | await self._counted_to()

    @contextlib.asynccontextmanager
    async def _asking(self) -> Any:
        """Brings the tally up to now, as far as that goes quickly; the store's word for "not now" becomes the API's."""
        try:
            await self.flush()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_PATIENCE):
                    await self._around.flush_others()
            await self._tallying.catch_up()
            yield
        except StoreUnavailable as error:
            raise Unavailable(error.reason) from error

    async def _counted_to(self) -> Json:
        return {"counted_to": time_text(await self._tallying.counted_to())}

    async def _troubles(self) -> tuple[list[Json], bool]:
        try:
            found, more = await self._tallying.waiting()
        except StoreUnavailable as error:
            raise Unavailable(error.reason) from error
        book = self._around.book()
        return figures.troubled(found, lambda domain: book.outbound_for(domain).name), more

    def _span(self, span: Span, usual: timedelta) -> tuple[datetime, datetime]:
        """Cut to whole hours, at most 400 days."""
        until = span.until or self._around.clock()
        since = span.since or until - usual
        since = since.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
        if since >= until:
            raise BadQuestionError("since: it is not before `until`")
        if until - since > _LONGEST + timedelta(days=1):
            raise BadQuestionError("since: no more than 400 days are kept")
        return since, until


def _times(since: datetime, until: datetime) -> Json:
    return {"since": time_text(since), "until": time_text(until)}


def proving(config: Config) -> frozenset[str]:
    """The inbound connectors that require a certificate."""
    return frozenset(each.name for each in config.inbound if each.require.certificate is not None)
