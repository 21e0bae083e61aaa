"""A mail server that keeps what it gets: the last hop of a test, and `relay sink`.

It is aiosmtpd on the standard library's `ssl`: code that shares nothing with the relay, so a mistake of ours can not agree with itself.
aiosmtpd is not fit for a hostile port (docs/decisions/own-listener.md): keep a sink on loopback or in a private network.
"""

import asyncio
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from aiosmtpd.smtp import SMTP, Envelope, Session

from relay.config.values import HostPort

_LARGEST = 100 * 2**20
_ANYWHERE = HostPort("127.0.0.1", 0)


@dataclass(frozen=True, slots=True)
class Received:
    """One message as it arrived. `tls` is the version, "" for clear text; `peer` the client's address."""

    sender: str
    recipients: tuple[str, ...]
    content: bytes = field(repr=False)
    tls: str
    peer: str
    options: tuple[str, ...] = ()

    @property
    def subject(self) -> str:
        """The first Subject line as it stands in the header, "" if none."""
        head = self.content.split(b"\r\n\r\n", 1)[0]
        lines = (line for line in head.split(b"\r\n") if line[:8].lower() == b"subject:")
        return next(lines, b"subject:")[8:].strip().decode("utf-8", "replace")


Judge = Callable[[str], str]
"""Given a recipient, the reply to its RCPT: "250 OK", "450 4.2.0 later", "550 5.1.1 no". """


class Sink:
    """`async with Sink() as sink:` listens on a free port of 127.0.0.1. With `certificate` (PEM, its key beside it) it offers STARTTLS.

    `judge` may refuse recipients; `received` is called for every message.
    """

    def __init__(
        self,
        certificate: Path | None = None,
        *,
        address: HostPort = _ANYWHERE,
        judge: Judge = lambda _recipient: "250 OK",
        received: Callable[[Received], None] = lambda _message: None,
    ) -> None:
        self.address = address
        self.messages: list[Received] = []
        self._judge, self._received = judge, received
        self._context = _server_context(certificate) if certificate else None
        self._arrived = asyncio.Condition()
        self._server: asyncio.Server | None = None
        self._open: set[SMTP] = set()

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._protocol, self.address.host, self.address.port)
        self.address = HostPort(self.address.host, self._server.sockets[0].getsockname()[1])
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._server is not None:
            self._server.close()
            for protocol in self._open:
                if protocol.transport is not None:
                    protocol.transport.close()
            await self._server.wait_closed()

    def _protocol(self) -> SMTP:
        protocol = SMTP(
            self,
            data_size_limit=_LARGEST,
            enable_SMTPUTF8=True,
            hostname="sink.test",
            tls_context=self._context,
            timeout=600,
            loop=asyncio.get_running_loop(),
        )
        self._open.add(protocol)
        return protocol

    async def handle_RCPT(  # noqa: N802 - aiosmtpd's name for it
        self, _server: SMTP, _session: Session, envelope: Envelope, address: str, _options: list[str]
    ) -> str:
        reply = self._judge(address)
        if reply.startswith("2"):
            envelope.rcpt_tos.append(address)
        return reply

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802 - aiosmtpd's name for it
        tls = server.transport.get_extra_info("ssl_object") if server.transport else None
        message = Received(
            sender="" if envelope.mail_from in (None, "<>") else str(envelope.mail_from),
            recipients=tuple(envelope.rcpt_tos),
            content=bytes(envelope.original_content or b""),
            tls=tls.version() if tls else "",
            peer=session.peer[0] if session.peer else "",
            options=tuple(envelope.mail_options),
        )
        async with self._arrived:
            self.messages.append(message)
            self._arrived.notify_all()
        self._received(message)
        return "250 2.0.0 kept"

    async def wait(self, count: int = 1, *, seconds: float = 20) -> list[Received]:
        """The messages, once there are at least `count`. TimeoutError, saying how many came, after `seconds`."""
        try:
            async with asyncio.timeout(seconds), self._arrived:
                await self._arrived.wait_for(lambda: len(self.messages) >= count)
        except TimeoutError:
            raise TimeoutError(f"{len(self.messages)} of {count} messages came within {seconds} s") from None
        return self.messages


def _server_context(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, certificate.with_suffix(".key"))
    return context
