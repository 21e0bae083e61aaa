"""Under load the processes of a relay do not interrupt each other; mail that comes alone does not wait its turn."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from relay.testing import Sink
from tests.e2e.process import RelayProcess
from tests.e2e.test_serve import send
from tests.e2e.test_workers import config, until

_CLIENTS = 8

pytestmark = [
    pytest.mark.timeout(120),
    pytest.mark.skipif(not hasattr(os, "SCHED_BATCH"), reason="Linux's alone: elsewhere there is nothing to change"),
]


def policies(pids: list[int]) -> set[int]:
    """Of all threads."""
    return {os.sched_getscheduler(int(each.name)) for pid in pids for each in Path(f"/proc/{pid}/task").iterdir()}


@asynccontextmanager
async def load(port: int) -> AsyncIterator[None]:
    """Mail as fast as a few clients can send it, until the block ends."""
    over = False

    async def client() -> None:
        while not over:
            await asyncio.to_thread(send, port, "alice@relay.test", "bob@example.com")

    async with asyncio.TaskGroup() as clients:
        for _ in range(_CLIENTS):
            clients.create_task(client())
        try:
            yield
        finally:
            over = True


@pytest.mark.parametrize("workers", [1, 2])
async def test_the_policy_follows_the_load(workers: int, tmp_path: Path) -> None:
    async with Sink() as sink, RelayProcess(config(tmp_path, sink, workers=workers)) as relay:
        if workers > 1:
            await relay.all_listen(workers)
        pids = list(relay.workers.values()) or [relay.pid]
        assert policies(pids) == {os.SCHED_OTHER}
        async with load(relay.address.port):
            await until(lambda: policies(pids) == {os.SCHED_BATCH}, 60)
        await until(lambda: policies(pids) == {os.SCHED_OTHER})
