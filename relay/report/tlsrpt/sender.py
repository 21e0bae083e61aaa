"""Sends the reports of the days that are over: looks up who wants one, mails and posts them, tries again for 24 hours.

A report goes out some time after midnight UTC, each domain's at a time of its own (RFC 8460 section 4.1), so that no receiver hears from all
relays at once. Where it stands is in the ledger, so a restart goes on where the last run was; a crash between queueing a mail and noting
it sends the mail again, under the same report-id.

Threat: who publishes a record chooses where reports go. At most `rua.MOST` addresses for each domain, once a day; see `post` and `rua`.
"""

import asyncio
import zlib
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from typing import Protocol

from relay.dns.answers import TxtAnswer
from relay.mail.events import Emit, TlsReportSent
from relay.mail.tlsreport import Posting, PostState
from relay.policy.route import LookupFailed
from relay.policy.rua import Destination, Https, MailTo, NoRecord, read_records, read_uri
from relay.report.post import Posted
from relay.report.tlsrpt.document import Reporter, Subject, end_of, packed, report
from relay.report.tlsrpt.ledger import Ledger
from relay.report.tlsrpt.mail import Key, Mail, compose

PREFIX = "_smtp._tls."
LATEST = timedelta(hours=4)
_EARLIEST = timedelta(minutes=10)  # after midnight: clocks differ, and the last counts are written by then
GIVE_UP = timedelta(hours=24)  # RFC 8460 section 5.5
_FIRST_WAIT = timedelta(minutes=5)
_LONGEST_WAIT = timedelta(hours=4)
_LOOK = timedelta(minutes=5)  # between two looks at a mail in the queue
_DAYS = 3  # how far back reports are sent that were missed
_LIVE = ("waiting", "delivering", "held")
_AT_ONCE = 10
_PAGE = 200


@dataclass(frozen=True, slots=True)
class Setting:
    """By the configuration in force. `key` is None where nothing is signed."""

    reporter: Reporter
    key: Key | None


class MailQueue(Protocol):
    """Our own queue. `relay.app` has the real one. All may raise what the store raises while it cannot."""

    async def put(self, mail: Mail) -> str:
        """The message's id, once it is durable."""
        ...

    async def states(self, ids: Sequence[str]) -> Mapping[str, str]:
        """ "waiting" and the like, "delivered", "bounced", "deleted" of the only recipient; nothing for ids that are gone."""
        ...

    async def cancel(self, ids: Sequence[str]) -> None:
        """Gives up, and tells nobody."""
        ...


@dataclass(frozen=True, slots=True)
class Ways:
    """What the sender works with. `setting` gives None while sending is off."""

    ledger: Ledger
    txt: Callable[[str], Awaitable[TxtAnswer]]
    queue: MailQueue
    post: Callable[[Https, bytes], Awaitable[Posted]]
    setting: Callable[[], Setting | None]
    clock: Callable[[], datetime]
    emit: Emit


_Key = tuple[date, str]


def _key(posting: Posting) -> _Key:
    return posting.day, posting.domain


def _by_key(postings: Iterable[Posting]) -> dict[_Key, list[Posting]]:
    found: dict[_Key, list[Posting]] = {}
    for each in postings:
        found.setdefault(_key(each), []).append(each)
    return found


def due_at(day: date, domain: str) -> datetime:
    """When the report of `day` goes to `domain`: always the same, so that a restart neither repeats nor delays it."""
    spread = (LATEST - _EARLIEST).total_seconds()
    return end_of(day) + _EARLIEST + timedelta(seconds=zlib.crc32(f"{day} {domain}".encode()) % spread)


class Sender:
    """One report at a time for each day and domain, some at once altogether."""

    def __init__(self, ways: Ways) -> None:
        self._ways = ways
        self._busy: set[_Key] = set()
        self._places = asyncio.Semaphore(_AT_ONCE)

    async def tick(self, *, at_once: bool = False) -> None:
        """Everything that is due now; `at_once`: everything that waits for its time, too. Raises what the store raises; the next
        tick goes on."""
        if self._ways.setting() is None:
            return
        now = self._ways.clock()
        horizon = now + GIVE_UP if at_once else now
        for back in range(_DAYS, 0, -1):
            day = now.date() - timedelta(days=back)
            unposted = await self._ways.ledger.unposted(day, end_of(day))
            domains = [each for each in unposted if due_at(day, each) <= horizon]
            for start in range(0, len(domains), _PAGE):
                await self._all([self._begin(day, each, end_of(day)) for each in domains[start : start + _PAGE]])
        seen: set[tuple[_Key, str]] = set()
        while True:
            due = await self._ways.ledger.due(horizon, _PAGE)
            postings = [each for each in due if (_key(each), each.to) not in seen]
            if not postings:
                return
            seen.update((_key(each), each.to) for each in postings)
            await self._look_after([each for each in postings if each.state is PostState.QUEUED])
            open_ones = _by_key(each for each in postings if each.state is not PostState.QUEUED)
            await self._all([self._try(key, each) for key, each in open_ones.items()])

    async def begin(self, day: date, domain: str, ends: datetime) -> Sequence[Posting]:
        """Looks up who wants the report about one domain, and sends it. Where it stands then; () where nothing was counted."""
        if self._ways.setting() is not None and await self._ways.ledger.counts(day, domain):
            async with self._places:
                await self._begin(day, domain, ends)
        return await self._ways.ledger.postings(day, domain)

    async def _all(self, tasks: Sequence[Awaitable[None]]) -> None:
        """All are done whatever becomes of one; then the first failure is raised."""

        async def in_place(task: Awaitable[None]) -> None:
            async with self._places:
                await task

        for done in await asyncio.gather(*map(in_place, tasks), return_exceptions=True):
            if isinstance(done, BaseException):
                raise done

    async def _begin(self, day: date, domain: str, ends: datetime) -> None:
        now = self._ways.clock()
        posting = Posting(day, domain, "", PostState.ASKING, ends, now, now + GIVE_UP)
        await self._try((day, domain), [posting])

    async def _try(self, key: _Key, postings: Sequence[Posting]) -> None:
        """Nothing where another call is at the same report."""
        if key in self._busy:
            return
        self._busy.add(key)
        try:
            for posting in postings:
                await (self._ask(posting) if posting.state is PostState.ASKING else self._send(posting))
        finally:
            self._busy.discard(key)

    async def _ask(self, posting: Posting) -> None:
        """The TLSRPT record, and on with it."""
        ledger, day, domain, now = self._ways.ledger, posting.day, posting.domain, self._ways.clock()
        answer = await self._ways.txt(PREFIX + domain)
        if isinstance(answer, LookupFailed):
            later = _later(posting, now, f"the look-up of {PREFIX}{domain} failed: {answer.text}")
            await ledger.post(day, domain, [later])
            self._tell(later)
            return
        found = read_records(answer.texts)
        if isinstance(found, NoRecord):
            await ledger.post(day, domain, [replace(posting, state=PostState.UNWANTED, text=found.reason)])
            return
        waiting = [
            replace(posting, to=each.uri, state=PostState.WAITING, tries=0, due=now, until=now + GIVE_UP, text="")
            for each in found.found
        ]
        await ledger.post(day, domain, waiting)
        for each in waiting:
            await self._send(each)

    async def _send(self, posting: Posting) -> None:
        setting, destination = self._ways.setting(), read_uri(posting.to)
        if setting is None or destination is None:
            return
        about = Subject(posting.day, posting.domain, posting.ends)
        counts = await self._ways.ledger.counts(posting.day, posting.domain)
        file = await asyncio.to_thread(packed, report(setting.reporter, about, counts))
        sent = await self._hand_over(posting, destination, setting, about, file)
        await self._ways.ledger.note(sent)
        self._tell(sent)

    async def _hand_over(
        self, posting: Posting, destination: Destination, setting: Setting, about: Subject, file: bytes
    ) -> Posting:
        now = self._ways.clock()
        if isinstance(destination, MailTo):
            mail = await asyncio.to_thread(
                compose, setting.reporter, about, destination.address, file, now, setting.key
            )
            message = await self._ways.queue.put(mail)
            return replace(posting, state=PostState.QUEUED, message=message, tries=posting.tries + 1, due=now + _LOOK)
        posted = await self._ways.post(destination, file)
        if not posted.error:
            return replace(posting, state=PostState.SENT, tries=posting.tries + 1, text="")
        return _later(posting, now, posted.error)

    async def _look_after(self, postings: Sequence[Posting]) -> None:
        """Mails that we have queued: delivered, given up, or too old."""
        now = self._ways.clock()
        states = await self._ways.queue.states([each.message for each in postings]) if postings else {}
        for posting in postings:
            looked = _looked_after(posting, states.get(posting.message, "gone"), now)
            if looked.state is PostState.FAILED and states.get(posting.message) in _LIVE:
                await self._ways.queue.cancel([posting.message])
            await self._ways.ledger.note(looked)
            self._tell(looked)

    def _tell(self, posting: Posting) -> None:
        if posting.state.is_final:
            self._ways.emit(
                TlsReportSent(posting.domain, posting.day, posting.to, posting.state, posting.tries, posting.text)
            )


def _looked_after(posting: Posting, state: str, now: datetime) -> Posting:
    """`state` is the mail's in our queue."""
    if state == "delivered":
        return replace(posting, state=PostState.SENT, text="")
    if state in ("bounced", "deleted", "gone"):
        return replace(posting, state=PostState.FAILED, text=f"the mail is {state}: relay trace {posting.message}")
    if now >= posting.until:
        text = f"not delivered within 24 hours: relay trace {posting.message}"
        return replace(posting, state=PostState.FAILED, text=text)
    return replace(posting, due=min(now + _LOOK, posting.until))


def _later(posting: Posting, now: datetime, why: str) -> Posting:
    """Twice as long after each failure; given up after 24 hours (RFC 8460 section 5.5)."""
    tries = posting.tries + 1
    due = now + min(_FIRST_WAIT * 2 ** min(posting.tries, 10), _LONGEST_WAIT)
    if due >= posting.until:
        return replace(posting, state=PostState.FAILED, tries=tries, text=why)
    return replace(posting, tries=tries, due=due, text=why)
