"""An HTTPS server that gives what a test tells it to give: an MTA-STS policy, or whatever else one may meet at mta-sts.DOMAIN.

It is plain asyncio and the standard library's `ssl`, and shares no code with the relay.

    async with PolicyHost(pki.issue(folder, "mta-sts.b.example")) as host:
        host.reply = answer(policy("enforce", "mx.b.example"))
"""

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import TracebackType
from typing import Self

Reply = bytes | Callable[[asyncio.StreamWriter], Awaitable[None]]


def policy(mode: str, *mx: str, max_age: int = 86400, end: str = "\r\n") -> bytes:
    lines = ("version: STSv1", f"mode: {mode}", *(f"mx: {each}" for each in mx), f"max_age: {max_age}", "")
    return end.join(lines).encode()


def answer(body: bytes, *, status: str = "200 OK", kind: str = "text/plain", fields: str = "") -> bytes:
    """`fields` are further header lines, each with its CRLF."""
    head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n{fields}\r\n"
    return head.encode() + body


class PolicyHost:
    """On 127.0.0.1, `port`. `certificate` is a PEM file with its NAME.key beside it.

    `requests` are the heads that came, `names` the SNIs. While `gate` is closed requests wait for it; `arrived` is set by each.
    """

    def __init__(self, certificate: Path, reply: Reply = b"") -> None:
        self.reply = reply
        self.requests: list[bytes] = []
        self.names: list[str | None] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.arrived = asyncio.Event()
        self._serving: set[asyncio.Task[None]] = set()
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificate, certificate.with_suffix(".key"))
        self._context.sni_callback = lambda _connection, name, _context: self.names.append(name)

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0, ssl=self._context)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        for task in self._serving:
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)
        await self._server.wait_closed()

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            self.requests.append(await reader.readuntil(b"\r\n\r\n"))
            self.arrived.set()
            await self.gate.wait()
            if isinstance(self.reply, bytes):
                writer.write(self.reply)
                await writer.drain()
            else:
                await self.reply(writer)
        except (OSError, asyncio.IncompleteReadError, ssl.SSLError):
            pass  # the client has gone
        finally:
            writer.close()
