"""Text for reports: one line that cannot break out of its place, folded fields, MIME parts that are always 7-bit clean.

Hand-built where the standard library would choose for us: the bytes are the same on every Python, and golden files can hold them.

Threat: what peers said (replies, ORCPT, ENVID, addresses) stands in our reports and must not be able to add a header field, a MIME part
or a terminal command (RFC 3464 section 4).
"""

import binascii
import re
import textwrap
from collections.abc import Iterable
from dataclasses import dataclass

CRLF = "\r\n"

_UNFIT = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]+")
_NOT_ASCII = re.compile(r"[^\x20-\x7e]")
_XTEXT = re.compile(r"(?:[!-*,-<>-~]|\+[0-9A-F]{2})*\Z")
_HEX = re.compile(r"\+([0-9A-F]{2})")
_EMBEDDED = re.compile(r"\\x\{([0-9A-F]{2,6})\}")
_WIDTH = 76
_LIMIT = 900  # RFC 5322 section 2.1.1: a line has at most 998 octets
_LONG = 1000


def one_line(text: str) -> str:
    """Without control characters, line breaks and direction overrides; at most `_LONG` characters."""
    return " ".join(_UNFIT.sub(" ", text).split())[:_LONG]


def ascii_line(text: str) -> str:
    """As `one_line`, and all beyond ASCII as "?"."""
    return _NOT_ASCII.sub("?", one_line(text))


def xtext_decode(text: str) -> str | None:
    """What xtext stands for (RFC 3461 section 4), None where it is not xtext. The result may hold anything: pass it through `one_line`."""
    if not _XTEXT.match(text):
        return None
    raw = _HEX.sub(lambda match: chr(int(match[1], 16)), text)
    return raw if raw.isascii() else None


def unitext_decode(text: str) -> str:
    r"""Embedded characters `\x{HEX}` of a utf-8 address as what they stand for (RFC 6533 section 3)."""
    return _EMBEDDED.sub(lambda match: chr(min(int(match[1], 16), 0x10FFFF)), text)


def field(name: str, value: str) -> str:
    """`Name: value`, folded at blanks, with its CRLF. A word longer than a line may be is broken, which only hostile ones are."""
    words = textwrap.wrap(
        f"{name}: {value}",
        _WIDTH,
        break_long_words=False,
        break_on_hyphens=False,
        subsequent_indent=" ",
    )
    pieces = (line[start : start + _LIMIT] for line in words for start in range(0, len(line), _LIMIT))
    return "".join((piece if not number else f" {piece.lstrip()}") + CRLF for number, piece in enumerate(pieces))


def paragraph(text: str, indent: str = "") -> str:
    """Wrapped for people to read; CRLF at the end."""
    lines = textwrap.wrap(
        text, _WIDTH, initial_indent=indent, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )
    return "".join(line + CRLF for line in lines)


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a multipart: its type as in Content-Type, a description, and its content (line ends CRLF).

    With a `filename` (letters that need no quoting) it is an attachment of any bytes, in base64.
    """

    content_type: str
    description: str
    content: bytes
    filename: str = ""

    def encode(self) -> bytes:
        encoding, body = ("base64", _base64(self.content)) if self.filename else _encoded(self.content)
        head = field("Content-Description", self.description) + field("Content-Type", self.content_type)
        if self.filename:
            head += field("Content-Disposition", f'attachment; filename="{self.filename}"')
        if encoding != "7bit":
            head += field("Content-Transfer-Encoding", encoding)
        return head.encode("ascii") + b"\r\n" + body


def is_seven_bit(content: bytes) -> bool:
    """True where it can go as it is on any hop: ASCII, no NUL, no line too long (RFC 2045 section 2.7)."""
    return content.isascii() and b"\0" not in content and all(len(line) <= 998 for line in content.split(b"\r\n"))


def _encoded(content: bytes) -> tuple[str, bytes]:
    if is_seven_bit(content):
        return "7bit", content
    return "quoted-printable", binascii.b2a_qp(content, istext=True)


def _base64(content: bytes) -> bytes:
    """Lines of 76 (RFC 2045 section 6.8)."""
    lines = (content[start : start + 57] for start in range(0, len(content), 57))
    return b"".join(binascii.b2a_base64(line, newline=False) + b"\r\n" for line in lines)


def multipart(parts: Iterable[Part], boundary: str) -> tuple[str, bytes]:
    """The boundary really used and the body. The one asked for is made longer until no part holds it."""
    encoded = [part.encode() for part in parts]
    while any(boundary.encode("ascii") in each for each in encoded):
        boundary += "="
    line = f"--{boundary}".encode("ascii")
    # RFC 2046 section 5.1.1: the CRLF before a boundary belongs to the boundary, so each part keeps its own as well.
    body = b"".join(line + b"\r\n" + each + b"\r\n" for each in encoded)
    return boundary, body + line + b"--\r\n"
