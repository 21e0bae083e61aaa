"""A thousand destinations, nine tenths of them dead: those that live keep at least 90 % of their rate.

    python -m bench.stress.dead [--destinations 1000] [--alive 100] [--messages 3000] [--rounds 3]

Half of the dead refuse connections, half accept them and never say a word. In each round the rate of mail to the living is measured
with nothing else in the queue, and then beside a queue in which mail for every dead destination is due. The median of the ratios counts.
"""

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from bench.fill import fill
from bench.machine import memory_mib, tree
from bench.peers import domain, generate
from bench.served import Served, configuration, outbound
from bench.sinks import arrivals, destinations
from bench.stress.load import Lost
from relay.config.values import HostPort
from tests.e2e.process import free_port

_EACH = 5  # messages that wait for each dead destination
_RETRY = {"initial": "30s", "maximum": "1m"}  # more eager than anybody sets it
_SETTLES = 0.02  # seconds for each of the dead, until its first attempts are over
_KEPT = 0.9


@asynccontextmanager
async def black_hole() -> AsyncIterator[HostPort]:
    """Accepts, reads, and never answers."""
    server = await asyncio.get_running_loop().create_server(asyncio.Protocol, "127.0.0.1", 0, backlog=1000)
    try:
        yield HostPort("127.0.0.1", server.sockets[0].getsockname()[1])
    finally:
        server.close()


async def run(count: int, alive: int, messages: int, rounds: int, folder: Path) -> dict[str, Any]:
    """Raises Lost."""
    alone, beside, memory = list[float](), list[float](), 0.0
    for number in range(rounds):
        alone.append((await _rate(folder / f"alone{number}", count, alive, messages, dead=False))[0])
        rate, memory = await _rate(folder / f"beside{number}", count, alive, messages, dead=True)
        beside.append(rate)
    kept = statistics.median(mine / its for mine, its in zip(beside, alone, strict=True))
    found = {
        "alone/s": round(statistics.median(alone), 1),
        "beside the dead/s": round(statistics.median(beside), 1),
        "kept": round(kept, 3),
        "MiB": round(memory),
    }
    if kept < _KEPT:
        raise Lost(f"beside {count - alive} dead destinations, mail to {alive} keeps {kept:.0%} of its rate: {found}")
    return found


async def _rate(folder: Path, count: int, alive: int, messages: int, *, dead: bool) -> tuple[float, float]:
    """Messages per second to the living, and the relay's memory. The configuration is the same with and without the dead."""
    async with arrivals(alive) as (port, arrived), black_hole() as hole:
        closed = HostPort("127.0.0.1", free_port())
        connectors = [
            *(outbound(f"alive{n}", domain(n), HostPort(host, port)) for n, host in enumerate(destinations(alive))),
            *(
                outbound(f"dead{n}", f"waiting{n}.example", hole if n % 2 else closed, retry=_RETRY)
                for n in range(count - alive)
            ),
        ]
        file = configuration(folder, connectors)
        if dead:
            await asyncio.to_thread(
                fill, folder / "queue.db", (count - alive) * _EACH, domains=count - alive, due=timedelta(hours=-1)
            )
        async with Served(file) as relay:
            await generate(relay.address, alive, destinations=alive)
            await arrived.reach(alive, 120)
            await asyncio.sleep(_SETTLES * (count - alive))
            begun = time.perf_counter()
            sending = asyncio.create_task(generate(relay.address, messages, destinations=alive))
            try:
                await arrived.reach(alive + messages, 300)
                seconds = time.perf_counter() - begun
                await sending
            finally:
                sending.cancel()
            memory = memory_mib(tree([relay.pid]))
            await relay.kill()  # a stop would wait for deliveries that never end
            return messages / seconds, memory


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--destinations", type=int, default=1000)
    parser.add_argument("--alive", type=int, default=100)
    parser.add_argument("--messages", type=int, default=3000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="dead-", dir="/var/tmp") as folder:
        try:
            found = asyncio.run(
                run(options.destinations, options.alive, options.messages, options.rounds, Path(folder))
            )
        except Lost as error:
            sys.exit(f"LOST: {error}")
        print(f"{found}: the living are not held up")


if __name__ == "__main__":
    main()
