"""What a relay does not do any more while it stops."""

import asyncio
import socket
from pathlib import Path

import pytest

from relay.app.relay import Relay
from relay.testing import write_config


def config(folder: Path, *addresses: str) -> Path:
    values = {
        "hostname": "relay.test",
        "postmaster": "postmaster@relay.test",
        "listeners": [{"address": each, "starttls": "off"} for each in addresses],
        "queue": "sqlite:queue.db",
        "limits": {"free_space": "1MiB"},
        "accept": {"networks": ["127.0.0.0/8"]},
    }
    return write_config(folder, values, {})


def free_address() -> str:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"127.0.0.1:{server.getsockname()[1]}"


async def test_a_reload_while_it_stops_opens_no_listener(tmp_path: Path) -> None:
    """A worker that is replaced is asked to follow like all others, until it has gone."""
    first, second = free_address(), free_address()
    async with Relay(config(tmp_path, first)) as relay:
        idle, leaving = await asyncio.open_connection("127.0.0.1", relay.address().port)
        reader, writer = await asyncio.open_connection("127.0.0.1", relay.address().port)
        for line in ("EHLO client.test", "MAIL FROM:<a@client.test>", "RCPT TO:<b@example.com>", "DATA"):
            writer.write(f"{line}\r\n".encode())
        await reader.readuntil(b"354 ")  # it stays until this message is finished
        stopping = asyncio.create_task(relay.__aexit__(None, None, None))
        await idle.readuntil(b"421 ")
        config(tmp_path, first, second)
        await relay.operator.reload(dry_run=False)
        for address in (first, second):
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection(*address.split(":"))
        writer.write(b"\r\n.\r\n")
        await reader.readuntil(b"\r\n250 ")
        for each in (leaving, writer):
            each.close()
        await stopping
