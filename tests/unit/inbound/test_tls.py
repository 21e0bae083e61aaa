"""STARTTLS and implicit TLS against Python's own `ssl` as the peer, and everything that can go wrong in a handshake."""

import asyncio
import shutil
import smtplib
import socket
import ssl
from pathlib import Path
from typing import Any

import pytest

from relay.inbound.services import TimeLimits
from relay.inbound.tlsstream import TlsStream
from relay.mail.events import CommandRefused, ConnectionRefused, SessionClosed, SessionOpened, Unexpected
from tests.unit.inbound.world import HOSTNAME, Pki, Wire, on_both_loops, relay

MX: dict[str, Any] = {}
SUBMISSIONS = {
    "listeners": [{"address": "127.0.0.1:0", "kind": "submissions"}],
    "submission": {"passwords": "passwords"},
}
SHORT = TimeLimits(handshake=0.2, linger=0.1, tick=0.01)


@pytest.fixture(autouse=True)
def passwords(tmp_path: Path) -> None:
    (tmp_path / "passwords").write_text("")


@on_both_loops
async def test_starttls(tmp_path: Path, pki: Pki) -> None:
    async with relay(tmp_path, MX, certificates=pki.certificates) as world, await world.connect() as wire:
        assert "STARTTLS" in (await wire.ehlo()).split("\n")
        await wire.starttls(pki.client_context())
        await wire.say("MAIL FROM:<ann@contoso.com>", 503)  # what was said before TLS is forgotten
        assert "STARTTLS" not in (await wire.ehlo()).split("\n")
        await wire.say("STARTTLS", 503)
        await wire.message()
        await wire.say("QUIT", 221)
        assert await wire.rest() == b""
        [taken] = world.intake.taken
        evidence = taken.accepted.tls
        assert evidence is not None
        assert (evidence.version, evidence.sni, evidence.chain) == ("TLSv1.3", HOSTNAME, ())
        assert taken.accepted.protocol == "ESMTPS"
        header = taken.header.decode().replace("\r\n\t", " ")
        assert f"(TLSv1.3, {evidence.cipher}, {evidence.group}, client certificate not asked for)" in header
        closed = await world.event(SessionClosed)
        assert (closed.reason, closed.tls) == ("quit", "TLSv1.3")


async def test_smtplib(tmp_path: Path, pki: Pki) -> None:
    def send(port: int) -> None:
        with smtplib.SMTP("127.0.0.1", port, local_hostname="client.example") as client:
            client._host = HOSTNAME  # type: ignore[attr-defined]  # the name that smtplib compares the certificate with
            client.starttls(context=pki.client_context())
            client.sendmail("ann@contoso.com", "bob@example.com", b"Subject: x\r\n\r\n" + b"hello\r\n" * 100_000)

    async with relay(tmp_path, MX, certificates=pki.certificates) as world:
        await asyncio.to_thread(send, world.port)
        assert world.intake.taken[0].body.count(b"hello\r\n") == 100_000


@on_both_loops
async def test_the_client_talks_at_once_after_the_handshake(tmp_path: Path, pki: Pki) -> None:
    """With TLS 1.3 a client's Finished and its EHLO arrive together."""
    async with relay(tmp_path, MX, certificates=pki.certificates) as world:
        loop = asyncio.get_running_loop()
        for _ in range(5):
            client = TlsClient(pki.client_context())
            with await client.connect(loop, world.port):
                assert (await client.receive_clear()).startswith(b"220")
                await client.send_clear(b"STARTTLS\r\n")
                assert (await client.receive_clear()).startswith(b"220")
                await client.handshake(then=b"EHLO client.example\r\nNOOP\r\n")
                received = b""
                while b"250 2.0.0 ok\r\n" not in received:
                    received += await client.receive()
                assert b"250-SIZE" in received or b"250-PIPELINING" in received


class TlsClient:
    """A client whose TLS records are put on the wire by hand."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_hostname=HOSTNAME)
        self.socket = socket.socket()

    async def connect(self, loop: asyncio.AbstractEventLoop, port: int) -> socket.socket:
        self.loop = loop
        self.socket.setblocking(False)
        await loop.sock_connect(self.socket, ("127.0.0.1", port))
        return self.socket

    async def send_clear(self, data: bytes) -> None:
        await self.loop.sock_sendall(self.socket, data)

    async def receive_clear(self) -> bytes:
        async with asyncio.timeout(10):
            return await self.loop.sock_recv(self.socket, 65536)

    async def handshake(self, before: bytes = b"", then: bytes = b"") -> None:
        """`before` goes in front of the ClientHello in one write, `then` is encrypted behind the Finished in one write."""
        while True:
            try:
                self.tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                await self.send_clear(before + self.outgoing.read())
                before = b""
                self.incoming.write(await self.receive_clear())
        if then:
            self.tls.write(then)
        await self.send_clear(self.outgoing.read())

    async def receive(self) -> bytes:
        while True:
            try:
                return self.tls.read()
            except ssl.SSLWantReadError:
                self.incoming.write(await self.receive_clear())


# CVE-2011-0411 and its family ----------------------------------------------------------------------------------------


@on_both_loops
async def test_nothing_from_before_the_handshake_is_heard_behind_it(tmp_path: Path, pki: Pki) -> None:
    async with relay(tmp_path, MX, certificates=pki.certificates) as world, await world.connect() as wire:
        await wire.ehlo()
        wire.send("STARTTLS", "EHLO evil.example", "MAIL FROM:<eve@evil.example>")
        rest = await wire.rest()
        assert rest.startswith((b"220 ", b"554 "))
        assert rest.count(b"\r\n") == 1
        await world.event(SessionClosed)
        assert world.intake.begun == []


@on_both_loops
async def test_a_second_packet_in_clear_breaks_the_handshake(tmp_path: Path, pki: Pki) -> None:
    async with relay(tmp_path, MX, certificates=pki.certificates) as world, await world.connect() as wire:
        await wire.ehlo()
        await wire.say("STARTTLS", 220)
        wire.send("EHLO evil.example", "MAIL FROM:<eve@evil.example>")
        await wire.rest()
        closed = await world.event(SessionClosed)
        assert closed.reason.startswith("TLS handshake failed: ")
        assert closed.tls == ""


# Handshakes that fail ------------------------------------------------------------------------------------------------


@on_both_loops
async def test_a_client_that_does_not_trust_us(tmp_path: Path, pki: Pki) -> None:
    async with relay(tmp_path, MX, certificates=pki.certificates) as world, await world.connect() as wire:
        await wire.ehlo()
        with pytest.raises(ssl.SSLCertVerificationError):
            await wire.starttls(pki.client_context(verify=False))
        reason = (await world.event(SessionClosed)).reason
        # Python's event loop does not send the alert that it has for us.
        assert reason == "TLS handshake failed: the client closed the connection"
        assert world.of(Unexpected) == []


@on_both_loops
async def test_a_client_that_is_too_old(tmp_path: Path, pki: Pki) -> None:
    async with relay(tmp_path, MX, certificates=pki.certificates) as world, await world.connect() as wire:
        await wire.ehlo()
        await wire.say("STARTTLS", 220)
        wire.send(bytes.fromhex("160301002f0100002b0301") + bytes(32) + bytes.fromhex("000004002f00ff0100"))
        await wire.rest()
        reason = (await world.event(SessionClosed)).reason
        assert reason == "TLS handshake failed: unsupported protocol"


@on_both_loops
async def test_a_client_that_leaves_in_the_handshake(tmp_path: Path, pki: Pki) -> None:
    async with relay(tmp_path, MX, certificates=pki.certificates) as world:
        for leave in (Wire.close, Wire.reset):
            wire = await world.connect()
            await wire.ehlo()
            await wire.say("STARTTLS", 220)
            result = leave(wire)
            if result is not None:
                await result
            closed = await world.event(SessionClosed, 1 + (leave is Wire.reset))
            assert closed.reason == "TLS handshake failed: the client closed the connection"


@on_both_loops
async def test_a_handshake_that_takes_too_long(tmp_path: Path, pki: Pki) -> None:
    async with relay(tmp_path, MX, certificates=pki.certificates, times=SHORT) as world, await world.connect() as wire:
        await wire.ehlo()
        await wire.say("STARTTLS", 220)
        wire.send(b"\x16")
        assert await wire.rest() == b""
        assert (await world.event(SessionClosed)).reason == "TLS handshake failed: not done in time"


@on_both_loops
async def test_implicit_tls_that_takes_too_long(tmp_path: Path, pki: Pki) -> None:
    async with relay(tmp_path, SUBMISSIONS, certificates=pki.certificates, times=SHORT) as world:
        async with await Wire.open(world.port) as wire:
            assert await wire.rest() == b""
        refused = await world.event(ConnectionRefused)
        assert (refused.reason, refused.client) == ("TLS handshake failed: not done in time", "127.0.0.1")
        assert world.of(SessionClosed) == []


@on_both_loops
async def test_a_client_that_leaves_before_implicit_tls(tmp_path: Path, pki: Pki) -> None:
    async with relay(tmp_path, SUBMISSIONS, certificates=pki.certificates) as world:
        async with await Wire.open(world.port):
            pass
        assert (await world.event(ConnectionRefused)).reason == "TLS handshake failed: the client closed the connection"


@on_both_loops
async def test_smtp_in_clear_to_implicit_tls(tmp_path: Path, pki: Pki) -> None:
    async with relay(tmp_path, SUBMISSIONS, certificates=pki.certificates) as world:
        async with await Wire.open(world.port) as wire:
            wire.send("EHLO client.example")
            assert b"220" not in await wire.rest()
        assert (await world.event(ConnectionRefused)).reason.startswith("TLS handshake failed: ")
        assert world.of(SessionOpened) == []


async def test_a_bug_in_the_handshake_ends_the_connection(
    tmp_path: Path, pki: Pki, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with relay(tmp_path, MX, certificates=pki.certificates) as world, await world.connect() as wire:
        monkeypatch.setattr("relay.inbound.port.Port.context", lambda self, ask_certificate: 1 / 0)
        await wire.ehlo()
        await wire.say("STARTTLS", 220)
        assert await wire.rest() == b""
        assert (await world.event(SessionClosed)).reason == "unexpected error"
        assert len(world.of(Unexpected)) == 1


# Implicit TLS --------------------------------------------------------------------------------------------------------


@on_both_loops
async def test_implicit_tls(tmp_path: Path, pki: Pki) -> None:
    async with relay(tmp_path, SUBMISSIONS, certificates=pki.certificates) as world:
        async with await world.connect(ssl=pki.client_context(), server_hostname=HOSTNAME) as wire:
            words = (await wire.ehlo()).split("\n")
            assert "AUTH PLAIN LOGIN" in words
            assert "STARTTLS" not in words
            await wire.say("MAIL FROM:<ann@contoso.com>", 530)
        assert (await world.event(SessionClosed)).tls == "TLSv1.3"


@on_both_loops
async def test_lost_right_after_the_final_dot(tmp_path: Path, pki: Pki) -> None:
    async with relay(tmp_path, MX, certificates=pki.certificates) as world, await world.connect() as wire:
        world.intake.go.clear()
        await wire.ehlo()
        await wire.starttls(pki.client_context())
        await wire.ehlo()
        await wire.mail()
        wire.send("Subject: x", "", ".")
        await world.intake.committing.wait()
        wire.reset()
        assert (await world.event(SessionClosed)).reason == "lost"
        world.intake.go.set()
        await world.intake.begun[0].ended.wait()
        assert len(world.intake.taken) == 1


@on_both_loops
async def test_a_client_that_closes_its_side_hears_the_reply(tmp_path: Path, pki: Pki) -> None:
    """TLS has half-closed connections too (RFC 8446 section 6.1)."""
    async with relay(tmp_path, MX, certificates=pki.certificates) as world:
        world.intake.go.clear()
        client = TlsClient(pki.client_context())
        with await client.connect(asyncio.get_running_loop(), world.port):
            await client.receive_clear()
            await client.send_clear(b"STARTTLS\r\n")
            await client.receive_clear()
            await client.handshake(
                then=b"EHLO x.example\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<bob@example.com>\r\nDATA\r\n"
            )
            received = b""
            while b"354 " not in received:
                received += await client.receive()
            client.tls.write(b"Subject: x\r\n\r\n.\r\n")
            with pytest.raises(ssl.SSLWantReadError):
                client.tls.unwrap()
            await client.send_clear(client.outgoing.read())
            await world.intake.committing.wait()
            world.intake.go.set()
            client.incoming.write(await client.receive_clear())
            assert client.tls.read().startswith(b"250 2.0.0 queued")
            assert await client.receive_clear() == b""
        assert (await world.event(SessionClosed)).reason == "lost"


async def test_a_record_that_was_tampered_with(tmp_path: Path, pki: Pki) -> None:
    async with relay(tmp_path, MX, certificates=pki.certificates) as world:
        client = TlsClient(pki.client_context())
        with await client.connect(asyncio.get_running_loop(), world.port):
            await client.receive_clear()
            await client.send_clear(b"STARTTLS\r\n")
            await client.receive_clear()
            await client.handshake(then=b"NOOP\r\n")
            assert await client.receive() == b"250 2.0.0 ok\r\n"
            client.tls.write(b"EHLO x.example\r\n")
            record = bytearray(client.outgoing.read())
            record[-1] ^= 1
            await client.send_clear(bytes(record))
            client.incoming.write(await client.receive_clear())
            with pytest.raises(ssl.SSLError, match=r"(?i)bad.record.mac"):  # we said why
                client.tls.read()
        assert (await world.event(SessionClosed)).reason.startswith("TLS failed: ")


async def test_what_the_engine_has_to_say_by_itself_is_sent(
    tmp_path: Path, pki: Pki, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the answer to a key update (RFC 8446 section 4.6.3)."""
    async with relay(tmp_path, MX, certificates=pki.certificates) as world, await world.connect() as wire:
        await wire.ehlo()
        await wire.starttls(pki.client_context())
        monkeypatch.setattr(TlsStream, "take", lambda self: self.encrypt(b"299 by itself\r\n"))
        wire.send("NOOP")
        await wire.expect(299, 250)


async def test_a_client_that_leaves_right_after_the_handshake(tmp_path: Path, pki: Pki) -> None:
    async with relay(tmp_path, MX, certificates=pki.certificates) as world:
        for count in (1, 2, 3):
            async with await world.connect() as wire:
                await wire.ehlo()
                await wire.starttls(pki.client_context())
            closed = await world.event(SessionClosed, count)
            assert (closed.reason, closed.tls) == ("lost", "TLSv1.3")
            assert closed.seconds < 5


@on_both_loops
async def test_a_store_that_is_behind_stops_the_client(tmp_path: Path, pki: Pki) -> None:
    async with relay(tmp_path, MX, certificates=pki.certificates) as world, await world.connect() as wire:
        await wire.ehlo()
        await wire.starttls(pki.client_context())
        await wire.ehlo()
        world.intake.full = True
        world.intake.room.clear()
        await wire.mail()
        body = b"\r\n" + (b"x" * 998 + b"\r\n") * 20_000
        wire.writer.write(body + b".\r\n")
        draining = asyncio.create_task(wire.writer.drain())
        await asyncio.wait({draining}, timeout=0.5)
        assert sum(map(len, world.intake.begun[0].pieces)) < len(body) / 4
        world.intake.full = False
        world.intake.room.set()
        await draining
        await wire.expect(250)
        assert world.intake.taken[0].body == body


# Which certificate ---------------------------------------------------------------------------------------------------


async def names_shown(world_port: int, pki: Pki, name: str) -> tuple[str, ...]:
    async with await Wire.open(world_port) as wire:
        await wire.expect(220)
        await wire.ehlo()
        context = pki.client_context()
        context.check_hostname = False
        await wire.starttls(context, name)
        shown = wire.writer.get_extra_info("peercert")
        return tuple(value for _kind, value in shown["subjectAltName"])


async def test_certificates_by_server_name_and_after_a_renewal(tmp_path: Path, pki: Pki) -> None:
    shutil.copytree(pki.certificates, tmp_path / "certs")
    async with relay(tmp_path, MX, certificates=tmp_path / "certs") as world:
        assert await names_shown(world.port, pki, "mx2.example.org") == (HOSTNAME,)
        second = pki.ours.issue_cert("mx2.example.org")
        second.private_key_and_cert_chain_pem.write_to_path(tmp_path / "certs" / "mx2.pem")
        assert world.keyring is not None
        world.keyring.reload()
        assert await names_shown(world.port, pki, "mx2.example.org") == ("mx2.example.org",)
        assert await names_shown(world.port, pki, HOSTNAME) == (HOSTNAME,)


@pytest.mark.parametrize("asked", [True, False])
async def test_a_certificate_is_asked_for_only_where_a_rule_speaks_of_one(
    tmp_path: Path, pki: Pki, asked: bool
) -> None:
    require: dict[str, Any] = (
        {"certificate": {"names": ["mail.fabrikam.com"], "ca": str(pki.partner_ca)}} if asked else {"tls": True}
    )
    connector = {
        "name": "fabrikam",
        "direction": "inbound",
        "match": {"sender_domains": ["fabrikam.com"]},
        "require": require,
    }
    data = MX | {"connectors": [connector]}
    async with relay(tmp_path, data, certificates=pki.certificates) as world, await world.connect() as wire:
        await wire.ehlo()
        await wire.starttls(pki.client_context("partner"))
        await wire.ehlo()
        await wire.message()
        [taken] = world.intake.taken
        assert taken.accepted.tls is not None
        assert bool(taken.accepted.tls.chain) is asked
        header = taken.header.decode().replace("\r\n\t", " ")
        expected = 'client certificate "CN=mail.contoso.com' if asked else "client certificate not asked for"
        assert expected in header
        assert ("not judged" in header) is asked


async def test_a_new_connector_asks_from_the_next_handshake_on(tmp_path: Path, pki: Pki) -> None:
    connector = {
        "name": "contoso",
        "direction": "inbound",
        "match": {"sender_domains": ["contoso.com"]},
        "require": {"certificate": {"names": ["mail.contoso.com"], "ca": str(pki.partner_ca)}},
    }
    async with relay(tmp_path, MX, certificates=pki.certificates) as world:
        async with await world.connect() as wire:
            world.configure(MX | {"connectors": [connector]})
            await wire.ehlo()
            await wire.starttls(pki.client_context("partner"))
            await wire.ehlo()
            await wire.message()
        assert world.intake.taken[0].accepted.connector == "contoso"
        assert world.of(CommandRefused) == []


async def test_the_lowest_version_is_what_a_connector_allows(tmp_path: Path, pki: Pki) -> None:
    connector = {
        "name": "old",
        "direction": "inbound",
        "match": {"sender_domains": ["old.example"]},
        "require": {"tls_version": "TLSv1"},
    }

    async def offered_tls_1_1(data: dict[str, Any]) -> bool:
        async with relay(tmp_path, data, certificates=pki.certificates) as world, await world.connect() as wire:
            await wire.ehlo()
            await wire.say("STARTTLS", 220)
            extensions = bytes.fromhex("000a000400020017000b00020100")  # P-256, uncompressed points
            suites = bytes.fromhex("0004c009c013")
            hello = (
                b"\x03\x02" + bytes(32) + b"\0" + suites + b"\x01\0" + len(extensions).to_bytes(2, "big") + extensions
            )
            body = b"\x01" + len(hello).to_bytes(3, "big") + hello
            wire.send(b"\x16\x03\x01" + len(body).to_bytes(2, "big") + body)
            async with asyncio.timeout(10):
                return await wire.reader.readexactly(1) == b"\x16"  # a ServerHello, not an alert

    assert not await offered_tls_1_1(MX)
    assert await offered_tls_1_1(MX | {"connectors": [connector]})
