"""Our MTA-STS policies by HTTPS, with real TLS clients: whose policy, which certificate, and clients that are slow, many or hostile."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
import trustme

from relay.config.models import Config
from relay.inbound import policies
from relay.inbound.policies import PolicyLimits, PolicyServer, answer
from relay.inbound.sockets import ListenError
from relay.mail.events import Event, ListenerReady, Unexpected
from relay.policy.book import RuleBook
from relay.policy.publish import our_policy, policy_file
from relay.tls.keyring import Keyring
from tests.unit.inbound.world import on_both_loops
from tests.unit.policy.builders import config
from tests.unit.tls.pki import clock

PATH = "/.well-known/mta-sts.txt"
GET = f"GET {PATH} HTTP/1.1\r\nHost: mta-sts.a.example\r\n\r\n".encode()
DOMAINS = ["a.example", "b.example"]


def ours(**publish: Any) -> Config:
    values = {"mx": ["mx.a.example"], "https": ["127.0.0.1:0"], "domains": {"b.example": {"mode": "enforce"}}}
    return config(accept={"domains": DOMAINS}, publish=values | publish, certificates="certs")


@pytest.fixture(scope="module")
def ca() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def certs(tmp_path: Path, ca: trustme.CA) -> Path:
    """One certificate for each policy host, and one of the relay's own for everybody else."""
    for name in ("mta-sts.a.example", "mta-sts.b.example", "relay.example.com"):
        pem = tmp_path / f"{name}.pem"
        ca.issue_cert(name).private_key_and_cert_chain_pem.write_to_path(str(pem))
        pem.chmod(0o600)
    return tmp_path


class World:
    """A running policy server whose configuration a test can change."""

    def __init__(self, certs: Path | None, limits: PolicyLimits | None, **publish: Any) -> None:
        self.book = RuleBook.of(ours(**publish))
        self.events: list[Event] = []
        self.keyring = None if certs is None else Keyring(certs, hostname="relay.example.com", clock=clock)
        self.server = PolicyServer(lambda: self.book, self.keyring, self.events.append, limits)

    async def follow(self, **publish: Any) -> None:
        self.book = RuleBook.of(ours(**publish))
        await self.server.take(await self.server.prepare())

    @property
    def port(self) -> int:
        return self.server.addresses[0].port

    @property
    def hosts(self) -> list[str]:
        return [each.host for each in self.server.addresses]

    def of(self, kind: type[Event]) -> list[Event]:
        return [each for each in self.events if isinstance(each, kind)]


@asynccontextmanager
async def serving(certs: Path, limits: PolicyLimits | None = None, **publish: Any) -> AsyncIterator[World]:
    world = World(certs, limits, **publish)
    await world.server.take(await world.server.prepare())
    try:
        yield world
    finally:
        await world.server.close()
        assert not world.server.sessions
        assert world.server.connections.total == 0
        assert world.of(Unexpected) == []


def client(ca: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    ca.configure_trust(context)
    return context


@asynccontextmanager
async def connected(
    port: int, ca: trustme.CA | None = None, name: str = "mta-sts.a.example"
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection, in clear without a CA; closed whatever happens."""
    options = {} if ca is None else {"ssl": client(ca), "server_hostname": name}
    reader, writer = await asyncio.open_connection("127.0.0.1", port, **options)  # type: ignore[arg-type]
    try:
        yield reader, writer
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


async def ask(port: int, ca: trustme.CA, request: bytes = GET, name: str = "mta-sts.a.example") -> tuple[bytes, bytes]:
    """Header and body of the answer, to the clean end of the connection."""
    async with connected(port, ca, name) as (reader, writer):
        writer.write(request)
        head, _gap, body = (await reader.read()).partition(b"\r\n\r\n")
    return head, body


async def rest(reader: asyncio.StreamReader) -> bytes:
    """What comes until the end, or until it is cut: event loops tell a reset in different ways."""
    try:
        return await reader.read()
    except OSError:
        return b""


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not holds():  # noqa: ASYNC110 - the server has no event for its tests
            await asyncio.sleep(0)


@on_both_loops
async def test_each_domain_has_its_policy_and_its_certificate(certs: Path, ca: trustme.CA) -> None:
    async with serving(certs) as world, httpx.AsyncClient(verify=client(ca)) as http:
        for domain, mode in (("a.example", "testing"), ("b.example", "enforce")):
            host = f"mta-sts.{domain}"
            url = f"https://127.0.0.1:{world.port}{PATH}"
            got = await http.get(url, headers={"host": host}, extensions={"sni_hostname": host})
            assert got.status_code == 200
            # As postfix-mta-sts-resolver and others insist: this type, and these lines.
            assert got.headers["content-type"] == "text/plain"
            assert got.content == policy_file(our_policy(world.book.config, domain))
            assert got.content.decode().split("\r\n") == [
                "version: STSv1",
                f"mode: {mode}",
                "mx: mx.a.example",
                "max_age: 604800",
                "",
            ]
            assert got.headers["content-length"] == str(len(got.content))
            assert "date" in got.headers
        assert world.of(ListenerReady) == [ListenerReady("mta-sts 127.0.0.1:0", f"127.0.0.1:{world.port}")]


@on_both_loops
async def test_head_says_the_same_without_a_body(certs: Path, ca: trustme.CA) -> None:
    async with serving(certs) as world:
        whole, body = await ask(world.port, ca)
        head, nothing = await ask(world.port, ca, GET.replace(b"GET", b"HEAD"))
        assert nothing == b""
        assert [each for each in head.split(b"\r\n") if b"date" not in each] == [
            each for each in whole.split(b"\r\n") if b"date" not in each
        ]
        assert f"content-length: {len(body)}".encode() in head


REQUESTS: tuple[tuple[str, str, str, int], ...] = (
    ("GET", PATH, "mta-sts.a.example", 200),
    ("GET", PATH, "MTA-STS.A.EXAMPLE.:443", 200),
    ("GET", f"{PATH}?x=://y/", "mta-sts.a.example", 200),
    ("GET", f"https://mta-sts.a.example{PATH}", "elsewhere.example", 200),
    ("GET", f"https://mta-sts.a.example:443{PATH}", "", 200),
    ("POST", PATH, "mta-sts.a.example", 405),
    ("DELETE", PATH, "mta-sts.a.example", 405),
    ("GET", "/", "mta-sts.a.example", 404),
    ("GET", f"{PATH}/", "mta-sts.a.example", 404),
    ("GET", f"/.{PATH}", "mta-sts.a.example", 404),
    ("GET", "/.well-known/../.well-known/mta-sts.txt", "mta-sts.a.example", 404),
    ("GET", PATH, "a.example", 404),
    ("GET", PATH, "mta-sts.c.example", 404),
    ("POST", PATH, "mta-sts.c.example", 404),
    ("GET", PATH, "x@mta-sts.a.example", 404),
    ("GET", PATH, "[::1]:443", 404),
    ("GET", PATH, "", 404),
    ("GET", f"https://mta-sts.c.example{PATH}", "mta-sts.a.example", 404),
    ("OPTIONS", "*", "mta-sts.a.example", 404),
    ("CONNECT", "mta-sts.a.example:443", "mta-sts.a.example", 404),
)


@pytest.mark.parametrize(("method", "target", "host", "status"), REQUESTS)
def test_what_a_request_gets(method: str, target: str, host: str, status: int) -> None:
    found = answer(ours(), method, target, host)
    assert found.status == status
    assert (found.body == policy_file(our_policy(ours(), "a.example"))) == (status == 200)
    assert bool(found.fields) == (status == 405)


ODD: dict[str, tuple[bytes, int]] = {
    "no HTTP": (b"EHLO relay\r\n\r\n", 400),
    "no host": (f"GET {PATH} HTTP/1.1\r\n\r\n".encode(), 400),
    "two hosts": (GET.replace(b"\r\n\r\n", b"\r\nHost: b.example\r\n\r\n"), 400),
    "HTTP/1.0 without host": (f"GET {PATH} HTTP/1.0\r\n\r\n".encode(), 404),
    "HTTP/2 preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 404),
    "header without end": (b"GET / HTTP/1.1\r\nx: " + b"y" * 20_000, 431),
    "a whole header beyond the bound": (GET.replace(b"\r\n\r\n", b"\r\nx: " + b"y" * 9000 + b"\r\n\r\n"), 431),
    "many fields": (b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * 5000, 431),
    "other host": (GET.replace(b"a.example", b"c.example"), 404),
    "a body": (GET.replace(b"GET", b"POST").replace(b"\r\n\r\n", b"\r\nContent-Length: 5\r\n\r\nhello"), 405),
    "several requests at once": (GET * 3, 200),
    "no request at all in letters": (bytes(range(256)) + b"\r\n\r\n", 400),
}


@pytest.mark.parametrize("case", ODD)
async def test_odd_requests_get_one_answer_and_the_end(case: str, certs: Path, ca: trustme.CA) -> None:
    request, status = ODD[case]
    async with serving(certs) as world:
        head, body = await ask(world.port, ca, request)
        assert head.startswith(f"HTTP/1.1 {status} ".encode())
        assert head.count(b"HTTP/1.1") + body.count(b"HTTP/1.1") == 1


@on_both_loops
async def test_a_request_that_comes_byte_by_byte(certs: Path, ca: trustme.CA) -> None:
    async with serving(certs) as world, connected(world.port, ca) as (reader, writer):
        for byte in GET:
            writer.write(bytes([byte]))
            await writer.drain()
        assert (await reader.read()).startswith(b"HTTP/1.1 200 OK\r\n")


@on_both_loops
async def test_slow_clients_are_cut_off(certs: Path, ca: trustme.CA) -> None:
    """Without a handshake, and with half a request after it: nobody gets more than the time for all."""
    async with serving(certs, PolicyLimits(seconds=0.1)) as world, connected(world.port) as (silent, _):
        async with connected(world.port, ca) as (slow, writer):
            writer.write(GET[:20])
            assert await rest(slow) == await rest(silent) == b""
        assert not world.server.sessions


@on_both_loops
async def test_floods_meet_a_limit_before_the_handshake(certs: Path, ca: trustme.CA) -> None:
    limits = PolicyLimits(connections=3, connections_per_ip=2)
    async with serving(certs, limits) as world, connected(world.port):
        sessions = world.server.sessions
        async with connected(world.port):
            await until(lambda: len(sessions) == 2)
            with pytest.raises(OSError):
                await ask(world.port, ca)
            await until(lambda: len(sessions) == 2)
        await until(lambda: len(sessions) == 1)
        assert (await ask(world.port, ca))[0].startswith(b"HTTP/1.1 200")
    async with serving(certs, PolicyLimits(connections=0)) as world:
        with pytest.raises(OSError):
            await ask(world.port, ca)


async def test_a_client_that_breaks_the_handshake_is_told(certs: Path) -> None:
    async with serving(certs) as world, connected(world.port) as (reader, writer):
        writer.write(b"\x16\x03\x01\x00\x05hello")
        assert (await reader.read())[:1] == b"\x15"  # an alert (RFC 8446 section 5.1)


async def test_a_client_that_says_goodbye_without_a_request(certs: Path, ca: trustme.CA) -> None:
    async with serving(certs) as world:
        async with connected(world.port, ca):
            pass
        await until(lambda: not world.server.sessions)


@on_both_loops
async def test_a_new_configuration_and_new_certificates_hold_at_once(certs: Path, ca: trustme.CA) -> None:
    async with serving(certs) as world:
        first = world.port
        await world.follow(mode="enforce", max_age="4w")
        assert world.port == first
        assert b"mode: enforce\r\n" in (await ask(first, ca))[1]
        assert world.keyring is not None
        other = trustme.CA()
        pem = certs / "mta-sts.a.example.pem"
        other.issue_cert("mta-sts.a.example").private_key_and_cert_chain_pem.write_to_path(str(pem))
        assert world.keyring.reload().replaced == ("mta-sts.a.example",)
        assert (await ask(first, other))[0].startswith(b"HTTP/1.1 200")
        with pytest.raises(ssl.SSLCertVerificationError):
            await ask(first, ca)
        assert (await ask(first, ca, name="mta-sts.b.example"))[0].startswith(b"HTTP/1.1 200")


@on_both_loops
async def test_the_address_can_change_and_go(certs: Path, ca: trustme.CA) -> None:
    async with serving(certs) as world:
        first = world.port
        async with connected(first, ca) as (reader, writer):
            await world.follow(https=["[::1]:0"])
            assert world.hosts == ["::1"]
            with pytest.raises(OSError):
                socket.create_connection(("127.0.0.1", first))
            writer.write(GET)  # a connection under way goes on
            assert (await reader.read()).startswith(b"HTTP/1.1 200")
        for _ in range(2):
            await world.follow(https=None)
            assert world.hosts == []
        assert len(world.of(ListenerReady)) == 2


async def test_an_address_that_cannot_be_had_changes_nothing(certs: Path, ca: trustme.CA) -> None:
    async with serving(certs) as world:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            with pytest.raises(ListenError, match=rf"cannot listen on 127\.0\.0\.1:{port}: .*: another program"):
                await world.follow(https=["[::1]:0", f"127.0.0.1:{port}"])
        assert (await ask(world.port, ca))[0].startswith(b"HTTP/1.1 200")


async def test_what_was_prepared_can_be_dropped(certs: Path, ca: trustme.CA) -> None:
    async with serving(certs) as world:
        same = await world.server.prepare()
        world.server.drop(same)
        world.book = RuleBook.of(ours(https=["127.0.0.1:0", "[::1]:0"]))
        kept, fresh = prepared = await world.server.prepare()
        assert (kept,) == same
        world.server.drop(prepared)
        with pytest.raises(OSError):
            socket.create_connection((fresh.address.host, fresh.address.port))
        assert (await ask(world.port, ca))[0].startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("folder", [False, True], ids=["no folder", "empty folder"])
async def test_without_a_certificate_nothing_is_served(folder: bool, tmp_path: Path) -> None:
    world = World(tmp_path if folder else None, None)
    with pytest.raises(ListenError, match=r"policies cannot be served on 127\.0\.0\.1:0 without a certificate"):
        await world.server.prepare()
    await world.server.close()


@on_both_loops
async def test_closing_ends_connections_politely(certs: Path, ca: trustme.CA) -> None:
    async with AsyncExitStack() as stack:
        async with serving(certs) as world:
            reader, writer = await stack.enter_async_context(connected(world.port, ca))
            writer.write(GET[:10])
            silent, _writer = await stack.enter_async_context(connected(world.port))
            await until(lambda: len(world.server.sessions) == 2)
        assert await reader.read() == await silent.read() == b""  # the end, and no reset


async def test_closing_has_an_end(certs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that reads nothing holds up nobody."""
    monkeypatch.setattr(policies._Session, "_end", lambda self: None)
    async with serving(certs, PolicyLimits(grace=0.01)) as world, connected(world.port):
        await until(lambda: len(world.server.sessions) == 1)
        await world.server.close()
        await until(lambda: not world.server.sessions)


@pytest.mark.parametrize("where", ["_enter", "_received"])
async def test_a_bug_ends_one_connection_and_is_told(
    where: str, certs: Path, ca: trustme.CA, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_arguments: object) -> None:
        raise RuntimeError("a bug")

    world = World(certs, None)
    await world.server.take(await world.server.prepare())
    with monkeypatch.context() as patch:
        patch.setattr(policies._Session, where, fail)
        with pytest.raises(OSError):
            await ask(world.port, ca)
    (told,) = world.of(Unexpected)
    assert isinstance(told, Unexpected)
    assert "a bug" in told.trace
    assert (await ask(world.port, ca))[0].startswith(b"HTTP/1.1 200")
    await world.server.close()


async def test_a_client_that_is_gone_before_it_is_looked_at(certs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(_peername: object) -> None:
        raise ValueError

    monkeypatch.setattr(policies, "socket_address", gone)
    async with serving(certs) as world, connected(world.port) as (reader, _writer):
        assert await rest(reader) == b""
        assert not world.server.sessions
