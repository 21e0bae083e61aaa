"""Runs contenders in turn, several rounds of it, and says what the rounds have in common.

They alternate so that a machine that slows down slows all of them: a ratio is taken within each round, and the median of the ratios
is what counts.
"""

import asyncio
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.chains import OURS, Chain, Contender, Shape
from bench.peers import generate, message, send_lone
from bench.sinks import arrivals, counting

_LONGEST = 300.0
_LOOK = 0.5  # seconds between two looks at memory

Say = Callable[[str], None]


@dataclass(frozen=True)
class Round:
    """One contender's turn: what was measured, by name. `higher` names what is better when it is more."""

    values: Mapping[str, float]


@dataclass(frozen=True)
class Result:
    """A case. `ratios` are ours to each of the others, per value: the median of those of each round."""

    rounds: Mapping[str, Sequence[Mapping[str, float]]]
    notes: Sequence[str] = field(default=())

    def medians(self) -> dict[str, dict[str, float]]:
        return {
            name: {key: round(statistics.median(each[key] for each in rounds), 3) for key in rounds[0]}
            for name, rounds in self.rounds.items()
        }

    def ratios(self) -> dict[str, dict[str, dict[str, float]]]:
        found: dict[str, dict[str, dict[str, float]]] = {}
        others = {name: rounds for name, rounds in self.rounds.items() if not name.startswith(OURS)}
        for ours in (name for name in self.rounds if name.startswith(OURS)):
            for name, theirs in others.items():
                pairs = list(zip(self.rounds[ours], theirs, strict=True))
                found.setdefault(ours, {})[name] = {
                    key: round(statistics.median(mine[key] / its[key] for mine, its in pairs if its[key]), 3)
                    for key in pairs[0][0]
                    if any(its[key] for _, its in pairs)
                }
        return found

    def as_json(self) -> dict[str, Any]:
        return {
            "medians": self.medians(),
            "ratios": self.ratios(),
            "rounds": {name: [dict(each) for each in rounds] for name, rounds in self.rounds.items()},
            "notes": list(self.notes),
        }


def scratch(root: Path) -> "tempfile.TemporaryDirectory[str]":
    """A folder for one turn's queues; Postfix's user may pass through."""
    found = tempfile.TemporaryDirectory(prefix="bench-", dir=root, ignore_cleanup_errors=True)
    Path(found.name).chmod(0o755)
    return found


@dataclass
class Watch:
    """The most memory that a chain took while it was watched."""

    chain: Chain
    peak: float = 0.0

    async def __aenter__(self) -> "Watch":
        self._task = asyncio.create_task(self._look())
        return self

    async def __aexit__(self, *_error: object) -> None:
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task
        self.peak = max(self.peak, await asyncio.to_thread(self.chain.memory_mib))

    async def _look(self) -> None:
        while True:
            self.peak = max(self.peak, await asyncio.to_thread(self.chain.memory_mib))
            await asyncio.sleep(_LOOK)


async def rate(contender: Contender, shape: Shape, messages: int, root: Path) -> dict[str, float]:
    """Warms up, then sends `messages` as fast as they go, from the first connection to the last arrival at the sink."""
    async with arrivals(shape.destinations) as (port, arrived):
        with scratch(root) as folder:
            async with contender(Path(folder), shape, port) as chain:
                warm = max(min(shape.sessions, messages), min(shape.destinations, messages))
                options = {"sessions": shape.sessions, "size": shape.size, "destinations": shape.destinations}
                await generate(chain.entry, warm, **options)
                await arrived.reach(warm, _LONGEST)
                async with Watch(chain) as watch:
                    before, begun = chain.cpu_seconds(), time.perf_counter()
                    sending = asyncio.create_task(generate(chain.entry, messages, **options))
                    try:
                        await arrived.reach(warm + messages, _LONGEST)
                        seconds = time.perf_counter() - begun
                        await sending
                    finally:
                        sending.cancel()
                    cpu = chain.cpu_seconds() - before
    return {
        "messages_per_second": round(messages / seconds, 1),
        "cpu_seconds_per_1000": round(cpu / messages * 1000, 3),
        "memory_mib": round(watch.peak, 1),
    }


async def lone(contender: Contender, shape: Shape, messages: int, root: Path) -> dict[str, float]:
    """One message after another: milliseconds from its final dot to its arrival at the sink."""
    content, taken = message(shape.size), list[float]()
    with scratch(root) as folder:
        async with counting() as (sink, counts), contender(Path(folder), shape, sink.port) as chain:
            for number in range(messages + 10):
                counts.times.clear()
                sent = await send_lone(chain.entry, content)
                await counts.reach(1, 30)
                if number >= 10:  # the first ones warm up
                    taken.append((counts.times[0] - sent) * 1000)
    taken.sort()
    return {
        "lone_ms_median": round(statistics.median(taken), 3),
        "lone_ms_p99": round(taken[max(int(len(taken) * 0.99) - 1, 0)], 3),
    }
