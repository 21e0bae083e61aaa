"""A listener with everything around it, for tests through the wire: configuration, a recording intake, certificates, a raw client."""

import asyncio
import functools
import inspect
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import pytest
import trustme
import uvloop

from relay.config.models import Config
from relay.inbound.callouts import Ask, nobody_to_ask
from relay.inbound.listener import Listeners
from relay.inbound.services import Services, TimeLimits
from relay.mail.envelope import Accepted, Envelope, Message
from relay.mail.events import Event
from relay.mail.reply import Reply
from relay.policy.book import RuleBook
from relay.tls.keyring import Keyring
from relay.tls.trust import TrustStores

E = TypeVar("E", bound=Event)

HOSTNAME = "relay.example.com"
PATIENT = TimeLimits(linger=0.1, tick=0.01)


def on_both_loops(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Runs an async test under asyncio and under uvloop. Its fixtures must not be async."""

    def run(*args: Any, new_loop: Callable[[], asyncio.AbstractEventLoop], **kwargs: Any) -> None:
        with asyncio.Runner(loop_factory=new_loop) as runner:
            runner.run(test(*args, **kwargs))

    functools.update_wrapper(run, test)
    signature = inspect.signature(test)
    extra = inspect.Parameter("new_loop", inspect.Parameter.KEYWORD_ONLY)
    run.__signature__ = signature.replace(parameters=[*signature.parameters.values(), extra])  # type: ignore[attr-defined]  # inspect honours it
    del run.__wrapped__  # type: ignore[attr-defined]  # or pytest would take it for a coroutine
    loops = [asyncio.SelectorEventLoop, uvloop.new_event_loop]
    parametrized: Callable[..., None] = pytest.mark.parametrize("new_loop", loops, ids=["asyncio", "uvloop"])(run)
    return parametrized


class StoreError(Exception):
    """As the queue's StoreUnavailable: it carries its reply."""

    reply = Reply(452, "4.3.1", "no room for mail now")


@dataclass
class Taken:
    """A message as the intake got it."""

    envelope: Envelope
    accepted: Accepted
    header: bytes
    body: bytes
    message_id: str
    eight_bit: bool


class FakeIncoming:
    def __init__(self, intake: "FakeIntake", number: int) -> None:
        self._intake, self.id = intake, f"{number:020d}"
        self.pieces: list[bytes] = []
        self.aborted = False
        self.ended = asyncio.Event()

    @property
    def full(self) -> bool:
        return self._intake.full

    def write(self, data: bytes) -> None:
        self._intake.raise_for("write")
        self.pieces.append(data)

    async def drain(self) -> None:
        await self._intake.room.wait()
        self._intake.raise_for("drain")

    async def commit(
        self,
        envelope: Envelope,
        accepted: Accepted,
        *,
        header: bytes = b"",
        message_id: str = "",
        eight_bit: bool = False,
    ) -> Message:
        assert not self.aborted
        self._intake.committing.set()
        await self._intake.go.wait()
        self._intake.raise_for("commit")
        body = b"".join(self.pieces)
        self._intake.taken.append(Taken(envelope, accepted, header, body, message_id, eight_bit))
        self.ended.set()
        return Message(self.id, envelope, accepted, len(body), header, message_id, eight_bit)

    def abort(self) -> None:
        self.aborted = True
        self.ended.set()


@dataclass
class FakeIntake:
    """`errors` maps begin, write, drain or commit to what it raises. `go` holds commits back, `room` drains."""

    taken: list[Taken] = field(default_factory=list)
    begun: list[FakeIncoming] = field(default_factory=list)
    errors: dict[str, Exception] = field(default_factory=dict)
    full: bool = False
    go: asyncio.Event = field(default_factory=asyncio.Event)
    room: asyncio.Event = field(default_factory=asyncio.Event)
    committing: asyncio.Event = field(default_factory=asyncio.Event)

    def raise_for(self, step: str) -> None:
        if step in self.errors:
            raise self.errors[step]

    def begin(self) -> FakeIncoming:
        self.raise_for("begin")
        self.begun.append(FakeIncoming(self, len(self.begun) + 1))
        return self.begun[-1]


class Pki:
    """Throw-away CAs and certificates, in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ours, self.partner, self.stranger = trustme.CA(), trustme.CA(), trustme.CA()
        self.certificates = folder / "certs"
        self.certificates.mkdir()
        self.ca_file = folder / "ours-ca.pem"
        self.ours.cert_pem.write_to_path(self.ca_file)
        self.partner_ca = folder / "partner-ca.pem"
        self.partner.cert_pem.write_to_path(self.partner_ca)
        self.issue(HOSTNAME)
        now = datetime.now(UTC)
        self.clients = {
            "partner": self.partner.issue_cert("mail.contoso.com", common_name="mail.contoso.com"),
            "other name": self.partner.issue_cert("mail.fabrikam.com", common_name="mail.contoso.com"),
            "other ca": self.stranger.issue_cert("mail.contoso.com"),
            "expired": self.partner.issue_cert(
                "mail.contoso.com", not_before=now - timedelta(days=9), not_after=now - timedelta(days=2)
            ),
        }

    def issue(self, name: str, stem: str = "relay") -> None:
        certificate = self.ours.issue_cert(name)
        certificate.private_key_and_cert_chain_pem.write_to_path(self.certificates / f"{stem}.pem")

    def client_context(self, certificate: str = "", *, verify: bool = True) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        if verify:
            self.ours.configure_trust(context)
        if certificate:
            self.clients[certificate].configure_cert(context)
        return context


@dataclass
class World:
    """A running relay's front. `book` is what it reads at every MAIL; change it and call `reload` for listeners."""

    book: RuleBook
    base: Path
    intake: FakeIntake
    keyring: Keyring | None
    events: list[Event] = field(default_factory=list)
    emitted: asyncio.Event = field(default_factory=asyncio.Event)
    listeners: Listeners = field(init=False)

    def configure(self, data: dict[str, Any]) -> None:
        self.book = rule_book(self.base, data)

    @property
    def port(self) -> int:
        return self.listeners.bound[0].address.port

    def of(self, kind: type[E]) -> list[E]:
        return [event for event in self.events if isinstance(event, kind)]

    def emit(self, event: Event) -> None:
        self.events.append(event)
        self.emitted.set()

    async def event(self, kind: type[E], number: int = 1) -> E:
        """The so-many-th event of a kind, as soon as it is there."""
        async with asyncio.timeout(10):
            while len(self.of(kind)) < number:
                self.emitted.clear()
                await self.emitted.wait()
        return self.of(kind)[number - 1]

    async def connect(self, **options: Any) -> "Wire":
        """A connection, greeted."""
        wire = await Wire.open(self.port, **options)
        await wire.expect(220)
        return wire


def rule_book(base: Path, data: dict[str, Any]) -> RuleBook:
    full = {
        "hostname": HOSTNAME,
        "postmaster": "postmaster@example.com",
        "listeners": [{"address": "127.0.0.1:0"}],
        "accept": {"domains": ["example.com"]},
    } | data
    return RuleBook.of(Config.model_validate(full, context={"base": base}))


CLEAR: dict[str, Any] = {"listeners": [{"address": "127.0.0.1:0", "starttls": "off"}]}


@asynccontextmanager
async def relay(
    base: Path,
    data: dict[str, Any],
    *,
    certificates: Path | None = None,
    times: TimeLimits = PATIENT,
    ask: Ask = nobody_to_ask,
) -> AsyncIterator[World]:
    """Fails the test where the event loop had an exception to report, or a session was left behind."""
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: complaints.append(context))
    keyring = (
        Keyring(certificates, hostname=HOSTNAME, clock=lambda: datetime.now(UTC)) if certificates is not None else None
    )
    intake = FakeIntake()
    intake.go.set()
    intake.room.set()
    world = World(rule_book(base, data), base, intake, keyring)
    services = Services(
        lambda: world.book, intake, TrustStores(), keyring, world.emit, lambda: datetime.now(UTC), ask=ask
    )
    world.listeners = Listeners(services, times)
    await world.listeners.start()
    try:
        yield world
    finally:
        intake.go.set()
        intake.room.set()
        await world.listeners.close(grace=0.2)
        for _ in range(3):
            await asyncio.sleep(0)  # what the loop still has to say
    assert not complaints, complaints
    assert world.listeners.sessions == 0


class Wire:
    """A raw client: bytes out, replies in."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def open(cls, port: int, **options: Any) -> "Wire":
        return cls(*await asyncio.open_connection("127.0.0.1", port, **options))

    def send(self, *lines: str | bytes) -> None:
        """Lines get their CRLF; bytes go as they are."""
        self.writer.write(b"".join(line if isinstance(line, bytes) else f"{line}\r\n".encode() for line in lines))

    async def reply(self) -> tuple[int, str]:
        """Code and text of the next reply, its lines joined."""
        lines = []
        while True:
            async with asyncio.timeout(10):
                line = (await self.reader.readuntil(b"\r\n")).decode()
            lines.append(line[4:].rstrip())
            if line[3] == " ":
                return int(line[:3]), "\n".join(lines)

    async def expect(self, *codes: int) -> str:
        """The next replies have these codes. Returns the text of the last."""
        text = ""
        for code in codes:
            found, text = await self.reply()
            assert found == code, f"expected {code}, got {found} {text}"
        return text

    async def say(self, line: str | bytes, code: int) -> str:
        self.send(line)
        return await self.expect(code)

    async def reply_to(self, line: str | bytes) -> tuple[int, str]:
        self.send(line)
        return await self.reply()

    async def ehlo(self) -> str:
        return await self.say("EHLO client.example", 250)

    async def mail(self, sender: str = "ann@contoso.com", recipient: str = "bob@example.com") -> None:
        """A transaction up to 354."""
        self.send(f"MAIL FROM:<{sender}>", f"RCPT TO:<{recipient}>", "DATA")
        await self.expect(250, 250, 354)

    async def message(self, body: bytes = b"Subject: x\r\n\r\nhello\r\n", **envelope: str) -> str:
        await self.mail(**envelope)
        return await self.say(body + b".\r\n", 250)

    async def starttls(self, context: ssl.SSLContext, name: str = HOSTNAME) -> None:
        await self.say("STARTTLS", 220)
        await self.writer.start_tls(context, server_hostname=name)

    async def rest(self) -> bytes:
        """Everything up to the end of the connection, however it ends."""
        async with asyncio.timeout(10):
            try:
                return await self.reader.read()
            except ConnectionError:
                return b""

    def reset(self) -> None:
        """Ends the connection with a RST, as when the machine or a firewall in between goes down."""
        self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    async def close(self) -> None:
        self.writer.close()
        try:
            async with asyncio.timeout(5):
                await self.writer.wait_closed()
        except (ConnectionError, ssl.SSLError, TimeoutError):
            pass

    async def __aenter__(self) -> "Wire":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
