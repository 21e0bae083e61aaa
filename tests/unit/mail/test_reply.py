"""Replies on the wire: a peer's text in them can not break out of its line."""

from hypothesis import given
from hypothesis import strategies as st

from relay.mail.reply import Reply


def test_one_line_with_its_status() -> None:
    assert Reply(250, "2.1.0", "fine").encode() == b"250 2.1.0 fine\r\n"
    assert Reply(354, "", "go ahead").encode() == b"354 go ahead\r\n"


def test_several_lines() -> None:
    assert Reply(250, "", "relay\nSIZE 10\nHELP").encode() == b"250-relay\r\n250-SIZE 10\r\n250 HELP\r\n"
    assert Reply(550, "5.7.1", "no\nbecause").encode() == b"550-5.7.1 no\r\n550 5.7.1 because\r\n"


def test_what_kind_it_is() -> None:
    assert [Reply(code, "", "").is_positive for code in (220, 354, 451, 550)] == [True, True, False, False]
    assert [Reply(code, "", "").is_transient for code in (220, 354, 451, 550)] == [False, False, True, False]
    assert (str(Reply(250, "2.0.0", "x")), str(Reply(220, "", "x"))) == ("250 2.0.0 x", "220 x")


@given(st.text(max_size=900))
def test_every_line_is_short_ascii_and_begins_with_its_code(text: str) -> None:
    wire = Reply(550, "5.7.1", text).encode()
    lines = wire.removesuffix(b"\r\n").split(b"\r\n")
    assert len(lines) == text.count("\n") + 1
    for line in lines:
        assert line.startswith((b"550-5.7.1 ", b"550 5.7.1 "))
        assert len(line) <= 510
        assert all(32 <= octet < 127 for octet in line)
