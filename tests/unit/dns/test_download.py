"""CRLs and OCSP answers from a real HTTP server on loopback, and everything else that may be found at such an address."""

import asyncio
import gzip
import socket
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import pytest_asyncio

from relay.config.values import HostPort
from relay.dns.download import Downloader, host_of
from relay.mail.revocation import NotFetchedError, Wanted
from relay.outbound.handshake import TlsClient
from relay.testing import Pki
from relay.tls.trust import TrustStores
from tests.fakes import FakeResolver
from tests.policyhost import PolicyHost, answer
from tests.revoking import WebHost, http

LIMIT = 1000


@pytest_asyncio.fixture
async def host() -> AsyncIterator[WebHost]:
    async with WebHost() as made:
        yield made


def downloader(*named: HostPort, resolver: FakeResolver | None = None) -> Downloader:
    tls = TlsClient(lambda _name: None, TrustStores(), lambda: datetime.now(UTC))
    return Downloader(resolver or FakeResolver(), tls, lambda: named)


async def fetched(host: WebHost, path: str = "/a", *, body: bytes = b"", seconds: float = 20) -> bytes:
    kind = "application/ocsp-request" if body else ""
    fetch = downloader(HostPort("127.0.0.1", host.port))
    return await fetch(Wanted(host.url(path), LIMIT, seconds, body, kind))


async def trouble(host: WebHost, reply: object, *, seconds: float = 20) -> NotFetchedError:
    host.replies["/a"] = reply  # type: ignore[assignment]
    with pytest.raises(NotFetchedError) as caught:
        await fetched(host, seconds=seconds)
    return caught.value


async def test_a_file_and_an_answer_to_a_question(host: WebHost) -> None:
    host.replies["/a?b=c"] = http(b"the list")
    host.replies["/"] = http(b"the answer", length=False)
    assert await fetched(host, "/a?b=c") == b"the list"
    assert await fetched(host, "", body=b"question") == b"the answer"
    assert host.requests == [("GET", "/a?b=c", b""), ("POST", "/", b"question")]


async def test_redirects_are_not_followed(host: WebHost) -> None:
    found = await trouble(host, http(b"", status="302 Found", fields=f"Location: {host.url('/b')}\r\n"))
    assert "302, a redirect, which is not followed" in str(found)
    assert host.asked("/b") == 0


@pytest.mark.parametrize("status", ["404 Not Found", "500 Oh", "204 No Content"])
async def test_only_200_is_an_answer(host: WebHost, status: str) -> None:
    assert status[:3] in str(await trouble(host, http(b"x", status=status)))


async def test_what_is_too_large_is_not_read(host: WebHost) -> None:
    assert "larger" in str(await trouble(host, http(bytes(LIMIT + 1))))
    sent = 0

    async def endless(writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(http(b"", length=False))
        while True:
            writer.write(bytes(1000))
            sent += 1000
            await writer.drain()

    assert "larger" in str(await trouble(host, endless))
    assert sent < 10 * 2**20


async def test_what_is_packed_is_not_unpacked(host: WebHost) -> None:
    packed = http(gzip.compress(bytes(10**6)), fields="Content-Encoding: gzip\r\n")
    assert "packed" in str(await trouble(host, packed))


async def test_one_that_never_ends_its_answer(host: WebHost) -> None:
    async def slow(writer: asyncio.StreamWriter) -> None:
        writer.write(http(b"", length=False))
        while True:
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.05)

    found = await trouble(host, slow, seconds=0.5)
    assert "no whole answer in 0.5 seconds" in str(found)
    assert f"127.0.0.1:{host.port} (TCP)" in found.hint


async def test_what_is_no_http(host: WebHost) -> None:
    async def noise(writer: asyncio.StreamWriter) -> None:
        writer.write(b"\x16\x03\x01nonsense\r\n\r\n")
        await writer.drain()

    assert "could not be asked" in str(await trouble(host, noise))


async def test_nobody_there() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        with pytest.raises(NotFetchedError, match="no connection") as caught:
            await downloader(HostPort("127.0.0.1", port))(Wanted(f"http://127.0.0.1:{port}/", LIMIT, 20))
    assert "firewall" in caught.value.hint


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://127.0.0.1/", "private or reserved"),
        ("http://[::1]/", "private or reserved"),
        ("http://[::ffff:127.0.0.1]/", "private or reserved"),
        ("http://[64:ff9b::7f00:1]/", "private or reserved"),
        ("http://169.254.169.254/latest/meta-data", "private or reserved"),
        ("http://inside.example/", "private or reserved"),
        ("http://mixed.example:8080/", "port 8080 is not used"),
        ("http://no.example/", "has no address"),
        ("http://broken.example/", "look-up"),
        ("ftp://x.example/", "could not be asked"),
        ("http://user@x.example/", "could not be asked"),
    ],
)
async def test_where_nobody_goes(url: str, why: str) -> None:
    """Threat: a certificate that names a machine of ours."""
    hosts = {"inside.example": ["10.0.0.1", "127.0.0.1"], "mixed.example": ["198.51.100.1"]}
    resolver = FakeResolver(hosts=hosts, failing={"broken.example"})
    with pytest.raises(NotFetchedError, match=why) as caught:
        await downloader(resolver=resolver)(Wanted(url, LIMIT, 5))
    assert "revocation_hosts" in caught.value.hint or "private" not in why


async def test_a_host_that_the_admin_named_may_be_private(host: WebHost) -> None:
    """With its port; without one, 80 and 443 are meant."""
    host.replies["/a"] = http(b"list")
    resolver = FakeResolver(hosts={"pki.example": ["127.0.0.1"]})
    wanted = Wanted(f"http://pki.example:{host.port}/a", LIMIT, 20)
    assert await downloader(HostPort("pki.example", host.port), resolver=resolver)(wanted) == b"list"
    assert resolver.asked["configured pki.example"] == 1
    for other in (HostPort("pki.example", 0), HostPort("pki.example", 81), HostPort("127.0.0.1", host.port)):
        with pytest.raises(NotFetchedError, match="is not used"):
            await downloader(other, resolver=resolver)(wanted)


async def test_over_https_any_certificate_will_do(tmp_path: Path) -> None:
    """What comes is signed by itself."""

    async with PolicyHost(Pki(tmp_path).issue(tmp_path, "else.example"), answer(b"list")) as server:
        fetch = downloader(HostPort("127.0.0.1", server.port))
        assert await fetch(Wanted(f"https://127.0.0.1:{server.port}/a", LIMIT, 20)) == b"list"


async def test_the_environment_is_not_asked_for_a_proxy(host: WebHost, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    host.replies["/a"] = http(b"list")
    assert await fetched(host) == b"list"


def test_host_and_port_of_an_address() -> None:
    assert host_of("http://A.example/x") == HostPort("a.example", 80)
    assert host_of("https://[2001:db8::1]/x") == HostPort("2001:db8::1", 443)
