"""Replies out of bytes, however they are cut, and what is no reply."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.mail.reply import Reply
from relay.outbound.replies import MAX_LINE, MAX_REPLY, ReplyReader

GOOD = [
    (b"250 2.1.0 Ok\r\n", Reply(250, "2.1.0", "Ok")),
    (b"250 ok\r\n", Reply(250, "", "ok")),
    (b"250\r\n", Reply(250, "", "")),
    (b"250 \r\n", Reply(250, "", "")),
    (b"250 ok\n", Reply(250, "", "ok")),
    (b"250 2.0.0\r\n", Reply(250, "2.0.0", "")),
    (b"250-2.0.0 one\r\n250 2.0.0 two\r\n", Reply(250, "2.0.0", "one\ntwo")),
    (b"250-mx.test\r\n250-SIZE 10\r\n250 DSN\r\n", Reply(250, "", "mx.test\nSIZE 10\nDSN")),
    (b"550 4.1.1 of another class\r\n", Reply(550, "", "4.1.1 of another class")),
    (b"550 5.1.1234 not a status\r\n", Reply(550, "", "5.1.1234 not a status")),
    (b"354 2.0.0 go\r\n", Reply(354, "", "2.0.0 go")),
    (b"450 4.2.0\t later\r\n", Reply(450, "4.2.0", "later")),
    ("550 5.1.1 ünbekannt\x1b[2J\r\n".encode(), Reply(550, "5.1.1", "ünbekannt?[2J")),
    (b"550 5.1.1 \xff\r\n", Reply(550, "5.1.1", "\ufffd")),
]


@pytest.mark.parametrize(("raw", "reply"), GOOD, ids=lambda value: repr(value)[:30])
def test_a_reply(raw: bytes, reply: Reply) -> None:
    reader = ReplyReader()
    assert reader.feed(raw) == [reply]
    assert reader.is_between
    assert not reader.fault


@given(st.lists(st.sampled_from(GOOD), max_size=8), st.lists(st.integers(1, 20), min_size=1))
def test_replies_are_the_same_however_they_are_cut(replies: list[tuple[bytes, Reply]], sizes: list[int]) -> None:
    raw = b"".join(each for each, _ in replies)
    reader, found, place, turn = ReplyReader(), list[Reply](), 0, 0
    while place < len(raw):
        size = sizes[turn % len(sizes)]
        found += reader.feed(raw[place : place + size])
        place, turn = place + size, turn + 1
    assert found == [reply for _, reply in replies]
    assert reader.is_between


@pytest.mark.parametrize(
    ("raw", "fault"),
    [
        (b"hello\r\n", "not an SMTP reply: 'hello'"),
        (b"\r\n", "not an SMTP reply: ''"),
        (b"25\r\n", "not an SMTP reply: '25'"),
        (b"2500 x\r\n", "not an SMTP reply: '2500 x'"),
        (b"150 x\r\n", "not an SMTP reply: '150 x'"),
        (b"600 x\r\n", "not an SMTP reply: '600 x'"),
        (b"250_x\r\n", "not an SMTP reply: '250_x'"),
        ("²50 x\r\n".encode(), "not an SMTP reply: '²50 x'"),
        (b"250-a\r\n251 b\r\n", "a reply that begins with 250 and goes on with 251"),
        (b"250 " + b"x" * MAX_LINE + b"\r\n", "a reply line without end"),
        (b"250-" + b"x" * 100 + b"\r\n250 " + b"x" * MAX_LINE + b"\r\n", "a reply line without end"),
        (b"2" * (MAX_LINE + 1), "a reply line without end"),
        (b"250-more\r\n" * MAX_REPLY, "a reply without end"),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_what_is_no_reply(raw: bytes, fault: str) -> None:
    reader = ReplyReader()
    assert reader.feed(raw) == []
    assert reader.fault == fault
    assert reader.feed(b"250 ok\r\n") == []


def test_replies_before_a_fault_are_good() -> None:
    reader = ReplyReader()
    assert reader.feed(b"250 ok\r\n354 go\r\nnonsense\r\n250 never seen\r\n") == [
        Reply(250, "", "ok"),
        Reply(354, "", "go"),
    ]
    assert reader.fault


def test_a_reply_that_has_begun() -> None:
    reader = ReplyReader()
    assert reader.feed(b"250-first\r\n") == []
    assert not reader.is_between
    assert reader.feed(b"250 second\r") == []
    assert reader.feed(b"\n") == [Reply(250, "", "first\nsecond")]


def test_memory_is_bounded_while_a_line_does_not_end() -> None:
    reader = ReplyReader()
    for _ in range(10_000):
        reader.feed(b"250 xxxxxxxxxxxxxxxxxxxxxx")
    assert reader.fault
    assert reader.is_between
