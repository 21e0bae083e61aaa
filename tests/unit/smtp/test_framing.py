"""Where data ends, and whether it is sound: every false end of data, cut at every octet, against a slow second opinion."""

import itertools

import pytest

from relay.smtp.framing import ChunkFraming, Content, DataFraming, Fault, LineEnds
from tests.unit.smtp.reference import decode_data

BIG = 10**6


def read(
    stream: bytes,
    cuts: tuple[int, ...] = (),
    lines: LineEnds = LineEnds.STRICT,
    limit: int = BIG,
    line_limit: int = BIG,
) -> tuple[bytes, int, Content]:
    """The content handed on, the octets consumed (-1: no end), and the judgement, with `stream` cut into reads at `cuts`."""
    content = Content(limit, line_limit, normalise=lines is not LineEnds.STRICT)
    framing = DataFraming(content, lines)
    handed = bytearray()
    borders = [0, *cuts, len(stream)]
    for start, end in itertools.pairwise(borders):
        piece, stop = framing.feed(stream[:end], start) if start < end else (b"", end)
        handed += piece
        if framing.done:
            return bytes(handed), stop, content
    return bytes(handed), -1, content


# Everything between two line ends that some server somewhere takes, or took, for an end of data.
FALSE_ENDS = [
    b"\n.\n", b"\n.\r\n", b"\r\n.\n", b"\r.\r", b"\r.\r\n", b"\r\n.\r", b"\n.\r", b"\r.\n", b"\n\n.\r\n", b"\r\n\0.\r\n", b"\r\n.\0\r\n",
    b"\r\n.\r\r\n", b"\r\n\r.\r\n", b"\n\r.\n\r", b"\0\r\n.\n", b"\r\n. \r\n", b"\r\n .\r\n", b"\r\n.\t\r\n", b"\x85.\x85", b"\r\n..\r\n",
    "\u2028.\u2028".encode(), b"\x0b.\x0b", b"\x0c.\x0c", b"\r\n.\x1a\r\n",
]  # fmt: skip


@pytest.mark.parametrize("false_end", FALSE_ENDS)
def test_no_false_end_ends_data(false_end: bytes) -> None:
    stream = b"first" + false_end + b"MAIL FROM:<evil@example.net>\r\n.\r\nQUIT\r\n"
    expected = decode_data(stream)
    assert expected.consumed == len(stream) - len(b"QUIT\r\n")
    for cut in range(len(stream) + 1):
        handed, consumed, content = read(stream, (cut,))
        assert consumed == expected.consumed
        assert (content.fault is Fault.NONE) is expected.sound
        if expected.sound:
            assert handed == expected.content


@pytest.mark.parametrize("lines", list(LineEnds))
def test_short_streams_exhaustively(lines: LineEnds) -> None:
    """Every stream of up to six of the octets that matter, whole and octet by octet."""
    strict, bare = lines is LineEnds.STRICT, lines is LineEnds.NORMALISE_TO_LF
    for length in range(1, 7):
        for octets in itertools.product(b"\r\n.a", repeat=length):
            stream = bytes(octets)
            expected = decode_data(stream, normalise=not strict, ended_bare=bare)
            handed, consumed, content = read(stream, tuple(range(1, length)), lines)
            whole = read(stream, (), lines)
            assert whole[:2] == (handed, consumed) or content.fault is Fault.LINE_ENDS
            assert consumed == whole[1] == expected.consumed, stream
            if consumed >= 0:
                assert (content.fault is Fault.NONE) is expected.sound, stream
                assert whole[2].fault is content.fault
            if consumed >= 0 and expected.sound:
                assert handed == expected.content, stream
                assert content.size == len(handed)


def test_reads_without_dots_are_not_copied() -> None:
    framing = DataFraming(Content(BIG, BIG, normalise=False), LineEnds.STRICT)
    data = b"text" * 100
    assert framing.feed(data, 0)[0] is data


def test_the_rest_is_left_where_it_is() -> None:
    framing = DataFraming(Content(BIG, BIG, normalise=False), LineEnds.STRICT)
    data = b"DATA\r\ntext\r\n.\r\nQUIT\r\n"
    content, stop = framing.feed(data, 6)
    assert (content, data[stop:], framing.done) == (b"text\r\n", b"QUIT\r\n", True)


def test_eight_bit() -> None:
    assert read(b"caf\xe9\r\n.\r\n")[2].eight_bit
    assert not read(b"cafe\r\n.\r\n")[2].eight_bit


@pytest.mark.parametrize(("size", "fault"), [(10, Fault.NONE), (11, Fault.TOO_LARGE)])
def test_the_limit_counts_content_without_stuffed_dots(size: int, fault: Fault) -> None:
    stream = b"." + b"." * (size - 2) + b"\r\n.\r\n"
    for cut in range(len(stream)):
        assert read(stream, (cut,), limit=10)[2].fault is fault


def test_what_is_thrown_away_is_bounded() -> None:
    content = Content(100, BIG, normalise=False)
    framing = DataFraming(content, LineEnds.STRICT)
    for _ in range(66):
        assert framing.feed(b"x" * 1000, 0)[0] == b""
        if content.overflowed:
            break
    assert content.overflowed
    assert content.fault is Fault.TOO_LARGE


def test_a_message_within_its_limit_never_overflows() -> None:
    content = Content(BIG, BIG, normalise=False)
    framing = DataFraming(content, LineEnds.STRICT)
    framing.feed(b"..\r\n" * 200_000, 0)
    assert content.fault is Fault.NONE
    assert not content.overflowed


@pytest.mark.parametrize("lines", [LineEnds.STRICT, LineEnds.NORMALISE])
@pytest.mark.parametrize(("longest", "fault"), [(20, Fault.NONE), (21, Fault.LONG_LINE)])
@pytest.mark.parametrize("before", [b"", b"\r\n", b"short\r\n", b"x" * 18 + b"\r\n", b"aa\r\n" * 10])
def test_line_limit_at_every_cut(longest: int, fault: Fault, before: bytes, lines: LineEnds) -> None:
    stream = before + b"y" * (longest - 2) + b"\r\nshort\r\n.\r\n"
    for first in range(len(stream)):
        for cuts in ((first,), (first, min(first + 3, len(stream)))):
            _, consumed, content = read(stream, cuts, lines, line_limit=20)
            assert (consumed, content.fault) == (len(stream), fault)


def test_the_worst_fault_is_told_wherever_it_is() -> None:
    long, large, bare = b"y" * 30 + b"\r\n", b"yyyy\r\n" * 20, b"\n\r\n"
    for parts in itertools.permutations((long, large, bare)):
        stream = b"".join(parts) + b".\r\n"
        for cut in range(0, len(stream), 5):
            assert read(stream, (cut,), limit=100, line_limit=20)[2].fault is Fault.LINE_ENDS
    for parts in itertools.permutations((long, large)):
        assert read(b"".join(parts) + b".\r\n", (10,), limit=100, line_limit=20)[2].fault is Fault.TOO_LARGE


def chunks(*pieces: bytes, normalise: bool = False, limit: int = BIG) -> tuple[bytes, Content]:
    content = Content(limit, BIG, normalise=normalise)
    framing = ChunkFraming(content, normalise=normalise)
    handed = b"".join([framing.feed(piece) for piece in pieces])
    return handed + framing.finish(), content


@pytest.mark.parametrize(
    ("stream", "expected", "fault"),
    [
        (b"", b"", Fault.NONE),
        (b".\r\n..\r\n", b".\r\n..\r\n", Fault.NONE),
        (b"a\r\nb", b"a\r\nb\r\n", Fault.NONE),
        (b"a\r", b"", Fault.LINE_ENDS),
        (b"a\rb", b"", Fault.LINE_ENDS),
        (b"a\nb\r\n", b"", Fault.LINE_ENDS),
        (b"a\r\r\n", b"", Fault.LINE_ENDS),
        (b"a\0\r\n", b"", Fault.LINE_ENDS),
    ],
)
def test_chunks_cut_anywhere(stream: bytes, expected: bytes, fault: Fault) -> None:
    for cut in range(len(stream) + 1):
        handed, content = chunks(stream[:cut], b"", stream[cut:])
        assert content.fault is fault
        if fault is Fault.NONE:
            assert handed == expected
            assert content.size == len(expected)


def test_chunks_of_an_old_device() -> None:
    for cut in range(8):
        handed, content = chunks(b"a\nb\r\n\nc"[:cut], b"a\nb\r\n\nc"[cut:], normalise=True)
        assert handed == b"a\r\nb\r\n\r\nc\r\n"
        assert content.fault is Fault.NONE


def test_chunks_too_large() -> None:
    assert chunks(b"aaa\r\n", limit=5)[1].fault is Fault.NONE
    assert chunks(b"aaaa", limit=5)[1].fault is Fault.TOO_LARGE
    handed, content = chunks(b"aaa\r\n", b"bb\0\r\n", limit=5)
    assert handed == b"aaa\r\n"
    assert content.fault is Fault.LINE_ENDS
