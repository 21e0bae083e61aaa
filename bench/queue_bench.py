"""What the queue costs, by itself: `python -m bench.queue_bench [intake] [relay] [start] [latency]`.

- intake: 4 KiB messages from 20 tasks, committed one by one: messages/s, CPU per message, commit latency.
- relay: the same, delivered at once by a delivery that does nothing, outcomes recorded.
- start: a queue of 1,000,000 messages (made by SQL) is opened and scheduled: time to the first delivery, memory, intake beside it.
- latency: one message at a time, on an idle loop and on a busy one.

Files go to $TMPDIR. CPU is user plus system time of this process, all threads.
"""

import asyncio
import json
import resource
import sqlite3
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import uvloop

from relay.config.models import Retry
from relay.mail.address import Address
from relay.mail.attempt import Attempt, Delivery
from relay.mail.codec import accepted_json, envelope_json
from relay.mail.envelope import Accepted, Envelope, Message, Recipient
from relay.mail.events import Event
from relay.mail.outcome import Delivered
from relay.mail.plan import Encryption, Level, Plaintext, TlsPlan
from relay.mail.tls import Certificate, TlsEvidence
from relay.policy.route import Lane
from relay.queue.ids import milliseconds, spell
from relay.queue.intake import Intake
from relay.queue.reports import Report
from relay.queue.scheduler import Scheduler
from relay.queue.sqlite import SqliteStore

BODY = b"x" * 70 + b"\r\n"
CONTENT = BODY * 57  # 4 KiB
TASKS = 20
RETRY = Retry()
PLAN = TlsPlan(Level.CERTIFICATE, Plaintext.NEVER, frozenset({Encryption("connector partner")}))
OK = Delivered(250, "2.0.0", "queued as 12345")


def now() -> datetime:
    return datetime.now(UTC)


def evidence() -> TlsEvidence:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    chain = tuple(
        Certificate(f"CN=mx{i}", "CN=ca", (f"mx{i}.example",), (), start, start, "ab" * 32, "sha256:" + "A" * 43 + "=")
        for i in range(3)
    )
    return TlsEvidence("TLSv1.3", "TLS_AES_256_GCM_SHA384", "X25519MLKEM768", "mx.example", chain)


def cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def rss() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def quiet(_event: Event) -> None:
    return None


async def no_reports(*_about: object) -> Sequence[Report]:
    return ()


def lane_of(domain: str) -> Lane:
    return Lane(domain, "default", 20, 0.0, RETRY)


class Sink:
    """A delivery that does nothing, over one connection per ten messages."""

    def __init__(self) -> None:
        self.count = 0
        self.first = asyncio.Event()
        self.wanted = 0
        self.all = asyncio.Event()
        self._evidence = evidence()

    async def __call__(self, delivery: Delivery) -> Sequence[Attempt]:
        await asyncio.sleep(0)
        self.count += 1
        self.first.set()
        if self.count == self.wanted:
            self.all.set()
        if self.count % 10 == 0:
            self._evidence = evidence()
        outcomes = tuple((index, OK) for index in delivery.indexes)
        message = delivery.message
        return (Attempt(message.id, now(), "mx.example:25", "192.0.2.1", "partner", PLAN, self._evidence, outcomes),)


def envelope(domain: str = "example.com") -> Envelope:
    return Envelope(Address("alice", "example.org"), (Recipient(Address("bob", domain)),))


def accepted(tls: TlsEvidence | None) -> Accepted:
    return Accepted(now(), "192.0.2.9:41234", "client.example", "0.0.0.0:25", "ESMTPS", "", "", tls)


async def put(intake: Intake, domain: str = "example.com", tls: TlsEvidence | None = None) -> Message:
    incoming = intake.begin()
    incoming.write(CONTENT)
    return await incoming.commit(envelope(domain), accepted(tls), header=b"Received: x\r\n" * 15, message_id="<a@b>")


async def flood(intake: Intake, total: int) -> list[float]:
    """`total` messages from TASKS tasks, ten over each connection; seconds each commit took."""
    taken: list[float] = []

    async def client() -> None:
        for i in range(total // TASKS):
            if i % 10 == 0:
                tls = TlsEvidence("TLSv1.3", "TLS_AES_256_GCM_SHA384", "X25519MLKEM768", "relay.example")
            start = time.perf_counter()
            await put(intake, tls=tls)
            taken.append(time.perf_counter() - start)

    await asyncio.gather(*(client() for _ in range(TASKS)))
    return sorted(taken)


@asynccontextmanager
async def opened(folder: str) -> AsyncIterator[SqliteStore]:
    store = await SqliteStore.open(Path(folder) / "queue.db", emit=quiet, clock=now, free_space=0)
    try:
        yield store
    finally:
        await store.close()


def report(name: str, count: int, seconds: float, used: float, taken: list[float]) -> None:
    middle, worst = taken[len(taken) // 2] * 1e3, taken[len(taken) * 99 // 100] * 1e3
    print(
        f"{name}: {count / seconds:.0f} messages/s, {used / count * 1e6:.0f} us CPU each,"
        f" commit median {middle:.2f} ms, p99 {worst:.2f} ms, worst {taken[-1] * 1e3:.1f} ms"
    )


async def measured(name: str, intake: Intake, total: int, settled: Callable[[], object]) -> float:
    start, used = time.perf_counter(), cpu()
    taken = await flood(intake, total)
    settled()
    seconds = time.perf_counter() - start
    report(name, total, seconds, cpu() - used, taken)
    return total / seconds


async def bench_intake(folder: str) -> None:
    async with opened(folder) as store:
        intake = Intake(store, emit=quiet, accepted=lambda _message, _body: None)
        await flood(intake, 200)
        await measured("intake alone", intake, 20_000, lambda: None)


async def bench_relay(folder: str) -> None:
    async with opened(folder) as store:
        sink = Sink()
        scheduler = Scheduler(store, deliver=sink, compose=no_reports, lane_of=lane_of, emit=quiet, clock=now)
        intake = Intake(store, emit=quiet, accepted=scheduler.submit)
        await scheduler.start()
        await flood(intake, 200)
        sink.wanted = 200 + 20_000
        start, used = time.perf_counter(), cpu()
        taken = await flood(intake, 20_000)
        await sink.all.wait()
        await scheduler.stop()
        report("intake, schedule, record", 20_000, time.perf_counter() - start, cpu() - used, taken)


async def bench_latency(folder: str) -> None:
    async with opened(folder) as store:
        intake = Intake(store, emit=quiet, accepted=lambda _message, _body: None)

        async def alone(name: str) -> None:
            taken = []
            start, used = time.perf_counter(), cpu()
            for _ in range(500):
                begun = time.perf_counter()
                await put(intake)
                taken.append(time.perf_counter() - begun)
                await asyncio.sleep(0.001)
            report(name, 500, time.perf_counter() - start, cpu() - used, sorted(taken))

        async def busy() -> None:
            while True:
                end = time.perf_counter() + 0.002
                while time.perf_counter() < end:
                    pass
                await asyncio.sleep(0)

        await alone("one at a time, idle loop")
        task = asyncio.create_task(busy())
        await alone("one at a time, busy loop")
        task.cancel()


def fill(path: Path, total: int, domains: int) -> None:
    """Due messages of an hour ago, by SQL."""
    db = sqlite3.connect(path)
    db.execute("PRAGMA synchronous = OFF")
    begun = milliseconds(now() - timedelta(hours=1)) << 18
    about = json.dumps({"envelope": envelope_json(envelope()), "accepted": accepted_json(accepted(None))})
    db.executemany(
        "INSERT INTO message VALUES (?, ?, 4104, '<a@b>', 'alice@example.org', 0, x'', ?, NULL, NULL)",
        ((begun + i, spell(begun + i), about) for i in range(total)),
    )
    db.executemany(
        "INSERT INTO recipient (n, i, state, domain, local, notify, orcpt, due, attempts, warned, last)"
        " VALUES (?, 0, 0, ?, 'bob', '', '', ?, 0, 0, NULL)",
        ((begun + i, f"d{i % domains}.example", (begun >> 18) + i // 1000) for i in range(total)),
    )
    db.executemany("INSERT INTO chunk VALUES (?, 0, ?)", ((begun + i, CONTENT) for i in range(total)))
    db.commit()
    db.close()


async def bench_start(folder: str, total: int = 1_000_000) -> None:
    for domains in (1, 1000, total):
        path = Path(folder) / f"{domains}"
        path.mkdir()
        async with opened(str(path)) as store:
            intake = Intake(store, emit=quiet, accepted=lambda _message, _body: None)
            before = await measured(f"{domains} domains, before", intake, 20_000, lambda: None)
        fill(path / "queue.db", total, domains)
        memory = rss()
        start, used = time.perf_counter(), cpu()
        sink = Sink()
        async with opened(str(path)) as store:
            scheduler = Scheduler(store, deliver=sink, compose=no_reports, lane_of=lane_of, emit=quiet, clock=now)
            await scheduler.start()
            await sink.first.wait()
            print(f"{domains} domains: first delivery after {time.perf_counter() - start:.3f} s")
            await asyncio.sleep(10)
            print(
                f"  after 10 s: {sink.count} delivered, {(cpu() - used) / sink.count * 1e6:.0f} us CPU each,"
                f" {rss() - memory:.0f} MiB more memory"
            )
            counted = time.perf_counter()
            print(f"  {await store.statistics()} in {time.perf_counter() - counted:.3f} s")
            await scheduler.stop()
            intake = Intake(store, emit=quiet, accepted=lambda _message, _body: None)
            await flood(intake, 200)
            after = await measured(
                f"{domains} domains, beside {total - sink.count} queued", intake, 20_000, lambda: None
            )
            print(f"  {100 * (after / before - 1):+.1f} %")


BENCHES = {"intake": bench_intake, "relay": bench_relay, "latency": bench_latency, "start": bench_start}


def main() -> None:
    for name in sys.argv[1:] or BENCHES:
        with tempfile.TemporaryDirectory() as folder:
            uvloop.run(BENCHES[name](folder))


if __name__ == "__main__":
    main()
