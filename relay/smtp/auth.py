"""The AUTH exchange (RFC 4954) for PLAIN (RFC 4616) and LOGIN (never standardised; many clients know nothing else).

Gets a user and a password out of base64 lines. Who the user is, and how often one may try, is decided elsewhere.
"""

import binascii
from dataclasses import dataclass, field
from enum import Enum

from relay.smtp import replies
from relay.smtp.commands import CommandError

_MAX_IDENTITY = 512


class Mechanism(Enum):
    PLAIN = "PLAIN"
    LOGIN = "LOGIN"


@dataclass(frozen=True, slots=True)
class Challenge:
    """What to say next: `334 ` and base64."""

    text: str


@dataclass(frozen=True, slots=True)
class Credentials:
    user: str
    password: str = field(repr=False)


_ASK_PLAIN = Challenge("")
_ASK_USER = Challenge("VXNlcm5hbWU6")  # "Username:"
_ASK_PASSWORD = Challenge("UGFzc3dvcmQ6")  # "Password:"


class Exchange:
    """One AUTH command. `begin`, then `respond` with each line of the client until there are Credentials; any CommandError ends it."""

    __slots__ = ("_mechanism", "_user")

    def __init__(self, mechanism: Mechanism) -> None:
        self._mechanism = mechanism
        self._user = ""

    def begin(self, initial: str) -> Challenge | Credentials:
        """`initial` is the initial response, "" where there was none; "=" stands for an empty one (RFC 4954 section 4)."""
        if initial:
            return self.respond("" if initial == "=" else initial)
        return _ASK_PLAIN if self._mechanism is Mechanism.PLAIN else _ASK_USER

    def respond(self, line: str) -> Challenge | Credentials:
        if line == "*":
            raise CommandError(replies.AUTH_CANCELLED)  # RFC 4954 section 4
        if self._mechanism is Mechanism.PLAIN:
            return _plain(_decode(line))
        text = _text(_decode(line))
        if not self._user:
            self._user = _identity(text)
            return _ASK_PASSWORD
        if not text:
            raise CommandError(replies.AUTH_SYNTAX)
        return Credentials(self._user, text)


def parse_auth(argument: str) -> tuple[Mechanism, str]:
    """The mechanism and the initial response, "" where none was given. Raises CommandError."""
    name, _, initial = argument.partition(" ")
    try:
        return Mechanism(name.upper() if name.isascii() else ""), initial
    except ValueError:
        raise CommandError(replies.AUTH_MECHANISM) from None


def _decode(line: str) -> bytes:
    try:
        return binascii.a2b_base64(line.encode("ascii"), strict_mode=True)
    except (binascii.Error, UnicodeEncodeError):
        raise CommandError(replies.AUTH_SYNTAX) from None


def _text(data: bytes) -> str:
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise CommandError(replies.AUTH_SYNTAX) from None
    if "\0" in text:
        raise CommandError(replies.AUTH_SYNTAX)
    return text


def _identity(text: str) -> str:
    if not text or len(text) > _MAX_IDENTITY or not text.isprintable():
        raise CommandError(replies.AUTH_SYNTAX)
    return text


def _plain(data: bytes) -> Credentials:
    """authorization identity NUL authentication identity NUL password (RFC 4616 section 2)."""
    parts = data.split(b"\0")
    if len(parts) != 3:
        raise CommandError(replies.AUTH_SYNTAX)
    acting, user, password = (_text(part) for part in parts)
    if not password:
        raise CommandError(replies.AUTH_SYNTAX)
    if acting not in ("", user):
        raise CommandError(replies.AUTH_OTHER_IDENTITY)
    return Credentials(_identity(user), password)
