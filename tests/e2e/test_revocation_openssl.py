"""OpenSSL as oracle and as peer: what `openssl verify -crl_check_all` says of a chain, its OCSP responder, its server that staples."""

import asyncio
import itertools
import socket
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import aiosmtplib
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp

from relay.app import Relay
from relay.config.values import HostPort
from relay.dns.download import Downloader
from relay.mail.events import AttemptMade
from relay.mail.outcome import Deferred, Delivered
from relay.mail.revocation import By, State
from relay.outbound.handshake import TlsClient
from relay.testing import write_config
from relay.tls.context import client_context
from relay.tls.evidence import evidence_of
from relay.tls.revocation.answers import Answers, KeepsNothing
from relay.tls.revocation.checks import Revocations
from relay.tls.trust import TrustStores
from tests.e2e.heard import Heard
from tests.e2e.peers import program
from tests.fakes import FakeResolver
from tests.revoking import DAY, NOW, CrlWish, Held, OcspWish, WebHost, Wish, answer, crl, http, make, responder, root

pytestmark = pytest.mark.peers


def utc() -> datetime:
    return datetime.now(UTC)


def checks(port: int) -> tuple[Answers, Revocations]:
    tls = TlsClient(lambda _name: None, TrustStores(), utc)
    fetch = Downloader(FakeResolver(), tls, lambda: [HostPort("127.0.0.1", port)])
    answers = Answers(fetch, KeepsNothing(), clock=utc, emit=lambda _event: None)
    return answers, Revocations(answers, clock=utc, emit=lambda _event: None)


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def oracle(folder: Path, leaf: Held, crls: list[bytes]) -> str:
    """`good`, `revoked` or `unknown`, as OpenSSL sees it."""
    ca, anchor = leaf.above
    for stem, data in (
        ("leaf", leaf.pem),
        ("ca", ca.pem),
        ("root", anchor.pem),
        ("crls", b"".join(x509.load_der_x509_crl(each).public_bytes(Encoding.PEM) for each in crls)),
    ):
        (folder / f"{stem}.pem").write_bytes(data)
    command = [program("openssl"), "verify", "-crl_check_all", "-CAfile", "root.pem", "-untrusted", "ca.pem"]
    if crls:
        command += ["-CRLfile", "crls.pem"]
    done = subprocess.run([*command, "leaf.pem"], cwd=folder, capture_output=True, text=True, check=False, timeout=30)
    said = done.stdout + done.stderr
    if done.returncode == 0:
        return "good"
    return "revoked" if "certificate revoked" in said else "unknown"


LATE = CrlWish(this_update=NOW - 9 * DAY, next_update=NOW - DAY)


async def test_paths_are_judged_as_openssl_judges_them(tmp_path: Path) -> None:
    """Every way in which two CRLs can be good, revoking, late, forged or absent."""
    anchor = root()
    async with WebHost() as host:
        ca = make("ca", anchor, Wish(ca=True, crl=[host.url("/root")]))
        leaf = make("leaf", ca, Wish(crl=[host.url("/ca")]))
        else_ = make("ca", anchor, Wish(ca=True))

        def kinds(issuer: Held, subject: Held, other: Held) -> dict[str, bytes]:
            return {
                "good": crl(issuer),
                "revoking": crl(issuer, CrlWish(revoked=[subject.serial])),
                "late": crl(issuer, LATE),
                "forged": crl(issuer, CrlWish(signer=other)),
                "absent": b"",
            }

        for (one, own), (two, above) in itertools.product(
            kinds(ca, leaf, else_).items(), kinds(anchor, ca, else_).items()
        ):
            host.replies = {path: http(data) for path, data in (("/ca", own), ("/root", above)) if data}
            answers, asked = checks(host.port)
            statuses = await asked.check(leaf.path)
            await answers.close()
            states = {each.state.value for each in statuses}
            found = "revoked" if "revoked" in states else "unknown" if "unknown" in states else "good"
            said = oracle(tmp_path, leaf, [each for each in (own, above) if each])
            # OpenSSL stops at the first certificate that it cannot judge; we look at all, and "revoked" wins.
            expected = {said, "revoked"} if "revoking" in (one, two) and said == "unknown" else {said}
            assert found in expected, (one, two)


@asynccontextmanager
async def openssl(folder: Path, *arguments: str, ready: str = "") -> AsyncIterator[None]:
    """A program of OpenSSL's that serves, once it says `ready`."""
    running = await asyncio.create_subprocess_exec(
        program("openssl"),
        *arguments,
        cwd=folder,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        assert running.stdout is not None
        async with asyncio.timeout(20):
            while ready not in (line := (await running.stdout.readline()).decode()):
                assert line, "it ended"
        yield
    finally:
        if running.returncode is None:
            running.kill()
        await running.wait()


PSS = ("-rsigopt", "rsa_padding_mode:pss")


@pytest.mark.parametrize("signed", [(), PSS], ids=["usual", "rsassa-pss"])
@pytest.mark.parametrize(("letter", "state"), [("V", State.GOOD), ("R", State.REVOKED), ("", State.UNKNOWN)])
async def test_the_responder_of_openssl(tmp_path: Path, letter: str, state: State, signed: tuple[str, ...]) -> None:
    port = free_port()
    anchor = root()
    leaf = make("leaf", anchor, Wish(ocsp=[f"http://127.0.0.1:{port}/"]))
    key = rsa.generate_private_key(65537, 2048) if signed else None
    responder(anchor, key=key).write(tmp_path, "responder")
    (tmp_path / "ca.pem").write_bytes(anchor.pem)
    ends, revoked = (NOW + 90 * DAY).strftime("%y%m%d%H%M%SZ"), (NOW - DAY).strftime("%y%m%d%H%M%SZ,keyCompromise")
    serial = f"{leaf.serial:X}"
    line = f"{letter}\t{ends}\t{revoked if letter == 'R' else ''}\t{serial.zfill(len(serial) + len(serial) % 2)}\tunknown\t/CN=leaf\n"
    (tmp_path / "index.txt").write_text(line if letter else "", encoding="ascii")
    arguments = ("ocsp", "-index", "index.txt", "-port", str(port), "-CA", "ca.pem", "-ndays", "1")
    signing = ("-rsigner", "responder.pem", "-rkey", "responder.key", *signed)
    async with openssl(tmp_path, *arguments, *signing, ready="waiting for OCSP client connections"):
        answers, asked = checks(port)
        (found,) = await asked.check(leaf.path)
        await answers.close()
    assert found.state is state
    if state is not State.UNKNOWN:
        assert found.by is By.OCSP
        assert found.reason == ("keyCompromise" if state is State.REVOKED else "")
    else:
        assert "does not know" in found.why


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
async def test_a_staple_of_openssl_s_server(tmp_path: Path, version: str) -> None:
    port, anchor = free_port(), root()
    leaf = make("leaf", anchor, Wish(names=["a.example"], ocsp=["http://127.0.0.1:1/"]))
    leaf.write(tmp_path, "leaf")
    (tmp_path / "staple.der").write_bytes(answer(leaf))
    arguments = ("s_server", "-accept", f"127.0.0.1:{port}", "-cert", "leaf.pem", "-key", "leaf.key", version)
    async with openssl(tmp_path, *arguments, "-status_file", "staple.der", ready="ACCEPT"):
        for staple in (True, False):
            _reader, writer = await asyncio.open_connection(
                "127.0.0.1", port, ssl=client_context(staple=staple), server_hostname="a.example"
            )
            evidence = evidence_of(writer.get_extra_info("ssl_object"))
            writer.close()
            assert evidence.staple == (answer_of(tmp_path) if staple else b"")
            if staple:
                answers, asked = checks(1)
                (found,) = await asked.check(leaf.path, evidence.staple)
                await answers.close()
                assert (found.state, found.by) == (State.GOOD, By.STAPLED)


def answer_of(folder: Path) -> bytes:
    return (folder / "staple.der").read_bytes()


class Stapling:
    """An SMTP server whose TLS is `openssl s_server`'s: in front of it the clear part up to STARTTLS, behind it, by its standard input and
    output, the part inside."""

    def __init__(self, folder: Path, certificate: str, staple: str) -> None:
        self._folder, self._port = folder, free_port()
        self._arguments = ("-cert", f"{certificate}.pem", "-key", f"{certificate}.key", "-status_file", staple)
        self.port, self.inside = 0, bytearray()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        server = await asyncio.start_server(self._client, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        async with server:
            yield

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 b.test\r\n")
        while (line := await reader.readline()) and not line.startswith(b"STARTTLS"):
            writer.write(b"250-b.test\r\n250 STARTTLS\r\n")
        if not line:
            writer.close()
            return
        accept = ("s_server", "-quiet", "-naccept", "1", "-accept", f"127.0.0.1:{self._port}")
        tls = await asyncio.create_subprocess_exec(
            program("openssl"),
            *accept,
            *self._arguments,
            cwd=self._folder,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        try:
            inner_reader, inner_writer = await self._connected()
            writer.write(b"220 go\r\n")
            async with asyncio.TaskGroup() as group:
                group.create_task(_pipe(reader, inner_writer))
                group.create_task(_pipe(inner_reader, writer))
                group.create_task(self._talk(tls))
        finally:
            if tls.returncode is None:
                tls.kill()
            await tls.wait()

    async def _connected(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """It says nothing of being ready."""
        async with asyncio.timeout(20):
            while True:
                try:
                    return await asyncio.open_connection("127.0.0.1", self._port)
                except ConnectionRefusedError:
                    await asyncio.sleep(0.02)

    async def _talk(self, tls: asyncio.subprocess.Process) -> None:
        assert tls.stdin is not None
        assert tls.stdout is not None
        in_data = False
        while line := await tls.stdout.readline():
            self.inside += line
            if in_data and line != b".\r\n":
                continue
            starts = not in_data and line.upper().startswith(b"DATA")
            in_data = starts
            tls.stdin.write(b"354 go on\r\n" if starts else b"250 ok\r\n")
            await tls.stdin.drain()


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()


@pytest.mark.parametrize("status", ["GOOD", "REVOKED"])
async def test_mail_to_a_server_of_openssl_that_staples(tmp_path: Path, status: str) -> None:
    """Nothing but the staple says anything of the certificate: its responder is nowhere."""
    anchor = root()
    leaf = make("leaf", anchor, Wish(names=["b.test"], ocsp=["http://127.0.0.1:1/"]))
    leaf.write(tmp_path, "leaf")
    (tmp_path / "root.pem").write_bytes(anchor.pem)
    (tmp_path / "staple.der").write_bytes(answer(leaf, OcspWish(ocsp.OCSPCertStatus[status])))
    peer, heard = Stapling(tmp_path, "leaf", "staple.der"), Heard()
    async with peer.running():
        connector = {
            "name": "to-b",
            "direction": "outbound",
            "match": {"recipient_domains": ["b.test"]},
            "tls": "domain",
            "names": ["b.test"],
            "ca": str(tmp_path / "root.pem"),
            "revocation": "require",
            "route": {"smart_hosts": [f"127.0.0.1:{peer.port}"]},
        }
        values = {
            "hostname": "a.test",
            "postmaster": "postmaster@a.test",
            "listeners": [{"address": "127.0.0.1:0", "starttls": "off"}],
            "queue": "sqlite:queue.db",
            "limits": {"free_space": "1MiB"},
            "accept": {"networks": ["127.0.0.0/8"]},
            "connectors": [connector],
        }
        async with Relay(write_config(tmp_path, values, {}), observers=[heard]) as relay:
            async with aiosmtplib.SMTP(hostname="127.0.0.1", port=relay.address().port, use_tls=False) as client:
                await client.sendmail("alice@a.test", ["bob@b.test"], b"Subject: stapled\r\n\r\nhello\r\n")
            (made,) = await heard.wait(AttemptMade)
    assert made.attempt.evidence is not None
    ((found,),) = made.attempt.evidence.revocation.values()
    assert (found.state, found.by) == (State[status], By.STAPLED)
    assert isinstance(made.attempt.outcomes[0][1], Delivered if status == "GOOD" else Deferred)
    assert (b"Subject: stapled" in peer.inside) == (status == "GOOD")
