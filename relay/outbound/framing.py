"""A message as DATA carries it: dots stuffed, the lone dot at the end (RFC 5321 section 4.5.2). All else stays as it is.

The search for line ends is one call of bytes.replace() a piece; only what lies across two pieces is looked at here.
"""


class DotStuffing:
    """One per message. Pieces may be cut anywhere, within CRLF too."""

    __slots__ = ("_tail",)

    def __init__(self) -> None:
        self._tail = b"\r\n"  # the first line begins where a line has ended

    def feed(self, piece: bytes) -> bytes:
        stuffed = piece.replace(b"\r\n.", b"\r\n..")
        if self._tail == b"\r\n" and piece[:1] == b".":
            stuffed = b"." + stuffed
        elif self._tail[-1:] == b"\r" and piece[:2] == b"\n.":
            stuffed = b"\n." + stuffed[1:]
        self._tail = piece[-2:] if len(piece) > 1 else (self._tail + piece)[-2:]
        return stuffed

    def end(self) -> bytes:
        """What ends the message. A last line without CRLF gets it, since DATA can not end otherwise (RFC 5321 section 4.1.1.4)."""
        return b".\r\n" if self._tail == b"\r\n" else b"\r\n.\r\n"
