"""MAIL and RCPT for what a hop offers, and what of a message it can not carry."""

from dataclasses import replace
from typing import Any

import pytest

from relay.mail.address import parse_mailbox
from relay.mail.envelope import Body as BodyType
from relay.mail.envelope import Notify, Recipient, Ret
from relay.outbound.commands import commands, header_is_utf8, needs_look_at_header
from relay.outbound.offer import NOTHING, Offer
from tests.unit.outbound.builders import HEADER, Body, message

ALL = Offer(eight_bit=True, smtputf8=True, dsn=True, size=True)
DSN = {"ret": Ret.HEADERS, "envid": "QQ314+2B159"}
BOB = Recipient(parse_mailbox("bob@b.example"), frozenset({Notify.FAILURE, Notify.SUCCESS}), "rfc822;bob@b.example")
LATIN = "Subject: x\r\n\r\nä\r\n".encode()
SIZE = len(HEADER) + 25


@pytest.mark.parametrize(
    ("offer", "values", "mail"),
    [
        (NOTHING, {}, "<anna@a.example>"),
        (ALL, {}, f"<anna@a.example> SIZE={SIZE}"),
        (ALL, {"sender": "<>"}, f"<> SIZE={SIZE}"),
        (ALL, {"content": LATIN}, f"<anna@a.example> SIZE={len(HEADER) + len(LATIN)} BODY=8BITMIME"),
        (ALL, {"body": BodyType.EIGHT_BIT}, f"<anna@a.example> SIZE={SIZE}"),
        (ALL, {"smtputf8": True}, f"<anna@a.example> SIZE={SIZE} SMTPUTF8"),
        (ALL, {"sender": "<änna@a.example>"}, f"<änna@a.example> SIZE={SIZE} SMTPUTF8"),
        (NOTHING, {"smtputf8": True}, "<anna@a.example>"),
        (ALL, DSN, f"<anna@a.example> SIZE={SIZE} RET=HDRS ENVID=QQ314+2B159"),
        (NOTHING, DSN, "<anna@a.example>"),
        (Offer(dsn=True), {"envid": "x"}, "<anna@a.example> ENVID=x"),
        (Offer(size=True, size_limit=SIZE), {}, f"<anna@a.example> SIZE={SIZE}"),
        (replace(ALL, requiretls=True), {}, f"<anna@a.example> SIZE={SIZE}"),
        (replace(ALL, requiretls=True), {"requiretls": True}, f"<anna@a.example> SIZE={SIZE} REQUIRETLS"),
        (replace(ALL, requiretls=True), {"requiretls": True, "sender": "<>"}, f"<> SIZE={SIZE} REQUIRETLS"),
        (
            replace(ALL, requiretls=True),
            {"requiretls": True, "smtputf8": True, **DSN},
            f"<anna@a.example> SIZE={SIZE} SMTPUTF8 REQUIRETLS RET=HDRS ENVID=QQ314+2B159",
        ),
        (replace(ALL, requiretls=True), {"tls_optional": True}, f"<anna@a.example> SIZE={SIZE}"),
    ],
)
def test_mail(offer: Offer, values: dict[str, Any], mail: str) -> None:
    content = values.pop("content", b"Subject: hello\r\n\r\nbody!\r\n")
    made = commands(message("bob@b.example", content=content, **values), [0], offer)
    assert made.mail.decode() == f"MAIL FROM:{mail}\r\n"
    assert made.recipients == (b"RCPT TO:<bob@b.example>\r\n",)
    assert (made.indexes, made.refused) == ((0,), {})


@pytest.mark.parametrize(
    ("recipient", "line"),
    [
        (BOB, b"RCPT TO:<bob@b.example> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;bob@b.example\r\n"),
        (Recipient(BOB.address, frozenset({Notify.NEVER})), b"RCPT TO:<bob@b.example> NOTIFY=NEVER\r\n"),
        (
            Recipient(BOB.address, orcpt="utf-8;bøb@b.example"),
            b"RCPT TO:<bob@b.example> ORCPT=utf-8;b\\x{F8}b@b.example\r\n",
        ),
        (Recipient(parse_mailbox('"b b"@b.example')), b'RCPT TO:<"b b"@b.example>\r\n'),
    ],
)
def test_rcpt_with_dsn(recipient: Recipient, line: bytes) -> None:
    assert commands(message(recipient), [0], ALL).recipients == (line,)


def test_rcpt_without_dsn() -> None:
    assert commands(message(BOB), [0], NOTHING).recipients == (b"RCPT TO:<bob@b.example>\r\n",)


@pytest.mark.parametrize(
    ("offer", "values", "status"),
    [
        (NOTHING, {"content": LATIN}, "5.6.3"),
        (ALL, {"requiretls": True}, "5.7.30"),
        (NOTHING, {"requiretls": True, "content": LATIN}, "5.7.30"),
        (Offer(size=True, size_limit=10), {}, "5.3.4"),
        (Offer(eight_bit=True), {"sender": "<änna@a.example>"}, "5.6.7"),
        (Offer(eight_bit=True), {"content": LATIN, "smtputf8": True, "look": True}, "5.6.7"),
    ],
)
def test_what_can_not_be_carried(offer: Offer, values: dict[str, Any], status: str) -> None:
    look = values.pop("look", False)
    made = commands(message("bob@b.example", "carl@b.example", **values), [0, 1], offer, utf8_header=look)
    assert {index: outcome.status for index, outcome in made.refused.items()} == {0: status, 1: status}
    assert (made.mail, made.recipients) == (b"", ())


def test_only_the_recipient_that_needs_smtputf8_is_refused() -> None:
    made = commands(message("bøb@b.example", "carl@b.example"), [0, 1], Offer(eight_bit=True))
    assert (made.indexes, list(made.refused)) == ((1,), [0])
    made = commands(message("bøb@b.example", "carl@b.example"), [0, 1], ALL)
    assert made.indexes == (0, 1)
    assert made.mail.endswith(b" SMTPUTF8\r\n")


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        (["Subject: ä\r\n\r\nx\r\n"], True),
        (["Subject: a\r\n\r\nä\r\n"], False),
        (["Subject: a\r\n\r", "\nä\r\n"], False),
        (["Subject: a\r", "\n", "\r", "\nä\r\n"], False),
        (["Subject: a\r\n", "ä: x\r\n\r\n"], True),
        (["\r\nä\r\n"], False),
        (["Subject: a\r\n"], False),
        ([], False),
    ],
)
async def test_whether_the_header_holds_utf8(pieces: list[str], *, expected: bool) -> None:
    assert await header_is_utf8(Body([each.encode() for each in pieces])) is expected


def test_the_header_is_looked_at_only_where_it_matters() -> None:
    asked = message("bob@b.example", content=LATIN, smtputf8=True)
    assert needs_look_at_header(asked, NOTHING)
    assert not needs_look_at_header(asked, ALL)
    assert not needs_look_at_header(message("bob@b.example", content=LATIN), NOTHING)
    assert not needs_look_at_header(message("bob@b.example", smtputf8=True), NOTHING)


def test_a_control_character_can_not_get_out() -> None:
    with pytest.raises(ValueError, match="control"):
        commands(message("bob@b.example", envid="x\r\nRCPT TO:<mallory@x>"), [0], ALL)


@pytest.mark.parametrize(
    ("extensions", "limit"),
    [
        ({"size": "100"}, 100),
        ({"size": ""}, 0),
        ({"size": "-1"}, 0),
        ({"size": "9" * 30}, 0),
        ({"size": "²"}, 0),
        ({}, 0),
    ],
)
def test_the_size_limit_of_an_offer(extensions: dict[str, str], limit: int) -> None:
    offer = Offer.of(extensions, ())
    assert (offer.size_limit, offer.size) == (limit, "size" in extensions)
