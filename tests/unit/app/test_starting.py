"""What a relay does first: what was ordered of its mail before a crash, however long the store takes to write that."""

import asyncio
import sqlite3
from datetime import UTC, datetime
from pathlib import Path

import pytest

from relay.app import passage
from relay.app.base import Times
from relay.app.relay import Relay
from relay.queue.database import Database
from relay.queue.operations import Selection
from relay.queue.store import Order
from relay.testing import write_config
from tests.unit.queue.world import Clock, World

ALL = Selection(everything=True)


async def state_of(relay: Relay, message: str) -> str:
    found = await relay.operator.message(message)
    assert found is not None
    return str(found["recipients"][0]["state"])


@pytest.mark.parametrize(("order", "state"), [(Order.HOLD, "held"), (Order.BOUNCE, "bounced")])
async def test_with_a_store_that_cannot_write_it_starts_and_tries_nothing_before_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, order: Order, state: str
) -> None:
    monkeypatch.setattr(passage, "_PATIENCE", 0.2)
    before = World(tmp_path / "before.db", Clock(datetime.now(UTC)))
    await before.start()
    before.hops.gate.clear()
    message = await before.put(sender="alice@example.com")
    await (before.operations.hold(ALL) if order is Order.HOLD else before.operations.bounce(ALL))
    await before.crash(tmp_path / "queue.db")
    tried: list[bytes] = []

    async def hop(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 hop.test\r\n")
        while line := await reader.readline():
            tried.append(line)
            writer.write(b"250 hop.test\r\n")
        writer.close()

    def full(_database: Database) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    server = await asyncio.start_server(hop, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    values = {
        "hostname": "relay.test",
        "postmaster": "postmaster@relay.test",
        "listeners": [{"address": "127.0.0.1:0", "starttls": "off"}],
        "queue": "sqlite:queue.db",
        "limits": {"free_space": "1MiB"},
        "connectors": [
            {
                "name": "all",
                "direction": "outbound",
                "match": {"recipient_domains": ["*"]},
                "route": {"smart_hosts": [f"127.0.0.1:{port}"]},
            }
        ],
    }
    file = write_config(tmp_path, values, {})
    async with server:
        with monkeypatch.context() as patched:
            patched.setattr(Database, "begin", full)
            relay = Relay(file, times=Times(watch=3.0, grace=0.1))
            await asyncio.wait_for(relay.__aenter__(), 10)
        try:
            async with asyncio.timeout(20):
                while await state_of(relay, message.id) != state:  # noqa: ASYNC110 - nothing tells
                    await asyncio.sleep(0.05)
            assert not [line for line in tried if b"<bob@example.com>" in line.lower()], "it was not tried"
        finally:
            await relay.__aexit__(None, None, None)
