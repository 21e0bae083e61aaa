"""CRLs and OCSP answers: at hand, from the store, or fetched; refreshed before they end. One fetch at a time for each of them.

What they say of a certificate is `relay.tls.revocation.checks`'s. A fetch that fails changes nothing of what is held, and is not tried again at
once; nothing takes the place of what is held but what the issuer has signed, and signed later.

Threat: answers without end. Memory and the number of fetches are bounded, the store forgets what nobody used for a week.
"""

import asyncio
import contextlib
import random
import secrets
import traceback
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Protocol

from relay.mail.events import CrlFetched, Emit, RevocationFetchFailed, Unexpected
from relay.mail.revocation import Kind, NotFetchedError, RevocationKept, Wanted
from relay.policy.revocation import SOONEST, again_at, refresh_at
from relay.tls.revocation.crl import MAX_CRL, SKEW, Crl, read_crl
from relay.tls.revocation.links import Link, UnusableError, link_of, load, out_of_date
from relay.tls.revocation.memory import Held, Memory
from relay.tls.revocation.ocsp import MAX_ANSWER, Answer, question, read_answer

OCSP_SECONDS = 10.0
CRL_SECONDS = 60.0
UNUSED = timedelta(days=7)
"""What nobody asked for so long is not refreshed any more, and then forgotten."""
ASK_CA = "tell the CA, or whoever runs the address; this machine reaches it"
_FETCHES = 8  # at the same time
_CRL_FETCHES = 3  # at the same time, at 20 MiB each
_MANY = 2000  # failures remembered
_LARGE = 64 * 1024  # bytes from which on reading is a thread's work
_LOOK = timedelta(minutes=1)  # between two looks into the store for a newer one
_TOUCH = timedelta(hours=1)
_ROUND = timedelta(minutes=1)
_DROP = timedelta(hours=1)
_A_ROUND = 50  # refreshed in one round

Fetch = Callable[[Wanted], Awaitable[bytes]]
"""Raises NotFetchedError (`relay.dns.download`)."""


class RevocationKeeper(Protocol):
    """Where answers are kept over a restart and for the other processes. `relay.queue` has it. Never raises."""

    async def load_revocation(self, key: str, after: datetime | None) -> RevocationKept | None:
        """None where there is none that was fetched `after`."""
        ...

    async def save_revocation(self, kept: RevocationKept) -> None:
        """Takes the place of what was kept under its key, unless that is newer."""
        ...

    async def use_revocation(self, key: str, now: datetime) -> None:
        """It was asked for."""
        ...

    async def due_revocations(self, now: datetime, used: datetime, limit: int) -> tuple[RevocationKept, ...]:
        """Without `data`: those whose refresh is due and that were used since `used` and have an address."""
        ...

    async def postpone_revocation(self, key: str, until: datetime) -> None:
        """Its refresh failed."""
        ...

    async def drop_revocations(self, unused: datetime) -> None:
        """Deletes what was not used since."""
        ...


class KeepsNothing:
    """For commands and tests."""

    async def load_revocation(self, _key: str, _after: datetime | None) -> RevocationKept | None:
        return None

    async def save_revocation(self, _kept: RevocationKept) -> None:
        """Nobody will ask for it."""

    async def use_revocation(self, _key: str, _now: datetime) -> None:
        """Nothing is kept."""

    async def due_revocations(self, _now: datetime, _used: datetime, _limit: int) -> tuple[RevocationKept, ...]:
        return ()

    async def postpone_revocation(self, _key: str, _until: datetime) -> None:
        """Nothing is kept."""

    async def drop_revocations(self, _unused: datetime) -> None:
        """Nothing is kept."""


@dataclass(frozen=True, slots=True)
class RevocationSettings:
    """`wait`: how long a delivery or a session waits for a fetch; the fetch itself goes on. `again`: after how long a failed one is tried again,
    at first. `memory` in bytes."""

    wait: float = 5.0
    again: timedelta = timedelta(seconds=15)
    memory: int = 64 * 2**20


@dataclass(frozen=True, slots=True)
class _Failure:
    count: int
    until: datetime
    text: str


@dataclass(frozen=True, slots=True)
class _Asked:
    """One answer that can be fetched. `link` is None for a CRL."""

    key: str
    kind: Kind
    url: str
    certificate: bytes
    issuer: bytes
    link: Link | None


class Answers:
    """`clock` is the wall clock in UTC. `look` is to be called every few seconds by one process, `close` at the end."""

    def __init__(
        self,
        fetch: Fetch,
        keeper: RevocationKeeper,
        *,
        clock: Callable[[], datetime],
        emit: Emit,
        settings: RevocationSettings = RevocationSettings(),
        chance: random.Random | None = None,
    ) -> None:
        self._fetch, self._keeper, self._clock, self._emit = fetch, keeper, clock, emit
        self._settings = settings
        self._chance = chance or random.SystemRandom()
        self._memory = Memory(settings.memory)
        self._failures: OrderedDict[str, _Failure] = OrderedDict()
        self._fetches: dict[str, asyncio.Task[Crl | Answer]] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._slots = {Kind.OCSP: asyncio.Semaphore(_FETCHES), Kind.CRL: asyncio.Semaphore(_CRL_FETCHES)}
        self._next_round: datetime | None = None
        self._next_drop: datetime | None = None

    # What is at hand

    async def held_crl(self, link: Link, url: str) -> Crl | None:
        """From memory or the store; None where there is none that counts now."""
        found = await self._held(_crl_asked(link, url))
        return found[0] if found is not None and isinstance(found[0], Crl) else None

    async def held_answer(self, link: Link) -> tuple[Answer, str] | None:
        """With the address that it came from, "" for one that was stapled."""
        found = await self._held(_ocsp_asked(link, ""))
        return (found[0], found[1]) if found is not None and isinstance(found[0], Answer) else None

    def learn_staple(self, link: Link, answer: Answer) -> None:
        """A staple is an answer like any other, and a resumed session brings none: kept until it ends."""
        asked = _ocsp_asked(link, link.responders[0] if link.responders else "")
        held = self._memory.get(asked.key)
        if held is None or held.answer.this_update < answer.this_update:
            self._take(asked, answer)

    async def _held(self, asked: _Asked) -> tuple[Crl | Answer, str] | None:
        now = self._clock()
        held = self._memory.get(asked.key)
        if held is None or held.look <= now:
            newer = await self._load(asked, None if held is None else held.fetched)
            if newer is not None:
                held = newer
            elif held is not None:
                held.look = now + _LOOK
        if held is None or out_of_date(held.answer.this_update, held.answer.ends, now, SKEW):
            return None
        if now - held.touched >= _TOUCH:
            held.touched = now
            self._start(self._keeper.use_revocation(asked.key, now))
        return held.answer, held.url

    async def _load(self, asked: _Asked, after: datetime | None) -> Held | None:
        """From the store, and judged again: nothing is believed because it was kept."""
        kept = await self._keeper.load_revocation(asked.key, after)
        if kept is None:
            return None
        try:
            answer = await self._read(asked, kept.data)
        except UnusableError:
            return None
        held = Held(answer, kept.url, kept.fetched, kept.refresh + _LOOK, kept.used)
        self._memory.put(asked.key, held)
        return held

    # Fetching

    async def crl(self, link: Link, url: str) -> Crl:
        """Fetched. Raises UnusableError or NotFetchedError."""
        found = await self._get(_crl_asked(link, url))
        if not isinstance(found, Crl):
            raise UnusableError("there is no CRL")
        return found

    async def answer(self, link: Link, url: str) -> Answer:
        """Fetched. Raises UnusableError or NotFetchedError."""
        found = await self._get(_ocsp_asked(link, url))
        if not isinstance(found, Answer):
            raise UnusableError("there is no OCSP answer")
        return found

    async def _get(self, asked: _Asked) -> Crl | Answer:
        """Whoever stops waiting stops nobody's fetch."""
        flight = f"{asked.key} {asked.url}"
        failure = self._failures.get(flight)
        if failure is not None and self._clock() < failure.until:
            raise NotFetchedError(failure.text)
        return await asyncio.shield(self._fetching(asked, flight))

    def _fetching(self, asked: _Asked, flight: str) -> "asyncio.Task[Crl | Answer]":
        task = self._fetches.get(flight)
        if task is None:
            task = self._fetches[flight] = asyncio.get_running_loop().create_task(self._fetch_one(asked, flight))
            task.add_done_callback(lambda done: self._fetched(done, flight))
        return task

    def _fetched(self, task: "asyncio.Task[Crl | Answer]", flight: str) -> None:
        self._fetches.pop(flight, None)
        error = None if task.cancelled() else task.exception()
        if error is not None and not isinstance(error, UnusableError | NotFetchedError):
            self._tell(error)

    async def _fetch_one(self, asked: _Asked, flight: str) -> Crl | Answer:
        try:
            async with self._slots[asked.kind]:
                answer = await self._read(asked, await self._fetch(_wanted(asked)))
            late = out_of_date(answer.this_update, answer.ends, self._clock(), SKEW)
            if late:
                raise UnusableError(f"what is there does not count now: {late}")
        except (UnusableError, NotFetchedError) as error:
            self._failed(asked, flight, error)
            raise
        self._failures.pop(flight, None)
        if isinstance(answer, Crl):
            self._emit(CrlFetched(asked.url, len(answer.der), answer.ends))
        return self._take(asked, answer)

    async def _read(self, asked: _Asked, data: bytes) -> Crl | Answer:
        if asked.link is not None:
            return read_answer(data, asked.link, self._clock())
        issuer = load(asked.issuer)
        if len(data) < _LARGE:
            return read_crl(data, issuer)
        return await asyncio.to_thread(read_crl, data, issuer)

    def _take(self, asked: _Asked, answer: Crl | Answer) -> Crl | Answer:
        """Into memory and store; an older one than what is held is not taken (somebody may show it again)."""
        now = self._clock()
        held = self._memory.get(asked.key)
        if held is not None and held.answer.this_update > answer.this_update and held.answer.ends > now:
            return held.answer
        refresh = refresh_at(answer.this_update, answer.ends, now, self._chance.random())
        self._memory.put(asked.key, Held(answer, asked.url, now, refresh + _LOOK, now))
        kept = RevocationKept(
            key=asked.key,
            kind=asked.kind,
            url=asked.url,
            certificate=asked.certificate,
            issuer=asked.issuer,
            this_update=answer.this_update,
            ends=answer.ends,
            fetched=now,
            refresh=refresh,
            used=now,
            data=answer.der,
        )
        self._start(self._keeper.save_revocation(kept))
        return answer

    def _failed(self, asked: _Asked, flight: str, error: Exception) -> None:
        now, before = self._clock(), self._failures.pop(flight, None)
        count = 1 if before is None else before.count + 1
        until = again_at(count, self._settings.again, now, self._chance.random())
        self._failures[flight] = _Failure(count, until, str(error))
        if len(self._failures) > _MANY:
            self._failures.popitem(last=False)
        held = self._memory.get(asked.key)
        counts = held is not None and not out_of_date(held.answer.this_update, held.answer.ends, now, SKEW)
        hint = (error.hint if isinstance(error, NotFetchedError) else "") or ASK_CA
        self._emit(RevocationFetchFailed(asked.url, str(error), hint, held.answer.ends if held and counts else None))

    # Refreshing

    async def look(self) -> None:
        """Fetches what is due, once a minute, without waiting for it. Failures are tried again later, what is held stays."""
        now = self._clock()
        if self._next_round is not None and now < self._next_round <= now + _ROUND:
            return
        self._next_round = now + _ROUND
        self._start(self._refresh(now))

    async def _refresh(self, now: datetime) -> None:
        if self._next_drop is None or not now < self._next_drop <= now + _DROP:
            self._next_drop = now + _DROP
            await self._keeper.drop_revocations(now - UNUSED)
        due = await self._keeper.due_revocations(now, now - UNUSED, _A_ROUND)
        await asyncio.gather(*(self._refresh_one(each) for each in due))

    async def _refresh_one(self, kept: RevocationKept) -> None:
        try:
            await self._fetching(_kept_asked(kept), f"{kept.key} {kept.url}")
        except (UnusableError, NotFetchedError):
            left = kept.ends - self._clock()
            await self._keeper.postpone_revocation(kept.key, self._clock() + max(left / 8, SOONEST))

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._tell(error)

    def _tell(self, error: BaseException) -> None:
        self._emit(Unexpected(secrets.token_hex(6), "revocation", "".join(traceback.format_exception(error))))

    async def settle(self) -> None:
        """Waits for what is being saved. For commands and tests."""
        while self._tasks:
            await asyncio.wait(tuple(self._tasks))

    async def close(self) -> None:
        """What is being saved may end; fetches are given up."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(2.0):
                await self.settle()
        tasks = (*self._tasks, *self._fetches.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _wanted(asked: _Asked) -> Wanted:
    """Raises UnusableError."""
    if asked.link is None:
        return Wanted(asked.url, MAX_CRL, CRL_SECONDS)
    return Wanted(asked.url, MAX_ANSWER, OCSP_SECONDS, question(asked.link), "application/ocsp-request")


def _crl_asked(link: Link, url: str) -> _Asked:
    return _Asked(link.crl_key(url), Kind.CRL, url, b"", link.issuer_der, None)


def _ocsp_asked(link: Link, url: str) -> _Asked:
    return _Asked(link.ocsp_key, Kind.OCSP, url, link.der, link.issuer_der, link)


def _kept_asked(kept: RevocationKept) -> _Asked:
    """Raises UnusableError."""
    link = link_of(kept.certificate, kept.issuer) if kept.kind is Kind.OCSP else None
    return _Asked(kept.key, kept.kind, kept.url, kept.certificate, kept.issuer, link)
