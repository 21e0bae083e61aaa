"""From a mail to the report in it (RFC 8460 section 4.4, 5.3). Any bytes give a report or a reason, in bounded time and memory.

The standard library takes the mail apart. Strict where it matters (types, numbers, times, limits), lenient where reporters differ: unknown
keys are ignored, `mx-host` and `policy-string` may be one string, result types are any word (the registry grows).

Threats: compression bombs, JSON that is deep, wide or says a thing twice, MIME without end, text that forges a log line or talks to a
terminal. Text is cleaned and cut here, before anything is kept.
"""

import json
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email import message_from_bytes, policy
from email.message import Message as Mime
from itertools import islice
from typing import Any, NoReturn

from relay.mail.published import PolicyKind
from relay.mail.tlsreport import Received, ReceivedFailing, ReceivedPolicy
from relay.report.text import one_line
from relay.report.tlsrpt.document import GZIP, JSON

MAIL_LIMIT = 3 * 2**20
JSON_LIMIT = 2 * 2**20

_PARTS = 50
_BOUNDARIES = 20  # words in the mail: the parser compares each line with each boundary that is open
_POLICIES = 200
_FAILING = 5000  # in the report
_KEPT = 200  # of them, those with most sessions
_STRINGS = 50
_LONG = 300
_MOST_SESSIONS = 10**15
_RESULT = re.compile(r"[a-z0-9][a-z0-9-]{0,63}\Z")
_BOUNDARY = re.compile(rb"boundary", re.IGNORECASE)


class NotAReportError(Exception):
    """str() says why, in words for a log."""


@dataclass(frozen=True, slots=True)
class Mailed:
    """How a report came. `signer` as in Received."""

    at: datetime
    submitter: str
    signer: str


def report_in(mail: bytes) -> bytes:
    """The JSON text that a mail carries, decompressed. Raises NotAReportError."""
    if len(mail) > MAIL_LIMIT:
        _refuse(f"the mail is larger than {MAIL_LIMIT // 2**20} MiB")
    if len(_BOUNDARY.findall(mail)) > _BOUNDARIES:
        _refuse("the mail has too many parts")
    try:
        part = _part(message_from_bytes(mail, policy=policy.compat32))
        payload = part.get_payload(decode=True)
    except (RecursionError, LookupError, ValueError) as error:
        raise NotAReportError(f"the mail cannot be taken apart ({type(error).__name__})") from None
    if not isinstance(payload, bytes):
        _refuse("its part with the report is itself a multipart")
    return _unpacked(payload) if part.get_content_type() == GZIP else _bounded(payload)


def _part(mail: Mime) -> Mime:
    parts = (part for part in islice(mail.walk(), _PARTS) if part.get_content_type() in (GZIP, JSON))
    found = next(parts, None)
    if found is None:
        _refuse(f"it has no part of type {GZIP} or {JSON}")
    return found


def _unpacked(data: bytes) -> bytes:
    """One gzip member (RFC 1952), all of it. What is behind it is not looked at."""
    inflate = zlib.decompressobj(wbits=31)
    try:
        text = inflate.decompress(data, JSON_LIMIT + 1)
    except zlib.error:
        _refuse("its report is not gzip")
    _bounded(text)
    if not inflate.eof:
        _refuse("its report is cut off")
    return text


def _bounded(text: bytes) -> bytes:
    if len(text) > JSON_LIMIT:
        _refuse(f"its report is larger than {JSON_LIMIT // 2**20} MiB")
    return text


def read(text: bytes, mailed: Mailed) -> Received:
    """The report. Raises NotAReportError."""
    try:
        document = json.loads(
            text.decode("utf-8-sig"),
            object_pairs_hook=_object,
            parse_constant=_constant,
            parse_int=_integer,
            parse_float=float,
        )
    except (ValueError, RecursionError) as error:
        raise NotAReportError(f"its report is not JSON as RFC 8460 wants it ({type(error).__name__})") from None
    root = _mapping(document, "the report")
    dates = _mapping(root.get("date-range"), "date-range")
    policies = _list(root.get("policies"), "policies", _POLICIES)
    left = _FAILING
    found: list[ReceivedPolicy] = []
    for each in policies:
        one = _policy(_mapping(each, "policies"), left)
        left -= len(one.failing)
        found.append(one)
    return Received(
        at=mailed.at,
        organization=_text(root, "organization-name", needed=True),
        contact=_text(root, "contact-info"),
        report_id=_text(root, "report-id", needed=True),
        begins=_time(dates, "start-datetime"),
        ends=_time(dates, "end-datetime"),
        submitter=mailed.submitter,
        signer=mailed.signer,
        policies=_with_most(found),
    )


def _policy(entry: dict[str, Any], left: int) -> ReceivedPolicy:
    told, summary = _mapping(entry.get("policy"), "policy"), _mapping(entry.get("summary"), "summary")
    kind = told.get("policy-type")
    if kind not in tuple(PolicyKind):
        _refuse("policy-type is none of " + ", ".join(PolicyKind))
    details = _list(entry.get("failure-details", []), "failure-details", left)
    return ReceivedPolicy(
        kind=PolicyKind(kind),
        domain=_text(told, "policy-domain", needed=True),
        strings=_strings(told, "policy-string"),
        mx=_strings(told, "mx-host"),
        successes=_number(summary, "total-successful-session-count"),
        failures=_number(summary, "total-failure-session-count"),
        failing=tuple(_failing(_mapping(each, "failure-details")) for each in details),
    )


def _failing(entry: dict[str, Any]) -> ReceivedFailing:
    result = entry.get("result-type")
    if not isinstance(result, str) or not _RESULT.match(result):
        _refuse("result-type is no word")
    return ReceivedFailing(
        result=result,
        sessions=_number(entry, "failed-session-count"),
        source=_text(entry, "sending-mta-ip"),
        host=_text(entry, "receiving-mx-hostname"),
        helo=_text(entry, "receiving-mx-helo"),
        address=_text(entry, "receiving-ip"),
        information=_text(entry, "additional-information"),
        reason=_text(entry, "failure-reason-code"),
    )


def _with_most(policies: Sequence[ReceivedPolicy]) -> tuple[ReceivedPolicy, ...]:
    """With the `_KEPT` failures that most sessions met; the summaries are whole all the same."""
    every = sorted((each.sessions for one in policies for each in one.failing), reverse=True)
    if len(every) <= _KEPT:
        return tuple(policies)
    least, room = every[_KEPT], _KEPT
    kept: list[ReceivedPolicy] = []
    for one in policies:
        some = [each for each in one.failing if each.sessions > least][:room]
        room -= len(some)
        kept.append(ReceivedPolicy(one.kind, one.domain, one.strings, one.mx, one.successes, one.failures, tuple(some)))
    return tuple(kept)


def _refuse(reason: str) -> NoReturn:
    raise NotAReportError(reason)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """RFC 7493 section 2.3: no name twice. Two readers would see two reports."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name twice")
    return found


def _constant(_text: str) -> NoReturn:
    raise ValueError("NaN and Infinity are not JSON")


def _integer(text: str) -> int:
    if len(text) > 20:
        raise ValueError("a number too large")
    return int(text)


def _mapping(value: object, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        _refuse(f"{what} is no JSON object")
    return value


def _list(value: object, what: str, most: int) -> list[Any]:
    if not isinstance(value, list):
        _refuse(f"{what} is no JSON array")
    if len(value) > most:
        _refuse(f"{what} has too many entries")
    return value


def _text(entry: dict[str, Any], key: str, *, needed: bool = False) -> str:
    """Cleaned and cut; "" where it is not there or null."""
    value = entry.get(key)
    if value is None and not needed:
        return ""
    if not isinstance(value, str):
        _refuse(f"{key} is no text")
    text = one_line(value[: 4 * _LONG])[:_LONG]
    if needed and not text:
        _refuse(f"{key} is empty")
    return text


def _strings(entry: dict[str, Any], key: str) -> tuple[str, ...]:
    value = entry.get(key)
    if value is None:
        return ()
    listed = [value] if isinstance(value, str) else value
    if not isinstance(listed, list) or not all(isinstance(each, str) for each in listed):
        _refuse(f"{key} is no list of texts")
    return tuple(one_line(each[: 4 * _LONG])[:_LONG] for each in listed[:_STRINGS])


def _number(entry: dict[str, Any], key: str) -> int:
    value = entry.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _MOST_SESSIONS:
        _refuse(f"{key} is no number of sessions")
    return value


def _time(entry: dict[str, Any], key: str) -> datetime:
    value = entry.get(key)
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) and len(value) <= 40 else None
        if moment is not None:
            return (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    _refuse(f"{key} is no time")
