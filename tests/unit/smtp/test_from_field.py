"""Which From: values are one address beyond doubt. The attacks are those of "Composition Kills" (2020) and Mailsploit (2017)."""

import base64

import pytest

from relay.smtp.from_field import read_from


def word(text: str, charset: str = "utf-8") -> str:
    return f"=?{charset}?B?{base64.b64encode(text.encode(charset)).decode()}?="


READABLE = {
    "a@example.org": "example.org",
    "  a@Example.ORG\t": "example.org",
    "<a@example.org>": "example.org",
    "Alice <a@example.org>": "example.org",
    "Alice<a@example.org>": "example.org",
    'Alice "Q." B. <a@example.org>': "example.org",
    '"Doe, Alice; \\"x\\" <y>" <a@example.org>': "example.org",
    "(note (nested \\) )) a@example.org (another)": "example.org",
    "Alice (note) <a@example.org> (another)": "example.org",
    '"a b"@example.org': "example.org",
    '"a\\"b" <"c d"@example.org>': "example.org",
    "alice.o'hara+tag@example.org": "example.org",
    "Müller <a@example.org>": "example.org",
    "Müller <müller@münchen.example>": "xn--mnchen-3ya.example",
    f"{word('Müller')} <a@example.org>": "example.org",
    f"{word('Müller', 'iso-8859-1')} {word(' and sons')} <a@example.org>": "example.org",
    "=?us-ascii*en?q?Alice_=28x=29?= <a@example.org>": "example.org",
    # an address in the name, but no other one
    '"a@example.org" <a@example.org>': "example.org",
    "a@example.org (b@EXAMPLE.org.)": "example.org",
    f"{word('A a@example.org')} <a@example.org>": "example.org",
    "Bob (@bob) <a@example.org>": "example.org",
    '"Sales @ Example" <a@example.org>': "example.org",
}

UNREADABLE = {
    "nothing": [
        "",
        " ",
        "()",
        "<>",
        "Alice <>",
        "Alice",
        "@example.org",
        "a@",
        "<@example.org>",
        "<a@>",
        "a b",
        '""',
    ],
    "several": [
        "a@example.org, b@example.com",
        "a@example.org b@example.com",
        "<a@example.org> <b@example.com>",
        "<a@example.org>, b@x.example",
        "a@example.org <b@example.com>",
        "<a@example.org> b",
        "<a@example.org",
        "a@example.org>",
        "<<a@example.org>>",
        "a@example.org,",
    ],
    "group": [
        "Friends: a@example.org;",
        "undisclosed recipients:;",
    ],
    "route": [
        "<@example.com:a@example.org>",
        "<@example.com,@x.example:a@example.org>",
    ],
    "inside an address": [
        "a(x)@example.org",
        "a@example.org(x).example",
        "a @example.org",
        "<a@ example.org>",
        "<a@example.org >",
        "<(x)a@example.org>",
        "a@example.org.(x)com",
        "a@exa mple.org",
        "a@@example.org",
        "a@b@example.org",
    ],
    "domain": [
        "a@[192.0.2.1]",
        "a@example..org",
        "a@example.org.",
        "a@-x.example",
        "a@exa_mple!.org",
        "a@xn--a",
        "a@=?utf-8?q?example.org?=",
    ],
    "quoting": [
        '"Alice <a@example.org>',
        '"a@example.org',
        "(a@example.org",
        "((x) a@example.org",
        "a\\@x@example.org",
        ") a@example.org",
        '"\\',
    ],
    "octets": [
        "Alice\x00 <a@example.org>",
        "Alice\x0b<a@example.org>",
        "a@example.org\x7f",
        "\u202egro.elpmaxe@a\u202c <b@example.com>",
    ],
    "shows another": [
        '"ceo@contoso.com" <b@example.com>',
        '"<ceo@contoso.com>" <b@example.com>',
        "(ceo@contoso.com) b@example.com",
        '"ceo＠contoso.com" <b@example.com>',
        '"ceo@-contoso.com" <b@example.com>',
        '"ceo @ contoso.com" <b@example.com>',
        '"ceo@contoso。com" <b@example.com>',
        '"ceo@contoso.com, b@example.com" <b@example.com>',
        '"ceo@contoso.com"@example.com',
        '"ceo\\@contoso.com" <b@example.com>',
        '"a@example.com.contoso.com" <b@example.com>',
        "(x\\(ceo@contoso.com) b@example.com",
        '"ceo@exam\xadple.com.x" <b@example.com>',
    ],
    "encoded words": [
        f"{word('ceo@contoso.com')} <b@example.com>",
        f"{word('ceo@con')} {word('toso.com')} <b@example.com>",
        f"{word('ceo@contoso.com', 'utf-7')} <b@example.com>",
        f"{word('ceo@contoso.com', 'utf-16')} <b@example.com>",
        f'"{word("ceo@contoso.com")}" <b@example.com>',
        f"({word('ceo@contoso.com')}) b@example.com",
        "=?utf-8?q?ceo=40contoso.com?= <b@example.com>",
        f"{word('ceo@contoso.com')}@example.com",
        f"{word('a')} <{word('a')}@example.com>",
        f"{word('potus@whitehouse.gov')}{word(chr(0))}@example.com",
        f"{word('x' + chr(10) + 'y')} <b@example.com>",
        "=?x-unknown?q?a?= <b@example.com>",
        "=?utf-8?b?!!!!?= <b@example.com>",
        '"=?utf-8?q?ceo=40contoso.com =20?=" <b@example.com>',
        "=?rot13?q?prb=40pbagbfb.pbz?= <b@example.com>",
        "=?utf-8?x?a?= <b@example.com>",
        "=?utf-8?q?a <b@example.com>",
    ],
    "length": [
        "x" * 5000 + " <a@example.org>",
    ],
}


@pytest.mark.parametrize(("value", "domain"), READABLE.items())
def test_readable(value: str, domain: str) -> None:
    found = read_from(value.encode())
    assert (found.domain, found.problem) == (domain, "")


@pytest.mark.parametrize(("kind", "value"), [(kind, value) for kind, values in UNREADABLE.items() for value in values])
def test_unreadable(kind: str, value: str) -> None:
    found = read_from(value.encode())
    assert found.domain == "", kind
    assert found.problem.startswith("the From: field ")


def test_not_utf8() -> None:
    assert read_from(b"M\xfcller <a@example.org>").domain == ""


def test_the_problem_repeats_nothing_of_the_field() -> None:
    assert "contoso" not in read_from(b'"ceo@contoso.com" <b@example.com>').problem
