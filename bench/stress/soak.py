"""Memory of the whole relay over very many messages: it is flat.

    python -m bench.stress.soak [--messages 20000] [--sessions 20] [--hops 1|2] [--workers N|auto]

Sends in twenty batches of the same size, one new connection a message, and looks at memory (PSS of the process tree) after each. The
first quarter warms up (caches, connections, SQLite's pages). Of the rest, the last quarter may take no more than the second one did, but
for 5 % and 4 MiB. `--messages 200000` is the soak that the targets speak of: minutes.
"""

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.chains import Shape, contenders
from bench.peers import generate
from bench.sinks import arrivals
from bench.stress.load import Lost

_BATCHES = 20
_SLACK, _MIB = 1.05, 4.0
_LONGEST = 600.0


def is_flat(samples: list[float]) -> bool:
    """`samples` in MiB, after equal amounts of work."""
    quarter = len(samples) // 4
    before = statistics.median(samples[quarter : 2 * quarter])
    return statistics.median(samples[-quarter:]) <= before * _SLACK + _MIB


async def run(messages: int, folder: Path, *, sessions: int = 20, hops: int = 1, workers: str = "") -> dict[str, Any]:
    """Raises Lost."""
    samples, sent = list[float](), 0
    (contender,) = contenders(workers=(workers,), ours_alone=True).values()
    async with arrivals() as (port, arrived), contender(folder, Shape(hops=hops), port) as chain:
        begun = time.perf_counter()
        for batch in range(_BATCHES):
            count = messages * (batch + 1) // _BATCHES - sent
            sent += count
            await generate(chain.entry, count, sessions=sessions)
            try:
                await arrived.reach(sent, _LONGEST)
            except TimeoutError as error:
                raise Lost(str(error)) from None
            samples.append(round(await asyncio.to_thread(chain.memory_mib), 1))
        seconds = time.perf_counter() - begun
    found = {"messages": messages, "per second": round(messages / seconds, 1), "MiB": samples}
    if not is_flat(samples):
        raise Lost(f"memory grows: {found}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=20_000)
    parser.add_argument("--sessions", type=int, default=20)
    parser.add_argument("--hops", type=int, choices=(1, 2), default=1)
    parser.add_argument("--workers", default="", metavar="N|auto")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="soak-", dir="/var/tmp") as folder:
        try:
            found = asyncio.run(
                run(
                    options.messages,
                    Path(folder),
                    sessions=options.sessions,
                    hops=options.hops,
                    workers=options.workers,
                )
            )
        except Lost as error:
            sys.exit(f"LOST: {error}")
        print(f"{found}: flat")


if __name__ == "__main__":
    main()
