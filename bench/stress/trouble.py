"""The disk fills up, fails, or is locked, at any write; the relay refuses, keeps what it has, and recovers without a restart.

    python -m bench.stress.trouble [full | broken | unsynced | locked]... [--rounds 60] [--seed N]

One relay lives through all rounds under load. In each, the queue's disk (its own files only, bench/stress/shim.c) begins to fail at the
n-th write from now, n = 0, 1, 2, ... in turn and then by chance, so that every write of a message, of an outcome and of a checkpoint is
hit once; clients hear 452 or lose nothing else; the disk heals, and the next message must be taken within seconds. In the end
everything that had its 250 has arrived, once, nothing that was refused, and the store is sound. Every second time `unsynced` fails late:
deliveries that began meanwhile are then as far as they may come.
"""

import argparse
import asyncio
import errno
import random
import sqlite3
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.served import Served, configuration, outbound
from bench.stress.load import Book, Lost, twice
from bench.stress.shim import Kind, Shim
from relay.queue.copies import examine
from relay.testing import Sink

_SWEPT = 40  # rounds that fail at write 0, 1, 2, ... in turn
_FARTHEST = 400
_LASTS = 0.7  # seconds that trouble lasts once it has begun
_RECOVERS = 10.0  # seconds at most until mail is taken again
_CLIENTS = 4
_LATE = 0.02  # seconds: many times what a delivery takes
_RETRY = {"initial": "200ms", "maximum": "1s"}


@dataclass
class Trouble:
    """`begin` is given how many writes from now it begins; `begun` says whether it has."""

    begin: Callable[[int], object]
    begun: Callable[[], bool]
    end: Callable[[], object]


def _failing(shim: Shim, error: int, kinds: Kind) -> Trouble:
    control = shim.control

    def begin(after: int) -> None:
        control.slow(_LATE if kinds == Kind.SYNCS and after % 2 else 0.0)
        control.fail(error, after=after, kinds=kinds)

    def end() -> None:
        control.heal()
        control.slow(0.0)

    return Trouble(begin, lambda: control.faults > 0, end)


class Locker:
    """Somebody else's transaction on the database."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._db: sqlite3.Connection | None = None

    def begin(self, _after: int) -> None:
        self._db = sqlite3.connect(self._path, isolation_level=None, timeout=5, check_same_thread=False)
        self._db.execute("BEGIN IMMEDIATE")

    def end(self) -> None:
        if self._db is not None:
            self._db.close()
            self._db = None


def troubles(shim: Shim, path: Path) -> dict[str, Trouble]:
    locker = Locker(path)
    return {
        "full": _failing(shim, errno.ENOSPC, Kind.WRITES | Kind.OPENS),
        "broken": _failing(shim, errno.EIO, Kind.WRITES),
        "unsynced": _failing(shim, errno.EIO, Kind.SYNCS),
        "locked": Trouble(locker.begin, lambda: True, locker.end),
    }


async def run(kind: str, rounds: int, seed: int, folder: Path) -> dict[str, Any]:
    """Raises Lost."""
    chance, place = random.Random(seed), folder / "relay"
    shim = Shim(folder / "shim", place / "queue.db")
    trouble, book, recovery = troubles(shim, place / "queue.db")[kind], Book(), list[float]()
    async with Sink() as sink:
        file = configuration(place, [outbound("out", "*", sink.address, retry=_RETRY)])
        async with Served(file, environment=shim.environment) as relay:
            for number in range(rounds):
                after = number if number < _SWEPT else chance.randrange(_FARTHEST)
                recovery.append(await _round(relay, book, trouble, after))
            async with asyncio.timeout(60):
                while book.missing(_arrived(sink)):
                    await sink.wait(len(sink.messages) + 1, seconds=30)
        report = examine(place / "queue.db")
    unwanted = book.unwanted.intersection(_arrived(sink))
    if unwanted:
        raise Lost(f"{len(unwanted)} messages arrived though their clients were told that they were not taken")
    found = twice(recipient for recipient in _arrived(sink) if recipient in book.kept)
    if not report.is_sound:
        raise Lost("; ".join(map(str, report.problems)))
    if report.live:
        raise Lost(f"{report.live} messages are left in the queue")
    return {
        "kept": len(book.kept),
        "refused": dict(book.refused),
        "twice": found,
        "recovery_s": f"median {sorted(recovery)[len(recovery) // 2]:.2f}, worst {max(recovery):.2f}",
    }


def _arrived(sink: Sink) -> list[str]:
    return [recipient for message in sink.messages for recipient in message.recipients]


@asynccontextmanager
async def _under_load(relay: Served, book: Book) -> AsyncIterator[None]:
    stop = asyncio.Event()
    clients = [asyncio.create_task(book.client(relay.address, stop.is_set)) for _ in range(_CLIENTS)]
    try:
        yield
    finally:
        stop.set()
        await asyncio.gather(*clients)


async def _round(relay: Served, book: Book, trouble: Trouble, after: int) -> float:
    """Trouble that begins and ends under load; seconds from its end until a message is taken."""
    async with _under_load(relay, book):
        await book.beyond(len(book.kept) + _CLIENTS)
        await asyncio.to_thread(trouble.begin, after)
        until = time.perf_counter() + 10
        while not trouble.begun() and time.perf_counter() < until:  # noqa: ASYNC110 - another process's doing
            await asyncio.sleep(0.01)
        await asyncio.sleep(_LASTS)
    healed = time.perf_counter()
    trouble.end()
    while not await book.once(relay.address):
        if time.perf_counter() - healed > _RECOVERS:
            raise Lost(f"no mail is taken {_RECOVERS} s after the trouble is over: {relay.tail(3)}")
        await asyncio.sleep(0.02)
    return time.perf_counter() - healed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    kinds = ("full", "broken", "unsynced", "locked")
    parser.add_argument("kinds", nargs="*", choices=[*kinds, []], metavar="KIND")
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    options = parser.parse_args()
    for kind in options.kinds or kinds:
        with tempfile.TemporaryDirectory(prefix="trouble-") as folder:
            begun = time.perf_counter()
            try:
                found = asyncio.run(run(kind, options.rounds, options.seed, Path(folder)))
            except Lost as error:
                sys.exit(f"LOST ({kind}, seed {options.seed}): {error}")
            print(f"{kind}: {found} in {time.perf_counter() - begun:.0f} s", flush=True)


if __name__ == "__main__":
    main()
