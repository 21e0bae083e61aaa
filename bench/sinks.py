"""Where a benchmark's mail ends, and how its arrival is counted.

`arrivals` runs Postfix's `smtp-sink -c` and reads its running counter. Where that is not installed, and where mail goes to many
destinations (smtp-sink listens on one address only), the counter comes from `python -m bench.sinks`, which is `CountingSink` in a
process of its own.
"""

import argparse
import asyncio
import os
import re
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import cast

from relay.config.values import HostPort
from tests.e2e.process import free_port
from tests.postfix import find

_COUNTER = re.compile(rb"mesg=(\d+)")
_BACKLOG = 1000


class Counts:
    """Arrivals at a sink, on the clock of time.perf_counter."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self._more = asyncio.Event()

    def one(self) -> None:
        self.times.append(time.perf_counter())
        self._more.set()

    async def reach(self, count: int, seconds: float) -> None:
        """TimeoutError where fewer came in time."""
        async with asyncio.timeout(seconds):
            while len(self.times) < count:
                self._more.clear()
                await self._more.wait()


class CountingSink(asyncio.Protocol):
    """The cheapest SMTP server that a relay will deliver to: answers line by line, counts final dots, notes when each came."""

    def __init__(self, counts: Counts) -> None:
        self._counts = counts
        self._transport: asyncio.Transport | None = None
        self._buffer = b""
        self._in_data = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.write(b"220 sink ESMTP\r\n")

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        replies: list[bytes] = []
        while self._step(replies):
            pass
        if replies and self._transport is not None:
            self._transport.write(b"".join(replies))

    def _step(self, replies: list[bytes]) -> bool:
        if self._in_data:
            end = self._buffer.find(b"\r\n.\r\n")
            if end < 0:
                self._buffer = self._buffer[-4:]  # the rest is of no interest
                return False
            self._buffer, self._in_data = self._buffer[end + 5 :], False
            self._counts.one()
            replies.append(b"250 2.0.0 kept\r\n")
            return True
        line, newline, rest = self._buffer.partition(b"\r\n")
        if not newline:
            return False
        self._buffer = rest
        verb = line[:4].upper()
        if verb == b"EHLO":
            replies.append(b"250-sink\r\n250-PIPELINING\r\n250-ENHANCEDSTATUSCODES\r\n250 8BITMIME\r\n")
        elif verb == b"DATA":
            self._in_data = True
            self._buffer = b"\r\n" + self._buffer  # an empty message ends at once
            replies.append(b"354 go\r\n")
        elif verb == b"QUIT":
            replies.append(b"221 2.0.0 bye\r\n")
        else:
            replies.append(b"250 2.0.0 ok\r\n")
        return True


@asynccontextmanager
async def counting(hosts: Sequence[str] = ("127.0.0.1",)) -> AsyncIterator[tuple[HostPort, Counts]]:
    """A CountingSink in this process, on one port of each of `hosts`. Gives the first address."""
    counts = Counts()
    loop = asyncio.get_running_loop()
    servers = [await loop.create_server(lambda: CountingSink(counts), hosts[0], 0, backlog=_BACKLOG)]
    port = servers[0].sockets[0].getsockname()[1]
    servers += [await loop.create_server(lambda: CountingSink(counts), host, port) for host in hosts[1:]]
    try:
        yield HostPort(hosts[0], port), counts
    finally:
        for server in servers:
            server.close()


@dataclass
class Arrivals:
    """How many messages have arrived so far."""

    count: int = 0

    def __post_init__(self) -> None:
        self._more = asyncio.Event()

    def now(self, count: int) -> None:
        self.count = count
        self._more.set()

    async def reach(self, count: int, seconds: float) -> None:
        """TimeoutError, saying how many came, where fewer came in time."""
        try:
            async with asyncio.timeout(seconds):
                while self.count < count:
                    self._more.clear()
                    await self._more.wait()
        except TimeoutError:
            raise TimeoutError(f"{self.count} of {count} messages arrived within {seconds} s") from None


def destinations(count: int) -> list[str]:
    """The addresses of loopback that stand for so many destinations."""
    return ["127.0.0.1"] if count == 1 else [f"127.77.{each // 250}.{each % 250 + 1}" for each in range(count)]


@asynccontextmanager
async def arrivals(count: int = 1) -> AsyncIterator[tuple[int, Arrivals]]:
    """A sink process that listens on one port of each of `destinations(count)`; the port, and what has arrived."""
    port, program = free_port(), find("smtp-sink")
    if program is not None and count == 1:
        user = ("-u", "postfix") if os.geteuid() == 0 else ()
        command = [program, "-c", *user, f"127.0.0.1:{port}", str(_BACKLOG)]
    else:
        command = [sys.executable, "-m", "bench.sinks", "--port", str(port), "--destinations", str(count)]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    found = Arrivals()
    reading = asyncio.create_task(_read(process, found))
    try:
        await _answers(HostPort(destinations(count)[-1], port))
        yield port, found
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()
        await reading


async def _read(process: asyncio.subprocess.Process, found: Arrivals) -> None:
    assert process.stdout is not None
    rest = b""
    while data := await process.stdout.read(65536):
        # A counter is whole once something follows it.
        seen = [match for match in _COUNTER.finditer(rest + data) if match.end() < len(rest + data)]
        rest = (rest + data)[-64:]
        if seen:
            found.now(int(seen[-1].group(1)))


async def _answers(address: HostPort) -> None:
    """Returns once something accepts connections there."""
    async with asyncio.timeout(20):
        while True:
            try:
                _, writer = await asyncio.open_connection(address.host, address.port)
            except OSError:
                await asyncio.sleep(0.01)
                continue
            writer.close()
            return


def main() -> None:
    import uvloop

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--destinations", type=int, default=1)
    options = parser.parse_args()

    class Printed(Counts):
        def one(self) -> None:
            self.total += 1
            os.write(1, b"mesg=%d\r" % self.total)

        total = 0

    async def serve() -> None:
        counts, loop = Printed(), asyncio.get_running_loop()
        for host in destinations(options.destinations):
            await loop.create_server(lambda: CountingSink(counts), host, options.port, backlog=_BACKLOG)
        await loop.create_future()

    uvloop.run(serve())


if __name__ == "__main__":
    main()
