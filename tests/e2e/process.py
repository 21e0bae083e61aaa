"""A relay in a process of its own, as an ops team runs it: `relay serve`, its log read line by line, killed as a test likes."""

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from relay.config.values import HostPort

Line = dict[str, Any]


def _listens(slot: int, line: Line) -> bool:
    return line.get("event") == "listener-ready" and line.get("worker") == slot


def free_port() -> int:
    """A port of 127.0.0.1 that was free a moment ago, for what cannot say which port it got."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@asynccontextmanager
async def crowd(address: HostPort) -> AsyncIterator[None]:
    """Two clients that stay: while they are there, the kernel shares all others out among the workers (relay.workers.steering)."""
    clients = [await asyncio.open_connection(address.host, address.port) for _ in range(2)]
    try:
        for reader, _writer in clients:
            assert (await reader.readline()).startswith(b"220 ")
        yield
    finally:
        for _reader, writer in clients:
            writer.close()


class RelayProcess:
    """`async with RelayProcess(config) as relay:` runs `relay serve` until the block ends (SIGTERM, waited for)."""

    def __init__(self, config: Path) -> None:
        self._config = config
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None
        self._changed = asyncio.Condition()
        self._ended = False
        self.lines: list[Line] = []

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(signal.SIGTERM)
            await self.wait()

    async def start(self) -> None:
        """Starts it, and waits until it listens. AssertionError with its output where it does not start."""
        arguments = [sys.executable, "-m", "relay", "serve", "--config", str(self._config), "--log-format", "json"]
        self._ended, seen = False, len(self.lines)
        self._process = await asyncio.create_subprocess_exec(
            *arguments,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            limit=2**20,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        self._reader = asyncio.create_task(self._read(self._process))
        await self.line(lambda each: each.get("event") == "listener-ready", after=seen)

    @property
    def address(self) -> HostPort:
        """Where its last started listener is."""
        ready = [each for each in self.lines if each.get("event") == "listener-ready"]
        return HostPort.parse(ready[-1]["address"])

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def workers(self) -> dict[int, int]:
        """The process of each slot, as the supervisor told them last; empty for a relay of one process."""
        return {each["worker"]: each["pid"] for each in self.lines if each.get("event") == "worker-started"}

    async def all_listen(self, count: int) -> None:
        """Returns when so many workers do."""
        for slot in range(count):
            await self.line(partial(_listens, slot))

    async def line(self, wanted: Callable[[Line], bool], *, after: int = 0, seconds: float = 30) -> Line:
        """The first line of the log, from number `after` on, that is `wanted`."""
        async with asyncio.timeout(seconds), self._changed:
            await self._changed.wait_for(lambda: self._ended or any(wanted(each) for each in self.lines[after:]))
        found = [each for each in self.lines[after:] if wanted(each)]
        assert found, "the relay ended without it; its output: " + "\n".join(
            json.dumps(each) for each in self.lines[-20:]
        )
        return found[0]

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    async def kill(self) -> None:
        """kill -9, and wait until it is dead."""
        assert self._process is not None
        self._process.kill()
        await self.wait()

    async def wait(self) -> int:
        """Its exit code, once it has ended and its log is read."""
        assert self._process is not None
        assert self._reader is not None
        async with asyncio.timeout(60):
            await self._reader
            return await self._process.wait()

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        async for raw in process.stdout:
            try:
                line = json.loads(raw)
            except ValueError:
                line = {"event": "output", "text": raw.decode("utf-8", "replace").rstrip()}
            async with self._changed:
                self.lines.append(line)
                self._changed.notify_all()
        async with self._changed:
            self._ended = True
            self._changed.notify_all()
