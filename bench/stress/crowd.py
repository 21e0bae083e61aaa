"""Ten thousand connections at once, and more than are let in: who is in is served, the others hear 421 at once, memory is bounded.

    python -m bench.stress.crowd [--connections 10000] [--more 1000] [--messages 500]

All connect in one burst (from many addresses of 127.0.0.0/8). `limits.connections` of them must be greeted, the rest refused with 421,
and everybody answered in time. While the crowd stays and more connections are refused, those that are in hand in messages; all of them
must be taken and arrive. Then all go, and the relay takes new ones at once.
"""

import argparse
import asyncio
import resource
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.machine import memory_mib, tree
from bench.peers import message
from bench.served import Served, configuration, outbound
from bench.sinks import counting
from bench.stress.load import Lost
from relay.config.values import HostPort

_ANSWERS = (
    60.0  # seconds at most until everybody has had an answer; a SYN that was dropped comes again after 1, 3, 7, ... s
)
_TURNED_AWAY = 5.0  # and until one who comes later hears that it is full
_EACH = 64.0  # KiB of memory at most for one who is in and idle
_BASE = 64.0  # MiB beside that, for what is under way


class Guest(asyncio.Protocol):
    """One connection: its first answer, and then a message now and again."""

    def __init__(self) -> None:
        self._lines: asyncio.Queue[bytes] = asyncio.Queue()
        self._buffer = b""
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        *lines, self._buffer = (self._buffer + data).split(b"\r\n")
        for line in lines:
            if line[3:4] == b" ":
                self._lines.put_nowait(line)

    def connection_lost(self, exc: Exception | None) -> None:
        self._lines.put_nowait(b"")

    async def answer(self) -> int:
        """0 where the connection is gone."""
        return int((await self._lines.get())[:3] or 0)

    async def ask(self, line: bytes) -> int:
        assert self.transport is not None
        self.transport.write(line)
        return await self.answer()

    async def send(self, content: bytes, recipient: str = "b@example.com") -> bool:
        to = f"RCPT TO:<{recipient}>\r\n".encode()
        for line in (b"EHLO guest.test\r\n", b"MAIL FROM:<a@example.test>\r\n", to):
            if await self.ask(line) != 250:
                return False
        return await self.ask(b"DATA\r\n") == 354 and await self.ask(content + b".\r\n") == 250

    def leave(self) -> None:
        if self.transport is not None:
            self.transport.abort()


@dataclass
class Crowd:
    """`inside`: were greeted. `answers` by code; 0 is a connection that was cut without one."""

    address: HostPort
    inside: list[Guest] = field(default_factory=list)
    answers: Counter[int] = field(default_factory=Counter)
    slowest: float = 0.0

    async def come(self, count: int, seconds: float) -> None:
        """All at once. Raises Lost where somebody has no answer in time."""
        try:
            async with asyncio.timeout(seconds):
                await asyncio.gather(*(self._one(number) for number in range(count)))
        except TimeoutError:
            raise Lost(f"after {seconds:.0f} s not everybody has an answer: {dict(self.answers)} of {count}") from None

    async def _one(self, number: int) -> None:
        begun = time.perf_counter()
        loop = asyncio.get_running_loop()
        source = (f"127.0.{1 + number // 250 % 250}.{1 + number % 250}", 0)
        _, guest = await loop.create_connection(Guest, self.address.host, self.address.port, local_addr=source)
        code = await guest.answer()
        self.slowest = max(self.slowest, time.perf_counter() - begun)
        self.answers[code] += 1
        if code == 220:
            self.inside.append(guest)
        else:
            guest.leave()


async def run(connections: int, more: int, messages: int, folder: Path) -> dict[str, Any]:
    """Raises Lost."""
    _open_files(connections + more + 500)
    async with counting() as (sink, counts):
        file = configuration(folder / "relay", [outbound("out", "*", sink)], limits={"connections": connections})
        async with Served(file) as relay:
            before = memory_mib(tree([relay.pid]))
            crowd = Crowd(relay.address)
            await crowd.come(connections + more, _ANSWERS)
            if crowd.answers != Counter({220: connections, 421: more}):
                raise Lost(f"{connections} may come in, {more} may not, and they heard {dict(crowd.answers)}")
            memory = memory_mib(tree([relay.pid])) - before
            if memory > connections * _EACH / 1024 + _BASE:
                raise Lost(f"{connections} idle sessions take {memory:.0f} MiB")
            late = Crowd(relay.address)
            begun = time.perf_counter()
            sent, _ = await asyncio.gather(_messages(crowd.inside, messages), late.come(max(more, 1), _TURNED_AWAY))
            if set(late.answers) != {421} or sent != messages:
                raise Lost(f"while it was full, {sent} of {messages} messages were taken, others heard {late.answers}")
            await counts.reach(messages, 60)
            served = time.perf_counter() - begun
            for guest in crowd.inside:
                guest.leave()
            await _room_again(relay)
    return {
        "answers": dict(crowd.answers),
        "slowest answer, s": round(crowd.slowest, 2),
        "slowest 421 while full, s": round(late.slowest, 2),
        "KiB each": round(memory * 1024 / connections, 1),
        "messages": f"{messages} in {served:.1f} s while full",
    }


async def _messages(guests: list[Guest], count: int) -> int:
    content, left = message(4096), iter(range(count))
    taken = 0

    async def client(guest: Guest) -> None:
        nonlocal taken
        for _ in left:
            if await guest.send(content):
                taken += 1

    await asyncio.gather(*(client(guest) for guest in guests[:50]))
    return taken


async def _room_again(relay: Served) -> None:
    until = time.perf_counter() + 10
    while not await relay.greets():
        if time.perf_counter() > until:
            raise Lost("everybody has left, and nobody is let in")
        await asyncio.sleep(0.05)


def _open_files(count: int) -> None:
    """The relay inherits the limit. Raises Lost where the system does not let us have so many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < count:
        if hard < count:
            raise Lost(f"this takes {count} open files, and {hard} are allowed: ulimit -n")
        resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--connections", type=int, default=10_000)
    parser.add_argument("--more", type=int, default=1000, help="beyond the limit")
    parser.add_argument("--messages", type=int, default=500, help="by those who are in")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="crowd-") as folder:
        try:
            found = asyncio.run(run(options.connections, options.more, options.messages, Path(folder)))
        except Lost as error:
            sys.exit(f"LOST: {error}")
        print(f"{found}: who was in was served")


if __name__ == "__main__":
    main()
