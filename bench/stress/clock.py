"""The wall clock of a running relay is set back and ahead by hours, under load: nothing waits for the old time, nothing comes back.

    python -m bench.stress.clock [--rounds 12] [--seed N]

The hop refuses half of what it is given at first, so that mail waits when the clock is set (bench/stress/shim.c; the monotonic clock
goes on as it was). Within two minutes of each step all of it must have arrived, once, and no bounce with it: timers look at the clock
once a minute at least. A message that waits while the clock goes ahead by more than `retry.delay_warning` may be reported as late.
"""

import argparse
import asyncio
import itertools
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.served import Served, configuration, outbound
from bench.stress.load import Book, Lost, twice
from bench.stress.shim import Shim
from relay.testing import Sink

_HOURS = (-6.0, 6.0, -30.0, 12.0, -1.0, 24.0)
_MESSAGES = 40
_WAIT = 120.0
_RETRY = {"initial": "500ms", "maximum": "2s"}


async def run(rounds: int, seed: int, folder: Path) -> dict[str, Any]:
    """Raises Lost."""
    chance, place = random.Random(seed), folder / "relay"
    shim, book, slowest, ahead = Shim(folder / "shim", place / "queue.db"), Book(), 0.0, 0.0
    back = 0
    seen: set[str] = set()

    def judge(recipient: str) -> str:
        """Every second one is refused once."""
        if recipient in seen or chance.random() < 0.5:
            return "250 OK"
        seen.add(recipient)
        return "451 4.2.1 later"

    async with Sink(judge=judge) as sink:
        file = configuration(place, [outbound("out", "*", sink.address, retry=_RETRY)])
        async with Served(file, environment=shim.environment) as relay:
            for hours in itertools.islice(itertools.cycle(_HOURS), rounds):
                loading = asyncio.create_task(book.load(relay.address, clients=4, until=book.sent + _MESSAGES))
                await book.beyond(len(book.kept) + _MESSAGES // 2)
                # The sum stays within the days that mail is tried for.
                before, ahead = ahead, hours if abs(ahead + hours) > 48 else ahead + hours
                back += ahead < before
                shim.control.clock(ahead * 3600)
                begun = time.perf_counter()
                await loading
                await _all_arrived(book, sink, relay)
                slowest = max(slowest, time.perf_counter() - begun)
        noticed = file.with_name("log").read_text().count('"clock-set-back"')
    if noticed < back:
        raise Lost(f"{noticed} of {back} steps back were noticed")
    reports = [message.content for message in sink.messages if not message.sender]
    if failed := sum(b"Action: failed" in report for report in reports):
        raise Lost(f"{failed} messages came back")
    if found := twice(recipient for message in sink.messages if message.sender for recipient in message.recipients):
        raise Lost(f"came more than once: {found}")
    return {
        "kept": len(book.kept),
        "deferred once": len(seen),
        "set back": back,
        "delay warnings": len(reports),
        "slowest round, s": round(slowest, 1),
    }


async def _all_arrived(book: Book, sink: Sink, relay: Served) -> None:
    until = time.perf_counter() + _WAIT
    while missing := book.missing(recipient for message in sink.messages for recipient in message.recipients):
        if time.perf_counter() > until:
            raise Lost(f"{len(missing)} messages still wait {_WAIT:.0f} s after the clock was set: {relay.tail(3)}")
        await asyncio.sleep(0.05)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="clock-") as folder:
        try:
            found = asyncio.run(run(options.rounds, options.seed, Path(folder)))
        except Lost as error:
            sys.exit(f"LOST (seed {options.seed}): {error}")
        print(f"seed {options.seed}: {found}: nothing lost, nothing came back")


if __name__ == "__main__":
    main()
