"""TLS reports in a running relay: sessions counted on the way of deliveries, reports sent and taken in, operators answered.

Wiring only: what counts is decided in `relay.policy.tlsrpt`, all else is `relay.report.tlsrpt`'s.
"""

import asyncio
import contextlib
import secrets
import traceback
from collections import Counter as Tally
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from typing import Any

from relay import __version__
from relay.admin.endpoint import Unavailable
from relay.app.own_mail import put_mail
from relay.config.connectors import PrivateAddresses
from relay.config.models import Config, Switch, Unsigned
from relay.dns.answers import Resolver
from relay.mail.attempt import Attempt, Delivery
from relay.mail.codec import posting_json, time_text
from relay.mail.envelope import TLS_REPORTS, Message
from relay.mail.events import Emit, TlsSessionTried, Unexpected
from relay.mail.outcome import Deferred, Outcome
from relay.mail.tlsreport import Posting, Summary, Wanted
from relay.policy.book import RuleBook
from relay.policy.tlsrpt import judge_session, report_domain
from relay.queue.intake import Intake
from relay.queue.ledger import SqliteLedger
from relay.queue.operations import Operations, Selection
from relay.queue.scheduler import Deliver
from relay.queue.sqlite import SqliteStore
from relay.queue.store import Query, State, StoreUnavailable
from relay.report.post import Poster
from relay.report.post import Terms as PostTerms
from relay.report.tlsrpt.counts import Counter
from relay.report.tlsrpt.document import GZIP, Reporter, Subject, end_of, report
from relay.report.tlsrpt.mail import Key, Mail
from relay.report.tlsrpt.mailbox import Mailbox
from relay.report.tlsrpt.mailbox import Terms as MailboxTerms
from relay.report.tlsrpt.sender import Sender, Setting, Ways, due_at

Json = dict[str, Any]

MOST_RECEIVED = 10_000
_FLUSH = 30.0  # seconds: counts that a kill loses
_TICK = 60.0
_FORGET = 24 * 60  # ticks
_MANY = 10_000


@dataclass(frozen=True, slots=True)
class Neighbours:
    """`intake` and `operations` are asked for when they are needed: they are made later than deliveries. `flush` has the relay's other
    processes write what they have counted."""

    store: SqliteStore
    resolver: Resolver
    intake: Callable[[], Intake]
    operations: Callable[[], Operations]
    flush: Callable[[], Awaitable[None]]


class TlsReports:
    """Implements the part of `relay.admin.reports.Reports`. Without `tlsrpt` in the configuration nothing
    is counted, sent or taken in. Every process of a relay counts, one `sends`."""

    def __init__(
        self,
        around: Neighbours,
        *,
        book: Callable[[], RuleBook],
        clock: Callable[[], datetime],
        emit: Emit,
        sends: bool = True,
    ) -> None:
        self._book, self._clock, self._emit, self._sends = book, clock, emit, sends
        self._flush_others = around.flush
        self._ledger = SqliteLedger(around.store)
        self._counter = Counter(self._ledger.add, clock)
        self._flushing = asyncio.Lock()
        txt = around.resolver.txt
        self._mailbox = Mailbox(self._ledger, txt, terms=self._mailbox_terms, clock=clock, emit=emit)
        poster = Poster(around.resolver.addresses, self._post_terms, f"ironpost/{__version__}", GZIP)
        queue = _Queue(around, clock)
        self._sender = Sender(Ways(self._ledger, txt, queue, poster, self._setting, clock, emit))
        self._closing = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def uncounted(self) -> int:
        """Sessions that there was no room to remember."""
        return self._counter.uncounted

    async def start(self) -> None:
        await self._guarded(self._restore)
        self._tasks = [asyncio.create_task(self._keep_flushing(), name="tlsrpt-counts")]
        if self._sends:
            self._tasks.append(asyncio.create_task(self._keep_sending(), name="tlsrpt-sender"))

    async def close(self) -> None:
        """What was counted is written. A report on its way is tried again after the next start."""
        self._closing.set()
        for task in self._tasks[1:]:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        await self._guarded(self.flush)

    # On the way of deliveries.

    def over(self, outbound: Deliver) -> Deliver:
        """Deliveries that count, and of which those to our own mailboxes end here."""

        async def deliver(delivery: Delivery) -> Sequence[Attempt]:
            book = self._book()
            if book.config.tlsrpt is None:
                return await outbound(delivery)
            attempts: list[Attempt] = []
            recipients = delivery.message.envelope.recipients
            ours = tuple(index for index in delivery.indexes if book.is_report_mailbox(recipients[index].address))
            if ours:
                attempts.append(await self._take(delivery, ours))
            others = tuple(index for index in delivery.indexes if index not in ours) if ours else delivery.indexes
            if others:
                attempts.extend(await outbound(replace(delivery, indexes=others) if ours else delivery))
            self._count(book, delivery.message, attempts)
            return attempts

        return deliver

    async def _take(self, delivery: Delivery, indexes: Sequence[int]) -> Attempt:
        at, message = self._clock(), delivery.message
        try:
            outcome: Outcome = await self._mailbox.take(message, delivery.body)
        except StoreUnavailable:
            outcome = Deferred(451, "4.3.0", "the report cannot be kept now")
        return Attempt(message.id, at, "", "", TLS_REPORTS, None, None, tuple((index, outcome) for index in indexes))

    def _count(self, book: RuleBook, message: Message, attempts: Sequence[Attempt]) -> None:
        if message.is_tls_report:  # RFC 8460 section 3: its own session is not for the next report
            return
        for attempt in attempts:
            if attempt.session is None or not attempt.outcomes:
                continue
            recipient = message.envelope.recipients[attempt.outcomes[0][0]].address
            host = attempt.hop.rpartition(":")[0].strip("[]")
            domain = report_domain(book.outbound_for(recipient.domain), recipient.domain, host)
            judged = judge_session(domain, attempt)
            if judged:
                self._counter.count(domain, judged)
                self._emit(TlsSessionTried(domain, attempt.hop, attempt.address, judged))

    # By the configuration in force.

    @property
    def _config(self) -> Config:
        return self._book().config

    def _reporter(self) -> Reporter | None:
        config = self._config
        if config.tlsrpt is None:
            return None
        contact = config.tlsrpt.contact or config.postmaster
        sender = config.tlsrpt.sender or contact
        return Reporter(config.tlsrpt.organization or config.hostname, contact, sender, config.hostname)

    def _setting(self) -> Setting | None:
        """None while sending is off."""
        config, reporter = self._config.tlsrpt, self._reporter()
        if config is None or reporter is None or config.send is Switch.OFF:
            return None
        dkim = config.dkim
        return Setting(reporter, Key(dkim.domain, dkim.selector, dkim.key.reveal) if dkim is not None else None)

    def _mailbox_terms(self) -> MailboxTerms:
        config = self._config.tlsrpt
        return MailboxTerms(must_be_signed=config is None or config.unsigned is Unsigned.IGNORE)

    def _post_terms(self) -> PostTerms:
        """`route.private` of the defaults lets deliveries go to private addresses (closed networks): reports then may too."""
        config = self._config
        return PostTerms(config.trust, config.default.route.private is PrivateAddresses.ALLOW)

    # In the background.

    async def _keep_flushing(self) -> None:
        while not await self._waited(_FLUSH):
            await self._guarded(self.flush)

    async def _keep_sending(self) -> None:
        ticks = 0
        while True:
            if ticks % _FORGET == 0:
                await self._guarded(self._forget)
            await self._guarded(self._sender.tick)
            ticks += 1
            if await self._waited(_TICK):
                return

    async def _waited(self, seconds: float) -> bool:
        """True where it is time to close."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._closing.wait()
        return self._closing.is_set()

    async def flush(self) -> None:
        """What was counted here is written. Raises StoreUnavailable."""
        async with self._flushing:
            await self._counter.flush()

    async def _flush_all(self) -> None:
        await self.flush()
        await self._flush_others()

    async def _restore(self) -> None:
        self._counter.restore(await self._ledger.lines(self._clock().date()))

    async def _forget(self) -> None:
        now = self._clock()
        before = now - self._book().config.retention.tls_reports
        await self._ledger.forget(days=before.date(), received=before, most=MOST_RECEIVED)

    async def _guarded(self, work: Callable[[], Awaitable[None]]) -> None:
        """A store in trouble is told of elsewhere; the next round does it."""
        try:
            await work()
        except StoreUnavailable:
            pass
        except Exception:  # noqa: BLE001 - reports are not worth a relay
            self._emit(Unexpected(secrets.token_hex(6), "tls reports", traceback.format_exc()))

    # For operators.

    async def reports(self, domain: str, day: date | None, limit: int) -> Json:
        """Sessions counted by day and domain, and where the reports about them stand."""
        self._needs_reporter()
        await self._flush_all()
        found = await self._ledger.summaries(Wanted(domain, day, limit))
        return {
            "sending": self._setting() is not None,
            "reports": [await self._standing(each) for each in found],
            "uncounted": self.uncounted,
        }

    async def report(self, domain: str, day: date | None) -> Json | None:
        """The report that would go, of today by default: so far. None where nothing was counted."""
        reporter = self._needs_reporter()
        await self._flush_all()
        day = day or self._clock().date()
        counts = await self._ledger.counts(day, domain)
        return report(reporter, self._about(day, domain), counts) if counts else None

    async def send_reports(self, domain: str, day: date | None) -> Json:
        """Without `domain` and `day` all that waits; else one day's, of one domain or of all. Where they stand then."""
        self._needs_reporter()
        if self._setting() is None:
            raise Unavailable("`tlsrpt.send` is off: no reports are sent")
        await self._flush_all()
        yesterday = self._clock().date() - timedelta(days=1)
        if day is None and not domain:
            await self._sender.tick(at_once=True)
            summaries = await self._ledger.summaries(Wanted("", yesterday, _MANY))
            return _sent([one for each in summaries for one in await self._ledger.postings(each.day, each.domain)])
        day = day or yesterday
        domains = [domain] if domain else [each.domain for each in await self._ledger.summaries(Wanted("", day, _MANY))]
        sent: list[Posting] = []
        for each in domains:
            sent.extend(await self._sender.begin(day, each, self._about(day, each).ends))
        return _sent(sent)

    async def received_reports(self, since: datetime | None, limit: int) -> Json:
        return {"received": list(await self._ledger.received(since, limit))}

    def _needs_reporter(self) -> Reporter:
        reporter = self._reporter()
        if reporter is None:
            raise Unavailable("nothing is counted: the configuration has no `tlsrpt`")
        return reporter

    def _about(self, day: date, domain: str) -> Subject:
        return Subject(day, domain, min(end_of(day), self._clock().replace(microsecond=0)))

    async def _standing(self, summary: Summary) -> Json:
        postings = await self._ledger.postings(summary.day, summary.domain)
        return {
            "day": summary.day.isoformat(),
            "domain": summary.domain,
            "successes": summary.successes,
            "failures": summary.failures,
            "due": None if postings else time_text(due_at(summary.day, summary.domain)),
            "to": [posting_json(each) for each in postings],
        }


def _sent(postings: Sequence[Posting]) -> Json:
    return {
        "states": dict(Tally(each.state.value for each in postings)),
        "reports": [
            {"day": each.day.isoformat(), "domain": each.domain, **posting_json(each)} for each in postings[:1000]
        ],
    }


class _Queue:
    """relay.report.tlsrpt.sender.MailQueue."""

    def __init__(self, around: Neighbours, clock: Callable[[], datetime]) -> None:
        self._around, self._clock = around, clock

    async def put(self, mail: Mail) -> str:
        return await put_mail(self._around.intake(), mail, TLS_REPORTS, self._clock())

    async def states(self, ids: Sequence[str]) -> Mapping[str, str]:
        query = Query(ids=tuple(ids), states=frozenset(State), limit=len(ids))
        return {each["id"]: each["recipients"][0]["state"] for each in await self._around.store.listing(query)}

    async def cancel(self, ids: Sequence[str]) -> None:
        await self._around.operations().delete(Selection(ids=tuple(ids)))
