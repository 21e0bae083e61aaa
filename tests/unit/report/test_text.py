import email
import email.policy
import quopri

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.report.text import Part, ascii_line, field, is_seven_bit, multipart, one_line, unitext_decode, xtext_decode

TEXT = st.text(st.characters(), max_size=300) | st.text("\r\n \x00\x1b\u2028:a=", max_size=2000)


@given(TEXT)
def test_a_line_stays_a_line(text: str) -> None:
    for line in (one_line(text), ascii_line(text)):
        assert line.splitlines() in ([line], [])
        assert line.isprintable() or not line.isascii()
        line.encode()
        assert len(line) <= 1000
    assert ascii_line(text).isascii()


@given(TEXT)
def test_a_field_is_one_field_whatever_is_in_it(text: str) -> None:
    encoded = field("Diagnostic-Code", ascii_line(text))
    assert encoded.endswith("\r\n")
    assert all(len(line) <= 998 for line in encoded.split("\r\n"))
    parsed = email.message_from_string(encoded + "\r\n", policy=email.policy.compat32)
    assert parsed.keys() == ["Diagnostic-Code"]
    assert not parsed.defects


def test_a_field_is_folded_at_blanks_and_a_hostile_word_is_broken() -> None:
    assert field("X", "a " * 60).count("\r\n") == 2
    lines = field("X", "y" * 1000).split("\r\n")
    assert [len(line) for line in lines] == [2, 901, 101, 0] or max(map(len, lines)) <= 901
    assert "".join(line.strip() for line in lines) == "X:" + "y" * 1000


@pytest.mark.parametrize(
    ("xtext", "text"),
    [
        ("bob+2Blists@x", "bob+lists@x"),
        ("", ""),
        ("a+3Db", "a=b"),
        ("a+0D+0Ab", "a\r\nb"),
        ("a=b", None),
        ("a+3", None),
        ("a+3d", None),
        ("a b", None),
        ("a+E9b", None),
        ("\u00e9", None),
    ],
)
def test_xtext(xtext: str, text: str | None) -> None:
    assert xtext_decode(xtext) == text


@pytest.mark.parametrize(
    ("unitext", "text"),
    [(r"bj\x{F6}rn@x", "björn@x"), (r"\x{FFFFFF}", "\U0010ffff"), (r"\x{f6}", r"\x{f6}"), ("a", "a")],
)
def test_unitext(unitext: str, text: str) -> None:
    assert unitext_decode(unitext) == text


@given(st.binary(max_size=500).map(lambda data: data.replace(b"\r", b"").replace(b"\n", b"\r\n")))
def test_a_part_is_seven_bit_and_comes_back_as_it_was(content: bytes) -> None:
    head, _blank, body = Part("text/rfc822-headers", "x", content).encode().partition(b"\r\n\r\n")
    assert is_seven_bit(body)
    if b"quoted-printable" in head:
        assert quopri.decodestring(body) == content
    else:
        assert body == content


def test_long_lines_are_not_seven_bit() -> None:
    assert is_seven_bit(b"x" * 998 + b"\r\n")
    assert not is_seven_bit(b"x" * 999 + b"\r\n")
    assert not is_seven_bit(b"a\0b")


def test_a_boundary_that_stands_in_a_part_is_made_longer() -> None:
    boundary, body = multipart([Part("text/plain", "x", b"--b\r\n--b=\r\n")], "b")
    assert boundary == "b=="
    assert body.count(b"--b==") == 2
