"""What a domain publishes for MTA-STS, read: the `_mta-sts` TXT record (RFC 8461 section 3.1) and the policy file (section 3.2).

Strict where a slip could change what is meant, and every refusal says what is wrong, for the domain's owner will read it in a report.
When a policy counts, and what follows from it, is in `relay.policy.mtasts`.

Threat: any bytes. Everything here takes time in proportion to their number, and raises nothing but StsSyntaxError.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from relay.mail.address import AddressError, normalise_domain
from relay.mail.published import StsMode, StsPolicy

HOST = "mta-sts."  # before the domain; RFC 8461 section 3.3
PATH = "/.well-known/mta-sts.txt"
MAX_FILE = 64 * 1024  # bytes. RFC 8461 section 3.3
MAX_AGE = 31557600  # seconds, a year. RFC 8461 section 3.2
VERSION = "STSv1"

_VERSION_FIELD = re.compile(r"v=STSv1[ \t]*;")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,31}\Z")
_ID = re.compile(r"[A-Za-z0-9]{1,32}\Z")
_FIELD_VALUE = re.compile(r"[\x21-\x3a\x3c\x3e-\x7e]+\Z")
_SECONDS = re.compile(r"[0-9]{1,10}\Z")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_BLANKS = " \t"
_SHOWN = 60


class StsSyntaxError(ValueError):
    """Not a valid record or policy; str() says what is wrong with it."""


@dataclass(frozen=True, slots=True)
class StsRecord:
    """A domain has a policy; `id` is another one for each version of it."""

    id: str


def read_record(texts: Sequence[str]) -> StsRecord | None:
    """The TXT records at `_mta-sts.DOMAIN`, each with its strings joined. None where none of them is about MTA-STS.

    Raises StsSyntaxError where one is and does not count: then the domain has no policy that can be discovered (section 3.1).
    """
    ours = [text for text in texts if _VERSION_FIELD.match(text)]
    if not ours:
        return None
    if len(ours) > 1:
        raise StsSyntaxError(f"{len(ours)} TXT records begin with v={VERSION}, and only one may")
    fields = [field.strip(_BLANKS) for field in ours[0].split(";")][1:]
    if not fields[-1]:
        fields.pop()  # a semicolon may end the record
    values = [_field(field) for field in fields]
    # "If any non-repeated field is duplicated, all entries except for the first SHALL be ignored" (section 3.2).
    found = next((value for name, value in values if name == "id"), None)
    if found is None:
        raise StsSyntaxError("the TXT record has no id")
    if not _ID.match(found):
        raise StsSyntaxError(f"the id {_shown(found)} of the TXT record is not 1 to 32 letters and digits")
    return StsRecord(found)


def _field(field: str) -> tuple[str, str]:
    name, equals, value = field.partition("=")
    if not equals or not _NAME.match(name) or not _FIELD_VALUE.match(value):
        raise StsSyntaxError(f"{_shown(field)} in the TXT record is not name=value")
    return name, value


def read_policy(data: bytes, record_id: str) -> StsPolicy:
    """A policy file. `record_id` is the id of the record that led to it. Raises StsSyntaxError."""
    if len(data) > MAX_FILE:
        raise StsSyntaxError(f"the policy is longer than {MAX_FILE} bytes")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise StsSyntaxError("the policy is not UTF-8") from error
    lines = tuple(_lines(text))
    first: dict[str, str] = {}
    patterns: dict[str, None] = {}  # in their order, each once
    for line in lines:
        key, value = _pair(line)
        if key == "mx":
            patterns[_pattern(value)] = None
        else:
            first.setdefault(key, value)  # of a duplicate the first counts, and a key that is not known means nothing
    mode, max_age = _required(first)
    if mode is not StsMode.NONE and not patterns:
        raise StsSyntaxError(f"the policy says mode {mode} and has no mx")
    return StsPolicy(mode, tuple(patterns), max_age, record_id, lines)


def _lines(text: str) -> Iterator[str]:
    """Each line without its end, LF or CRLF.

    Empty ones are left out: the grammar has none, but an editor's last blank line means nothing, and to refuse it would lose a policy.
    """
    for line in text.split("\n"):
        line = line.removesuffix("\r")
        if line.strip(_BLANKS):
            yield line


def _pair(line: str) -> tuple[str, str]:
    key, colon, value = line.partition(":")
    value = value.strip(_BLANKS)
    if not colon or not _NAME.match(key) or not value or _CONTROL.search(value):
        raise StsSyntaxError(f"{_shown(line)} in the policy is not key: value")
    return key, value


def _pattern(value: str) -> str:
    """An mx pattern, normalised. U-labels are against the rules and mean only one thing, so they are taken."""
    wildcard, host = ("*.", value[2:]) if value.startswith("*.") else ("", value)
    try:
        return wildcard + normalise_domain(host)
    except AddressError as error:
        raise StsSyntaxError(
            f"mx {_shown(value)} in the policy is neither a host name nor one with *. before it"
        ) from error


def _required(first: dict[str, str]) -> tuple[StsMode, int]:
    version, mode, max_age = (first.get(key) for key in ("version", "mode", "max_age"))
    if version is None or mode is None or max_age is None:
        missing = next(key for key in ("version", "mode", "max_age") if key not in first)
        raise StsSyntaxError(f"the policy has no {missing}")
    if version != VERSION:
        raise StsSyntaxError(f"the policy's version is {_shown(version)}, not {VERSION}")
    if mode not in tuple(StsMode):
        raise StsSyntaxError(f"the policy's mode is {_shown(mode)}, not enforce, testing or none")
    if not _SECONDS.match(max_age) or int(max_age) > MAX_AGE:
        raise StsSyntaxError(f"the policy's max_age is {_shown(max_age)}, not a number of seconds up to {MAX_AGE}")
    return StsMode(mode), int(max_age)


def _shown(text: str) -> str:
    return ascii(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}...")
