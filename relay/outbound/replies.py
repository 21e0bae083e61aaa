"""A hop's replies (RFC 5321 section 4.2) out of the bytes as they come. Sans-IO; knows nothing of what was asked.

Threat: a hop that never ends its line or its reply. Both are bounded, and what is no reply is a fault, never skipped.
"""

import re
from dataclasses import dataclass
from functools import lru_cache

from relay.mail.reply import Reply

MAX_LINE = 4096  # octets; RFC 5321 section 4.5.3.1.5 says 512
MAX_REPLY = 65536
_USUAL = 80  # octets of a line that may be worth remembering

_LINE = re.compile(rb"([2-5][0-9]{2})(?:([ -])(?:([245]\.[0-9]{1,3}\.[0-9]{1,3})(?:[ \t]+|\Z))?(.*))?\Z", re.DOTALL)


class ReplyReader:
    """`feed` gives the replies that are complete. Once `fault` says what was wrong, nothing more comes: a hop out of step is not believed."""

    __slots__ = ("_code", "_lines", "_rest", "_size", "_status", "fault")

    def __init__(self) -> None:
        self.fault = ""
        self._rest = b""
        self._code = b""  # of a reply whose last line has not come
        self._status = ""
        self._lines: list[str] = []
        self._size = 0

    @property
    def is_between(self) -> bool:
        """True where no reply has begun."""
        return not self._rest and not self._lines

    def feed(self, data: bytes) -> list[Reply]:
        """Replies in order; those that came before the fault are good."""
        if self._rest:
            data = self._rest + data
        replies: list[Reply] = []
        start = 0
        while not self.fault and (end := data.find(b"\n", start)) >= 0:
            self._line(data[start : end - 1 if end > start and data[end - 1] == 13 else end], replies)
            start = end + 1
        self._rest = b"" if self.fault else data[start:]
        if len(self._rest) > MAX_LINE:
            self.fault, self._rest = "a reply line without end", b""
        return replies

    def _line(self, line: bytes, replies: list[Reply]) -> None:
        found = _parsed(line) if len(line) <= _USUAL else _parse(line)
        self._size += len(line)
        if found is None or self._lines or self._size > MAX_LINE:
            self.fault = self._fault_of(line, found.code if found else b"")
            if self.fault or found is None:
                return
        if found.goes_on:
            self._code = found.code
            self._status = self._status or found.reply.status
            self._lines.append(found.reply.text)
            return
        reply = found.reply
        if self._lines:
            # RFC 2034 section 4: the status is on every line of the reply; the first one counts.
            reply = Reply(reply.code, self._status or reply.status, "\n".join((*self._lines, reply.text)))
            self._lines.clear()
        replies.append(reply)
        self._status, self._size = "", 0

    def _fault_of(self, line: bytes, code: bytes) -> str:
        if len(line) > MAX_LINE:
            return "a reply line without end"
        if not code:
            return f"not an SMTP reply: {_text(line[:80])!r}"
        if self._lines and code != self._code:
            # RFC 5321 section 4.2.1: every line of a reply has the same code.
            return f"a reply that begins with {_text(self._code)} and goes on with {_text(code)}"
        return "a reply without end" if self._size > MAX_REPLY else ""


@dataclass(frozen=True, slots=True)
class _Line:
    """One line of a reply. `goes_on` where more lines follow."""

    code: bytes
    goes_on: bool
    reply: Reply


def _parse(line: bytes) -> _Line | None:
    """None for what is no line of a reply."""
    found = _LINE.match(line)
    if found is None:
        return None
    code, mark, status, raw = found.groups()
    text, known = _text(raw or b""), ""
    if status and status[0] == code[0]:
        known = status.decode()
    elif status:
        text = f"{status.decode()} {text}"  # of another class: only text
    return _Line(code, mark == b"-", Reply(int(code), known, text))


_parsed = lru_cache(maxsize=1024)(_parse)
"""Most hops say the same few lines again and again."""


def _text(raw: bytes) -> str:
    """For logs and reports: printable, whatever the hop sent."""
    text = raw.decode("utf-8", "replace")
    return text if text.isprintable() else "".join(each if each.isprintable() else "?" for each in text)
