"""The value of a From: field to one domain, or to none (RFC 5322 section 3.4, RFC 6532, RFC 2047).

Reads exactly one mailbox, `user@domain` or `name <user@domain>`, and refuses whatever the grammar allows beyond it: several mailboxes,
groups, routes, comments or white space inside an address, address literals, encoded words in an address.

Threat: a parser differential. The mail reader shows one address while we judge another ("Composition Kills", USENIX Security 2020;
Mailsploit, 2017). So where a reader could be led to see another address, in the display name, in a comment or under an encoded word, the
answer is "none", and the message is refused where partners are recognised by this field.
"""

import binascii
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from relay.mail.address import AddressError, normalise_domain

_MAX_VALUE = 4096
# C0, C1, line ends, and what turns the direction of the text around (RLO makes "moc.osotnoc@a" read as an address).
_MISLEADING = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
_TOKEN = re.compile(
    r"""(?P<space>[ \t]+)
    |(?P<quoted>"(?:[^"\\]|\\.)*")
    |(?P<atom>[^\s()<>\[\]:;@\\,"]+)
    |(?P<special>[<>@])""",
    re.VERBOSE | re.DOTALL,
)
_COMMENT_STEP = re.compile(r"[()]|\\.", re.DOTALL)
_QUOTED_PAIR = re.compile(r"\\(.)", re.DOTALL)
_ENCODED_WORD = re.compile(r"=\?([^?\s]+)\?([bBqQ])\?([^?\s]*)\?=")
_BETWEEN_WORDS = re.compile(r"(?<=\?=)[ \t]+(?==\?)")  # RFC 2047 section 6.2: not shown
_Q_OCTET = re.compile(rb"=([0-9A-Fa-f]{2})")
_LOOKS_LIKE_ADDRESS = re.compile(r"""[^\s<>()\[\]",;:@]\s*@\s*([^\s<>()\[\]",;:'@]+\.[^\s<>()\[\]",;:'@]+)""")


class _Kind(Enum):
    SPACE = "space"
    COMMENT = "comment"
    QUOTED = "quoted"
    ATOM = "atom"
    SPECIAL = "special"


_Token = tuple[_Kind, str]
_AROUND = (_Kind.SPACE, _Kind.COMMENT)


@dataclass(frozen=True, slots=True)
class FromDomain:
    """`domain` normalised (lower-case A-labels), or "" and then `problem` says why."""

    domain: str
    problem: str = ""


class _Unreadable(Exception):  # noqa: N818  it never leaves this module, and is no error of ours
    pass


def read_from(value: bytes) -> FromDomain:
    """The domain in a From: field's value (its lines joined, the CRLFs taken out)."""
    try:
        return FromDomain(_domain(value))
    except _Unreadable as reason:
        return FromDomain("", f"the From: field {reason}")


def _domain(value: bytes) -> str:
    if len(value) > _MAX_VALUE:
        raise _Unreadable("is too long")
    try:
        text = value.decode()
    except UnicodeDecodeError:
        raise _Unreadable("is not valid UTF-8") from None
    if _MISLEADING.search(text):
        raise _Unreadable("has control characters")
    shown, local, domain_text = _mailbox(list(_tokens(text)))
    if "=?" in local:
        raise _Unreadable("has an encoded word in its address")
    try:
        domain = normalise_domain(domain_text)
    except AddressError:
        raise _Unreadable("has no valid domain") from None
    if domain_text.endswith("."):  # not a dot-atom (RFC 5322 section 3.2.3), and readers differ on it
        raise _Unreadable("has no valid domain")
    for each in (*shown, local):
        _check_shown(each, domain)
    return domain


def _tokens(text: str) -> Iterator[_Token]:
    """RFC 5322 section 3.2. A backslash, a comma or anything else that no single mailbox has outside of quotes ends the reading."""
    position = 0
    while position < len(text):
        if text[position] == "(":
            end = _comment_end(text, position)
            yield _Kind.COMMENT, text[position + 1 : end - 1]
            position = end
            continue
        token = _TOKEN.match(text, position)
        if token is None:
            raise _Unreadable("is not one plain mailbox")
        yield _Kind(token.lastgroup), token[0]
        position = token.end()


def _comment_end(text: str, start: int) -> int:
    """Where the comment that begins at `start` ends. Comments nest (RFC 5322 section 3.2.2)."""
    depth = 0
    for step in _COMMENT_STEP.finditer(text, start):
        depth += {"(": 1, ")": -1}.get(step[0], 0)
        if depth == 0:
            return step.end()
    raise _Unreadable("has a comment without its end")


def _mailbox(tokens: list[_Token]) -> tuple[list[str], str, str]:
    """What is shown beside the address (name, comments), the local part (unquoted) and the domain of a single mailbox."""
    opening = (_Kind.SPECIAL, "<")
    if opening in tokens:
        start = tokens.index(opening)
        before, address = tokens[:start], tokens[start + 1 : start + 4]
        closing, after = tokens[start + 4 : start + 5], tokens[start + 5 :]
        if closing != [(_Kind.SPECIAL, ">")]:
            raise _Unreadable("has more or less than an address between its angle brackets")
    else:
        inner = [index for index, (kind, _) in enumerate(tokens) if kind not in _AROUND]
        first, last = (inner[0], inner[-1] + 1) if inner else (0, 0)
        before, address, after = tokens[:first], tokens[first:last], tokens[last:]
    if any(kind is _Kind.SPECIAL for kind, _ in before) or any(kind not in _AROUND for kind, _ in after):
        raise _Unreadable("is not one plain mailbox")
    match address:
        case [(_Kind.ATOM | _Kind.QUOTED, local), (_Kind.SPECIAL, "@"), (_Kind.ATOM, domain)]:
            name = "".join(_unquoted(piece) for kind, piece in before if kind is not _Kind.COMMENT)
            comments = [_QUOTED_PAIR.sub(r"\1", piece) for kind, piece in before + after if kind is _Kind.COMMENT]
            return [name, *comments], _unquoted(local), domain
    raise _Unreadable("has no readable address")


def _unquoted(piece: str) -> str:
    return _QUOTED_PAIR.sub(r"\1", piece[1:-1]) if piece.startswith('"') else piece


def _check_shown(text: str, domain: str) -> None:
    """Whatever looks like an address beside the real one must be of the same domain, encoded words decoded, look-alikes of @ counted."""
    shown = unicodedata.normalize("NFKC", _decoded(text)).replace(
        "\u3002", "."
    )  # UTS 46 takes an ideographic full stop for a dot
    if _MISLEADING.search(shown):
        raise _Unreadable("hides control characters in its display name")
    for seen in _LOOKS_LIKE_ADDRESS.findall(shown):
        try:
            other = normalise_domain(seen.rstrip("."))
        except AddressError:
            other = ""
        if other != domain:
            raise _Unreadable("shows another address beside its own")


def _decoded(text: str) -> str:
    """Encoded words as a reader shows them (RFC 2047 section 6.2), in quoted strings too, where many readers decode them against the rules."""
    joined = _BETWEEN_WORDS.sub("", text)
    if "=?" in _ENCODED_WORD.sub("", joined):
        raise _Unreadable("has an encoded word that cannot be read")  # some reader may read it all the same
    return _ENCODED_WORD.sub(lambda word: _decode_word(*word.groups()), joined)


def _decode_word(charset: str, encoding: str, encoded: str) -> str:
    try:
        octets = encoded.encode("ascii")
        if encoding in "bB":
            octets = binascii.a2b_base64(octets + b"=" * (-len(octets) % 4), strict_mode=True)
        else:
            octets = _Q_OCTET.sub(lambda octet: bytes((int(octet[1], 16),)), octets.replace(b"_", b" "))
        return octets.decode(charset.partition("*")[0], "replace")
    except (LookupError, ValueError):
        raise _Unreadable("has an encoded word that cannot be read") from None
