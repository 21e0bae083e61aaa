"""`relay serve` as a benchmark runs it: a process of its own whose log goes to a file, as Postfix's does."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from bench.machine import alive, tree
from relay.config.values import HostPort
from relay.testing import Pki, write_config
from tests.e2e.process import free_port

_WHERE = Path(__file__).resolve().parent.parent


def configuration(
    folder: Path,
    connectors: list[dict[str, Any]],
    *,
    name: str = "relay.test",
    workers: str = "",
    pki: Pki | None = None,
    limits: Mapping[str, Any] | None = None,
    **keys: Any,
) -> Path:
    """A `connectors.yaml` of a relay on a free port that takes all mail from this machine. `workers` "" leaves the key out."""
    values: dict[str, Any] = {
        "hostname": name,
        "postmaster": f"postmaster@{name}",
        "listeners": [{"address": f"127.0.0.1:{free_port()}", "starttls": "on" if pki else "off"}],
        "queue": "sqlite:queue.db",
        "limits": {
            "free_space": "1MiB",
            "message_size": "100MiB",
            "connections": 20_000,
            "connections_per_ip": 20_000,
            **(limits or {}),
        },
        "accept": {"networks": ["127.0.0.0/8"]},
        "connectors": connectors,
    }
    if pki is not None:
        pki.issue(folder / "certs", name, "127.0.0.1")
        values["certificates"] = "certs"
    if workers:
        values["workers"] = int(workers) if workers.isdecimal() else workers
    return write_config(folder, {**values, **keys}, {})


def outbound(name: str, domain: str, hop: HostPort | str, **keys: Any) -> dict[str, Any]:
    """A connector for a domain ("*": all) that goes to one smart host."""
    return {
        "name": name,
        "direction": "outbound",
        "match": {"recipient_domains": [domain]},
        "route": {"smart_hosts": [str(hop)]},
        **keys,
    }


class Served:
    """`async with Served(config) as relay:` runs it until the block ends. `started` is when it was, on time.perf_counter's clock."""

    def __init__(self, config: Path, *, environment: Mapping[str, str] | None = None) -> None:
        self.config = config
        self.log = config.with_name("log")
        self.started = 0.0
        self.address = _listener(config)
        self._environment = environment or {}
        self._process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.returncode is None

    async def start(self, seconds: float = 60) -> None:
        """Returns once it greets. RuntimeError with the end of its log where it does not."""
        self.started = time.perf_counter()
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "relay", "serve", "--config", str(self.config), "--log-format", "json"),
                stdout=log,
                stderr=log,
                cwd=_WHERE,
                env={**os.environ, **self._environment},
            )
        until = self.started + seconds
        while not await self.greets():
            if not self.is_running or time.perf_counter() > until:
                raise RuntimeError(f"the relay does not greet; its log ends: {self.tail()}")
            await asyncio.sleep(0.005)

    async def greets(self) -> bool:
        try:
            reader, writer = await asyncio.open_connection(self.address.host, self.address.port)
        except OSError:
            return False
        try:
            async with asyncio.timeout(10):
                return (await reader.readline()).startswith(b"220")
        except (OSError, TimeoutError):
            return False
        finally:
            writer.close()

    def tail(self, lines: int = 8) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:]) if self.log.exists() else ""

    async def kill(self) -> None:
        """kill -9; returns when it is gone, and its workers with it."""
        family = tree([self.pid])
        os.kill(self.pid, signal.SIGKILL)
        await self.gone(family)

    async def gone(self, family: Iterable[int], seconds: float = 10) -> None:
        """Returns when all of its processes have ended: the first was killed, the others see that. RuntimeError where they do not."""
        await self.ended()
        until = time.perf_counter() + seconds
        while left := alive(family):
            if time.perf_counter() > until:
                for pid in left:
                    os.kill(pid, signal.SIGKILL)
                raise RuntimeError(f"processes {left} outlived the one that started them by {seconds} s")
            await asyncio.sleep(0.01)

    async def ended(self) -> int:
        assert self._process is not None
        async with asyncio.timeout(120):
            return await self._process.wait()

    async def stop(self) -> None:
        if self.is_running:
            assert self._process is not None
            self._process.send_signal(signal.SIGTERM)
            await self.ended()


def _listener(config: Path) -> HostPort:
    from relay.config.load import load

    return HostPort.parse(str(load(config).listeners[0].address))
