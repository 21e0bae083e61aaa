"""What sends, takes and stands beside the relay in a benchmark: a generator, a counting sink, private Postfix instances."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

from relay.config.values import HostPort
from tests.postfix import find, postfix_running

SIZE = 4096
_TUNED = {
    "smtp_tls_connection_reuse": "yes",
    "smtp_connection_cache_time_limit": "30s",
    "smtp_connection_reuse_count_limit": "0",
    "default_destination_concurrency_limit": "20",
    "initial_destination_concurrency": "20",
    "qmgr_message_active_limit": "20000",
    "in_flow_delay": "0",
    "smtpd_peername_lookup": "no",
    "smtp_tls_session_cache_database": "btree:${data_directory}/smtp_scache",
}


class CountingSink(asyncio.Protocol):
    """The cheapest SMTP server that a relay will deliver to: answers line by line, counts final dots, notes when each came."""

    def __init__(self, counts: "Counts") -> None:
        self._counts = counts
        self._transport: asyncio.Transport | None = None
        self._buffer = b""
        self._in_data = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.write(b"220 sink ESMTP\r\n")

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        replies: list[bytes] = []
        while self._step(replies):
            pass
        if replies and self._transport is not None:
            self._transport.write(b"".join(replies))

    def _step(self, replies: list[bytes]) -> bool:
        if self._in_data:
            end = self._buffer.find(b"\r\n.\r\n")
            if end < 0:
                return False
            self._buffer, self._in_data = self._buffer[end + 5 :], False
            self._counts.one()
            replies.append(b"250 2.0.0 kept\r\n")
            return True
        line, newline, rest = self._buffer.partition(b"\r\n")
        if not newline:
            return False
        self._buffer = rest
        verb = line[:4].upper()
        if verb == b"EHLO":
            replies.append(b"250-sink\r\n250-PIPELINING\r\n250-ENHANCEDSTATUSCODES\r\n250 8BITMIME\r\n")
        elif verb == b"DATA":
            self._in_data = True
            replies.append(b"354 go\r\n")
        elif verb == b"QUIT":
            replies.append(b"221 2.0.0 bye\r\n")
        else:
            replies.append(b"250 2.0.0 ok\r\n")
        return True


class Counts:
    """Arrivals at a sink, on the clock of time.perf_counter."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self._more = asyncio.Event()

    def one(self) -> None:
        self.times.append(time.perf_counter())
        self._more.set()

    async def reach(self, count: int, seconds: float) -> None:
        """TimeoutError where fewer came in time."""
        async with asyncio.timeout(seconds):
            while len(self.times) < count:
                self._more.clear()
                await self._more.wait()


def message() -> bytes:
    """4 KiB in lines of 72."""
    head = b"From: <bench@example.test>\r\nTo: <bob@example.com>\r\nSubject: bench\r\n\r\n"
    line = b"x" * 70 + b"\r\n"
    return head + line * ((SIZE - len(head)) // len(line))


async def send_lone(address: HostPort, content: bytes) -> float:
    """One message on a connection of its own; the moment its final dot was written."""
    reader, writer = await asyncio.open_connection(address.host, address.port)

    async def ask(line: bytes) -> None:
        writer.write(line)
        while True:
            reply = await reader.readline()
            if not reply:
                raise ConnectionError("the relay hung up")
            if reply[3:4] != b"-":
                return

    await ask(b"")
    for line in (
        b"EHLO bench\r\n",
        b"MAIL FROM:<bench@example.test>\r\n",
        b"RCPT TO:<bob@example.com>\r\n",
        b"DATA\r\n",
    ):
        await ask(line)
    writer.write(content)
    sent = time.perf_counter()
    await ask(b".\r\n")
    writer.write(b"QUIT\r\n")
    await reader.readline()
    writer.close()
    return sent


async def generate(address: HostPort, messages: int, sessions: int) -> None:
    """`messages` by `sessions` at a time, a new connection for each: smtp-source where it is installed, else a slower one of our own."""
    source = find("smtp-source")
    if source is None:
        content, left = message(), iter(range(messages))

        async def client() -> None:
            for _ in left:
                await send_lone(address, content)

        await asyncio.gather(*(client() for _ in range(sessions)))
        return
    process = await asyncio.create_subprocess_exec(
        source,
        *("-s", str(sessions), "-m", str(messages), "-l", str(SIZE)),
        *("-f", "bench@example.test", "-t", "bob@example.com", f"{address.host}:{address.port}"),
        stdout=asyncio.subprocess.DEVNULL,
    )
    if await process.wait() != 0:
        raise RuntimeError("smtp-source gave up")


@contextmanager
def postfix(folder: Path, port: int, next_hop: HostPort, *, tuned: bool) -> Iterator[None]:
    """A Postfix on 127.0.0.1:`port` that relays to `next_hop`, as it comes or tuned to keep connections.

    `folder` holds cert.pem, key.pem and ca.pem.
    """
    settings = {
        "smtpd_tls_security_level": "may",
        "smtpd_tls_cert_file": str(folder / "cert.pem"),
        "smtpd_tls_key_file": str(folder / "key.pem"),
        "smtp_tls_security_level": "may",
        "smtp_tls_CAfile": str(folder / "ca.pem"),
    }
    if tuned:
        settings |= {**_TUNED, "smtp_connection_cache_destinations": f"[{next_hop.host}]:{next_hop.port}"}
    with postfix_running(folder, port, next_hop, settings):
        yield
