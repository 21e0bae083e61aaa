"""Command lines and their arguments (RFC 5321 section 4.1, and the extensions' parameters) to values.

Knows nothing of sequence: whether MAIL may come now is the session's business. Every fault is a `CommandError` that holds the reply.
"""

import re
from dataclasses import dataclass

from relay.mail.address import Address, AddressError, parse_path
from relay.mail.envelope import Body, Notify, Recipient, Ret
from relay.mail.reply import Reply
from relay.smtp import replies
from relay.smtp.events import MailFrom

_MAX_HELO = 255
_MAX_ENVID = 100  # RFC 3461 section 4.4, before encoding; we hold the encoded form to it three times over
_MAX_ORCPT = 500  # RFC 3461 section 4.2
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
# What goes into our Received header must not end a comment or begin a quoted string there.
_HELO = re.compile(r"[!#-'*+\-./0-9:=?A-\[\]^_`a-z{|}~]+\Z")
_KEYWORD = re.compile(r"[A-Z0-9][A-Z0-9-]*\Z")  # RFC 5321 section 4.1.2, esmtp-keyword
_KEYWORDS = frozenset({"SIZE", "BODY", "SMTPUTF8", "RET", "ENVID", "AUTH", "REQUIRETLS", "NOTIFY", "ORCPT"})
_PARAMETER_SYNTAX = Reply(501, "5.5.4", "a parameter is written KEYWORD or KEYWORD=value")
_XTEXT = re.compile(r"(?:[!-*,-<>-~]|\+[0-9A-F]{2})+\Z")  # RFC 3461 section 4
_HEXCHAR = re.compile(r"\+([0-9A-F]{2})")
_UTF8_ADDRESS = re.compile(
    r"(?:[!-*,-<>-\[\]-~\u0080-\U0010FFFF]|\+[0-9A-F]{2}|\\x\{[0-9A-F]{2,6}\})+\Z"
)  # RFC 6533 section 3
_QUOTED_PATH = re.compile(r'(?:"(?:[^"\\]|\\.)*"|[^" ])+')
_ADDRESS_TYPE = re.compile(r"[A-Za-z0-9-]{1,64}\Z")
_DIGITS = re.compile(r"[0-9]{1,20}\Z")
_BODIES = {each.value: each for each in Body}
_RETS = {each.value: each for each in Ret if each is not Ret.UNSET}
_NOTIFY_EVENTS = frozenset({Notify.SUCCESS, Notify.FAILURE, Notify.DELAY})

Parameters = dict[str, str]


class CommandError(ValueError):
    """The command cannot be taken as it is; `reply` says why."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(reply.text)
        self.reply = reply


@dataclass(frozen=True, slots=True)
class Chunk:
    """BDAT: `size` octets follow. `last` ends the message (RFC 3030 section 2)."""

    size: int
    last: bool


def decode_line(line: bytes) -> str:
    """A command line, its end and trailing white space taken off. Raises CommandError for control characters and broken UTF-8."""
    try:
        text = line.decode()
    except UnicodeDecodeError:
        raise CommandError(replies.NOT_UTF8) from None
    text = text.rstrip(" \t")  # RFC 5321 section 4.1.1
    if not text.isprintable() and _CONTROL.search(text):
        raise CommandError(replies.CONTROL)
    return text


def parse_hello(argument: str) -> str:
    """The name in EHLO or HELO, taken loosely: devices say all sorts of things. Nothing may be decided by it."""
    name = argument.partition(" ")[0]
    if len(name) > _MAX_HELO or not _HELO.match(name):
        raise CommandError(replies.HELLO_ARGUMENT)
    return name


def parse_mail(argument: str, *, auth_offered: bool, tls: bool) -> MailFrom:
    """`FROM:<path> parameters` (RFC 5321 section 4.1.1.2). `tls`: the session is inside TLS."""
    path, parameters = _split(argument, "FROM:", replies.MAIL_SYNTAX)
    size, body, ret, envid = 0, Body.SEVEN_BIT, Ret.UNSET, ""
    flags: set[str] = set()
    for keyword, value in parameters.items():
        match keyword:
            case "SIZE" if _DIGITS.match(value):  # RFC 1870 section 6
                size = int(value)
            case "BODY" if value.upper() in _BODIES:  # RFC 6152 section 3
                body = _BODIES[value.upper()]
            case "BODY" if value.upper() == "BINARYMIME":  # RFC 3030 section 3: not offered
                raise CommandError(Reply(555, "5.5.4", "BODY=BINARYMIME is not offered"))
            case "SMTPUTF8" | "REQUIRETLS" if not value:  # RFC 6531 section 3.4, RFC 8689 section 2
                flags.add(keyword)
            case "RET" if value.upper() in _RETS:  # RFC 3461 section 4.3
                ret = _RETS[value.upper()]
            case "ENVID" if len(value) <= 3 * _MAX_ENVID and _is_xtext(value):  # RFC 3461 section 4.4
                envid = value
            case "AUTH" if auth_offered and (value == "<>" or _is_xtext(value)):
                pass  # RFC 4954 section 5: must be taken; we vouch for nobody's identity to the next hop
            case "SIZE" | "BODY" | "SMTPUTF8" | "RET" | "ENVID" | "REQUIRETLS":
                raise CommandError(Reply(501, "5.5.4", f"bad value of {keyword}="))
            case _:
                raise CommandError(Reply(555, "5.5.4", "unknown MAIL parameter"))
    utf8, requiretls = "SMTPUTF8" in flags, "REQUIRETLS" in flags
    if requiretls and not tls:
        raise CommandError(replies.REQUIRETLS_IN_CLEAR)
    sender = _address(path, smtputf8=utf8, status="5.1.7")
    if sender.local and not sender.domain:
        raise CommandError(Reply(501, "5.1.7", "a sender address needs its domain"))
    return MailFrom(sender, body, utf8, ret, envid, size, requiretls)


def parse_rcpt(argument: str, *, smtputf8: bool) -> Recipient:
    """`TO:<path> parameters` (RFC 5321 section 4.1.1.3). `smtputf8`: MAIL asked for it."""
    path, parameters = _split(argument, "TO:", replies.RCPT_SYNTAX)
    notify: frozenset[Notify] = frozenset()
    orcpt = ""
    for keyword, value in parameters.items():
        match keyword:
            case "NOTIFY":
                notify = _notify(value)
            case "ORCPT":
                orcpt = _orcpt(value, smtputf8=smtputf8)
            case _:
                raise CommandError(Reply(555, "5.5.4", "unknown RCPT parameter"))
    address = _address(path, smtputf8=smtputf8, status="5.1.3")
    if address.is_null:
        raise CommandError(Reply(501, "5.1.3", "a recipient cannot be the null path"))
    return Recipient(address, notify, orcpt)


def parse_bdat(argument: str) -> Chunk:
    """`size` or `size LAST` (RFC 3030 section 2)."""
    size, _, end = argument.partition(" ")
    if not _DIGITS.match(size) or not end.isascii() or end.strip().upper() not in ("", "LAST"):
        raise CommandError(replies.BDAT_SYNTAX)
    return Chunk(int(size), bool(end.strip()))


def _split(argument: str, word: str, syntax: Reply) -> tuple[str, Parameters]:
    """The path and the parameters behind `FROM:` or `TO:`. A space in front of the path is no error here: half of the devices send one."""
    if argument[: len(word)].upper() != word:
        raise CommandError(syntax)
    rest = argument[len(word) :].lstrip(" ")
    if '"' in rest:  # a quoted local part may hold spaces
        quoted = _QUOTED_PATH.match(rest)
        if quoted is None:
            raise CommandError(syntax)
        return quoted[0], _parameters(rest[quoted.end() :])
    path, _, tail = rest.partition(" ")
    if not path:
        raise CommandError(syntax)
    return path, _parameters(tail) if tail else {}


def _parameters(text: str) -> Parameters:
    """Keywords in upper case to values, "" where there is none (RFC 5321 section 4.1.2, esmtp-param)."""
    found: Parameters = {}
    for word in text.split(" "):
        keyword, equals, value = word.partition("=")
        if not (value if equals else word):
            if equals:
                raise CommandError(_PARAMETER_SYNTAX)
            continue  # two spaces in a row
        # Only ASCII letters have two cases here: "\u017f".upper() is "S", too.
        keyword = keyword.upper() if keyword.isascii() else ""
        if keyword not in _KEYWORDS and not _KEYWORD.match(keyword):
            raise CommandError(_PARAMETER_SYNTAX)
        if keyword in found:
            raise CommandError(Reply(501, "5.5.4", "a parameter is given twice"))
        if not value.isascii() and keyword != "ORCPT":  # RFC 6533 section 3 is the only one to allow it
            raise CommandError(_PARAMETER_SYNTAX)
        found[keyword] = value
    return found


def _address(path: str, *, smtputf8: bool, status: str) -> Address:
    if not smtputf8 and not path.isascii():
        raise CommandError(replies.NEEDS_SMTPUTF8)  # RFC 6531 section 3.5
    try:
        return parse_path(path)
    except AddressError as error:
        raise CommandError(Reply(501, status, str(error))) from None


def _is_xtext(value: str) -> bool:
    """xtext (RFC 3461 section 4) of graphic characters and spaces only: encoded control characters would end up in a report's header."""
    return bool(_XTEXT.match(value)) and _decodes_printable(value)


def _decodes_printable(value: str) -> bool:
    return all(0x20 <= int(code, 16) <= 0x7E for code in _HEXCHAR.findall(value))


def _notify(value: str) -> frozenset[Notify]:
    """RFC 3461 section 4.1: NEVER by itself, or any of the others."""
    words = value.upper().split(",")
    if words == ["NEVER"]:
        return frozenset({Notify.NEVER})
    if not words[0] or len(set(words)) != len(words) or not _NOTIFY_EVENTS.issuperset(words):
        raise CommandError(Reply(501, "5.5.4", "NOTIFY= takes NEVER, or any of SUCCESS, FAILURE and DELAY"))
    return frozenset(Notify(word) for word in words)


def _orcpt(value: str, *, smtputf8: bool) -> str:
    """RFC 3461 section 4.2; address type `utf-8` by RFC 6533 section 3, whose unencoded form needs SMTPUTF8."""
    kind, semicolon, address = value.partition(";")
    well_formed = bool(semicolon and _ADDRESS_TYPE.match(kind)) and len(value) <= _MAX_ORCPT
    if kind.lower() == "utf-8":
        well_formed = well_formed and (smtputf8 or value.isascii()) and _is_utf8_address(address)
    else:
        well_formed = well_formed and _is_xtext(address)
    if not well_formed:
        raise CommandError(Reply(501, "5.5.4", "bad value of ORCPT="))
    return value


def _is_utf8_address(address: str) -> bool:
    if not _UTF8_ADDRESS.match(address) or not _decodes_printable(address):
        return False
    codes = (int(code, 16) for code in re.findall(r"\\x\{([0-9A-F]+)\}", address))
    return all(0x20 <= code <= 0x10FFFF and not 0x7F <= code <= 0x9F and not 0xD800 <= code <= 0xDFFF for code in codes)
