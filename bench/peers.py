"""What sends to the relay and stands beside it in a benchmark: Postfix's generator, a sender of lone messages, private Postfix instances."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from relay.config.values import HostPort
from tests.postfix import find, postfix_running

SENDER, RECIPIENT = "bench@example.test", "bob@example.com"
_SHORTEST = 128
_AT_ONCE = 20  # generator processes, where each serves one destination
_USUAL = {"message_size_limit": "104857600", "mailbox_size_limit": "0"}
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


def message(size: int = 4096) -> bytes:
    """About `size` bytes in lines of 72."""
    head = b"From: <bench@example.test>\r\nTo: <bob@example.com>\r\nSubject: bench\r\n\r\n"
    line = b"x" * 70 + b"\r\n"
    return head + line * ((max(size, _SHORTEST) - len(head)) // len(line))


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
    for line in (b"EHLO bench", b"MAIL FROM:<%s>" % SENDER.encode(), b"RCPT TO:<%s>" % RECIPIENT.encode(), b"DATA"):
        await ask(line + b"\r\n")
    writer.write(content)
    await writer.drain()
    sent = time.perf_counter()
    await ask(b".\r\n")
    writer.write(b"QUIT\r\n")
    await reader.readline()
    writer.close()
    return sent


def domain(number: int) -> str:
    """The domain whose mail goes to destination `number`."""
    return f"d{number}.example"


async def generate(
    address: HostPort, messages: int, *, sessions: int = 20, size: int = 4096, destinations: int = 1
) -> None:
    """`messages` by `sessions` at a time, a new connection for each, spread evenly over the destinations."""
    if destinations == 1:
        await _source(address, messages, sessions, size, RECIPIENT)
        return
    numbers = iter(range(destinations))
    share, more = divmod(messages, destinations)

    async def client() -> None:
        for number in numbers:
            count = share + (number < more)
            if count:
                await _source(address, count, 1, size, f"bob@{domain(number)}")

    await asyncio.gather(*(client() for _ in range(min(sessions, _AT_ONCE))))


async def _source(address: HostPort, messages: int, sessions: int, size: int, recipient: str) -> None:
    """smtp-source where it is installed, else a slower one of our own."""
    source = find("smtp-source")
    if source is None:
        content, left = message(size), iter(range(messages))

        async def client() -> None:
            for _ in left:
                await send_lone(address, content)

        await asyncio.gather(*(client() for _ in range(sessions)))
        return
    process = await asyncio.create_subprocess_exec(
        source,
        *("-s", str(sessions), "-m", str(messages), "-l", str(size)),
        *("-f", SENDER, "-t", recipient, f"{address.host}:{address.port}"),
        stdout=asyncio.subprocess.DEVNULL,
    )
    try:
        if await process.wait() != 0:
            raise RuntimeError("smtp-source gave up")
    except BaseException:
        if process.returncode is None:
            process.kill()
            await process.wait()
        raise


@contextmanager
def postfix(
    folder: Path, port: int, hops: list[HostPort], *, tuned: bool, reuse: bool = True, processes: int = 100
) -> Iterator[int]:
    """A Postfix on 127.0.0.1:`port` that relays to the hop, or each `domain(number)` to its own; gives the master's process id.

    As it comes, or tuned; `reuse` False: tuned, but for connection reuse. `folder` holds cert.pem, key.pem and ca.pem.
    """
    settings = _USUAL | {
        "smtpd_tls_security_level": "may",
        "smtpd_tls_cert_file": str(folder / "cert.pem"),
        "smtpd_tls_key_file": str(folder / "key.pem"),
        "smtp_tls_security_level": "may",
        "smtp_tls_CAfile": str(folder / "ca.pem"),
        "default_process_limit": str(processes),
    }
    if tuned:
        settings |= _TUNED
    if tuned and reuse:
        settings["smtp_connection_cache_destinations"] = "static:all"
    if not reuse:
        settings |= {"smtp_tls_connection_reuse": "no", "smtp_connection_cache_on_demand": "no"}
    if len(hops) > 1:
        table = folder / "transport"
        table.write_text("".join(f"{domain(number)} smtp:[{hop.host}]:{hop.port}\n" for number, hop in enumerate(hops)))
        settings["transport_maps"] = f"texthash:{table}"
    with postfix_running(folder, port, hops[0], settings):
        yield int((folder / "spool" / "pid" / "master.pid").read_text())
