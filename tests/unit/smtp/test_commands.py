"""Arguments of commands to values. What is refused, and with which reply, the dialogs show too; here stand the edges."""

import pytest

from relay.mail.address import NULL, Address
from relay.mail.envelope import Body, Notify, Recipient, Ret
from relay.smtp import replies
from relay.smtp.commands import (
    Chunk,
    CommandError,
    decode_line,
    parse_bdat,
    parse_hello,
    parse_mail,
    parse_rcpt,
)
from relay.smtp.events import MailFrom


def mail(argument: str, *, auth_offered: bool = False, tls: bool = False) -> MailFrom:
    return parse_mail(argument, auth_offered=auth_offered, tls=tls)


def rcpt(argument: str, *, smtputf8: bool = False) -> Recipient:
    return parse_rcpt(argument, smtputf8=smtputf8)


def test_mail_takes_every_parameter_of_ours() -> None:
    words = "FROM:<a@Example.ORG> SIZE=123  BODY=8bitmime SMTPUTF8 RET=full ENVID=id+2B1 AUTH=<> RequireTLS"
    found = mail(words, auth_offered=True, tls=True)
    assert found == MailFrom(Address("a", "example.org"), Body.EIGHT_BIT, True, Ret.FULL, "id+2B1", 123, True)


def test_mail_without_parameters() -> None:
    assert mail("from:<>") == MailFrom(NULL, Body.SEVEN_BIT, False, Ret.UNSET, "", 0)


@pytest.mark.parametrize(
    ("argument", "code", "status"),
    [
        ("", 501, "5.5.4"),
        ("FROM:", 501, "5.5.4"),
        ("FROM <a@example.org>", 501, "5.5.4"),
        ('FROM:"', 501, "5.5.4"),
        ("FROM:<a@example.org> SIZE", 501, "5.5.4"),
        ("FROM:<a@example.org> SIZE=", 501, "5.5.4"),
        ("FROM:<a@example.org> SIZE=-1", 501, "5.5.4"),
        ("FROM:<a@example.org> SIZE=1_0", 501, "5.5.4"),
        ("FROM:<a@example.org> SIZE=١٢", 501, "5.5.4"),
        ("FROM:<a@example.org> BODY=", 501, "5.5.4"),
        ("FROM:<a@example.org> RET=", 501, "5.5.4"),
        ("FROM:<a@example.org> RET", 501, "5.5.4"),
        ("FROM:<a@example.org> ENVID=" + "x" * 301, 501, "5.5.4"),
        ("FROM:<a@example.org> ENVID=a=b", 501, "5.5.4"),
        ("FROM:<a@example.org> ENVID=ü", 501, "5.5.4"),
        ("FROM:<a@example.org> AUTH=<>", 555, "5.5.4"),
        ("FROM:<a@example.org> -X", 501, "5.5.4"),
        ("FROM:<a@example.org> X_Y=1", 501, "5.5.4"),
        ("FROM:<a@example.org> =", 501, "5.5.4"),
        ("FROM:<a@example.org> X-Y=ü", 501, "5.5.4"),
        ("FROM:<a@example.org> SIZE==1", 501, "5.5.4"),
        ("FROM:<a@example.org> SMTPUTF8=", 501, "5.5.4"),
        ("FROM:<a@example.org> REQUIRETLS", 530, "5.7.10"),
        ("FROM:<> REQUIRETLS", 530, "5.7.10"),
        ("FROM:<a@example.org> REQUIRETLS=", 501, "5.5.4"),
        ("FROM:<a@example.org> REQUIRETLS=yes", 501, "5.5.4"),
        ("FROM:<a@example.org> REQUIRETLS REQUIRETLS", 501, "5.5.4"),
        ("FROM:<a@example.org> REQUIRETL\u017f", 501, "5.5.4"),
        # "\u017f" and "\u0131" become S and I in upper case
        ("FROM:<a@example.org> \u017fIZE=1", 501, "5.5.4"),
        ("FROM:<a@example.org> RET=HDR\u017f", 501, "5.5.4"),
    ],
)
def test_mail_refused(argument: str, code: int, status: str) -> None:
    with pytest.raises(CommandError) as refused:
        mail(argument)
    assert (refused.value.reply.code, refused.value.reply.status) == (code, status)


@pytest.mark.parametrize("parameter", ["REQUIRETLS=", "REQUIRETLS=yes", "REQUIRETLS=NO"])
def test_requiretls_has_no_value(parameter: str) -> None:
    """RFC 8689 section 2. Whoever writes one means something that we do not know."""
    with pytest.raises(CommandError) as refused:
        mail(f"FROM:<a@example.org> {parameter}", tls=True)
    assert refused.value.reply.code == 501


def test_inside_tls_nothing_is_required_that_was_not_asked_for() -> None:
    assert not mail("FROM:<a@example.org>", tls=True).requiretls


def test_mail_auth_is_checked_where_auth_is_offered() -> None:
    with pytest.raises(CommandError):
        mail("FROM:<a@example.org> AUTH=a+0", auth_offered=True)
    assert mail("FROM:<a@example.org> AUTH=a+2Bb", auth_offered=True).sender.local == "a"


@pytest.mark.parametrize(
    ("path", "address"),
    [
        ('<"a b"@example.org>', Address('"a b"', "example.org")),
        ('<"a\\" <b>"@example.org>', Address('"a\\" <b>"', "example.org")),
        ('"a b"@example.org', Address('"a b"', "example.org")),
        ("<a@example.org.>", Address("a", "example.org")),
        ("<@x,@y:a@example.org>", Address("a", "example.org")),
    ],
)
def test_paths_with_and_without_quotes(path: str, address: Address) -> None:
    assert mail(f"FROM:{path} SIZE=7").sender == address
    assert mail(f"FROM: {path}").sender == address


def test_rcpt_takes_every_parameter_of_ours() -> None:
    found = rcpt("TO:<b@example.com> NOTIFY=delay,Success ORCPT=RFC822;b+2Bx@example.com")
    assert found == Recipient(
        Address("b", "example.com"), frozenset({Notify.DELAY, Notify.SUCCESS}), "RFC822;b+2Bx@example.com"
    )


@pytest.mark.parametrize(
    "parameters",
    [
        "NOTIFY=",
        "NOTIFY=,",
        "NOTIFY=SUCCESS,",
        "NOTIFY=SUCCESS,,DELAY",
        "NOTIFY=ALWAYS",
        "NOTIFY=NEVER,NEVER",
        "NOTIFY=FA\u0131LURE",
        "ORCPT",
        "ORCPT=;b@example.com",
        "ORCPT=rfc822;",
        "ORCPT=rf/c;b",
        "ORCPT=rfc822;a+7F",
        "ORCPT=rfc822;a+ff",
        "ORCPT=rfc822;" + "x" * 500,
        "ORCPT=utf-8;",
        "ORCPT=utf-8;\\x{0A}",
        "ORCPT=utf-8;\\x{85}",
        "ORCPT=utf-8;\\x{110000}",
        "ORCPT=utf-8;\\y",
        "ORCPT=utf-8;+0A",
    ],
)
def test_rcpt_parameters_refused(parameters: str) -> None:
    with pytest.raises(CommandError) as refused:
        rcpt(f"TO:<b@example.com> {parameters}", smtputf8=True)
    assert refused.value.reply.code == 501


def test_utf8_orcpt_in_both_forms() -> None:
    assert rcpt("TO:<b@example.com> ORCPT=utf-8;\\x{10FFFF}@x").orcpt == "utf-8;\\x{10FFFF}@x"
    assert rcpt("TO:<b@example.com> ORCPT=utf-8;é@x", smtputf8=True).orcpt == "utf-8;é@x"


@pytest.mark.parametrize(
    ("argument", "chunk"),
    [("0", Chunk(0, False)), ("12 LAST", Chunk(12, True)), ("12 last ", Chunk(12, True)), ("007", Chunk(7, False))],
)
def test_bdat(argument: str, chunk: Chunk) -> None:
    assert parse_bdat(argument) == chunk


@pytest.mark.parametrize("argument", ["", "LAST", "-1", "1 FIRST", "1 LAST LAST", "0x10", "1" * 21, "²", "1 LA\u017fT"])
def test_bdat_refused(argument: str) -> None:
    with pytest.raises(CommandError) as refused:
        parse_bdat(argument)
    assert refused.value.reply is replies.BDAT_SYNTAX


@pytest.mark.parametrize("name", ["a", "x" * 255, "[192.0.2.1]", "[IPv6:::1]", "my_pc", "a b c"])
def test_hello(name: str) -> None:
    assert parse_hello(name) == name.split(" ")[0]


@pytest.mark.parametrize("name", ["", "x" * 256, "a(b", "a)b", 'a"b', "a\\b", "a;b", "a,b", "<a>", "é", "a@b"])
def test_hello_refuses_what_would_break_a_received_field(name: str) -> None:
    with pytest.raises(CommandError):
        parse_hello(name)


def test_lines() -> None:
    assert decode_line("NOOP é\u00ad \t".encode()) == "NOOP é\u00ad"
    for bad in (b"a\tb", b"a\x7f", "\u2028".encode(), b"\x1b"):
        with pytest.raises(CommandError) as refused:
            decode_line(bad)
        assert refused.value.reply is replies.CONTROL
    with pytest.raises(CommandError) as refused:
        decode_line(b"\xff")
    assert refused.value.reply is replies.NOT_UTF8
