"""Where a message ends on the wire and whether its bytes are sound: DATA (RFC 5321 section 4.5.2) and BDAT (RFC 3030).

Takes dots off, proves the line ends, counts, and hands on content; what to answer is the session's business.

What ends DATA: the five octets CR LF "." CR LF and nothing else. The CRLF of the DATA command counts as the first two (an empty message
is a lone dot). For a client whose bare LFs are normalised: the same, if its DATA command ended with CRLF; if its DATA command ended
with a bare LF, the three octets LF "." LF and nothing else. One message so has exactly one end, whatever its lines look like;
a line of one dot that is not that end is a line whose dot is taken off.

Threat: SMTP smuggling (CVE-2023-51764 and its kin). Where two servers disagree on the end of data, the rest of a message becomes
commands. So a bare CR, a bare LF or a NUL anywhere makes the message unsound, to its true end and no further, and it is thrown away.

Speed: everything runs over whole reads in C. `io.IncrementalNewlineDecoder` is used for one thing, its record of which kinds of line
end it saw: one pass that proves that there was no bare CR or LF, twice as fast as counting.
"""

import io
from enum import Enum, IntEnum

_CRLF_DOT = b"\r\n."
# What a read may end with that could become an end of data or a dot to take off, longest first. Held back until more is there.
_STRICT_TAILS = (b"\r\n.\r", b"\r\n.", b"\r\n", b"\r")
_NORMALISING_TAILS = (b"\r\n.\r", b"\r\n.", b"\n.", b"\r\n", b"\n", b"\r")
_TAIL_OCTETS = b"\r\n."


def patience(limit: int) -> int:
    """How many octets of a message that is lost anyway are read past before the connection is given up."""
    return 2 * limit + 64 * 1024


class Fault(IntEnum):
    """What is wrong with a message. Where several things are, the greatest counts, so that the verdict does not depend on how reads fell."""

    NONE = 0
    LONG_LINE = 1
    TOO_LARGE = 2
    LINE_ENDS = 3


class LineEnds(Enum):
    """How this client's message lines end: `STRICT` by CRLF only. In the others bare LF becomes CRLF, and they differ in the end of data."""

    STRICT = "strict"
    NORMALISE = "normalise"
    NORMALISE_TO_LF = "normalise, DATA itself ended with a bare LF"


_END = {LineEnds.STRICT: b"\r\n.\r\n", LineEnds.NORMALISE: b"\r\n.\r\n", LineEnds.NORMALISE_TO_LF: b"\n.\n"}


class Content:
    """The message so far: its size, whether it is sound, whether it has octets above 127. Shared by DATA and BDAT framing.

    `size` counts octets handed on. Once there is a fault nothing is handed on; the rest is only searched for a greater fault.
    """

    __slots__ = ("_kinds", "_limit", "_line", "_line_limit", "_normalise", "_wire", "eight_bit", "fault", "size")

    def __init__(self, limit: int, line_limit: int, *, normalise: bool) -> None:
        self._limit = limit
        self._line_limit = line_limit
        self._normalise = normalise
        self._kinds = io.IncrementalNewlineDecoder(None, translate=False)
        self._line = 0  # octets of the unfinished line
        self._wire = 0
        self.size = 0
        self.eight_bit = False
        self.fault = Fault.NONE

    @property
    def overflowed(self) -> bool:
        """So much was thrown away that reading to the end is no longer worth it."""
        return self.fault is not Fault.NONE and self._wire > patience(self._limit)

    def examine(self, wire: bytes) -> None:
        """Octets as they came, dots and all. A CR and its LF must be in one piece."""
        self._wire += len(wire)
        if self.fault is Fault.LINE_ENDS:
            return
        if b"\0" in wire or not self._line_ends_sound(wire):
            self.fault = Fault.LINE_ENDS

    def enter(self, content: bytes) -> bytes:
        """Count what would be handed on; returns it, or b"" where the message is lost. A CR and its LF must be in one piece."""
        self.size += len(content)
        if self.size > self._limit and self.fault < Fault.TOO_LARGE:
            self.fault = Fault.TOO_LARGE  # RFC 1870 section 6.3
        # RFC 5321 section 4.5.3.1.6: a line is as long as it is without the dot that DATA put before it.
        elif self.fault is Fault.NONE and not self._lines_fit(content):
            self.fault = Fault.LONG_LINE
        if self.fault is not Fault.NONE:
            return b""
        if not self.eight_bit and not content.isascii():
            self.eight_bit = True
        return content

    def spoil(self) -> None:
        """The line ends are wrong (found by the framing itself)."""
        self.fault = Fault.LINE_ENDS

    def _line_ends_sound(self, wire: bytes) -> bool:
        self._kinds.decode(wire.decode("latin-1"))
        kinds = self._kinds.newlines
        if kinds is None or kinds == "\r\n":
            return True
        # RFC 5321 section 2.3.8: CR and LF occur only together. A bare LF may be normalised, a bare CR never is.
        return self._normalise and "\r" not in ((kinds,) if isinstance(kinds, str) else kinds)

    def _lines_fit(self, content: bytes) -> bool:
        """True while no line, its end included, is longer than the limit. Looks only at one line end per limit's length."""
        start, end = -self._line, len(content)
        while end - start > self._line_limit:
            newline = content.rfind(b"\n", max(start, 0), start + self._line_limit)
            if newline < 0:
                return False
            start = newline + 1
        newline = content.rfind(b"\n", max(start, 0))
        self._line = end - start if newline < 0 else end - newline - 1
        return True


class DataFraming:
    """Reads a DATA message. `feed` until `done`; the session then goes on at the offset that the last `feed` returned."""

    __slots__ = ("_end", "_held", "_skip", "_started", "_strict", "content", "done")

    def __init__(self, content: Content, lines: LineEnds) -> None:
        self.content = content
        self.done = False
        self._strict = lines is LineEnds.STRICT
        self._end = _END[lines]
        self._held = b""
        self._started = False
        self._skip = False  # the line end at the front is the DATA command's, not the message's

    def feed(self, data: bytes, start: int) -> tuple[bytes, int]:
        """Read `data` from `start`. Returns content to hand on (b"" if none) and the offset in `data` up to which it was read."""
        size = len(data)
        if not self._started:
            self._started = True
            # Only a message that begins with a dot needs to know that a line begins here (and old devices' messages, always).
            if not self._strict or data[start] == 0x2E:
                self._held = self._end[: self._end.index(b".")]
                self._skip = True
        if self._held:
            data = self._held + data[start:]
            start, self._held = 0, b""
        shift = size - len(data)
        end, dots = self._find_end(data, start)
        if end < 0:
            cut = len(data) - self._tail(data)
            self._held = data[cut:]
            return self._hand_on(data[start:cut], dots), size
        self.done = True
        last_line = end + self._end.index(b".")
        return self._hand_on(data[start:last_line], dots), end + len(self._end) + shift

    def _find_end(self, data: bytes, start: int) -> tuple[int, bool]:
        """Where the end of data begins (-1: not here), and whether dots may have to be taken off in front of it."""
        if not self._strict:
            return data.find(self._end, start), True
        # Most reads hold no line that begins with a dot, or only the end of data itself; searching from behind is the cheaper way.
        last = data.rfind(_CRLF_DOT, start) if data.find(b".", start) >= 0 else -1
        if last < 0:
            return -1, False
        if data.rfind(_CRLF_DOT, start, last + 2) < 0 and data.startswith(self._end, last):
            return last, False
        return data.find(self._end, start), True

    def _tail(self, data: bytes) -> int:
        """How many octets at the end must wait for what comes next."""
        if not data or data[-1] not in _TAIL_OCTETS:
            return 0
        tails = _STRICT_TAILS if self._strict else _NORMALISING_TAILS
        return next((len(tail) for tail in tails if data.endswith(tail)), 0)

    def _hand_on(self, wire: bytes, dots: bool) -> bytes:
        if not wire:
            return b""
        self.content.examine(wire)
        if not self._strict:
            wire = _normalised(wire)
        if dots:
            # RFC 5321 section 4.5.2. Split and join search once where replace() would search twice.
            wire = b"\r\n".join(wire.split(_CRLF_DOT))
        if self._skip:
            wire = wire[2:]  # by now it is CRLF
            self._skip = False
        return self.content.enter(wire) if wire else b""


class ChunkFraming:
    """Reads the BDAT chunks of one message, which may be cut anywhere, between CR and LF too. No dots: RFC 3030 section 2."""

    __slots__ = ("_held", "_normalise", "_unfinished", "content")

    def __init__(self, content: Content, *, normalise: bool) -> None:
        self.content = content
        self._normalise = normalise
        self._held = b""
        self._unfinished = False  # the last octet handed on was no line end

    def feed(self, data: bytes) -> bytes:
        """A piece of a chunk. Returns content to hand on, b"" if none."""
        if self._held:
            data = self._held + data
            self._held = b""
        if data.endswith(b"\r"):
            data, self._held = data[:-1], b"\r"
        if not data:
            return b""
        self.content.examine(data)
        self._unfinished = not data.endswith(b"\n")
        return self.content.enter(_normalised(data) if self._normalise else data)

    def finish(self) -> bytes:
        """After LAST. A message whose last line is unfinished is given its CRLF, as every next hop would have to (RFC 5321 section 4.1.1.4)."""
        if self._held:
            self._held = b""
            self.content.spoil()
        return self.content.enter(b"\r\n") if self._unfinished else b""


def _normalised(wire: bytes) -> bytes:
    return wire.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
