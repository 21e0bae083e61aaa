"""What accepting a message costs, listener and session machine together: `python -m bench.inbound_bench [--messages N] [--rounds N] [--idle N]`.

The server is a process of its own with an intake that keeps nothing, so its CPU time is that of accepting alone: sockets, machine,
admission, header scan, Received header. Clear and TLS 1.3, one connection per message and one for all, asyncio and uvloop; then the memory
of idle sessions. The client pipelines MAIL, RCPT and DATA. Figures are CPU microseconds of the server per message, and KiB per session.
"""

import argparse
import asyncio
import json
import resource
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

import trustme
import uvloop

from relay.config.models import Config
from relay.inbound.listener import Listeners
from relay.inbound.services import Services
from relay.mail.envelope import Accepted, Envelope, Message
from relay.mail.events import Event
from relay.policy.book import RuleBook
from relay.tls.keyring import Keyring
from relay.tls.trust import TrustStores

NAME = "relay.example.com"
LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.SelectorEventLoop,
    "uvloop": uvloop.new_event_loop,
}


class NoIncoming:
    """Takes everything, keeps nothing."""

    id = "01K4WZ8Q9M5T7XN2C3VB"
    full = False

    def write(self, data: bytes) -> None:
        pass

    async def drain(self) -> None:
        pass

    async def commit(
        self,
        envelope: Envelope,
        accepted: Accepted,
        *,
        header: bytes = b"",
        message_id: str = "",
        eight_bit: bool = False,
    ) -> Message:
        return Message(self.id, envelope, accepted, 0, header, message_id, eight_bit)

    def abort(self) -> None:
        pass


class NoIntake:
    def begin(self) -> NoIncoming:
        return NoIncoming()


def ignore(event: Event) -> None:
    """The log is another bench's."""


def memory() -> int:
    """Resident bytes, now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


async def serve(folder: Path) -> None:
    """Answers each line on standard input with its CPU seconds, memory and open sessions."""
    config = Config.model_validate(
        {
            "hostname": NAME,
            "postmaster": "postmaster@example.com",
            "listeners": [{"address": "127.0.0.1:0"}],
            "accept": {"domains": ["example.com"]},
            "limits": {"connections": 100_000, "connections_per_ip": 100_000, "session_messages": 10_000_000},
        },
        context={"base": folder},
    )
    book = RuleBook.of(config)

    def now() -> datetime:
        return datetime.now(UTC)

    keyring = Keyring(folder, hostname=NAME, clock=now)
    listeners = Listeners(Services(lambda: book, NoIntake(), TrustStores(), keyring, ignore, now))
    [bound] = await listeners.start()
    print(bound.address.port, flush=True)
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while await reader.readline():
        usage = resource.getrusage(resource.RUSAGE_SELF)
        report = {"user": usage.ru_utime, "system": usage.ru_stime, "rss": memory(), "sessions": listeners.sessions}
        print(json.dumps(report), flush=True)
    await listeners.close(grace=0)


@dataclass
class Server:
    process: "subprocess.Popen[str]"
    port: int

    @classmethod
    def start(cls, folder: Path, loop: str) -> "Server":
        command = [sys.executable, "-m", "bench.inbound_bench", "--serve", str(folder), "--loop", loop]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        return cls(process, int(_pipe(process.stdout).readline()))

    def report(self) -> dict[str, Any]:
        _pipe(self.process.stdin).write("\n")
        _pipe(self.process.stdin).flush()
        found: dict[str, Any] = json.loads(_pipe(self.process.stdout).readline())
        return found

    def stop(self) -> None:
        self.process.communicate("", timeout=60)


def _pipe(pipe: IO[str] | None) -> IO[str]:
    assert pipe is not None
    return pipe


async def talk(port: int, messages: int, body: bytes, tls: ssl.SSLContext | None) -> None:
    """One connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**18)
    await reader.readuntil(b"\r\n")

    async def replies(count: int) -> None:
        for _ in range(count):
            while (await reader.readuntil(b"\r\n"))[3:4] != b" ":
                pass

    writer.write(b"EHLO client.example\r\n")
    await replies(1)
    if tls is not None:
        writer.write(b"STARTTLS\r\n")
        await replies(1)
        await writer.start_tls(tls, server_hostname=NAME)
        writer.write(b"EHLO client.example\r\n")
        await replies(1)
    for _ in range(messages):
        writer.write(b"MAIL FROM:<ann@contoso.com> SIZE=4096\r\nRCPT TO:<bob@example.com>\r\nDATA\r\n")
        await replies(3)
        writer.write(body)
        await replies(1)
    writer.write(b"QUIT\r\n")
    await replies(1)
    writer.close()
    await writer.wait_closed()


async def load(port: int, messages: int, per_connection: int, at_once: int, tls: ssl.SSLContext | None) -> None:
    header = "".join(f"X-Header-{number}: some value of an ordinary length\r\n" for number in range(15))
    text = f"Message-ID: <1@contoso.com>\r\nFrom: Ann <ann@contoso.com>\r\nSubject: bench\r\n{header}\r\n"
    body = (text + "hello world, this is a line of seventy-two characters, more or less\r\n" * 45).encode() + b".\r\n"
    left = messages // per_connection

    async def worker() -> None:
        nonlocal left
        while left > 0:
            left -= 1
            await talk(port, per_connection, body, tls)

    await asyncio.gather(*(worker() for _ in range(at_once)))


async def hold(port: int, count: int, tls: ssl.SSLContext | None, measure: Callable[[], None]) -> None:
    """Opens idle sessions, a few at a time, and measures with all of them open."""
    writers: list[asyncio.StreamWriter] = []

    async def one() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        await reader.readuntil(b"\r\n")
        writer.write(b"EHLO client.example\r\n")
        while (await reader.readuntil(b"\r\n"))[3:4] != b" ":
            pass
        if tls is not None:
            writer.write(b"STARTTLS\r\n")
            await reader.readuntil(b"\r\n")
            await writer.start_tls(tls, server_hostname=NAME)
            writer.write(b"EHLO client.example\r\n")
            while (await reader.readuntil(b"\r\n"))[3:4] != b" ":
                pass
        writers.append(writer)

    for start in range(0, count, 50):
        await asyncio.gather(*(one() for _ in range(min(50, count - start))))
    measure()
    for writer in writers:
        writer.transport.abort()


def bench(options: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ca = trustme.CA()
        ca.issue_cert(NAME).private_key_and_cert_chain_pem.write_to_path(folder / "relay.pem")
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        ca.configure_trust(tls)
        for loop in options.loops.split(","):
            for context in (None, tls):
                word = "TLS 1.3" if context else "clear"
                for per_connection in (1, 100):
                    cost(folder, loop, context, options, per_connection, word)
                idle(folder, loop, context, options.idle, word)


def cost(
    folder: Path, loop: str, context: ssl.SSLContext | None, options: argparse.Namespace, per_connection: int, word: str
) -> None:
    """The cheapest of several rounds: other programs on the machine only ever make it dearer."""
    server = Server.start(folder, loop)
    rounds = []
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(load(server.port, 200, per_connection, 20, context))
        for _ in range(options.rounds):
            before, began = server.report(), time.perf_counter()
            runner.run(load(server.port, options.messages, per_connection, 20, context))
            seconds, after = time.perf_counter() - began, server.report()
            user, system = ((after[key] - before[key]) / options.messages * 1e6 for key in ("user", "system"))
            rounds.append((user + system, user, system, options.messages / seconds))
    server.stop()
    total, user, system, rate = min(rounds)
    kind = "new connection each" if per_connection == 1 else f"{per_connection} per connection"
    print(
        f"{loop:8} {word:8} {kind:20} {total:5.0f} us CPU a message "
        f"({user:.0f} in our code, {system:.0f} in the kernel; {rate:.0f}/s)",
        flush=True,
    )


def idle(folder: Path, loop: str, context: ssl.SSLContext | None, count: int, word: str) -> None:
    server = Server.start(folder, loop)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(load(server.port, 40, 1, 2, context))
        before = server.report()["rss"]

        def measure() -> None:
            report = server.report()
            assert report["sessions"] == count
            each = (report["rss"] - before) / count / 1024
            print(f"{loop:8} {word:8} {'idle':20} {each:7.1f} KiB a session", flush=True)

        runner.run(hold(server.port, count, context, measure))
    server.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--idle", type=int, default=400, help="sessions held open at a time")
    parser.add_argument("--loops", default="uvloop,asyncio")
    parser.add_argument("--serve", metavar="FOLDER", help="be the server (used by the bench itself)")
    parser.add_argument("--loop", default="uvloop", choices=sorted(LOOPS))
    options = parser.parse_args()
    if options.serve:
        with asyncio.Runner(loop_factory=LOOPS[options.loop]) as runner:
            runner.run(serve(Path(options.serve)))
    else:
        bench(options)


if __name__ == "__main__":
    main()
