"""A mail server that misbehaves as a test tells it to, and records every byte it got, in clear and inside TLS apart.

It is plain asyncio and the standard library's `ssl`, and shares no code with the relay. `PKI` makes the certificates, right and wrong.

    async with HostileServer(Behaviour(tls=pki.good, reactions={Step.MAIL: b"451 later\\r\\n"})) as server:
        ...                                 # deliver to 127.0.0.1:server.port
        assert b"MAIL" not in server.clear
"""

import asyncio
import ssl
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import Enum, StrEnum, auto
from pathlib import Path
from types import TracebackType
from typing import Self, cast

import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec


class Step(StrEnum):
    """Where a server can misbehave. BODY is the first piece of a message, FINAL its end."""

    GREETING = "greeting"
    EHLO = "EHLO"
    HELO = "HELO"
    STARTTLS = "STARTTLS"
    EHLO_TLS = "EHLO inside TLS"
    AUTH = "AUTH"
    MAIL = "MAIL"
    RCPT = "RCPT"
    DATA = "DATA"
    BDAT = "BDAT"
    BODY = "body"
    FINAL = "final dot"
    RSET = "RSET"
    XCLIENT = "XCLIENT"
    QUIT = "QUIT"


class Then(Enum):
    CLOSE = auto()
    SILENCE = auto()


@dataclass(frozen=True)
class Flood:
    """Sends this again and again, for as long as somebody reads it."""

    piece: bytes


class Handshake(Enum):
    """What follows the 220 to STARTTLS."""

    SOUND = auto()
    GARBAGE = auto()
    CLOSE = auto()
    SILENCE = auto()
    INJECTED_REPLY = auto()
    INJECTED_BYTES = auto()


Reaction = bytes | Then | Flood
EXTENSIONS = ("PIPELINING", "SIZE 10000000", "8BITMIME", "SMTPUTF8", "DSN", "ENHANCEDSTATUSCODES")
_USUAL: dict[Step, bytes] = {
    Step.GREETING: b"220 hostile.test ESMTP\r\n",
    Step.HELO: b"250 hostile.test\r\n",
    Step.STARTTLS: b"220 2.0.0 go\r\n",
    Step.AUTH: b"235 2.7.0 in\r\n",
    Step.MAIL: b"250 2.1.0 ok\r\n",
    Step.RCPT: b"250 2.1.5 ok\r\n",
    Step.DATA: b"354 go\r\n",
    Step.BDAT: b"250 2.0.0 taken\r\n",
    Step.FINAL: b"250 2.0.0 taken\r\n",
    Step.RSET: b"250 2.0.0 ok\r\n",
    Step.XCLIENT: b"220 hostile.test ESMTP\r\n",
    Step.QUIT: b"221 2.0.0 bye\r\n",
}


@dataclass(frozen=True)
class Behaviour:
    """`tls` None: no STARTTLS. A reaction given as a tuple is for the first, second, ... time; its last one stays.

    `recipients`: replies to RCPT that hold this text. `extensions_tls`: what EHLO says inside TLS. `drip`: replies byte by byte.
    `forgets`: of commands that come together only the first is heard (a proxy that breaks pipelining).
    """

    reactions: Mapping[Step, Reaction | tuple[Reaction, ...]] = field(default_factory=dict)
    tls: ssl.SSLContext | None = None
    handshake: Handshake = Handshake.SOUND
    extensions: tuple[str, ...] = EXTENSIONS
    extensions_tls: tuple[str, ...] = EXTENSIONS
    recipients: Mapping[str, bytes] = field(default_factory=dict)
    drip: bool = False
    forgets: bool = False


@dataclass(frozen=True)
class Taken:
    """A message that got its 250: the commands as they came, the content with its dots unstuffed."""

    mail: bytes
    recipients: tuple[bytes, ...]
    content: bytes


class Session(asyncio.Protocol):
    """One connection. `clear` and `inside` are all bytes received before and after the handshake."""

    def __init__(self, behaviour: Behaviour, server: "HostileServer") -> None:
        self.behaviour = behaviour
        self.clear, self.inside = bytearray(), bytearray()
        self.closed = asyncio.get_running_loop().create_future()
        self._server = server
        self._transport: asyncio.Transport | None = None
        self._buffer = b""
        self._is_tls = self._in_data = self._ignores = self._upgrading = False
        self._early = b""
        self._chunk = 0
        self._seen: dict[Step, int] = {}
        self._mail, self._recipients = b"", list[bytes]()
        self._task: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._server.connected.set()
        self._react(Step.GREETING)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._task is not None:
            self._task.cancel()
        if not self.closed.done():
            self.closed.set_result(None)

    def data_received(self, data: bytes) -> None:
        # While the transport is exchanged, what comes here is from inside TLS already.
        (self.inside if self._is_tls or self._upgrading else self.clear).extend(data)
        self._server.heard.set()
        if self._upgrading:
            self._early += data
        elif not self._ignores:
            self._hear(data)

    def _hear(self, data: bytes) -> None:
        self._buffer += data
        if self.behaviour.forgets and not self._in_data:
            self._buffer = self._buffer[: self._buffer.find(b"\n") + 1]
        while self._buffer and not self._ignores:
            if self._chunk:
                if not self._chunked():
                    return
            elif self._in_data:
                if not self._content():
                    return
            else:
                line, end, rest = self._buffer.partition(b"\r\n")
                if not end:
                    return
                self._buffer = rest
                self._command(line)

    def _content(self) -> bool:
        if Step.BODY in self.behaviour.reactions and not self._seen.get(Step.BODY):
            self._react(Step.BODY)
        whole = b"\r\n" + self._buffer
        end = whole.find(b"\r\n.\r\n")
        if end < 0:
            return False
        content = whole[2 : end + 2].replace(b"\r\n..", b"\r\n.")
        content = content[1:] if content.startswith(b"..") else content
        self._buffer, self._in_data = whole[end + 5 :], False
        taken = Taken(self._mail, tuple(self._recipients), content)
        self._mail, self._recipients = b"", []
        reply = self._react(Step.FINAL)
        if isinstance(reply, bytes) and reply.startswith(b"2") and taken.recipients:
            self._server.taken.append(taken)
        return True

    def _chunked(self) -> bool:
        """One BDAT LAST (RFC 3030). Its octets are read whatever the reply is."""
        if len(self._buffer) < self._chunk:
            return False
        content, self._buffer, self._chunk = self._buffer[: self._chunk], self._buffer[self._chunk :], 0
        reply = self._react(Step.BDAT, b"" if self._recipients else b"503 5.5.1 no recipient\r\n")
        if isinstance(reply, bytes) and reply.startswith(b"2"):
            self._server.taken.append(Taken(self._mail, tuple(self._recipients), content))
            self._mail, self._recipients = b"", []
        return True

    def _command(self, line: bytes) -> None:
        verb = line.split(b" ", 1)[0].split(b":", 1)[0].upper().decode("ascii", "replace")
        step = Step.EHLO_TLS if verb == "EHLO" and self._is_tls else Step(verb) if verb in {*Step} else None
        if step is None:
            # The second line of AUTH LOGIN, and whatever else comes.
            self._write(_USUAL[Step.AUTH] if self._seen.get(Step.AUTH) else b"500 5.5.1 what\r\n")
            return
        if step is Step.BDAT:
            self._chunk = int(line.split()[1])
            return
        special = next((each for text, each in self.behaviour.recipients.items() if text.encode() in line), b"")
        reply = self._react(step, special if step is Step.RCPT else b"")
        good = isinstance(reply, bytes) and reply[:1] in (b"2", b"3")
        if step is Step.MAIL and good:
            self._mail, self._recipients = line, []
        elif step is Step.RCPT and good:
            self._recipients.append(line)
        elif step is Step.RSET:
            self._mail, self._recipients = b"", []
        elif step is Step.DATA:
            self._in_data = isinstance(reply, bytes) and reply.startswith(b"354")
        elif step is Step.STARTTLS and good:
            self._secure()
        elif step is Step.QUIT and good and self._transport is not None:
            self._transport.close()

    def _react(self, step: Step, special: bytes = b"") -> Reaction:
        reaction = special or self._reaction(step)
        if isinstance(reaction, bytes):
            if step is Step.STARTTLS and self.behaviour.handshake is Handshake.INJECTED_REPLY:
                reaction += b"250 2.1.0 injected\r\n"
            if step is Step.STARTTLS and self.behaviour.handshake is Handshake.INJECTED_BYTES:
                reaction += b"x"
            self._write(reaction)
        elif reaction is Then.CLOSE and self._transport is not None:
            self._ignores = True
            self._transport.close()
        elif reaction is Then.SILENCE:
            self._ignores = True
        elif isinstance(reaction, Flood):
            self._ignores = True
            self._task = asyncio.get_running_loop().create_task(self._flood(reaction.piece))
        return reaction

    def _reaction(self, step: Step) -> Reaction:
        count = self._seen.get(step, 0)
        self._seen[step] = count + 1
        given = self.behaviour.reactions.get(step)
        if isinstance(given, tuple):
            return given[min(count, len(given) - 1)]
        if given is not None:
            return given
        if step in (Step.EHLO, Step.EHLO_TLS):
            words = list(self.behaviour.extensions_tls if self._is_tls else self.behaviour.extensions)
            if self.behaviour.tls is not None and not self._is_tls:
                words.append("STARTTLS")
            lines = ["hostile.test", *words]
            return "".join(
                f"250{'-' if each < len(lines) else ' '}{word}\r\n" for each, word in enumerate(lines, 1)
            ).encode()
        return _USUAL[step]

    def _write(self, data: bytes) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        if not self.behaviour.drip:
            self._transport.write(data)
            return
        for byte in data:
            self._transport.write(bytes([byte]))

    async def _flood(self, piece: bytes) -> None:
        while self._transport is not None and not self._transport.is_closing():
            self._transport.write(piece)
            await asyncio.sleep(0)

    def _secure(self) -> None:
        transport, behaviour = self._transport, self.behaviour
        if transport is None or behaviour.tls is None:
            return
        if behaviour.handshake in (Handshake.SOUND, Handshake.INJECTED_REPLY, Handshake.INJECTED_BYTES):
            self._upgrading = True
            self._task = asyncio.get_running_loop().create_task(self._start_tls(transport, behaviour.tls))
            return
        self._ignores = True
        if behaviour.handshake is Handshake.CLOSE:
            transport.close()
        elif behaviour.handshake is Handshake.GARBAGE:
            asyncio.get_running_loop().call_later(0.01, self._write, b"this is no TLS at all\r\n" * 3)

    async def _start_tls(self, transport: asyncio.Transport, context: ssl.SSLContext) -> None:
        try:
            self._transport = await asyncio.get_running_loop().start_tls(
                transport, self, context, server_side=True, ssl_handshake_timeout=5
            )
        except OSError:
            transport.abort()
            self.connection_lost(None)
            return
        if self._transport is None or self._transport.is_closing():  # asyncio does not say that it was lost meanwhile
            self.connection_lost(None)
            return
        self._is_tls, self._upgrading, self._buffer = True, False, b""
        self._hear(self._early)

    def cut(self) -> None:
        if self._transport is not None:
            self._transport.abort()


class HostileServer:
    """Several behaviours are for the first, second, ... connection; the last one stays. `taken` are the messages that got their 250.

    `host` is an address of loopback, `port` 0 for a free one.
    """

    def __init__(self, *behaviours: Behaviour, host: str = "127.0.0.1", port: int = 0) -> None:
        self.behaviours = behaviours or (Behaviour(),)
        self.sessions: list[Session] = []
        self.taken: list[Taken] = []
        self.heard, self.connected = asyncio.Event(), asyncio.Event()
        self.host, self.port = host, port

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._session, self.host, self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        for session in self.sessions:
            session.cut()
        if self.sessions:
            await asyncio.wait([session.closed for session in self.sessions], timeout=5)
        await self._server.wait_closed()

    def _session(self) -> Session:
        behaviour = self.behaviours[min(len(self.sessions), len(self.behaviours) - 1)]
        self.sessions.append(Session(behaviour, self))
        return self.sessions[-1]

    @property
    def clear(self) -> bytes:
        """Everything that came in clear, over all connections."""
        return b"".join(bytes(each.clear) for each in self.sessions)

    @property
    def inside(self) -> bytes:
        return b"".join(bytes(each.inside) for each in self.sessions)


class Pki:
    """Server contexts for the host `name`. `ca` is the PEM file of the CA that issued all but `wrong_ca` and `self_signed`."""

    def __init__(self, folder: Path, name: str = "mx.hostile.test") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        authority, other = trustme.CA(organization_name="right"), trustme.CA(organization_name="wrong")
        self._authority = authority
        self.name, self.ca = name, folder / "ca.pem"
        authority.cert_pem.write_to_path(str(self.ca))
        yesterday = datetime.now(UTC) - timedelta(days=1)
        month = datetime.now(UTC) + timedelta(days=30)
        self.good = _context(authority.issue_cert(name, not_after=month))
        self.expired = _context(authority.issue_cert(name, not_after=yesterday))
        self.wrong_name = _context(authority.issue_cert("elsewhere.test"))
        self.wrong_ca = _context(other.issue_cert(name))
        self.self_signed = _self_signed(folder, name)
        self.asks_certificate = _context(authority.issue_cert(name))
        self.asks_certificate.verify_mode = ssl.CERT_REQUIRED
        self.asks_certificate.load_verify_locations(self.ca)
        self.old = _context(authority.issue_cert(name))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # TLS 1.0 is what this one is for
            self.old.minimum_version = ssl.TLSVersion.TLSv1
            self.old.maximum_version = ssl.TLSVersion.TLSv1
        self.old.set_ciphers("ALL:@SECLEVEL=0")
        self.tls12 = _context(authority.issue_cert(name))
        self.tls12.maximum_version = ssl.TLSVersion.TLSv1_2

    def client(self, folder: Path, name: str = "ours") -> Path:
        """A certificate of the right CA in a folder of its own, as NAME.pem and NAME.key; returns the PEM."""
        folder.mkdir(parents=True, exist_ok=True)
        leaf, pem = self._authority.issue_cert(name), folder / f"{name}.pem"
        leaf.cert_chain_pems[0].write_to_path(str(pem))
        leaf.private_key_pem.write_to_path(str(pem.with_suffix(".key")))
        pem.with_suffix(".key").chmod(0o600)
        return pem


def _context(leaf: trustme.LeafCert) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    leaf.configure_cert(context)
    return context


def _self_signed(folder: Path, name: str) -> ssl.SSLContext:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=30))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = folder / "self-signed.pem"
    pem.write_bytes(
        certificate.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    return context
