"""The cases of the benchmark: what each sets up, how much it sends, what it compares."""

import asyncio
import shutil
import ssl
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from bench.chains import OURS, Chain, Shape, contenders
from bench.fill import fill, settle
from bench.machine import memory_mib, tree
from bench.peers import generate
from bench.rounds import Result, lone, rate, scratch
from bench.served import Served, configuration, outbound
from bench.sinks import arrivals
from relay.config.values import HostPort
from relay.testing import Pki
from tests.e2e.process import free_port

_FASTER = 3  # ours get so many times the messages, so that their turn is not over too soon to be measured
_MIB = 2**20


@dataclass(frozen=True)
class Settings:
    """`scale` multiplies the number of messages. `root` is where the queues are."""

    rounds: int
    scale: float
    root: Path
    workers: Sequence[str]
    ours_alone: bool
    say: Callable[[str], None]


@dataclass(frozen=True)
class Case:
    """`usual`: part of a run without options; `quick`: of `--quick` too."""

    title: str
    run: Callable[[Settings], Awaitable[Result]]
    usual: bool = True
    quick: bool = False


def _line(number: int, name: str, found: Mapping[str, float]) -> str:
    return f"  round {number}  {name:20} " + "  ".join(f"{key} {value:g}" for key, value in found.items())


def _rates(shape: Shape, messages: int, *, faster: int = _FASTER) -> Callable[[Settings], Awaitable[Result]]:
    async def run(settings: Settings) -> Result:
        found: dict[str, list[dict[str, float]]] = {}
        for number in range(settings.rounds):
            for name, each in contenders(workers=settings.workers, ours_alone=settings.ours_alone).items():
                count = max(int(messages * settings.scale), 1) * (faster if name.startswith(OURS) else 1)
                measured = await rate(each, shape, count, settings.root)
                found.setdefault(name, []).append(measured)
                settings.say(_line(number + 1, name, measured))
        return Result(found)

    return run


def _lone(shape: Shape, messages: int) -> Callable[[Settings], Awaitable[Result]]:
    async def run(settings: Settings) -> Result:
        found: dict[str, list[dict[str, float]]] = {}
        for number in range(settings.rounds):
            for name, each in contenders(workers=settings.workers, ours_alone=settings.ours_alone).items():
                measured = await lone(each, shape, max(int(messages * settings.scale), 50), settings.root)
                found.setdefault(name, []).append(measured)
                settings.say(_line(number + 1, name, measured))
        return Result(found)

    return run


def _waiting_relay(folder: Path, sink: int, workers: str) -> Path:
    """Mail for waitingN.example is what the queue is filled with; its hop is not there. All else goes to the sink."""
    dead = HostPort("127.0.0.1", free_port())
    connectors = [
        outbound("out", "*", HostPort("127.0.0.1", sink)),
        *(outbound(f"waiting{each}", f"waiting{each}.example", dead) for each in range(_DOMAINS)),
    ]
    return configuration(folder, connectors, workers=workers)


_DOMAINS = 10


def _depth(depth: int, messages: int) -> Callable[[Settings], Awaitable[Result]]:
    """Intake and delivery beside mail that waits for its next attempt, in turns with the same beside an empty queue."""

    async def run(settings: Settings) -> Result:
        found: dict[str, list[dict[str, float]]] = {}
        with scratch(settings.root) as long:
            queue = Path(long) / "relay" / "queue.db"
            queue.parent.mkdir()
            begun = time.perf_counter()
            await asyncio.to_thread(
                fill, queue, depth, domains=_DOMAINS, due=timedelta(hours=6), spread=timedelta(hours=1)
            )
            settings.say(f"  filled with {depth} messages in {time.perf_counter() - begun:.0f} s")
            count = int(messages * settings.scale)
            for number in range(settings.rounds):
                with scratch(settings.root) as empty:
                    for name, folder in (("empty", Path(empty) / "relay"), (f"{depth} waiting", queue.parent)):
                        measured = await _beside(folder, settings.workers[0], count)
                        found.setdefault(name, []).append(measured)
                        settings.say(_line(number + 1, name, measured))
        empty_rounds, full_rounds = found.values()
        kept = sorted(
            full["messages_per_second"] / none["messages_per_second"]
            for none, full in zip(empty_rounds, full_rounds, strict=True)
        )
        more = sorted(
            full["memory_mib"] - none["memory_mib"] for none, full in zip(empty_rounds, full_rounds, strict=True)
        )
        return Result(
            found,
            [
                f"intake beside {depth} waiting is {100 * kept[len(kept) // 2]:.0f} % of that of an empty queue (median of ratios)",
                f"and takes {more[len(more) // 2]:.0f} MiB more memory",
            ],
        )

    return run


async def _beside(folder: Path, workers: str, messages: int) -> dict[str, float]:
    async with arrivals() as (sink, arrived), Served(_waiting_relay(folder, sink, workers)) as relay:
        chain = Chain(relay.address, (relay.pid,))
        await generate(chain.entry, 200)
        await arrived.reach(200, 60)
        begun = time.perf_counter()
        sending = asyncio.create_task(generate(chain.entry, messages))
        await sending  # the generator's last 250: intake
        taken = time.perf_counter() - begun
        await arrived.reach(200 + messages, 120)
        delivered = time.perf_counter() - begun
        memory = chain.memory_mib()
    return {
        "taken_per_second": round(messages / taken, 1),
        "messages_per_second": round(messages / delivered, 1),
        "memory_mib": round(memory, 1),
    }


def _start(depth: int) -> Callable[[Settings], Awaitable[Result]]:
    """A start with mail that is all due: seconds to the first 220, to the first arrival, and what is delivered in the next seconds."""

    async def run(settings: Settings) -> Result:
        found: list[dict[str, float]] = []
        with scratch(settings.root) as full:
            kept = Path(full) / "kept.db"
            await asyncio.to_thread(fill, kept, depth, domains=1000, due=timedelta(hours=-1))
            settings.say(f"  filled with {depth} due messages")
            for number in range(settings.rounds):
                async with arrivals() as (sink, arrived):
                    folder = Path(full) / f"relay{number}"
                    file = configuration(
                        folder, [outbound("out", "*", HostPort("127.0.0.1", sink))], workers=settings.workers[0]
                    )
                    await asyncio.to_thread(shutil.copy, kept, folder / "queue.db")
                    await asyncio.to_thread(settle, folder / "queue.db")
                    relay = Served(file)
                    greeting = asyncio.create_task(relay.start())
                    try:
                        await arrived.reach(1, 60)
                        first = time.perf_counter() - relay.started
                        await greeting
                        greeted = time.perf_counter() - relay.started
                        before, begun = arrived.count, time.perf_counter()
                        await arrived.reach(before + min(5000, depth // 2), 60)
                        speed = (arrived.count - before) / (time.perf_counter() - begun)
                        memory = memory_mib(tree((relay.pid,)))
                    finally:
                        await relay.stop()
                    measured = {
                        "first_delivery_s": round(first, 3),
                        "greeting_s": round(greeted, 3),
                        "delivered_per_second": round(speed, 1),
                        "memory_mib": round(memory, 1),
                    }
                    found.append(measured)
                    settings.say(_line(number + 1, OURS, measured))
                await asyncio.to_thread(shutil.rmtree, folder)
        return Result({OURS: found})

    return run


def _idle(sessions: int) -> Callable[[Settings], Awaitable[Result]]:
    """Memory of the whole relay while so many clients that have done STARTTLS and EHLO say nothing."""

    async def run(settings: Settings) -> Result:
        with scratch(settings.root) as folder:
            pki = Pki(Path(folder) / "pki")
            file = configuration(Path(folder) / "relay", [], pki=pki, workers=settings.workers[0])
            async with Served(file) as relay:
                tls = ssl.create_default_context(cafile=str(pki.ca))
                before = memory_mib(tree((relay.pid,)))
                begun = time.perf_counter()
                held = await hold(relay.address, sessions, tls)
                seconds = time.perf_counter() - begun
                memory = memory_mib(tree((relay.pid,)))
                for writer in held:
                    writer.transport.abort()
        measured = {
            "memory_mib": round(memory, 1),
            "kib_each": round((memory - before) * 1024 / sessions, 1),
            "handshakes_per_second": round(sessions / seconds, 1),
        }
        settings.say(_line(1, OURS, measured))
        return Result({OURS: [measured]})

    return run


async def hold(address: HostPort, count: int, tls: ssl.SSLContext | None) -> list[asyncio.StreamWriter]:
    """Opens idle sessions, a few at a time. `tls` None: in clear."""
    writers: list[asyncio.StreamWriter] = []

    async def one() -> None:
        reader, writer = await asyncio.open_connection(address.host, address.port)
        await _reply(reader)
        await _ask(reader, writer, b"EHLO idle.example\r\n")
        if tls is not None:
            await _ask(reader, writer, b"STARTTLS\r\n")
            await writer.start_tls(tls, server_hostname="relay.test")
            await _ask(reader, writer, b"EHLO idle.example\r\n")
        writers.append(writer)

    for start in range(0, count, 50):
        await asyncio.gather(*(one() for _ in range(min(50, count - start))))
    return writers


async def _reply(reader: asyncio.StreamReader) -> None:
    while (line := await reader.readuntil(b"\r\n"))[3:4] != b" ":
        pass
    if line[:1] != b"2":
        raise RuntimeError(f"the relay said {line!r}")


async def _ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, line: bytes) -> None:
    writer.write(line)
    await _reply(reader)


CASES: dict[str, Case] = {
    "hop": Case("one hop in clear, 4 KiB, 20 sessions", _rates(Shape(), 1500), quick=True),
    "pair": Case("two relays, TLS 1.3 between", _rates(Shape(hops=2), 900), quick=True),
    "pair-new": Case("two relays, a new TLS connection per message", _rates(Shape(hops=2, reuse=False), 600)),
    "lone": Case("a lone message, one hop", _lone(Shape(), 300), quick=True),
    "lone-pair": Case("a lone message, two relays, TLS 1.3 between", _lone(Shape(hops=2), 300), usual=False),
    "size-100k": Case("one hop, 100 KiB messages", _rates(Shape(size=100 * 1024), 600)),
    "size-1m": Case("one hop, 1 MiB messages", _rates(Shape(size=_MIB), 300)),
    "size-25m": Case("one hop, 25 MiB messages, 50 at once", _rates(Shape(size=25 * _MIB, sessions=50), 50, faster=1)),
    "pair-25m": Case(
        "two relays, 25 MiB messages, 50 at once",
        _rates(Shape(hops=2, size=25 * _MIB, sessions=50), 50, faster=1),
        usual=False,
    ),
    "sessions-1": Case("one hop, 1 session", _rates(Shape(sessions=1), 400), usual=False),
    "sessions-200": Case("one hop, 200 sessions", _rates(Shape(sessions=200), 1500)),
    "domains-100": Case(
        "one hop, 100 recipient domains, each its own destination", _rates(Shape(destinations=100), 1500), usual=False
    ),
    "domains-1000": Case(
        "one hop, 1,000 recipient domains, each its own destination", _rates(Shape(destinations=1000), 1500)
    ),
    "queue-100k": Case("intake beside 100,000 waiting messages", _depth(100_000, 6000)),
    "queue-1m": Case("intake beside 1,000,000 waiting messages", _depth(1_000_000, 6000), usual=False),
    "start-100k": Case("start with 100,000 due messages", _start(100_000), usual=False),
    "start-1m": Case("start with 1,000,000 due messages", _start(1_000_000), usual=False),
    "idle-1k": Case("1,000 idle TLS sessions", _idle(1000)),
    "idle-10k": Case("10,000 idle TLS sessions", _idle(10_000), usual=False),
}
