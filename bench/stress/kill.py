"""kill -9 of any process of the relay, at random, under load: every message that got its 250 arrives, and what came twice is explained.

    python -m bench.stress.kill [--rounds 200] [--workers N|auto] [--seed N]

Explained is a second arrival only where the first one came shortly before a process died: between the sink's 250 and our commit
(design section 7). Anything else that comes twice is an error.
"""

import argparse
import asyncio
import os
import random
import signal
import sys
import tempfile
import time
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from bench.machine import tree
from bench.served import Served, configuration, outbound
from bench.stress.load import Book, Lost
from relay.config.values import HostPort
from relay.queue.copies import examine
from relay.testing import Sink
from relay.testing.sink import Received

_CLIENTS = 4
_AT_MOST = 60  # further 250s before the next death
_COMMIT = 2.0  # seconds within which an outcome is committed, on the busiest machine
_CONNECTIONS = 40  # to the sink, each with one message under way
_RETRY = {"initial": "100ms", "maximum": "500ms"}


@dataclass
class History:
    """Arrivals and deaths on one clock (time.perf_counter)."""

    arrivals: dict[str, list[float]] = field(default_factory=dict)
    deaths: list[float] = field(default_factory=list)
    of_the_first: int = 0  # deaths of the process that was started, not of one of its workers

    def __post_init__(self) -> None:
        self.last_commit = 0.0

    def arrived(self, message: Received) -> None:
        for recipient in message.recipients:
            self.arrivals.setdefault(recipient, []).append(time.perf_counter())

    def twice(self) -> list[float]:
        """For each second arrival, how long before a death the one before it came. Raises Lost where there was no death in between."""
        gaps: list[float] = []
        for recipient, times in self.arrivals.items():
            for first, second in pairwise(times):
                # What was under way in the kernel's buffers arrives a moment after the death.
                between = [death - first for death in self.deaths if first - 0.5 <= death <= second]
                if not between or between[0] > _COMMIT:
                    raise Lost(f"{recipient} came twice, {second - first:.3f} s apart, and nothing died in between")
                gaps.append(between[0])
        return gaps


async def one_death(relay: Served, book: Book, chance: random.Random, history: History) -> None:
    """Load, and the death of some process after a random number of further 250s and a random moment."""
    if not relay.is_running:
        await relay.start()
    over = asyncio.Event()
    clients = [asyncio.create_task(_client(book, relay.address, over)) for _ in range(_CLIENTS)]
    await book.beyond(len(book.kept) + chance.randrange(1, _AT_MOST))
    await asyncio.sleep(chance.random() * 0.02)
    family = sorted(tree([relay.pid]))
    victim = chance.choice(family)
    history.deaths.append(time.perf_counter())
    os.kill(victim, signal.SIGKILL)
    if victim == relay.pid:
        history.of_the_first += 1
        await relay.gone(family)
    over.set()
    for client in clients:
        client.cancel()
    await asyncio.gather(*clients, return_exceptions=True)


async def _client(book: Book, address: HostPort, over: asyncio.Event) -> None:
    """Comes again when its connection is gone: that may have waited, not yet accepted, for a process that died.

    `over` and not only a cancellation, which aiosmtplib may take for a lost connection.
    """
    while not over.is_set():
        await book.client(address, over.is_set, seconds=20)
        await asyncio.sleep(0.02)


async def run(rounds: int, seed: int, folder: Path, *, workers: str = "") -> dict[str, Any]:
    """Raises Lost. What happened, in numbers."""
    chance, book, history = random.Random(seed), Book(), History()
    async with Sink(received=history.arrived) as sink:
        file = configuration(folder, [outbound("out", "*", sink.address, retry=_RETRY)], workers=workers)
        relay = Served(file)
        try:
            for _ in range(rounds):
                await one_death(relay, book, chance, history)
            if not relay.is_running:
                await relay.start()
            until = time.perf_counter() + 120
            while missing := book.missing(history.arrivals):
                if time.perf_counter() > until:
                    raise Lost(f"{len(missing)} messages that had their 250 did not arrive, such as {min(missing)}")
                await asyncio.sleep(0.05)
        finally:
            await relay.stop()
    report = examine(folder / "queue.db")
    if not report.is_sound:
        raise Lost("; ".join(map(str, report.problems)))
    gaps = history.twice()
    if len(gaps) > rounds * _CONNECTIONS:
        raise Lost(f"{len(gaps)} came twice: more than could be under way at {rounds} deaths")
    return {
        "deaths": len(history.deaths),
        "of the first process": history.of_the_first,
        "kept": len(book.kept),
        "arrived": len(history.arrivals),
        "twice": len(gaps),
        "first arrival before the death, ms": [round(gap * 1000, 1) for gap in sorted(gaps)[-5:]],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--workers", default="", metavar="N|auto")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kill-") as folder:
        begun = time.perf_counter()
        try:
            found = asyncio.run(run(options.rounds, options.seed, Path(folder), workers=options.workers))
        except Lost as error:
            sys.exit(f"LOST (seed {options.seed}): {error}")
        print(f"seed {options.seed}: {found} in {time.perf_counter() - begun:.0f} s: nothing lost")


if __name__ == "__main__":
    main()
