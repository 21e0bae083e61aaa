"""PLAIN and LOGIN, line by line."""

import base64

import pytest

from relay.smtp import replies
from relay.smtp.auth import Challenge, Credentials, Exchange, Mechanism, parse_auth
from relay.smtp.commands import CommandError
from relay.smtp.events import Login


def encoded(text: str | bytes) -> str:
    return base64.b64encode(text.encode() if isinstance(text, str) else text).decode()


def test_plain() -> None:
    exchange = Exchange(Mechanism.PLAIN)
    assert exchange.begin("") == Challenge("")
    assert exchange.respond(encoded("\0bob\0pässword")) == Credentials("bob", "pässword")
    assert Exchange(Mechanism.PLAIN).begin(encoded("bob\0bob\0x")) == Credentials("bob", "x")


def test_login() -> None:
    exchange = Exchange(Mechanism.LOGIN)
    assert exchange.begin("") == Challenge(encoded("Username:"))
    assert exchange.respond(encoded("bob@example.com")) == Challenge(encoded("Password:"))
    assert exchange.respond(encoded("x y")) == Credentials("bob@example.com", "x y")


@pytest.mark.parametrize(
    "response",
    [
        "",
        "=",
        "AAA",
        "AA=A",
        "A B=",
        "é",
        encoded("bob"),
        encoded("\0bob"),
        encoded("\0bob\0x\0"),
        encoded("\0\0x"),
        encoded("\0bob\0"),
        encoded(b"\0bob\0\xff"),
        encoded("\0b\nob\0x"),
        encoded("\0" + "b" * 513 + "\0x"),
        "AGJvYgB4\n",
    ],
)
def test_plain_that_is_none(response: str) -> None:
    exchange = Exchange(Mechanism.PLAIN)
    exchange.begin("")
    with pytest.raises(CommandError) as refused:
        exchange.respond(response)
    assert refused.value.reply is replies.AUTH_SYNTAX


@pytest.mark.parametrize("user", ["", "a\0b", "a\nb"])
def test_login_user_that_is_none(user: str) -> None:
    with pytest.raises(CommandError):
        Exchange(Mechanism.LOGIN).begin(encoded(user) or "=")


@pytest.mark.parametrize("password", ["", "a\0b"])
def test_login_password_that_is_none(password: str) -> None:
    exchange = Exchange(Mechanism.LOGIN)
    exchange.begin(encoded("bob"))
    with pytest.raises(CommandError):
        exchange.respond(encoded(password))


def test_nobody_acts_as_another() -> None:
    with pytest.raises(CommandError) as refused:
        Exchange(Mechanism.PLAIN).begin(encoded("alice\0bob\0x"))
    assert refused.value.reply.code == 535


def test_mechanisms() -> None:
    assert parse_auth("plain abc=") == (Mechanism.PLAIN, "abc=")
    assert parse_auth("LOGIN") == (Mechanism.LOGIN, "")
    for other in ("", "XOAUTH2 x", "PLAIN\u2028", "PLA\u0131N"):
        with pytest.raises(CommandError) as refused:
            parse_auth(other)
        assert refused.value.reply.code == 504


def test_passwords_do_not_show() -> None:
    assert "hunter2" not in repr(Credentials("bob", "hunter2")) + repr(Login("bob", "hunter2"))
