"""A receiver of alerts over HTTPS: plain asyncio and the standard library, no code of the relay's. It checks signatures by itself."""

import asyncio
import hashlib
import hmac
import json
import ssl
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self


@dataclass(frozen=True, slots=True)
class Post:
    target: str
    fields: dict[str, str]
    body: bytes

    @property
    def alert(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.body)
        return found

    def is_signed(self, secret: str) -> bool:
        made = hmac.digest(
            secret.encode(), self.fields["ironpost-timestamp"].encode() + b"." + self.body, hashlib.sha256
        )
        return hmac.compare_digest(self.fields["ironpost-signature"], f"v1={made.hex()}")


class Hook:
    """On 127.0.0.1, `port`. `status` is what it answers, `location` where it redirects to. `stalls`: it takes a post and says nothing.

    `endless`: its answer goes on with this, for as long as somebody reads it.
    """

    def __init__(self, certificate: Path) -> None:
        self.posts: list[Post] = []
        self.status, self.location, self.stalls, self.endless = 200, "", False, b""
        self._changed = asyncio.Condition()
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificate, certificate.with_suffix(".key"))
        self._serving: set[asyncio.Task[None]] = set()

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

    @property
    def alerts(self) -> list[dict[str, Any]]:
        return [each.alert for each in self.posts]

    async def wait(self, count: int, *, seconds: float = 20) -> list[Post]:
        """The posts, once there are at least `count`."""
        try:
            async with asyncio.timeout(seconds), self._changed:
                await self._changed.wait_for(lambda: len(self.posts) >= count)
        except TimeoutError:
            raise TimeoutError(f"{len(self.posts)} of {count} posts came: {self.alerts}") from None
        return self.posts

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        try:
            await self._serve(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
            pass
        finally:
            self._serving.discard(task)
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        pairs = (line.partition(":") for line in head[1:] if line)
        fields = {name.lower(): value.strip() for name, _colon, value in pairs}
        body = await reader.readexactly(int(fields.get("content-length", "0")))
        async with self._changed:
            self.posts.append(Post(head[0].split()[1], fields, body))
            self._changed.notify_all()
        if self.stalls:
            await asyncio.Event().wait()
        if self.endless:
            writer.write(b"HTTP/1.1 200 x\r\n")
        while self.endless:
            writer.write(self.endless * 500)
            await writer.drain()
        where = f"Location: {self.location}\r\n" if self.location else ""
        writer.write(f"HTTP/1.1 {self.status} x\r\n{where}Content-Length: 0\r\nConnection: close\r\n\r\n".encode())
        await writer.drain()
