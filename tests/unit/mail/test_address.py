"""Addresses and domains as they are compared everywhere."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.mail.address import NULL, Address, AddressError, normalise_domain, parse_mailbox, parse_path


@pytest.mark.parametrize(
    ("text", "domain"),
    [
        ("Contoso.COM", "contoso.com"),
        ("contoso.com.", "contoso.com"),
        ("münchen.example", "xn--mnchen-3ya.example"),
        ("MÜNCHEN.example", "xn--mnchen-3ya.example"),
        ("XN--MNCHEN-3YA.example", "xn--mnchen-3ya.example"),
        ("straße.de", "xn--strae-oqa.de"),  # IDNA 2003 would say strasse.de, which is somebody else
        ("例え。テスト", "xn--r8jz45g.xn--zckzah"),
        ("_dmarc.contoso.com", "_dmarc.contoso.com"),
        ("localhost", "localhost"),
        ("1.2.3.4", "1.2.3.4"),
    ],
)
def test_a_domain_has_one_spelling(text: str, domain: str) -> None:
    assert normalise_domain(text) == domain


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "..",
        "a..b",
        ".a",
        "-a.b",
        "a-.b",
        "a b",
        "a\n.b",
        "xn--a.example",
        "a" * 64 + ".b",
        ".".join(["a" * 60] * 5),
        "a/b",
        "ü" * 300,
        "�.example",
        "a\x00b",
        "☃︎\u200b.ex ample",
        "*.contoso.com",
    ],
)
def test_what_is_no_domain(text: str) -> None:
    with pytest.raises(AddressError):
        normalise_domain(text)


@pytest.mark.parametrize(
    ("path", "address"),
    [
        ("<>", NULL),
        ("<bob@contoso.com>", Address("bob", "contoso.com")),
        ("bob@contoso.com", Address("bob", "contoso.com")),
        ("<Bob@Contoso.Com.>", Address("Bob", "contoso.com")),
        ("<postmaster>", Address("postmaster", "")),
        ("<POSTMASTER>", Address("POSTMASTER", "")),
        ("<@a.example,@b.example:bob@contoso.com>", Address("bob", "contoso.com")),
        ('<"bob"@contoso.com>', Address("bob", "contoso.com")),
        ('<"b\\ob"@contoso.com>', Address("bob", "contoso.com")),
        ('<"b ob"@contoso.com>', Address('"b ob"', "contoso.com")),
        ('<"b@b"@contoso.com>', Address('"b@b"', "contoso.com")),
        ('<"a..b"@contoso.com>', Address('"a..b"', "contoso.com")),
        ("<a..b@contoso.com>", Address("a..b", "contoso.com")),
        ("<bob+tag=x/y@contoso.com>", Address("bob+tag=x/y", "contoso.com")),
        ("<bob%x!y@contoso.com>", Address("bob%x!y", "contoso.com")),
        ("<bob@[192.0.2.1]>", Address("bob", "[192.0.2.1]")),
        ("<bob@[IPv6:2001:DB8:0::1]>", Address("bob", "[IPv6:2001:db8::1]")),
        ("<jürgen@münchen.example>", Address("jürgen", "xn--mnchen-3ya.example")),
    ],
)
def test_paths(path: str, address: Address) -> None:
    assert parse_path(path) == address


@pytest.mark.parametrize(
    "path",
    [
        "",
        "<",
        ">",
        "<a@b",
        "a@b>",
        "<a>",
        "<@b>",
        "<a@>",
        "<@a.example>",
        "<a@b@c>",
        "<a b@c>",
        "<a@[1.2.3]>",
        "<a@[x]>",
        "<a@[IPv6:1.2.3.4]>",
        "<a@[1.2.3.4>",
        '<"a@b>',
        "<a\r@b>",
        "<a@b\n>",
        "<" + "a" * 300 + "@b>",
        "<a@" + "b." * 300 + "c>",
        "<<a@b>>",
        "<a@b>>",
        "<a@b> ",
        "<\x00@b>",
        '<"a\x07"@b>',
        "<a@b,c@d>",
    ],
)
def test_what_is_no_path(path: str) -> None:
    with pytest.raises(AddressError):
        parse_path(path)


@given(st.text(max_size=60))
def test_any_text_is_a_path_or_an_address_error(text: str) -> None:
    with contextlib.suppress(AddressError):
        address = parse_path(text)
        assert address == NULL or parse_path(f"<{address}>") == address


def test_what_an_address_says_of_itself() -> None:
    literal, plain, umlaut = (
        parse_mailbox("a@[192.0.2.1]"),
        parse_mailbox("Postmaster@b.example"),
        parse_mailbox("ü@ü.example"),
    )
    assert (literal.is_literal, plain.is_literal) == (True, False)
    assert (plain.is_postmaster, literal.is_postmaster) == (True, False)
    assert (umlaut.needs_smtputf8, parse_mailbox("u@ü.example").needs_smtputf8) == (True, False)
    assert (NULL.is_null, plain.is_null, str(NULL), str(plain)) == (True, False, "", "Postmaster@b.example")
    assert str(Address("postmaster", "")) == "postmaster"
