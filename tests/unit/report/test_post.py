"""Reports by HTTPS POST, to a real server (uvicorn, the standard library's TLS) with right and wrong certificates and answers."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from relay.policy.rua import Https, read_uri
from relay.report.post import Patience, Poster, Terms, _context
from relay.report.tlsrpt.document import GZIP
from relay.testing.pki import Pki
from tests.fakes import FakeResolver

HOST = "reports.b.example"
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class Server:
    """Keeps what it was sent; `status` is what it answers, `location` where it redirects to. `stalls`: it never answers."""

    def __init__(self) -> None:
        self.status, self.location, self.stalls = 201, "", False
        self.body = b"taken"
        self.asked: list[tuple[str, str, dict[bytes, bytes], bytes]] = []
        self.port = 0

    async def __call__(
        self, scope: dict[str, Any], receive: Callable[[], Awaitable[dict[str, Any]]], send: Send
    ) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        target = scope["path"] + (f"?{scope['query_string'].decode()}" if scope["query_string"] else "")
        self.asked.append((scope["method"], target, dict(scope["headers"]), body))
        if self.stalls:
            await asyncio.Event().wait()
        headers = [(b"location", self.location.encode())] if self.location else []
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        await send({"type": "http.response.body", "body": self.body})


@asynccontextmanager
async def serving(pem: Path) -> AsyncIterator[Server]:
    app, listening = Server(), socket.create_server(("127.0.0.1", 0))
    app.port = listening.getsockname()[1]
    config = uvicorn.Config(
        app,
        ssl_certfile=pem,
        ssl_keyfile=pem.with_suffix(".key"),
        lifespan="off",
        log_config=None,
        access_log=False,
        ws="none",
        http="h11",
    )
    config.load()
    server = uvicorn.Server(config)
    server.lifespan = config.lifespan_class(config)
    await server.startup([listening])
    try:
        yield app
    finally:
        for each in server.servers:
            each.close()
        listening.close()
        for connection in list(server.server_state.connections):
            connection.shutdown()
        tasks = list(server.server_state.tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return Pki(tmp_path_factory.mktemp("post"))


@pytest.fixture
async def server(pki: Pki, tmp_path: Path) -> AsyncIterator[Server]:
    async with serving(pki.issue(tmp_path, HOST)) as made:
        yield made


def poster(
    pki: Pki, resolver: FakeResolver | None = None, *, private: bool = True, trust: str = "", seconds: float = 60.0
) -> Poster:
    found = resolver or FakeResolver(hosts={HOST: ["127.0.0.1"]})
    terms = Terms(trust or str(pki.ca), private)
    return Poster(found.addresses, lambda: terms, "ironpost/test", GZIP, Patience(seconds))


def at(port: int, target: str = "/v1/tlsrpt?x=1", host: str = HOST) -> Https:
    found = read_uri(f"https://{host}:{port}{target}")
    assert isinstance(found, Https)
    return found


async def test_a_report_is_posted(pki: Pki, server: Server) -> None:
    assert (await poster(pki)(at(server.port), b"report")).error == ""
    ((method, target, headers, body),) = server.asked
    assert (method, target, body) == ("POST", "/v1/tlsrpt?x=1", b"report")
    assert headers[b"host"] == f"{HOST}:{server.port}".encode()
    assert headers[b"content-type"] == b"application/tlsrpt+gzip"
    assert headers[b"user-agent"] == b"ironpost/test"
    assert headers[b"content-length"] == b"6"


@pytest.mark.parametrize("status", [200, 202, 204])
async def test_every_success_is_one(status: int, pki: Pki, server: Server) -> None:
    server.status, server.body = status, b""
    assert (await poster(pki)(at(server.port), b"report")).error == ""


@pytest.mark.parametrize("status", [400, 404, 413, 500, 503])
async def test_a_refusal(status: int, pki: Pki, server: Server) -> None:
    server.status = status
    assert (await poster(pki)(at(server.port), b"report")).error == f"{HOST} answered {status}"


@pytest.mark.parametrize("location", ["https://127.0.0.1:1/", "/elsewhere", f"https://{HOST}/"])
async def test_a_redirect_is_not_followed(location: str, pki: Pki, server: Server) -> None:
    server.status, server.location = 307, location
    assert (await poster(pki)(at(server.port), b"x")).error == f"{HOST} answered 307 (a redirect is not followed)"
    assert len(server.asked) == 1


async def test_the_answer_is_not_read(pki: Pki, server: Server) -> None:
    server.body = b"x" * 5_000_000
    assert (await poster(pki)(at(server.port), b"report")).error == ""


async def test_a_server_that_never_answers(pki: Pki, server: Server) -> None:
    server.stalls = True
    assert (
        await poster(pki, seconds=0.3)(at(server.port), b"report")
    ).error == f"{HOST} [127.0.0.1]: no answer in time"


@pytest.mark.parametrize(
    ("begins", "goes_on", "error"),
    [
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"8\r\n12345678\r\n", ""),
        (b"HTTP/1.1 503 x\r\nContent-Length: 999999999999\r\n\r\n", b"x" * 1024, "answered 503"),
        (b"HTTP/1.1 200 OK\r\n", b"X-Field: " + b"x" * 100 + b"\r\n", "too long"),
        (b"HTTP/1.1 200 ", b"x" * 1024, "too long"),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n", "no answer in time"),
        (b"", b"\x00\xff\n", "illegal request line"),
    ],
    ids=["body", "body of a refusal", "fields", "line", "100 Continue", "garbage"],
)
async def test_an_answer_without_end(begins: bytes, goes_on: bytes, error: str, pki: Pki, tmp_path: Path) -> None:
    """Not one is read to its end, and the connection is closed on it."""
    over = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\nreport")
        writer.write(begins)
        try:
            while True:
                writer.write(goes_on * 500)
                await writer.drain()
        except (ConnectionError, ssl.SSLError):
            writer.transport.abort()
            over.set()

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    pem = pki.issue(tmp_path, HOST)
    context.load_cert_chain(pem, pem.with_suffix(".key"))
    async with await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context) as server:
        port = server.sockets[0].getsockname()[1]
        async with asyncio.timeout(20):
            found = await poster(pki, seconds=0.5)(at(port), b"report")
            await over.wait()
    assert error in found.error
    assert bool(found.error) is bool(error)


async def test_certificates_that_are_not_trusted(pki: Pki, tmp_path: Path) -> None:
    async with serving(pki.issue(tmp_path / "a", "other.example")) as server:
        wrong_name = await poster(pki)(at(server.port), b"report")
        assert "Hostname mismatch" in wrong_name.error
        assert not server.asked
    async with serving(Pki(tmp_path / "stranger").issue(tmp_path / "b", HOST)) as server:
        stranger = await poster(pki)(at(server.port), b"report")
        assert "unable to get local issuer certificate" in stranger.error or "self-signed" in stranger.error
        assert not server.asked
    async with serving(pki.issue(tmp_path / "c", HOST, expired=True)) as server:
        assert "expired" in (await poster(pki)(at(server.port), b"report")).error


async def test_the_system_s_trust_does_not_know_our_ca(pki: Pki, server: Server) -> None:
    assert "certificate" in (await poster(pki, trust="system")(at(server.port), b"report")).error


async def test_hosts_that_are_not_there_or_not_outside(pki: Pki, server: Server) -> None:
    nowhere = FakeResolver()
    assert (await poster(pki, nowhere)(at(server.port), b"x")).error == f"{HOST} has no address"
    failing = FakeResolver(failing={HOST})
    assert (await poster(pki, failing)(at(server.port), b"x")).error == f"the look-up of {HOST} failed: SERVFAIL"
    for address in ("127.0.0.1", "10.0.0.1", "192.168.1.1", "169.254.169.254", "::1", "fd00::1", "64:ff9b::7f00:1"):
        inside = FakeResolver(hosts={HOST: [address]})
        assert (
            await poster(pki, inside, private=False)(at(server.port), b"x")
        ).error == f"{HOST} has no public address"
    assert not server.asked


async def test_the_next_address_is_tried(pki: Pki, server: Server) -> None:
    both = FakeResolver(hosts={HOST: ["127.0.0.9", "127.0.0.1"]})
    assert (await poster(pki, both)(at(server.port), b"x")).error == ""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        assert "127.0.0.1" in (await poster(pki)(at(free.getsockname()[1]), b"x")).error


async def test_trust_that_cannot_be_read(pki: Pki, server: Server, tmp_path: Path) -> None:
    assert "cannot be read" in (await poster(pki, trust=str(tmp_path / "gone.pem"))(at(server.port), b"x")).error


def test_contexts(pki: Pki, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert _context(str(tmp_path)).verify_mode is ssl.CERT_REQUIRED
    assert _context(str(pki.ca)).check_hostname
    nothing = ssl.get_default_verify_paths()._replace(cafile="", capath="")
    monkeypatch.setattr(ssl, "get_default_verify_paths", lambda: nothing)
    assert _context("system").cert_store_stats()["x509_ca"] > 50
