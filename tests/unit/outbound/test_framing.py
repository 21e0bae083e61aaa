"""Whatever the message and wherever it is cut, a server that shares no code with us decodes the same bytes."""

import asyncio

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from relay.mail.outcome import Delivered
from relay.outbound.framing import DotStuffing
from tests.unit.outbound.builders import HEADER, Body, World, delivery, results, world
from tests.unit.outbound.sink import AiosmtpdSink

LINES = st.lists(
    st.sampled_from([b"", b".", b"..", b".x", b"x", b"x.", b"...", b"QUIT", b"\x00", b"\xc3\xa4"]), max_size=12
)
CUTS = st.lists(st.integers(1, 9), min_size=1, max_size=20)


def cut(content: bytes, sizes: list[int]) -> list[bytes]:
    pieces, place, turn = [], 0, 0
    while place < len(content):
        pieces.append(content[place : place + sizes[turn % len(sizes)]])
        place, turn = place + sizes[turn % len(sizes)], turn + 1
    return pieces


def decode(wire: bytes) -> bytes:
    """RFC 5321 section 4.5.2, line by line, as a receiver does it."""
    assert wire.endswith(b"\r\n.\r\n") or wire == b".\r\n"
    lines = wire[:-3].split(b"\r\n")
    assert b"." not in lines[:-1]
    return b"\r\n".join(line[1:] if line.startswith(b".") else line for line in lines)


@given(st.lists(st.sampled_from([b"\r", b"\n", b".", b"\r\n", b"a"]), max_size=40), CUTS)
def test_any_bytes_cut_anywhere(parts: list[bytes], sizes: list[int]) -> None:
    content = b"".join(parts)
    stuffing = DotStuffing()
    wire = b"".join(stuffing.feed(piece) for piece in cut(content, sizes)) + stuffing.end()
    expected = content if not content or content.endswith(b"\r\n") else content + b"\r\n"
    assert decode(wire) == expected


def test_an_empty_message() -> None:
    assert DotStuffing().end() == b".\r\n"


def test_a_message_without_dots_is_not_changed() -> None:
    stuffing = DotStuffing()
    piece = b"a\r\nb.\r\nc"
    assert stuffing.feed(piece) == piece
    assert stuffing.end() == b"\r\n.\r\n"


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(LINES, CUTS)
def test_through_a_real_server(lines: list[bytes], sizes: list[int]) -> None:
    content = b"Subject: x\r\n\r\n" + b"".join(line + b"\r\n" for line in lines)

    async def through() -> bytes:
        async with AiosmtpdSink() as sink:
            mail: World = world(sink.port)
            given = delivery(content=content)
            given = type(given)(given.message, given.indexes, Body(cut(content, sizes)))
            attempts = await mail.outbound.deliver(given)
            assert isinstance(results(attempts)[0], Delivered), attempts
            await mail.outbound.close()
            return sink.contents[0]

    assert asyncio.run(through()) == HEADER + content


async def test_a_large_message_flows_in_pieces() -> None:
    piece = b"x" * 510 + b"\r\n"
    content = piece * 8192  # 4 MiB
    async with AiosmtpdSink() as sink, world(sink.port) as mail:
        given = delivery(content=content)
        body = Body([content[place : place + 262144] for place in range(0, len(content), 262144)])
        attempts = await mail.outbound.deliver(type(given)(given.message, given.indexes, body))
        assert isinstance(results(attempts)[0], Delivered), attempts
        assert sink.contents[0] == HEADER + content
        assert body.reads == 1
