"""Messages a second through one relay and through a pair with TLS 1.3 between, beside Postfix's: `python -m bench` (`make bench`).

4 KiB messages from 20 sessions, a new connection for each message from the generator (smtp-source where Postfix is installed).
Everything runs on this machine: generator, relays, sink. Each relay is a process of its own with its queue on this disk; its CPU
seconds are read from /proc. The rounds of Ironpost and Postfix alternate, so that a machine that slows down slows both: quote
ratios and medians.
"""

import argparse
import asyncio
import contextlib
import json
import os
import shutil
import statistics
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvloop

from bench.peers import CountingSink, Counts, generate, message, postfix, send_lone
from relay.config.values import HostPort
from relay.testing import Pki, write_config
from tests.e2e.process import RelayProcess, free_port
from tests.postfix import find

SESSIONS = 20
LONE = 100
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Chain:
    """What a message goes through: where it begins, and the processes whose CPU time counts (none for Postfix, which has many)."""

    name: str
    entry: HostPort
    pids: tuple[int, ...]
    counts: Counts


@dataclass(frozen=True)
class Round:
    """One run: messages a second, CPU seconds for 1,000 messages (0: not measured), milliseconds a lone message took."""

    rate: float
    cpu: float
    lone: tuple[float, ...]


def cpu_seconds(pids: tuple[int, ...]) -> float:
    total = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / _TICKS


@asynccontextmanager
async def sink() -> AsyncIterator[tuple[HostPort, Counts]]:
    counts = Counts()
    server = await asyncio.get_running_loop().create_server(lambda: CountingSink(counts), "127.0.0.1", 0)
    try:
        yield HostPort("127.0.0.1", server.sockets[0].getsockname()[1]), counts
    finally:
        server.close()


def relay_config(folder: Path, name: str, pki: Pki, connector: dict[str, Any]) -> Path:
    pki.issue(folder / "certs", name, "127.0.0.1")
    config = {
        "hostname": name,
        "postmaster": f"postmaster@{name}",
        "listeners": [{"address": "127.0.0.1:0"}],
        "certificates": "certs",
        "queue": "sqlite:queue.db",
        "limits": {"free_space": "1MiB"},
        "accept": {"networks": ["127.0.0.0/8"]},
        "connectors": [{"name": "out", "direction": "outbound", "match": {"recipient_domains": ["*"]}, **connector}],
    }
    return write_config(folder, config, {})


@asynccontextmanager
async def ironpost(folder: Path, *, pair: bool) -> AsyncIterator[Chain]:
    """One relay, or two with enforced, verified TLS 1.3 between."""
    pki = Pki(folder / "pki")
    async with AsyncExitStack() as stack:
        address, counts = await stack.enter_async_context(sink())
        last = await stack.enter_async_context(
            RelayProcess(relay_config(folder / "last", "last.test", pki, {"route": {"smart_hosts": [str(address)]}}))
        )
        if not pair:
            yield Chain("ironpost, one hop", last.address, (last.pid,), counts)
            return
        secured = {
            "tls": "domain",
            "names": ["last.test"],
            "ca": str(pki.ca),
            "tls_version": "TLSv1.3",
            "route": {"smart_hosts": [str(last.address)]},
        }
        first = await stack.enter_async_context(
            RelayProcess(relay_config(folder / "first", "first.test", pki, secured))
        )
        yield Chain("ironpost, pair with TLS 1.3", first.address, (first.pid, last.pid), counts)


@asynccontextmanager
async def postfixes(folder: Path, *, pair: bool, tuned: bool) -> AsyncIterator[Chain]:
    pki = Pki(folder / "pki")
    async with AsyncExitStack() as stack:
        next_hop, counts = await stack.enter_async_context(sink())
        for name in ("last", "first") if pair else ("last",):
            place, port = folder / name, free_port()
            pem = pki.issue(place, f"{name}.test", "127.0.0.1")
            shutil.copy(pem, place / "cert.pem")
            shutil.copy(pem.with_suffix(".key"), place / "key.pem")
            shutil.copy(pki.ca, place / "ca.pem")
            stack.enter_context(postfix(place, port, next_hop, tuned=tuned))
            next_hop = HostPort("127.0.0.1", port)
        kind = "pair with TLS 1.3" if pair else "one hop"
        yield Chain(f"postfix{' tuned' if tuned else ''}, {kind}", next_hop, (), counts)


async def measure(chain: Chain, messages: int) -> Round:
    """Warm up, then `messages` as fast as they go, then LONE ones one after another."""
    await generate(chain.entry, SESSIONS, SESSIONS)
    await chain.counts.reach(SESSIONS, 60)
    chain.counts.times.clear()
    before, begun = cpu_seconds(chain.pids), asyncio.get_running_loop().time()
    sending = asyncio.create_task(generate(chain.entry, messages, SESSIONS))
    await chain.counts.reach(messages, 300)
    seconds = asyncio.get_running_loop().time() - begun
    await sending
    cpu = (cpu_seconds(chain.pids) - before) / messages * 1000
    content, lone = message(), []
    for _ in range(LONE):
        chain.counts.times.clear()
        sent = await send_lone(chain.entry, content)
        await chain.counts.reach(1, 30)
        lone.append((chain.counts.times[0] - sent) * 1000)
    return Round(messages / seconds, cpu, tuple(lone))


Make = Callable[[Path], contextlib.AbstractAsyncContextManager[Chain]]


def contenders(*, beside_postfix: bool) -> list[Make]:
    found: list[Make] = [lambda folder: ironpost(folder, pair=False)]
    if beside_postfix:
        found.append(lambda folder: postfixes(folder, pair=False, tuned=False))
    found.append(lambda folder: ironpost(folder, pair=True))
    if beside_postfix:
        found.append(lambda folder: postfixes(folder, pair=True, tuned=True))
    return found


async def run(messages: int, rounds: int) -> dict[str, list[Round]]:
    beside_postfix = find("postfix") is not None and os.geteuid() == 0
    if not beside_postfix:
        print("Postfix is not installed, or this is not root: Ironpost alone")
    results: dict[str, list[Round]] = {}
    for number in range(rounds):
        for make in contenders(beside_postfix=beside_postfix):
            with tempfile.TemporaryDirectory(prefix="bench-", dir="/var/tmp") as folder:
                async with make(Path(folder)) as chain:
                    found = await measure(chain, messages)
            results.setdefault(chain.name, []).append(found)
            print(f"round {number + 1}  {chain.name:32} {found.rate:7.0f} messages/s", flush=True)
    return results


def report(results: dict[str, list[Round]]) -> dict[str, Any]:
    """Medians, and the ratios to Postfix where it ran."""
    table: dict[str, Any] = {}
    for name, rounds in results.items():
        lone = sorted(each for found in rounds for each in found.lone)
        table[name] = {
            "messages_per_second": round(statistics.median(each.rate for each in rounds), 1),
            "cpu_seconds_per_1000": round(statistics.median(each.cpu for each in rounds), 2) or None,
            "lone_ms_median": round(statistics.median(lone), 2),
            "lone_ms_p99": round(lone[int(len(lone) * 0.99) - 1], 2),
        }
    for kind in ("one hop", "pair with TLS 1.3"):
        ours, theirs = (
            next((row for name, row in table.items() if name.startswith(who) and name.endswith(kind)), None)
            for who in ("ironpost", "postfix")
        )
        if ours and theirs:
            ours["times_postfix"] = round(ours["messages_per_second"] / theirs["messages_per_second"], 2)
            ours["lone_against_postfix"] = round(ours["lone_ms_median"] / theirs["lone_ms_median"], 2)
    return table


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--messages", type=int, default=3000)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    results = uvloop.run(run(arguments.messages, arguments.rounds))
    print(json.dumps(report(results), indent=2))


if __name__ == "__main__":
    main()
