"""Real sockets under asyncio and uvloop: STARTTLS, implicit TLS, endings, aiosmtplib, and the openssl program at the other end."""

import asyncio
import shutil
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import aiosmtplib
import pytest

from relay.mail.tls import TlsEvidence
from relay.tls.connection import TlsConnection
from relay.tls.context import client_context, server_context
from relay.tls.evidence import evidence_of
from relay.tls.keyring import Keyring
from tests.unit.tls.conftest import Run
from tests.unit.tls.pki import DAY, NOW, Issued, Wish, std_client, std_server

HOST = "127.0.0.1"
BIG = 2_000_000
openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the openssl program")


@dataclass
class Seen:
    """What the far end of a connection saw."""

    evidence: list[TlsEvidence] = field(default_factory=list)
    data: bytes = b""
    clean: list[bool] = field(default_factory=list)
    done: asyncio.Event = field(default_factory=asyncio.Event)
    errors: list[BaseException] = field(default_factory=list)


def connection(writer: asyncio.StreamWriter) -> TlsConnection:
    found = writer.get_extra_info("ssl_object")
    assert isinstance(found, TlsConnection)
    return found


@asynccontextmanager
async def serving(
    handle: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
    context: ssl.SSLContext | None = None,
) -> AsyncIterator[int]:
    """A server on a free port."""
    server = await asyncio.start_server(handle, HOST, 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


def echo(seen: Seen) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
    """Gives back what it gets until the other end stops, then notes how it stopped."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tls = writer.get_extra_info("ssl_object")
        if isinstance(tls, TlsConnection):
            seen.evidence.append(evidence_of(tls))
        try:
            while data := await reader.read(65536):
                seen.data += data
                writer.write(data)
                await writer.drain()
        except (OSError, ssl.SSLError) as error:
            seen.errors.append(error)
        if isinstance(tls, TlsConnection):
            seen.clean.append(tls.closed_by_peer)
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()
        seen.done.set()

    return handle


@pytest.mark.parametrize("kind", ["ours", "our server", "our client"])
def test_large_transfer_both_ways_at_once(kind: str, run: Run, keyring: Keyring, folder: Path) -> None:
    server = std_server(folder, "a") if kind == "our client" else server_context(keyring, ask_certificate=True)
    client = std_client() if kind == "our server" else client_context(client_certificate=keyring.by_name("a"))
    data = bytes(range(256)) * (BIG // 256)

    async def main() -> Seen:
        seen = Seen()
        async with serving(echo(seen), server) as port:
            reader, writer = await asyncio.open_connection(HOST, port, ssl=client, server_hostname="a.example")
            writer.write(data)
            assert await reader.readexactly(len(data)) == data
            writer.close()
            await writer.wait_closed()
            await seen.done.wait()
        return seen

    seen = run(main())
    assert seen.data == data
    assert seen.errors == []
    if kind != "our client":
        assert seen.clean == [True]
        assert seen.evidence[0].version == "TLSv1.3"


def test_starttls_on_both_sides(run: Run, keyring: Keyring) -> None:
    """In clear first, then TLS on the same connection, with bytes for the server right behind the handshake."""
    server, client = server_context(keyring, ask_certificate=True), client_context()

    async def upgrade(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert await reader.readline() == b"STARTTLS\r\n"
        writer.write(b"220 go ahead\r\n")
        await writer.start_tls(server)
        writer.write(b"got " + await reader.readline())
        writer.close()

    async def main() -> tuple[bytes, TlsEvidence]:
        async with serving(upgrade) as port:
            reader, writer = await asyncio.open_connection(HOST, port)
            writer.write(b"STARTTLS\r\n")
            assert await reader.readline() == b"220 go ahead\r\n"
            await writer.start_tls(client, server_hostname="x.w.example")
            writer.write(b"EHLO client\r\n")
            answer = await reader.read()
            evidence = evidence_of(connection(writer))
            assert connection(writer).closed_by_peer
            writer.close()
            return answer, evidence

    answer, evidence = run(main())
    assert answer == b"got EHLO client\r\n"
    assert evidence.leaf is not None
    assert evidence.leaf.dns_names == ("*.w.example", "w.example")
    assert evidence.sni == "x.w.example"


class Buffered(asyncio.BufferedProtocol):
    """The other kind of protocol: it lends its buffer, and event loops read into it."""

    def __init__(self, expected: int, size: int) -> None:
        self.buffer = bytearray(size)
        self.got = bytearray()
        self.expected = expected
        self.complete = asyncio.get_running_loop().create_future()

    def get_buffer(self, sizehint: int) -> memoryview:
        return memoryview(self.buffer)  # asyncio slices it, and a slice of a bytearray would be a copy

    def buffer_updated(self, nbytes: int) -> None:
        self.got += self.buffer[:nbytes]
        if len(self.got) == self.expected:
            self.complete.set_result(None)


@pytest.mark.parametrize("size", [100, 5000, 262144])
def test_buffered_protocol(size: int, run: Run, keyring: Keyring) -> None:
    data = bytes(range(256)) * 1000

    done = asyncio.Event()

    async def send(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        await reader.read()
        writer.close()
        done.set()

    async def main() -> bytes:
        async with serving(send, server_context(keyring, ask_certificate=False)) as port:
            loop = asyncio.get_running_loop()
            transport, protocol = await loop.create_connection(
                lambda: Buffered(len(data), size), HOST, port, ssl=client_context(), server_hostname="a.example"
            )
            await protocol.complete
            transport.close()
            await done.wait()
            return bytes(protocol.got)

    assert run(main()) == data


def test_end_of_file_without_close_notify_can_be_told(run: Run, keyring: Keyring) -> None:
    async def main() -> Seen:
        seen = Seen()
        async with serving(echo(seen), server_context(keyring, ask_certificate=False)) as port:
            for clean in (True, False):
                seen.done.clear()
                reader, writer = await asyncio.open_connection(
                    HOST, port, ssl=client_context(), server_hostname="a.example"
                )
                writer.write(b"half a mess")
                assert await reader.readexactly(11) == b"half a mess"
                if clean:
                    writer.close()
                    await writer.wait_closed()
                else:
                    writer.transport.abort()
                await seen.done.wait()
        return seen

    assert run(main()).clean == [True, False]


@pytest.mark.parametrize(
    "junk", [b"EHLO example\r\n" * 3, b"\x16\x03\x01\x02\x00\x01\x00" + bytes(600), b"\x80\x2e\x01"]
)
def test_garbage_instead_of_a_hello(junk: bytes, run: Run, keyring: Keyring) -> None:
    """STARTTLS and then no TLS: our side gets ssl.SSLError or, at the end of file, ConnectionResetError. Never anything else."""
    caught: list[BaseException] = []

    async def upgrade(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await writer.start_tls(server_context(keyring, ask_certificate=False))
        except (ssl.SSLError, ConnectionResetError) as error:
            caught.append(error)
        writer.close()

    async def main() -> None:
        async with serving(upgrade) as port:
            reader, writer = await asyncio.open_connection(HOST, port)
            writer.write(junk)
            writer.write_eof()
            with suppress(ConnectionResetError):
                await reader.read()
            writer.close()
            with suppress(ConnectionResetError):
                await writer.wait_closed()

    run(main())
    assert len(caught) == 1


def test_peer_that_leaves_in_the_handshake(run: Run) -> None:
    async def leave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.close()

    async def main() -> None:
        async with serving(leave) as port:
            with pytest.raises((ConnectionResetError, ConnectionAbortedError)):
                await asyncio.open_connection(HOST, port, ssl=client_context(), server_hostname="a.example")

    run(main())


def test_no_common_version(run: Run, keyring: Keyring) -> None:
    old = std_client()
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    failures: list[object] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _loop, context: failures.append(context))
        context = server_context(keyring, ask_certificate=False, minimum="TLSv1.3")
        async with serving(echo(Seen()), context) as port:
            with pytest.raises((ssl.SSLError, ConnectionError)):
                await asyncio.open_connection(HOST, port, ssl=old, server_hostname="a.example")

    run(main())
    assert all("SSL" in str(each) or "TLS" in str(each) for each in failures)


def test_aiosmtplib_goes_through_our_engine(run: Run, keyring: Keyring) -> None:
    seen: list[TlsEvidence] = []

    async def smtp(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 ready\r\n")
        while line := await reader.readline():
            verb = line.split()[0].upper()
            if verb == b"EHLO":
                writer.write(b"250-here\r\n250 STARTTLS\r\n")
            elif verb == b"STARTTLS":
                writer.write(b"220 go\r\n")
                await writer.start_tls(server_context(keyring, ask_certificate=True))
                seen.append(evidence_of(connection(writer)))
            elif verb == b"QUIT":
                writer.write(b"221 bye\r\n")
                break
        writer.close()

    async def main() -> TlsEvidence:
        async with serving(smtp) as port:
            client = aiosmtplib.SMTP(hostname=HOST, port=port, start_tls=False, local_hostname="me.example")
            await client.connect()
            context = client_context(client_certificate=keyring.by_name("a"))
            response = await client.starttls(server_hostname="b.example", tls_context=context)
            assert response.code == 220
            await client.ehlo()
            assert client.transport is not None
            evidence = evidence_of(client.transport.get_extra_info("ssl_object"))
            await client.quit()
            return evidence

    evidence = run(main())
    assert evidence.leaf is not None
    assert evidence.leaf.subject == "CN=b"
    assert seen[0].leaf is not None
    assert seen[0].leaf.subject == "CN=a"
    assert seen[0].sni == "b.example"


# the openssl program


async def s_client(port: int, *arguments: str, send: bytes = b"hello\n") -> str:
    """Says `send` to the server, waits for its echo, and gives all that openssl printed."""
    process = await asyncio.create_subprocess_exec(
        "openssl",
        "s_client",
        "-connect",
        f"{HOST}:{port}",
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _nothing = await asyncio.wait_for(process.communicate(send), 20)
    return output.decode("utf-8", "replace")


@openssl
@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_s_client_with_an_expired_certificate(
    version: str, run: Run, keyring: Keyring, ca: Issued, tmp_path: Path
) -> None:
    ca.issue(Wish("old", names=["old.example"], after=NOW - 5 * DAY)).write(tmp_path, "old")

    async def main() -> tuple[Seen, str]:
        seen = Seen()
        async with serving(echo(seen), server_context(keyring, ask_certificate=True)) as port:
            output = await s_client(
                port, version, "-cert", f"{tmp_path}/old.pem", "-key", f"{tmp_path}/old.key", "-servername", "w.example"
            )
            await seen.done.wait()
            return seen, output

    seen, output = run(main())
    assert seen.data == b"hello\n"
    assert seen.evidence[0].sni == "w.example"
    assert seen.evidence[0].leaf is not None
    assert seen.evidence[0].leaf.subject == "CN=old"
    assert seen.clean == [True]
    assert "No client certificate CA names sent" in output
    assert "Compression: NONE" in output
    assert "subject=CN = w" in output


@openssl
def test_hello_retry(run: Run, keyring: Keyring) -> None:
    """A client that must say its hello twice (RFC 8446 section 4.1.4): the name is asked about twice, on two contexts."""

    async def main() -> tuple[Seen, str]:
        seen = Seen()
        async with serving(echo(seen), server_context(keyring, ask_certificate=True)) as port:
            output = await s_client(port, "-groups", "X448:X25519", "-msg", "-servername", "x.w.example")
            await seen.done.wait()
            return seen, output

    seen, output = run(main())
    assert output.count("ClientHello") == 2
    assert seen.data == b"hello\n"
    assert seen.evidence[0].group.lower() == "x25519"
    assert "subject=CN = w" in output


@openssl
def test_s_client_can_not_renegotiate(run: Run, keyring: Keyring) -> None:
    async def main() -> str:
        async with serving(echo(Seen()), server_context(keyring, ask_certificate=False)) as port:
            return await s_client(port, "-tls1_2", send=b"R\n")

    output = run(main())
    assert "RENEGOTIATING" in output
    assert "no renegotiation" in output


@openssl
@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_s_client_can_not_resume(version: str, run: Run, keyring: Keyring, tmp_path: Path) -> None:
    session = tmp_path / "session"

    async def main() -> list[str]:
        seen = Seen()
        outputs = []
        async with serving(echo(seen), server_context(keyring, ask_certificate=True)) as port:
            outputs.append(await s_client(port, version, "-sess_out", str(session)))
            again = ("-sess_in", str(session)) if session.exists() else ()
            outputs.append(await s_client(port, version, *again))
        assert seen.data == b"hello\nhello\n"
        return outputs

    for output in run(main()):
        assert "New, TLSv1." in output
        assert "Reused," not in output


@openssl
@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_our_client_and_s_server(version: str, run: Run, keyring: Keyring, folder: Path) -> None:
    """s_server turns lines round (-rev) and insists on a certificate."""

    async def main() -> tuple[bytes, TlsEvidence]:
        process = await asyncio.create_subprocess_exec(
            *("openssl", "s_server", "-accept", f"{HOST}:0", version, "-rev", "-Verify", "3"),
            *("-cert", f"{folder}/a.pem", "-key", f"{folder}/a.key", "-cert_chain", f"{folder}/a.pem"),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        assert process.stdout is not None
        line = b""
        while not line.startswith(b"ACCEPT"):
            line = await asyncio.wait_for(process.stdout.readline(), 10)
            assert line, "s_server ended"
        port = int(line.rsplit(b":", 1)[1])
        context = client_context(client_certificate=keyring.by_name("b"))
        reader, writer = await asyncio.open_connection(HOST, port, ssl=context, server_hostname="a.example")
        writer.write(b"abcdef\n")
        answer = await reader.readline()
        evidence = evidence_of(connection(writer))
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()
        process.kill()
        await process.communicate()
        return answer, evidence

    answer, evidence = run(main())
    assert answer == b"fedcba\n"
    assert evidence.version == version.replace("-tls", "TLSv").replace("_", ".")
    assert evidence.leaf is not None
    assert evidence.leaf.subject == "CN=a"
    assert evidence.group.lower() == "x25519"
