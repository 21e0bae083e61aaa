"""A queue whose clock, timers and hops belong to the test."""

import asyncio
import heapq
import itertools
import shutil
import sqlite3
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

from relay.config.models import Retry
from relay.mail.address import NULL, Address, parse_mailbox
from relay.mail.attempt import Attempt, Delivery, MessageBytes
from relay.mail.envelope import Accepted, Envelope, Message, Notify, Recipient
from relay.mail.events import Event
from relay.mail.outcome import Bounced, Deferred, Delivered, Outcome
from relay.mail.plan import Encryption, Level, Plaintext, TlsPlan
from relay.mail.tls import Certificate, TlsEvidence
from relay.policy.route import Lane
from relay.queue.bodies import BodyFolder
from relay.queue.ids import name_of
from relay.queue.intake import Intake
from relay.queue.operations import Operations
from relay.queue.reports import Ended, Fate, Report
from relay.queue.scheduler import Limits, Scheduler
from relay.queue.sqlite import SqliteStore

E = TypeVar("E", bound=Event)

START = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
OK = Delivered(250, "2.0.0", "queued")
LATER = Deferred(451, "4.2.1", "mailbox busy")
DOWN = Deferred(451, "4.4.1", "cannot connect")
NO = Bounced(550, "5.1.1", "no such user")

PLAN = TlsPlan(Level.ENCRYPTION, Plaintext.NEVER, frozenset({Encryption("connector partner")}))


def evidence() -> TlsEvidence:
    certificate = Certificate(
        "CN=mx", "CN=ca", ("mx.example",), ("192.0.2.1",), START, START, "ab" * 32, "sha256:AAAA="
    )
    return TlsEvidence("TLSv1.3", "TLS_AES_256_GCM_SHA384", "X25519", "mx.example", (certificate,), ("self-signed",))


class Clock:
    """Stands still until it is told."""

    def __init__(self, now: datetime = START) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now


class Alarm:
    def __init__(self, callback: Callable[[], None]) -> None:
        self.callback = callback
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class FakeTimers:
    """Timers that ring when the test moves the clock. `longest`: after that they ring all the same, as the loop's do after a minute."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.longest: timedelta | None = None
        self._count = itertools.count()
        self._alarms: list[tuple[datetime, int, Alarm]] = []

    def call_at(self, when: datetime, callback: Callable[[], None]) -> Alarm:
        alarm = Alarm(callback)
        if self.longest is not None:
            when = min(when, self._clock.now + self.longest)
        heapq.heappush(self._alarms, (when, next(self._count), alarm))
        return alarm

    def clock_set(self, before: datetime) -> None:
        """As with the loop's timers: the time that is left is what it was before the clock was set, and a minute at most."""
        now = self._clock.now
        self._alarms = [
            (now + min(max(when - before, timedelta(0)), timedelta(minutes=1)), count, alarm)
            for when, count, alarm in self._alarms
        ]
        heapq.heapify(self._alarms)

    @property
    def next(self) -> datetime | None:
        while self._alarms and self._alarms[0][2].cancelled:
            heapq.heappop(self._alarms)
        return self._alarms[0][0] if self._alarms else None

    def ring(self) -> None:
        """Everything that is due by the clock, as often as it asks again."""
        while self.next is not None and self.next <= self._clock.now:
            alarm = heapq.heappop(self._alarms)[2]
            alarm.callback()


@dataclass
class Hops:
    """The delivery. `says` maps an address, a domain or "" to its outcomes, in turn; the last one stays.

    `gate`: attempts wait at a closed one. `seen` are the deliveries in the order in which they began.
    """

    clock: Clock
    says: dict[str, list[Outcome | Exception]] = field(default_factory=dict)
    seen: list[tuple[str, tuple[str, ...]]] = field(default_factory=list)
    delivered: list[tuple[str, str]] = field(default_factory=list)
    bodies: dict[str, bytes] = field(default_factory=dict)
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    running: int = 0
    waiting: int = 0
    most: int = 0
    evidence: TlsEvidence | None = None
    vias: list[dict[int, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.gate.set()

    def _outcome(self, recipient: Address) -> Outcome | Exception:
        for name in (str(recipient), recipient.domain, ""):
            if self.says.get(name):
                outcomes = self.says[name]
                return outcomes.pop(0) if len(outcomes) > 1 else outcomes[0]
        return OK

    async def __call__(self, delivery: Delivery) -> Sequence[Attempt]:
        message = delivery.message
        recipients = [message.envelope.recipients[index].address for index in delivery.indexes]
        self.seen.append((message.id, tuple(map(str, recipients))))
        self.vias.append(dict(delivery.via))
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            self.waiting += 1
            await self.gate.wait()
            await asyncio.sleep(0)  # no hop answers in the turn of the loop in which it is asked
            self.waiting -= 1
            self.bodies[message.id] = b"".join([chunk async for chunk in delivery.body.chunks()])
            outcomes = {}
            for index, recipient in zip(delivery.indexes, recipients, strict=True):
                outcome = self._outcome(recipient)
                if isinstance(outcome, BaseException):
                    raise outcome
                outcomes[index] = outcome
                if isinstance(outcome, Delivered):
                    self.delivered.append((message.id, str(recipient)))
        finally:
            self.running -= 1
        return [self.attempt(message, outcomes)]

    def attempt(self, message: Message, outcomes: Mapping[int, Outcome]) -> Attempt:
        listed = tuple(outcomes.items())
        return Attempt(
            message.id, self.clock(), "mx.example:25", "192.0.2.1", "partner", PLAN, self.evidence, listed, 0.25
        )


class SlowDisk:
    """Syncs wait for `free`; `errors` are raised by the next ones."""

    def __init__(self) -> None:
        self.free = threading.Event()
        self.free.set()
        self.errors: list[OSError] = []
        self.waiting = 0
        self.times = 0

    def sync(self) -> None:
        self.waiting += 1
        self.free.wait()
        self.waiting -= 1
        self.times += 1
        if self.errors:
            raise self.errors.pop(0)


async def until(condition: Callable[[], bool]) -> None:
    """What a thread does, no event of the loop tells."""
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.to_thread(time.sleep, 0.002)


@dataclass
class Hears:
    """A relay.queue.store.Arrival that only listens."""

    said: list[str]

    def written(self) -> None:
        self.said.append("written")

    def stored(self) -> None:
        self.said.append("stored")

    def refused(self) -> None:
        self.said.append("refused")


class Reporter:
    """Composes failures, delays and successes, by NOTIFY as far as these tests care."""

    def __init__(self) -> None:
        self.told: list[tuple[str, Fate, int]] = []
        self.ended: list[Ended] = []
        self.error: Exception | None = None

    async def __call__(self, message: Message, body: MessageBytes, ended: Sequence[Ended]) -> Sequence[Report]:
        if self.error is not None:
            raise self.error
        self.ended += ended
        self.told += [(message.id, each.fate, each.index) for each in ended]
        if message.envelope.sender.is_null:
            return ()
        back = Envelope(NULL, (Recipient(message.envelope.sender),))
        kinds = {Fate.FAILED: "failure", Fate.DELAYED: "delay", Fate.DELIVERED: "success"}
        content = b"Subject: report\r\n\r\n" + b"".join([chunk async for chunk in body.chunks()])[:100]
        return [
            Report(kinds[each.fate], str(message.envelope.recipients[each.index].address), back, content, "<dsn@x>")
            for each in ended
        ]


class World:
    """`settle` returns when nothing moves any more without the clock; `pass_` moves the clock, ringing every timer on its way."""

    def __init__(self, path: Path, clock: Clock | None = None) -> None:
        self.path = path
        self.clock = clock or Clock()
        self.timers = FakeTimers(self.clock)
        self.events: list[Event] = []
        self.hops = Hops(self.clock)
        self.reporter = Reporter()
        self.retry = Retry()
        self.lanes: dict[str, Lane] = {}
        self.connectors: dict[str, str] = {}
        self.concurrency = 20
        self.rate = 0.0
        self.limits = Limits()
        self.room = 10**12

    def lane_of(self, domain: str) -> Lane:
        if domain in self.lanes:
            return self.lanes[domain]
        return Lane(domain, self.connectors.get(domain, "default"), self.concurrency, self.rate, self.retry)

    async def open(self, **options: Any) -> None:
        self.store = await SqliteStore.open(
            self.path, emit=self.events.append, clock=self.clock, probe=lambda _path: self.room, pause=0, **options
        )
        self.scheduler = Scheduler(
            self.store,
            deliver=self.hops,
            compose=self.reporter,
            lane_of=self.lane_of,
            emit=self.events.append,
            clock=self.clock,
            timers=self.timers,
            limits=self.limits,
            spread=lambda: 0.0,
        )
        self.intake = Intake(
            self.store, emit=self.events.append, accepted=self.scheduler.submit, ahead=self.scheduler.ahead
        )
        self.operations = Operations(self.store, self.scheduler, lane_of=self.lane_of, clock=self.clock)

    async def start(self, **options: Any) -> None:
        await self.open(**options)
        await self.operations.start(options["share"].slot if "share" in options else 0)
        await self.scheduler.start()

    async def close(self, grace: float = 1.0) -> None:
        await self.scheduler.stop(grace)
        await self.store.close()

    async def crash(self, copy: Path) -> "World":
        """The same queue as a new process finds it after kill -9: what is on disk now. This one is thrown away."""
        for suffix in ("", "-wal"):
            file = self.path.with_name(self.path.name + suffix)
            if file.exists():
                shutil.copy(file, copy.with_name(copy.name + suffix))
        bodies = BodyFolder(self.path).path
        if bodies.exists():
            shutil.copytree(bodies, BodyFolder(copy).path)
        self.hops.gate.set()
        await self.close()
        after = World(copy, self.clock)
        after.retry, after.lanes, after.concurrency = self.retry, self.lanes, self.concurrency
        after.hops.says = self.hops.says
        return after

    def files(self) -> dict[str, int]:
        """Large bodies: the part of the id that names the file, and its size."""
        folder = BodyFolder(self.path)
        return {name_of(row): size for row in folder.rows() if (size := folder.size(row)) is not None}

    async def until_files(self, *messages: Message) -> None:
        """Until there are those of these messages and no others: a thread removes them, which no event of the loop tells."""
        async with asyncio.timeout(10):
            while self.files() != {each.id[:12]: each.size for each in messages}:
                await asyncio.to_thread(time.sleep, 0.002)

    async def put(
        self,
        *recipients: str,
        sender: str = "alice@example.org",
        body: bytes = b"Subject: x\r\n\r\nhello\r\n",
        **more: Any,
    ) -> Message:
        notify = more.pop("notify", frozenset[Notify]())
        envelope = Envelope(
            parse_mailbox(sender) if sender else NULL,
            tuple(Recipient(parse_mailbox(each), notify) for each in recipients or ("bob@example.com",)),
            requiretls=more.pop("requiretls", False),
            tls_optional=more.pop("tls_optional", False),
        )
        accepted = Accepted(
            self.clock(),
            "192.0.2.9:25000",
            "client.example",
            "mx",
            more.pop("protocol", "ESMTPS"),
            tls=more.pop("tls", None),
            may_relay=more.pop("may_relay", False),
            client_port=more.pop("client_port", 0),
            server=more.pop("server", ""),
        )
        incoming = self.intake.begin()
        for start in range(0, len(body), 100_000):
            incoming.write(body[start : start + 100_000])
            if incoming.full:
                await incoming.drain()
        return await incoming.commit(envelope, accepted, **more)

    async def settle(self) -> None:
        """Until the store has no work, the scheduler's tasks wait, and nothing new has come of it for some rounds."""
        quiet = 0
        while quiet < 3:
            before = self._signs()
            await self.store.barrier()
            for _ in range(5):
                await asyncio.sleep(0)
            self.timers.ring()
            still = self.scheduler.is_quiet and self.hops.running == self.hops.waiting
            quiet = quiet + 1 if still and self._signs() == before else 0

    def _signs(self) -> tuple[int, ...]:
        return len(self.events), len(self.hops.seen), self.hops.running, len(self.reporter.told)

    async def pass_(self, span: timedelta) -> None:
        end = self.clock.now + span
        await self.settle()
        while (following := self.timers.next) is not None and following <= end:
            self.clock.now = max(following, self.clock.now)
            self.timers.ring()
            await self.settle()
        self.clock.now = end
        self.timers.ring()
        await self.settle()

    def set_clock(self, step: timedelta) -> None:
        """Somebody sets the wall clock; no time passes by that."""
        before = self.clock.now
        self.clock.now += step
        self.timers.clock_set(before)

    async def states(self, message: Message | str) -> list[str]:
        found = await self.operations.show(message if isinstance(message, str) else message.id)
        return [each["state"] for each in found["recipients"]] if found else []

    def of(self, kind: type[E]) -> list[E]:
        return [event for event in self.events if isinstance(event, kind)]


async def seen(queue: World) -> int:
    """Messages that a reader finds."""
    return await queue.store.ask(lambda db: int(db.execute("SELECT count(*) FROM message").fetchone()[0]))


def into_chunks(path: Path) -> None:
    """As older versions left a queue: large bodies in its database."""
    folder = BodyFolder(path)
    with closing(sqlite3.connect(path)) as db:
        for row, size in db.execute("SELECT n, size FROM body_file").fetchall():
            for sequence, data in enumerate(folder.pieces(row, size)):
                db.execute("INSERT INTO chunk VALUES (?, ?, ?)", (row, sequence, data))
            folder.file(row).unlink()
        db.execute("DELETE FROM body_file")
        db.commit()


@asynccontextmanager
async def world(path: Path, **options: Any) -> AsyncIterator[World]:
    made = World(path)
    await made.start(**options)
    try:
        yield made
    finally:
        made.hops.gate.set()
        await made.close()
