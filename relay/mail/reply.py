"""SMTP replies (RFC 5321 section 4.2) with enhanced status codes (RFC 2034, RFC 3463)."""

import re
from dataclasses import dataclass

_UNPRINTABLE = re.compile(r"[^\x20-\x7e]")
_WIDTH = 400  # RFC 5321 section 4.5.3.1.5: 512 octets a reply line, code, status and CRLF included


@dataclass(frozen=True, slots=True)
class Reply:
    """`status` is "" for the replies that have none (greeting, HELO and EHLO, 3xx). Lines of `text` are split at newlines."""

    code: int
    status: str
    text: str

    @property
    def is_positive(self) -> bool:
        return self.code < 400

    @property
    def is_transient(self) -> bool:
        return 400 <= self.code < 500

    def encode(self) -> bytes:
        """The reply on the wire. Text that came from a peer cannot break out of its line: all but printable ASCII becomes "?"."""
        prefix = f"{self.status} " if self.status else ""
        text = self.text
        if len(text) <= _WIDTH and text.isascii() and text.isprintable():  # nearly all, and one line
            return f"{self.code} {prefix}{text}\r\n".encode("ascii")
        lines = [_UNPRINTABLE.sub("?", line)[:_WIDTH] for line in text.split("\n")]
        last = lines.pop()
        head = "".join(f"{self.code}-{prefix}{line}\r\n" for line in lines)
        return f"{head}{self.code} {prefix}{last}\r\n".encode("ascii")

    def __str__(self) -> str:
        return f"{self.code} {self.status} {self.text}" if self.status else f"{self.code} {self.text}"
