"""What arrives is byte for byte what came, behind our trace headers: any message, by DATA or BDAT, cut anywhere, through two relays.

The client here and the last hop share no code with the relay.
"""

import asyncio
import re
from collections.abc import Iterator
from contextlib import AsyncExitStack
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from relay.config.values import HostPort
from relay.testing import relay_pair
from tests.hostile import EXTENSIONS, Behaviour, HostileServer, Taken

LONGEST = 8192 - 2  # limits.line_length is with CRLF

# Any octets but the three that a message may not hold, or hold only as CRLF; text with many dots; one octet again and again.
_line = st.one_of(
    st.binary(max_size=120).map(lambda line: re.sub(rb"[\r\n\x00]", b"", line)),
    st.lists(st.sampled_from([b".", b"..", b". ", b"x", b"=", b"From ", b"\t", b"\xff", b"\xc3\xa9"]), max_size=8).map(
        b"".join
    ),
    st.tuples(st.sampled_from([b".", b"x", b"\xe9", b" "]), st.sampled_from([998, 999, 1000, 4096, LONGEST])).map(
        lambda pair: pair[0] * pair[1]
    ),
)
_text = st.lists(_line, max_size=12).map(lambda lines: b"".join(line + b"\r\n" for line in lines))
_header = st.sampled_from(
    [b"", b"\r\n", b"Subject: x\r\n\r\n", b"Subject: x\r\n", b"From: a@a.test\r\nX: \xff\r\n .\r\n\r\n"]
)
# A message of several of the store's chunks (256 KiB) too, now and then.
_times = st.sampled_from([1, 1, 1, 1, 1, 1, 40])
contents = st.builds(lambda head, text, times: head + text * times, _header, _text, _times)
cuts = st.lists(st.floats(0, 1), max_size=5)

_TRACE = re.compile(rb"(?:Received: [^\r\n]*\r\n(?:[ \t][^\r\n]*\r\n)*){2}")


class Hops:
    """The pair and the last hop, for as many messages as a test likes."""

    def __init__(self, runner: asyncio.Runner, extensions: tuple[str, ...]) -> None:
        self._runner, self._stack = runner, AsyncExitStack()
        self._runner.run(self._open(extensions))

    async def _open(self, extensions: tuple[str, ...]) -> None:
        self._server = await self._stack.enter_async_context(HostileServer(Behaviour(extensions=extensions)))
        last = {"smart_hosts": [f"127.0.0.1:{self._server.port}"]}
        connector = {"name": "last", "direction": "outbound", "match": {"recipient_domains": ["b.test"]}, "route": last}
        pair = await self._stack.enter_async_context(relay_pair(b={"connectors": [connector]}))
        self._address = pair.a.address()

    def close(self) -> None:
        self._runner.run(self._stack.aclose())

    def data(self, content: bytes, pieces: list[bytes]) -> Taken:
        """By DATA, written in these pieces; what the last hop took."""
        return self._runner.run(self._through([b"DATA\r\n", *pieces], content))

    def bdat(self, content: bytes, pieces: list[bytes]) -> Taken:
        """By BDAT, a chunk for each piece; all commands of it in one flight (RFC 3030)."""
        chunks = [
            b"BDAT %d%b\r\n" % (len(piece), b" LAST" if number == len(pieces) else b"") + piece
            for number, piece in enumerate(pieces, 1)
        ]
        return self._runner.run(self._through(chunks, content))

    async def _through(self, flight: list[bytes], content: bytes) -> Taken:
        seen = len(self._server.taken)
        await _submit(self._address, flight, eight_bit=not content.isascii())
        async with asyncio.timeout(20):
            while len(self._server.taken) == seen:
                self._server.heard.clear()
                await self._server.heard.wait()
        return self._server.taken[-1]


async def _submit(address: HostPort, flight: list[bytes], *, eight_bit: bool) -> None:
    reader, writer = await asyncio.open_connection(address.host, address.port)
    try:
        await _dialog(reader, writer, flight, eight_bit=eight_bit)
    finally:
        writer.close()
        await writer.wait_closed()


async def _dialog(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, flight: list[bytes], *, eight_bit: bool
) -> None:
    async def reply(code: bytes) -> None:
        while (line := await reader.readuntil(b"\r\n"))[3:4] == b"-":
            pass
        assert line.startswith(code), line

    await reply(b"220")
    body = b" BODY=8BITMIME" if eight_bit else b""
    for command in (b"EHLO client.test", b"MAIL FROM:<alice@a.test>" + body, b"RCPT TO:<bob@b.test>"):
        writer.write(command + b"\r\n")
        await reply(b"250")
    if flight[0] == b"DATA\r\n":
        writer.write(flight.pop(0))
        await reply(b"354")
        answers = 1
    else:
        answers = len(flight)
    for piece in flight:
        writer.write(piece)
        await writer.drain()
    for _ in range(answers):
        await reply(b"250")
    writer.write(b"QUIT\r\n")
    await reply(b"221")


def split(data: bytes, at: list[float]) -> list[bytes]:
    places = [0, *sorted(round(each * len(data)) for each in at), len(data)]
    return [data[start:end] for start, end in pairwise(places)]


def stuffed(content: bytes) -> bytes:
    """As DATA carries it (RFC 5321 section 4.5.2), with its end."""
    return (b"\r\n" + content).replace(b"\r\n.", b"\r\n..")[2:] + b".\r\n"


def behind_the_trace(taken: Taken, *contents: bytes) -> bool:
    """True where it is two trace headers and then one of `contents`. (A first line that begins with a space looks like one of theirs.)"""
    return any(
        taken.content.endswith(content) and _TRACE.fullmatch(taken.content, 0, len(taken.content) - len(content))
        for content in contents
    )


@pytest.fixture(scope="module", params=["a last hop with CHUNKING", "a last hop without"])
def hops(request: pytest.FixtureRequest) -> Iterator[Hops]:
    extensions = (*EXTENSIONS, "CHUNKING") if request.param.endswith("CHUNKING") else EXTENSIONS
    with asyncio.Runner() as runner:
        found = Hops(runner, extensions)
        yield found
        found.close()


quickly = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@quickly
@given(contents, cuts)
@example(b"", [])
@example(b".\r\n", [])
@example(b"..\r\n.\r\n\r\n.\r\n", [0.5])
@example(b"x" * LONGEST + b"\r\n", [])
def test_by_data(hops: Hops, content: bytes, at: list[float]) -> None:
    assert behind_the_trace(hops.data(content, split(stuffed(content), at)), content)


@quickly
@given(contents, cuts)
@example(b"", [])
@example(b"", [0.5])
@example(b"\r\n.\r\n", [0.1, 0.5, 0.9])
@example(b"Subject: x\r\n\r\n" + b"y" * 72 + b"\r\n", [0.0, 1.0])
def test_by_bdat(hops: Hops, content: bytes, at: list[float]) -> None:
    assert behind_the_trace(hops.bdat(content, split(content, at)), content)


@quickly
@given(contents, _line.filter(bool), cuts)
def test_by_bdat_without_a_last_line_end(hops: Hops, content: bytes, line: bytes, at: list[float]) -> None:
    whole = content + line
    # RFC 5321 section 4.1.1.4: DATA cannot end but with CRLF, so a hop by DATA adds it.
    assert behind_the_trace(hops.bdat(whole, split(whole, at)), whole, whole + b"\r\n")
