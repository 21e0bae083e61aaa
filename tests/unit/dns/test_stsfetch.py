"""Policies from a real HTTPS server on loopback: the good one, and everything else that a web server can come up with."""

import asyncio
import gzip
import socket
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from relay.config.models import PrivateAddresses
from relay.dns import stsfetch
from relay.dns.answers import AddressAnswer
from relay.dns.stsfetch import FetchSettings, PolicyFetcher
from relay.mail.published import StsTrouble
from relay.mail.tls import TlsFailure
from relay.outbound.handshake import TlsClient
from relay.policy.stsfile import MAX_FILE
from relay.testing import Pki
from relay.tls.trust import TrustStores
from tests.fakes import FakeResolver
from tests.policyhost import PolicyHost, Reply, answer, policy

DOMAIN = "b.example"
HOST = "mta-sts.b.example"
POLICY = policy("enforce", "mx.b.example")
GOOD = answer(POLICY)
HERE = ["127.0.0.1"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("policy-hosts")


@pytest.fixture(scope="module")
def pki(folder: Path) -> Pki:
    return Pki(folder)


@pytest.fixture
def trusting(pki: Pki, monkeypatch: pytest.MonkeyPatch) -> None:
    """The throw-away CA is what the system trusts."""
    monkeypatch.setenv("SSL_CERT_FILE", str(pki.ca))


@pytest.fixture
def certificate(pki: Pki, folder: Path, trusting: None) -> Path:
    return pki.issue(folder / "good", HOST)


def fetcher(port: int, addresses: list[str] | None = None, *, seconds: float = 30) -> PolicyFetcher:
    """With the TLS that deliveries use, and a resolver that alone knows where the policy host is."""
    resolver = FakeResolver(hosts={HOST: HERE if addresses is None else addresses})
    tls = TlsClient(lambda _name: None, TrustStores(), lambda: datetime.now(UTC))
    return PolicyFetcher(resolver, tls, FetchSettings(port, seconds, PrivateAddresses.ALLOW))


async def fetched(certificate: Path, reply: Reply, *, seconds: float = 30) -> bytes | StsTrouble:
    async with PolicyHost(certificate, reply) as host:
        return await fetcher(host.port, seconds=seconds)(DOMAIN)


def trouble(found: bytes | StsTrouble) -> StsTrouble:
    assert isinstance(found, StsTrouble), found
    assert found.announced
    return found


async def test_a_policy_as_it_is(certificate: Path) -> None:
    async with PolicyHost(certificate, GOOD) as host:
        assert await fetcher(host.port)(DOMAIN) == POLICY
        (request,) = host.requests
        assert host.names == [HOST], "SNI is the policy host, RFC 8461 section 7.1"
    lines = request.decode().split("\r\n")
    assert lines[0] == "GET /.well-known/mta-sts.txt HTTP/1.1"
    fields = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:] if line)}
    assert fields["host"] == HOST
    assert fields["accept-encoding"] == "identity"
    assert not fields.keys() & {"cookie", "authorization", "if-none-match", "if-modified-since"}


@pytest.mark.parametrize(
    "reply",
    [
        answer(POLICY, kind="text/plain; charset=utf-8"),
        answer(POLICY, kind="Text/Plain;x=y"),
        b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n" + POLICY,
        b"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\n" + POLICY,
        b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n"
        % (len(POLICY), POLICY),
    ],
    ids=["charset", "case", "until-close", "http-1.0", "chunked"],
)
async def test_the_ways_to_send_it(certificate: Path, reply: bytes) -> None:
    assert await fetched(certificate, reply) == POLICY


FETCH, INVALID = TlsFailure.STS_POLICY_FETCH_ERROR, TlsFailure.STS_POLICY_INVALID


@pytest.mark.parametrize(
    ("reply", "failure", "words"),
    [
        (answer(POLICY, status="404 Not Found"), FETCH, f"{HOST} answers 404, not 200"),
        (answer(POLICY, status="203 Transformed"), FETCH, f"{HOST} answers 203, not 200"),
        (answer(POLICY, status="304 Not Modified"), FETCH, f"{HOST} answers 304, not 200"),
        (
            answer(POLICY, status="301 Moved Permanently", fields="Location: https://127.0.0.1/\r\n"),
            FETCH,
            f"{HOST} answers 301 (redirects are not followed), not 200",
        ),
        (answer(POLICY, kind="text/html"), INVALID, f"{HOST} says that its policy is 'text/html', not text/plain"),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
            INVALID,
            f"{HOST} says that its policy is nothing, not text/plain",
        ),
        (
            answer(gzip.compress(POLICY), fields="Content-Encoding: gzip\r\n"),
            INVALID,
            f"{HOST} packs its policy though it was not asked to",
        ),
        (answer(b"x" * (MAX_FILE + 1)), FETCH, f"the policy of {HOST} is longer than 65536 bytes"),
        (
            b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 100\r\n\r\nmode",
            FETCH,
            "could not be asked",
        ),
        (b"220 mx.b.example ESMTP\r\n", FETCH, "could not be asked"),
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 50_000, FETCH, "could not be asked"),
        (b"", FETCH, "could not be asked"),
    ],
    ids=["404", "203", "304", "301", "html", "no-type", "gzip", "huge", "cut", "smtp", "endless-head", "silent-close"],
)
async def test_what_is_no_policy(certificate: Path, reply: bytes, failure: TlsFailure, words: str) -> None:
    found = trouble(await fetched(certificate, reply))
    assert found.failure is failure
    assert words in found.text


async def test_as_long_as_may_be(certificate: Path) -> None:
    body = b"x" * MAX_FILE
    assert await fetched(certificate, answer(body)) == body


async def endless(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n")
    while True:
        writer.write(b"x" * 8192)
        await writer.drain()


async def silent(_writer: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


def drip(head: bytes) -> Callable[[asyncio.StreamWriter], Awaitable[None]]:
    """A little again and again, so that no single read is ever late."""

    async def reply(writer: asyncio.StreamWriter) -> None:
        writer.write(head)
        while True:
            writer.write(b"#")
            await writer.drain()
            await asyncio.sleep(0.01)

    return reply


async def test_a_body_without_end(certificate: Path) -> None:
    assert "longer than 65536 bytes" in trouble(await fetched(certificate, endless)).text


@pytest.mark.parametrize(
    "reply",
    [silent, drip(b""), drip(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n")],
    ids=["silent", "head", "body"],
)
async def test_an_answer_that_takes_too_long(certificate: Path, reply: Reply) -> None:
    found = trouble(await fetched(certificate, reply, seconds=0.3))
    assert (found.failure, found.text) == (FETCH, f"{HOST} did not give its policy in 0.3 seconds")


async def test_one_read_that_takes_too_long(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stsfetch, "_STEP", 0.2)
    found = trouble(await fetched(certificate, silent))
    assert (found.failure, found.text) == (FETCH, f"{HOST} could not be asked for its policy: no answer in time")


async def test_the_time_limit_is_for_dns_too(certificate: Path) -> None:
    class Slow(FakeResolver):
        async def addresses(self, host: str) -> AddressAnswer:
            await asyncio.Event().wait()
            return await super().addresses(host)

    tls = TlsClient(lambda _name: None, TrustStores(), lambda: datetime.now(UTC))
    found = trouble(await PolicyFetcher(Slow(), tls, FetchSettings(seconds=0.05))(DOMAIN))
    assert (found.failure, found.text) == (FETCH, f"{HOST} did not give its policy in 0.05 seconds")


@pytest.mark.usefixtures("trusting")
class TestCertificates:
    async def test_expired(self, pki: Pki, folder: Path) -> None:
        found = trouble(await fetched(pki.issue(folder / "expired", HOST, expired=True), GOOD))
        assert found.failure is TlsFailure.STS_WEBPKI_INVALID
        assert "certificate has expired" in found.text

    @pytest.mark.parametrize("name", [DOMAIN, "mta-sts.other.example", "*.example", "127.0.0.1"])
    async def test_for_another_name(self, pki: Pki, folder: Path, name: str) -> None:
        found = trouble(await fetched(pki.issue(folder / "name", name), GOOD))
        assert found.failure is TlsFailure.STS_WEBPKI_INVALID
        assert f"not for {HOST}" in found.text

    async def test_a_wildcard_for_the_policy_host_will_do(self, pki: Pki, folder: Path) -> None:
        assert await fetched(pki.issue(folder / "wild", "*.b.example"), GOOD) == POLICY

    async def test_of_a_ca_that_nobody_knows(self, folder: Path) -> None:
        other = Pki(folder / "other")
        found = trouble(await fetched(other.issue(folder / "unknown", HOST), GOOD))
        assert found.failure is TlsFailure.STS_WEBPKI_INVALID
        assert "not trusted by system" in found.text

    async def test_it_is_judged_before_anything_else_that_is_wrong(self, pki: Pki, folder: Path) -> None:
        certificate = pki.issue(folder / "expired", HOST, expired=True)
        found = trouble(await fetched(certificate, answer(POLICY, status="302 Found", kind="text/html")))
        assert found.failure is TlsFailure.STS_WEBPKI_INVALID


async def test_trust_that_cannot_be_read_is_no_pass(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", "/nowhere/ca.pem")
    assert trouble(await fetched(certificate, GOOD)).failure is TlsFailure.STS_WEBPKI_INVALID


async def test_a_server_without_tls() -> None:
    async def clear(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(GOOD)
        writer.close()

    server = await asyncio.start_server(clear, "127.0.0.1", 0)
    async with server:
        found = trouble(await fetcher(server.sockets[0].getsockname()[1])(DOMAIN))
    assert found.failure is FETCH


def closed_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


async def test_nobody_listens() -> None:
    found = trouble(await fetcher(closed_port())(DOMAIN))
    assert found.failure is FETCH
    assert found.text.startswith(f"{HOST} could not be asked for its policy: ")


async def test_the_next_address_where_the_first_takes_no_connection(certificate: Path) -> None:
    async with PolicyHost(certificate, GOOD) as host:
        assert await fetcher(host.port, ["127.0.0.9", "127.0.0.10", "127.0.0.1"])(DOMAIN) == POLICY
        assert await fetcher(host.port, ["127.0.0.9", "127.0.0.10"])(DOMAIN) != POLICY
        assert len(host.requests) == 1


async def test_both_families_are_among_the_few_that_are_tried(certificate: Path) -> None:
    """Nobody listens at any of them but the last, which only turns bring among the first four."""
    many = [f"127.0.1.{number}" for number in range(9)]
    async with PolicyHost(certificate, GOOD) as host:
        assert await fetcher(host.port, [*many, "::ffff:127.0.0.1"])(DOMAIN) == POLICY


async def test_a_policy_host_inside_is_not_asked(certificate: Path) -> None:
    """Loopback, private, and IPv6 forms of them (relay.policy.route)."""
    tls = TlsClient(lambda _name: None, TrustStores(), lambda: datetime.now(UTC))
    async with PolicyHost(certificate, GOOD) as host:
        for address in ("127.0.0.1", "10.0.0.1", "169.254.169.254", "::1", "::ffff:127.0.0.1", "64:ff9b::7f00:1"):
            resolver = FakeResolver(hosts={HOST: [address]})
            found = trouble(await PolicyFetcher(resolver, tls, FetchSettings(host.port))(DOMAIN))
            assert (found.failure, found.text) == (FETCH, f"every address of {HOST} is private or reserved")
        assert not host.requests


@pytest.mark.parametrize(
    ("resolver", "text"),
    [
        (FakeResolver(), f"{HOST} has no address"),
        (FakeResolver(hosts={HOST: []}), f"{HOST} has no address"),
        (FakeResolver(failing={HOST}), f"the look-up of {HOST} failed: SERVFAIL"),
    ],
    ids=["nxdomain", "nodata", "servfail"],
)
async def test_no_address(resolver: FakeResolver, text: str) -> None:
    tls = TlsClient(lambda _name: None, TrustStores(), lambda: datetime.now(UTC))
    assert trouble(await PolicyFetcher(resolver, tls)(DOMAIN)) == StsTrouble(FETCH, text)


async def test_the_environment_sends_us_nowhere(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{closed_port()}")
    assert await fetched(certificate, GOOD) == POLICY


async def test_a_domain_that_no_host_can_be_under() -> None:
    long = ".".join(["a" * 60] * 4)
    resolver = FakeResolver(hosts={f"mta-sts.{long}x": HERE})
    tls = TlsClient(lambda _name: None, TrustStores(), lambda: datetime.now(UTC))
    found = await PolicyFetcher(resolver, tls, FetchSettings(closed_port(), 5, PrivateAddresses.ALLOW))(f"{long}x")
    assert trouble(found).failure is FETCH
