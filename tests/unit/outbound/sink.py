"""An aiosmtpd server that keeps what it gets: a decoder that shares no code with us."""

import asyncio
from types import TracebackType
from typing import Self

from aiosmtpd.smtp import SMTP, Envelope, Session


class AiosmtpdSink:
    """`contents` are the messages as decoded, `port` where it listens on 127.0.0.1."""

    def __init__(self) -> None:
        self.contents: list[bytes] = []
        self._open: list[SMTP] = []

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._protocol, "127.0.0.1", 0)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        for each in self._open:
            if each.transport is not None:
                each.transport.close()
        await self._server.wait_closed()

    def _protocol(self) -> SMTP:
        protocol = SMTP(
            self, data_size_limit=2**26, enable_SMTPUTF8=True, hostname="sink.test", loop=asyncio.get_running_loop()
        )
        self._open.append(protocol)
        return protocol

    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:  # noqa: N802 - aiosmtpd's name for it
        self.contents.append(bytes(envelope.original_content or b""))
        return "250 2.0.0 kept"
