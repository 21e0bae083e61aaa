"""Runs the scripted dialogs beside this file against the session machine, with the rule-of-thumb driver of tests/unit/smtp/harness.py.

A dialog is a text file. Its lines:

    # ...            a comment
    @ key value      how the listener is set up, see `_settings`
    C: text          the client sends the text and CRLF. Lines of C: in a row go out in one read (they are pipelined)
    C| text          the same without CRLF
    S: text          the server says this line next; `...` at its end stands for any rest
    TLS              the handshake that STARTTLS asked for is made
    MESSAGE a -> b, c the driver was given one more message, from a to b and c; ` : text` behind it is its content, or `(empty)`;
                     ` with REQUIRETLS` in front of that: MAIL asked for it, and else did not
    NO MESSAGE       the driver has been given no message at all
    CLOSED reason    the server closed, for this reason

In C: and MESSAGE text \\r, \\n, \\0, \\t, \\\\ and \\xNN stand for single octets, `{40*abc}` for 40 times abc.
After every block of C lines the server must have said exactly the S lines that follow. Every dialog runs twice, the second time with
every octet in a read of its own, unless it says `@ reads whole` because it is about what stands in one read.
"""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from relay.config.models import ListenerKind
from relay.mail.reply import Reply
from relay.smtp.events import Close
from relay.smtp.session import SessionSettings
from tests.unit.smtp.harness import Harness

DIALOGS = sorted(Path(__file__).parent.glob("[0-9][0-9]-*.txt"))
_ESCAPE = re.compile(rb"\\(x[0-9A-Fa-f]{2}|.)")
_REPEAT = re.compile(r"\{(\d+)\*([^}]*)\}")
_SIMPLE = {b"r": b"\r", b"n": b"\n", b"0": b"\0", b"t": b"\t", b"\\": b"\\"}


def octets(text: str) -> bytes:
    repeated = _REPEAT.sub(lambda match: match[2] * int(match[1]), text)
    return _ESCAPE.sub(_unescape, repeated.encode())


def _unescape(match: re.Match[bytes]) -> bytes:
    return bytes((int(match[1][1:], 16),)) if match[1].startswith(b"x") and len(match[1]) == 3 else _SIMPLE[match[1]]


def _settings(settings: SessionSettings, key: str, value: str) -> SessionSettings:
    match key:
        case "listener":
            kind = ListenerKind(value)
            return replace(settings, kind=kind, tls_active=kind is ListenerKind.SUBMISSIONS)
        case "starttls":
            return replace(settings, tls_offered=value == "on")
        case "bare_lf":
            return replace(settings, normalise_bare_lf=value == "normalise")
        case "message_size" | "recipients" | "line_length" | "session_messages" | "errors" | "logins" | "idle_commands":
            number: dict[str, Any] = {key: int(value)}
            return replace(settings, **number)
    raise ValueError(f"unknown setting {key!r}")


class Dialog:
    def __init__(self, path: Path) -> None:
        self.settings = SessionSettings("relay.example.com", tls_offered=True)
        self.whole_only = False
        self.early, self.refusal = b"", ""
        self.steps: list[tuple[int, str, str]] = []
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if not line.strip() or line.startswith("#"):
                continue
            if line.startswith("@ "):
                self._directive(*line[2:].split(" ", 1))
                continue
            kind, _, text = (line[:2], "", line[3:]) if line[:2] in ("C:", "C|", "S:") else line.partition(" ")
            self.steps.append((number, kind, text))

    def _directive(self, key: str, value: str) -> None:
        match key:
            case "reads":
                assert value == "whole"
                self.whole_only = True
            case "early":
                self.early = octets(value)
            case "refuse":
                self.refusal = value
            case _:
                self.settings = _settings(self.settings, key, value)


class Player:
    def __init__(self, dialog: Dialog, *, by_octet: bool) -> None:
        self.dialog = dialog
        self.by_octet = by_octet
        self.harness = Harness(dialog.settings)
        self.seen = 0  # octets of the server's output compared so far
        self.messages = 0

    def play(self) -> None:
        session = self.harness.session
        session.receive(self.dialog.early)
        assert session.talked_early is bool(self.dialog.early)
        if self.dialog.refusal:
            code, status, text = self.dialog.refusal.split(" ", 2)
            session.refuse(Reply(int(code), status, text))
        else:
            session.greet()
        self.harness.run()
        sending = b""
        for number, kind, text in self.dialog.steps:
            if kind in ("C:", "C|"):
                if not sending:
                    self.said_all(number)
                sending += octets(text) + (b"\r\n" if kind == "C:" else b"")
                continue
            self.send(sending)
            sending = b""
            self.check(number, kind, text)
        self.send(sending)
        self.said_all(0)

    def send(self, data: bytes) -> None:
        if self.by_octet:
            self.harness.feed(*(data[index : index + 1] for index in range(len(data))))
        else:
            self.harness.feed(data)

    def check(self, number: int, kind: str, text: str) -> None:
        match kind:
            case "S:":
                line = self.next_line(number)
                expected = text.removesuffix("...")
                matches = line.startswith(expected) if text.endswith("...") else line == expected
                assert matches, f"line {number}: the server said {line!r}"
            case "TLS":
                assert self.harness.handshakes, f"line {number}: nobody asked for a handshake"
                self.harness.handshakes -= 1
                self.harness.session.tls_established()
            case "MESSAGE":
                self.check_message(number, text)
            case "NO":
                assert not self.harness.messages, f"line {number}: {self.harness.messages}"
            case "CLOSED":
                assert self.harness.closed == text, f"line {number}: closed for {self.harness.closed!r}"
                assert isinstance(self.harness.events[-1], Close)
            case _:
                raise AssertionError(f"line {number}: {kind} is no step")

    def check_message(self, number: int, text: str) -> None:
        assert len(self.harness.messages) > self.messages, f"line {number}: no message came"
        envelope, content = self.harness.messages[self.messages]
        self.messages += 1
        way, colon, expected = text.partition(" : ")
        asked = way.endswith(" with REQUIRETLS")
        assert envelope.requiretls is asked, f"line {number}: {envelope}"
        sender, _, recipients = way.removesuffix(" with REQUIRETLS").partition(" -> ")
        assert str(envelope.sender) == sender.strip("<>"), f"line {number}: {envelope}"
        assert [str(each.address) for each in envelope.recipients] == recipients.split(", "), (
            f"line {number}: {envelope}"
        )
        if colon:
            assert content == (b"" if expected == "(empty)" else octets(expected)), f"line {number}"

    def next_line(self, number: int) -> str:
        end = self.harness.log.find(b"\r\n", self.seen)
        assert end >= 0, f"line {number}: the server says nothing"
        line = self.harness.log[self.seen : end].decode()
        self.seen = end + 2
        return line

    def said_all(self, number: int) -> None:
        rest = bytes(self.harness.log[self.seen :])
        assert not rest, f"before line {number}: the server also said {rest!r}"
        assert len(self.harness.messages) == self.messages, "a message came that the dialog does not speak of"


def _cases() -> list[tuple[Path, bool]]:
    return [
        (path, by_octet) for path in DIALOGS for by_octet in (False, True) if not (by_octet and Dialog(path).whole_only)
    ]


@pytest.mark.parametrize(("path", "by_octet"), _cases(), ids=lambda each: each.stem if isinstance(each, Path) else "")
def test_dialog(path: Path, by_octet: bool) -> None:
    Player(Dialog(path), by_octet=by_octet).play()


def test_there_are_dialogs_with_a_purpose() -> None:
    assert len(DIALOGS) >= 30
    for path in DIALOGS:
        assert path.read_text(encoding="utf-8").startswith("# "), f"{path.name} does not say what it shows"
