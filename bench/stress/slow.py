"""Peers that are silent, or slow to read and to write, on both sides: mail between the others goes on, and memory does not grow with them.

    python -m bench.stress.slow [--each 50] [--messages 1000]

Hops that accept and then never answer at each step in turn, that read a message in small pieces, that answer one octet at a time; clients
that say nothing, that send an octet at a time, that stop in the middle of a message, that ask and never read. `--each` of every kind at
once. The relay's own time limits (RFC 5321 section 4.5.3.2) are minutes and not waited for here: tests/unit/outbound/test_steps.py does.
"""

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, cast

from bench.machine import memory_mib, tree
from bench.peers import generate, message
from bench.served import Served, configuration, outbound
from bench.sinks import CountingSink, Counts, counting
from bench.stress.crowd import Guest
from bench.stress.load import Lost
from relay.config.values import HostPort
from tests.hostile import Behaviour, Handshake, HostileServer, Pki, Step, Then

_LARGE = 400_000  # octets for hops that are slow to read
_KEPT = 0.5  # of the rate; the slow peers run on this machine too
_PER_PEER = 256.0  # KiB of memory at most for each slow peer
_BASE = 64.0  # MiB beside that
_SILENT = (Step.GREETING, Step.EHLO, Step.STARTTLS, Step.MAIL, Step.RCPT, Step.DATA, Step.FINAL)


class SlowReader(CountingSink):
    """Reads a piece of a message ten times a second."""

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        transport = self._transport
        if self._in_data and transport is not None:
            transport.pause_reading()
            asyncio.get_running_loop().call_later(0.1, self._resume)

    def _resume(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()


class _Trickle:
    """Writes an octet a hundredth of a second."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport, self._due = transport, 0.0

    def write(self, data: bytes) -> None:
        loop = asyncio.get_running_loop()
        self._due = max(self._due, loop.time())
        for octet in data:
            self._due += 0.01
            loop.call_at(self._due, self._transport.write, bytes([octet]))


class SlowWriter(CountingSink):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        trickle = _Trickle(cast(asyncio.Transport, transport))
        super().connection_made(cast(asyncio.BaseTransport, trickle))


@asynccontextmanager
async def slow_hops(folder: Path) -> AsyncIterator[tuple[dict[str, HostPort], Counts]]:
    """By name; and what arrived at those that are slow but not silent."""
    behaviours = {f"silent at {step.value}": Behaviour({step: Then.SILENCE}) for step in _SILENT}
    pki = Pki(folder)
    behaviours[f"silent at {Step.STARTTLS.value}"] = Behaviour({Step.STARTTLS: Then.SILENCE}, tls=pki.good)
    behaviours["silent at the handshake"] = Behaviour(tls=pki.good, handshake=Handshake.SILENCE)
    counts, loop = Counts(), asyncio.get_running_loop()
    async with AsyncExitStack() as stack:
        found = dict[str, HostPort]()
        for name, behaviour in behaviours.items():
            server = await stack.enter_async_context(HostileServer(behaviour))
            found[name] = HostPort("127.0.0.1", server.port)
        for name, kind in (("reads slowly", SlowReader), ("writes slowly", SlowWriter)):
            listening = await loop.create_server(lambda kind=kind: kind(counts), "127.0.0.1", 0)  # type: ignore[misc]
            stack.callback(listening.close)
            found[name] = HostPort("127.0.0.1", listening.sockets[0].getsockname()[1])
        yield found, counts


async def _connected(address: HostPort) -> Guest:
    _, guest = await asyncio.get_running_loop().create_connection(Guest, address.host, address.port)
    return guest


async def _octets(guest: Guest) -> None:
    for octet in b"NOOP " + b"x" * 400:
        assert guest.transport is not None
        guest.transport.write(bytes([octet]))
        await asyncio.sleep(0.1)


async def _half_a_message(guest: Guest) -> None:
    for line in (b"EHLO slow.test", b"MAIL FROM:<a@example.test>", b"RCPT TO:<b@example.com>", b"DATA"):
        await guest.ask(line + b"\r\n")
    for _ in range(400):
        assert guest.transport is not None
        guest.transport.write(b"another line\r\n")
        await asyncio.sleep(0.1)


async def _never_reads(guest: Guest) -> None:
    assert guest.transport is not None
    guest.transport.pause_reading()
    for _ in range(400):
        if guest.transport.get_write_buffer_size() < 100_000:
            guest.transport.write(b"EHLO never.reads.test\r\n" * 1000)
        await asyncio.sleep(0.1)


async def _says_nothing(_guest: Guest) -> None:
    await asyncio.sleep(40)


_CLIENTS = (_octets, _half_a_message, _never_reads, _says_nothing)


@asynccontextmanager
async def slow_clients(address: HostPort, each: int) -> AsyncIterator[None]:
    guests = [(await _connected(address), kind) for kind in _CLIENTS for _ in range(each)]
    tasks = [asyncio.create_task(kind(guest)) for guest, kind in guests]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for guest, _ in guests:
            guest.leave()


def _letters(hops: dict[str, HostPort], each: int) -> Iterator[tuple[str, bytes]]:
    for number, name in enumerate(hops):
        for _ in range(each):
            yield f"b@slow{number}.example", message(_LARGE if name == "reads slowly" else 4096)


async def run(each: int, messages: int, folder: Path) -> dict[str, Any]:
    """Raises Lost."""
    async with counting() as (sink, counts), slow_hops(folder / "pki") as (hops, slow):
        connectors = [outbound(f"slow{n}", f"slow{n}.example", hop) for n, hop in enumerate(hops.values())]
        file = configuration(folder / "relay", [*connectors, outbound("out", "*", sink)])
        async with Served(file) as relay:
            alone = await _rate(relay, counts, messages)
            before = memory_mib(tree([relay.pid]))
            guest = await _connected(relay.address)
            await guest.answer()
            for recipient, content in _letters(hops, each):
                if not await guest.send(content, recipient):
                    raise Lost(f"mail for {recipient} was not taken")
            async with slow_clients(relay.address, each):
                beside = await _rate(relay, counts, messages)
                memory = memory_mib(tree([relay.pid])) - before
                try:
                    await slow.reach(2 * each, 120)  # slow is not lost
                except TimeoutError:
                    raise Lost(f"of {2 * each} messages to slow hops {len(slow.times)} arrived") from None
            await relay.kill()  # a stop would wait for deliveries that never end
    peers = each * (len(hops) + len(_CLIENTS))
    found = {
        "alone/s": round(alone, 1),
        "beside the slow/s": round(beside, 1),
        "slow peers": peers,
        "more MiB": round(memory, 1),
    }
    if beside < alone * _KEPT or memory > _BASE + peers * _PER_PEER / 1024:
        raise Lost(f"slow peers hold the others up, or too much memory: {found}")
    return found


async def _rate(relay: Served, counts: Counts, messages: int) -> float:
    before, begun = len(counts.times), time.perf_counter()
    sending = asyncio.create_task(generate(relay.address, messages))
    try:
        await counts.reach(before + messages, 120)
        seconds = time.perf_counter() - begun
        await sending
    except TimeoutError:
        raise Lost(f"{len(counts.times) - before} of {messages} messages arrived within 120 s") from None
    finally:
        sending.cancel()
    return messages / seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--each", type=int, default=50, help="peers of every kind")
    parser.add_argument("--messages", type=int, default=1000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="slow-") as folder:
        try:
            found = asyncio.run(run(options.each, options.messages, Path(folder)))
        except Lost as error:
            sys.exit(f"LOST: {error}")
        print(f"{found}: the others are not held up")


if __name__ == "__main__":
    main()
