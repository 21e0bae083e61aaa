"""Connections of callers who are slow, many, or never begin."""

import asyncio
import socket
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest
import uvloop
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from relay.admin.door import Door, DoorLimits, named, network_door
from relay.clients.limits import Connections, Key
from relay.config.models import AdminScope
from relay.config.values import HostPort
from relay.mail.tls import Certificate
from relay.testing import Pki
from relay.tls.context import server_context
from relay.tls.keyring import Keyring

LIMITS = DoorLimits(connections=4, connections_per_ip=3, handshake=0.3, header=0.3, request=0.3, answer=0.3)


class Counted(Connections):
    """Says when one has gone."""

    def __init__(self) -> None:
        super().__init__()
        self.gone = asyncio.Event()

    def leave(self, key: Key | None) -> None:
        super().leave(key)
        self.gone.set()


async def echo(request: Request) -> Response:
    return PlainTextResponse(str(len(await request.body())))


async def flood(_request: Request) -> Response:
    async def chunks() -> AsyncIterator[bytes]:
        while True:
            yield b"x" * 65536

    return StreamingResponse(chunks())


APP = Starlette(routes=[Route("/", echo, methods=["GET", "POST"]), Route("/flood", flood)])


@asynccontextmanager
async def door(pki: Pki | None = None, folder: Path = Path()) -> AsyncIterator[tuple[HostPort, Door]]:
    context = None
    if pki is not None:
        pki.issue(folder, "relay.test")
        keyring = Keyring(folder, hostname="relay.test", clock=lambda: datetime.now(UTC))
        context = server_context(keyring, ask_certificate=False)
    made = Door(context, LIMITS, Counted())
    async with network_door(HostPort("127.0.0.1", 0), APP, made) as address:
        yield address, made


@asynccontextmanager
async def connection(address: HostPort) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection(address.host, address.port, limit=1024)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()
        with suppress(ConnectionError):
            await writer.wait_closed()


async def closed(reader: asyncio.StreamReader) -> bytes:
    """What came until the relay closed the connection."""
    async with asyncio.timeout(10):
        try:
            return await reader.read()
        except ConnectionError:
            return b""


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"GET / HTTP/1.1\r\nHost: x\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhalf",
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\nGET / HT",
    ],
)
async def test_a_request_that_does_not_end(sent: bytes) -> None:
    async with door() as (address, made), connection(address) as (reader, writer):
        writer.write(sent)
        await closed(reader)
        assert made.connections.total == 0


async def test_a_body_that_drips_does_not_win_time() -> None:
    async with door() as (address, _made), connection(address) as (reader, writer):
        writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n")

        async def drip() -> None:
            while True:
                writer.write(b"x")
                await asyncio.sleep(0.02)

        dripping = asyncio.create_task(drip())
        await closed(reader)
        dripping.cancel()


async def test_an_answer_that_nobody_reads() -> None:
    async with door() as (address, made), connection(address) as (_reader, writer):
        writer.write(b"GET /flood HTTP/1.1\r\nHost: x\r\n\r\n")
        assert isinstance(made.connections, Counted)
        async with asyncio.timeout(10):
            await made.connections.gone.wait()
        assert made.connections.total == 0


async def test_a_handshake_that_does_not_begin(tmp_path: Path) -> None:
    async with door(Pki(tmp_path / "pki"), tmp_path / "certs") as (address, made):
        async with connection(address) as (reader, _writer):
            await closed(reader)
        assert made.connections.total == 0
        assert not made.securing


async def test_one_address_has_its_share_and_no_more() -> None:
    async with door() as (address, made), AsyncExitStack() as stack:
        opened = [await stack.enter_async_context(connection(address)) for _number in range(4)]
        assert await closed(opened[3][0]) == b""
        assert made.connections.total <= LIMITS.connections_per_ip
        for reader, _writer in opened:
            await closed(reader)
        assert made.connections.total == 0


async def test_several_requests_on_one_connection() -> None:
    async with door() as (address, _made), connection(address) as (reader, writer):
        for size in (1, 5):
            body = b"x" * size
            writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (size, body))
            async with asyncio.timeout(10):
                head = await reader.readuntil(b"\r\n\r\n")
                assert head.startswith(b"HTTP/1.1 200")
                assert await reader.readexactly(1) == b"%d" % size


def certificate(*names: str) -> Certificate:
    now = datetime.now(UTC)
    return Certificate("CN=x", "CN=ca", names, (), now, now, "", "")


def test_an_exact_name_counts_before_a_wildcard() -> None:
    names = {"*.example.com": AdminScope.READ, "ops.example.com": AdminScope.ADMIN}
    assert named(names, certificate("ops.example.com")) == ("ops.example.com", AdminScope.ADMIN)
    assert named(names, certificate("dev.example.com")) == ("dev.example.com", AdminScope.READ)
    assert named(names, certificate("example.com")) is None
    assert named(names, certificate("a.b.example.com")) is None


def _ask(address: HostPort, ca: Path, before: bytes) -> bytes:
    """The status line that an HTTPS client gets who, or somebody on the way, has sent `before` in clear."""
    context = ssl.create_default_context(cafile=str(ca))
    with socket.create_connection((address.host, address.port), timeout=10) as plain:
        plain.sendall(before)
        with context.wrap_socket(plain, server_hostname="relay.test") as secured:
            secured.sendall(b"GET / HTTP/1.1\r\nHost: relay.test\r\n\r\n")
            return secured.recv(1000).partition(b"\r\n")[0]


@pytest.mark.parametrize("before", [b"", b"POST / HTTP/1.1\r\nX-A: "])
def test_what_was_sent_before_the_handshake_is_not_taken_for_the_clients(tmp_path: Path, before: bytes) -> None:
    """On the loop that serves, and busy, so that all that was sent is there when the connection is looked at first."""
    pki = Pki(tmp_path)

    async def tried() -> bytes:
        async with door(pki, tmp_path / "certs") as (address, _door):
            asked = asyncio.create_task(asyncio.to_thread(_ask, address, pki.ca, before))
            await asyncio.sleep(0)
            time.sleep(0.3)  # noqa: ASYNC251 - the loop is busy
            return await asked

    if before:
        with pytest.raises(OSError):
            uvloop.run(tried())
    else:
        assert uvloop.run(tried()) == b"HTTP/1.1 200 OK"
