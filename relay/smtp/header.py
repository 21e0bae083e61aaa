"""The header section of a message as it streams by: how often it was relayed, its Message-ID, whose it claims to be (RFC 5322), and
whether its sender would have it go without TLS (RFC 8689).

Only collects and answers. It changes nothing, and knows nothing of MIME bodies. The From: field itself is read in `from_field`.

Fed with the session's DataChunks, whose line ends are CRLF for certain. The section ends at the first empty line, or with the message.

Threat: a header without end. Past the limit nothing more is collected, and whatever needs the whole section says so.
"""

import itertools
import re

from relay.smtp.from_field import FromDomain, read_from

_BLANK_LINE = b"\r\n\r\n"
_MAX_MESSAGE_ID = 512
_MAX_LINES = 10_000  # of a header whose From: is wanted; a bound on the work, far beyond any real one
_UNPRINTABLE = re.compile(r"[^\x21-\x7e]+")
_TLS_REQUIRED = re.compile(rb"(?:\A|\r\n)tls-required[ \t]*:")
_FIELD_NAME = re.compile(
    rb"([!-9;-~]+)[ \t]*:"
)  # RFC 5322 section 3.6.8; the space is obsolete (section 4.5) and still read by all


class HeaderScan:
    """Feed every chunk; after `finish` (or once `complete`) ask. `limit`: octets of header that are collected.

    `too_long`: the section is longer than the limit, so `received` and `message_id` speak of its beginning only, there is no
    `header_from` and no `tls_required_no`.
    """

    __slots__ = ("_collected", "_limit", "_lower", "complete", "header", "too_long")

    def __init__(self, limit: int = 2**20) -> None:
        self._limit = limit
        self._collected = bytearray()
        self._lower: bytes | None = None
        self.complete = False
        self.too_long = False
        self.header = b""
        """The section with the CRLF of its last line, without the empty line. Empty until it is complete."""

    def feed(self, data: bytes) -> None:
        """The message's next octets. Costs nothing once the section is complete."""
        if self.complete:
            return
        collected = self._collected
        if not collected:  # nearly always the whole section is in the first chunk
            end = data.find(_BLANK_LINE, 0, self._limit + 2)
            if end >= 0 and not data.startswith(b"\r\n"):
                self._complete(data[: end + 2])
                return
        before = len(collected)
        collected += data[: self._limit + len(_BLANK_LINE) - before]
        if collected.startswith(b"\r\n"):
            self._complete(b"")
            return
        end = collected.find(_BLANK_LINE, max(before - 3, 0), self._limit + 2)
        if end >= 0:
            self._complete(bytes(collected[: end + 2]))
        elif len(collected) >= self._limit + 2:
            self.too_long = True
            self._complete(bytes(collected[: self._limit]))

    def finish(self) -> None:
        """The message is over. One without an empty line is all header."""
        if not self.complete:
            self.too_long = len(self._collected) > self._limit
            self._complete(bytes(self._collected[: self._limit]))

    @property
    def held(self) -> int:
        """Octets in memory."""
        return len(self._collected) + len(self.header)

    def forget(self) -> None:
        """Nobody will ask: hold nothing, and take in nothing more."""
        self._complete(b"")

    @property
    def received(self) -> int:
        """How many Received fields there are (RFC 5321 section 6.3: a way to find loops)."""
        lower = self._lowered
        count = int(lower.startswith(b"received:")) + lower.count(b"\r\nreceived:")
        if b"received " in lower or b"received\t" in lower:
            count += len(re.findall(rb"(?:\A|\n)received[ \t]+:", lower))
        return count

    @property
    def message_id(self) -> str:
        """The first Message-ID as received, white space and all but printable ASCII taken out; "" if there is none."""
        lower = self._lowered
        if lower.startswith(b"message-id:"):
            start = len(b"message-id:")
        else:
            start = lower.find(b"\r\nmessage-id:") + len(b"\r\nmessage-id:")
            if start < len(b"\r\nmessage-id:"):
                return ""
        value = self.header[start : _field_end(lower, start)]
        return _UNPRINTABLE.sub("", value[: 2 * _MAX_MESSAGE_ID].decode("latin-1"))[:_MAX_MESSAGE_ID]

    @property
    def tls_required_no(self) -> bool:
        """The header says `TLS-Required: No` (RFC 8689 section 3), once and in the form given there: white space, no comment, nothing else.

        It asks for less protection, so what is in doubt (a second such field, another value) counts as not said.
        """
        lower = self._lowered
        if self.too_long or b"tls-required" not in lower:
            return False
        fields = list(itertools.islice(_TLS_REQUIRED.finditer(lower), 2))
        if len(fields) != 1:
            return False
        start = fields[0].end()
        return lower[start : _field_end(lower, start)].replace(b"\r\n", b"").strip(b" \t") == b"no"

    @property
    def eight_bit(self) -> bool:
        """The section has octets above 127 (RFC 6532)."""
        return not self.header.isascii()

    def header_from(self) -> str:
        """The domain of the one mailbox in the one From: field, normalised; "" where that is not beyond doubt."""
        return self.from_domain().domain

    def from_domain(self) -> FromDomain:
        """As `header_from`, with the reason where there is no domain, fit for a log."""
        if self.too_long:
            return FromDomain("", "the header is too long")
        return _read_from(self.header)

    def _complete(self, header: bytes) -> None:
        self.header = header
        self.complete = True
        self._collected = bytearray()

    @property
    def _lowered(self) -> bytes:
        if self._lower is None or len(self._lower) != len(self.header):
            self._lower = self.header.lower()
        return self._lower


def _field_end(header: bytes, start: int) -> int:
    """Where the field ends whose value begins at `start`: in front of its CRLF, folded lines included."""
    end = start
    while (end := header.find(b"\r\n", end)) >= 0:
        if header[end + 2 : end + 3] not in (b" ", b"\t"):
            return end
        end += 2
    return len(header)


def _read_from(header: bytes) -> FromDomain:
    """Find the From: field. Anything in the section that two parsers could take apart differently makes the answer "".

    Threat: a line that one program takes for the end of the header and another does not hides a second From: field, or shows one.
    """
    if header.count(b"\r\n") > _MAX_LINES:
        return FromDomain("", "the header has too many lines")
    found: list[list[bytes]] = []
    current = b""
    for line in header.removesuffix(b"\r\n").split(b"\r\n") if header else ():
        if line[:1] in (b" ", b"\t"):
            if not current or not line.strip(b" \t"):
                return FromDomain("", "the header has a line of white space only, or begins with a folded line")
            if current == b"from":
                found[-1].append(line)
            continue
        name = _FIELD_NAME.match(line)
        if name is None:
            return FromDomain("", "the header has a line that is no field")
        current = name[1].lower()
        if current == b"from":
            found.append([line[name.end() :]])
    if len(found) != 1:
        return FromDomain("", "there are several From: fields" if found else "there is no From: field")
    return read_from(b"".join(found[0]))
