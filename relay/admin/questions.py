"""Requests of the admin API into values, or a clear error that names the parameter and what it may be. No I/O."""

import re
from collections.abc import Mapping
from datetime import UTC, date, datetime
from typing import Any, NoReturn

from relay.admin.operations import ReportsQuery, Selection, TraceQuery
from relay.mail.address import AddressError, normalise_domain, parse_mailbox

MAX_PAGE = 1000
MAX_TRACES = 200
MAX_IDS = 1000
STATES = ("waiting", "delivering", "held", "delivered", "bounced", "deleted")

_ID = re.compile(r"[0-9A-Z]{1,40}\Z")
_CONNECTOR = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")


class BadQuestionError(ValueError):
    """str() says which parameter is wrong and what it may be."""


def _wrong(name: str, what: str) -> NoReturn:
    raise BadQuestionError(f"{name}: {what}")


def page_question(query: Mapping[str, str], states: list[str]) -> tuple[Selection, str, int]:
    """GET /queue: the selection, where to go on, and how many at most."""
    _only(query, {"to", "connector", "state", "after", "limit"})
    for state in states:
        if state not in STATES:
            _wrong("state", f"{state[:80]!r} is none of {', '.join(STATES)}")
    selection = Selection(
        everything=True,
        domain=_domain(query.get("to", "")),
        connector=_connector(query.get("connector", "")),
        states=tuple(states),
    )
    return selection, _id("after", query.get("after", "")), _number("limit", query.get("limit", "100"), MAX_PAGE)


def action_question(body: Any) -> Selection:
    """POST /queue/ACTION: `{"ids": [...]}`, or `{"all": true}`, or `{"to": DOMAIN}` and `{"connector": NAME}`, both narrowing."""
    if not isinstance(body, dict):
        raise BadQuestionError('the body is a JSON object, such as {"ids": ["..."]}')
    _only(body, {"ids", "all", "to", "connector"})
    ids, everything = body.get("ids", []), body.get("all", False)
    if not isinstance(ids, list) or not all(isinstance(each, str) for each in ids):
        _wrong("ids", "a list of message ids")
    if len(ids) > MAX_IDS:
        _wrong("ids", f"at most {MAX_IDS} in one request")
    if not isinstance(everything, bool):
        _wrong("all", "true or false")
    domain = _domain(_string(body, "to"))
    connector = _connector(_string(body, "connector"))
    narrowed = bool(domain or connector)
    if ids and (everything or narrowed):
        raise BadQuestionError("give ids, or a selection, not both: a slip must not touch more mail than was named")
    if not (ids or everything or narrowed):
        raise BadQuestionError("say which messages: ids, all, to or connector")
    return Selection(tuple(_id("ids", each) for each in ids), everything or narrowed, domain, connector)


def trace_question(query: Mapping[str, str]) -> TraceQuery:
    """GET /trace: at least one of id, to, from, message_id, since."""
    _only(query, {"id", "to", "from", "message_id", "since", "limit"})
    if not set(query) - {"limit"}:
        raise BadQuestionError("say which messages: id, to, from, message_id or since")
    return TraceQuery(
        id=_id("id", query.get("id", "")),
        recipient=_address("to", query.get("to", "")),
        sender=_address("from", query.get("from", "")),
        message_id=query.get("message_id", "")[:998],
        since=_time("since", query["since"]) if query.get("since") else None,
        limit=_number("limit", query.get("limit", "100"), MAX_TRACES),
    )


def reports_question(query: Mapping[str, str]) -> ReportsQuery:
    """GET /reports: any day and domain unless they are given."""
    _only(query, {"domain", "day", "limit"})
    domain, day = _domain(query.get("domain", ""), "domain"), _day(query.get("day", ""))
    return ReportsQuery(domain, day, _number("limit", query.get("limit", "100"), MAX_PAGE))


def report_question(query: Mapping[str, str]) -> ReportsQuery:
    """GET /reports/show: one domain's."""
    _only(query, {"domain", "day"})
    if not query.get("domain"):
        raise BadQuestionError("say which report: domain")
    return ReportsQuery(_domain(query["domain"], "domain"), _day(query.get("day", "")))


def send_question(body: Any, today: date) -> ReportsQuery:
    """POST /reports/send: `{}`, or `{"domain": DOMAIN, "day": DAY}`, or one of them."""
    if not isinstance(body, dict):
        raise BadQuestionError('the body is a JSON object, such as {"day": "2026-11-25"}')
    _only(body, {"domain", "day"})
    domain, day = _domain(_string(body, "domain"), "domain"), _day(_string(body, "day"))
    if day is not None and (day > today or (day == today and not domain)):
        # A report of a day that is not over goes again, whole: for one domain that is a trial, for all it is a nuisance.
        _wrong("day", "it is not over; the report of one domain, named, can be sent before the end of today")
    return ReportsQuery(domain, day)


def received_question(query: Mapping[str, str]) -> tuple[datetime | None, int]:
    """GET /reports/received: since when, and how many at most."""
    _only(query, {"since", "limit"})
    since = _time("since", query["since"]) if query.get("since") else None
    return since, _number("limit", query.get("limit", "100"), MAX_PAGE)


def reload_question(body: Any) -> bool:
    """POST /reload: `{"dry_run": true}` or `{}`."""
    if not isinstance(body, dict):
        raise BadQuestionError('the body is a JSON object, such as {"dry_run": true}')
    _only(body, {"dry_run"})
    dry_run = body.get("dry_run", False)
    if not isinstance(dry_run, bool):
        _wrong("dry_run", "true or false")
    return dry_run


def _only(given: Mapping[str, Any], known: set[str]) -> None:
    for name in given:
        if name not in known:
            _wrong(str(name)[:80], f"there is no such parameter here, only {', '.join(sorted(known))}")


def _string(body: Mapping[str, Any], name: str) -> str:
    value = body.get(name, "")
    if not isinstance(value, str):
        _wrong(name, "a string")
    return value


def _id(name: str, text: str) -> str:
    if text and not _ID.match(text):
        _wrong(name, f"{text[:80]!r} is not a message id (capital letters and digits)")
    return text


def _connector(text: str) -> str:
    if text and not _CONNECTOR.match(text):
        _wrong("connector", f"{text[:80]!r} is not the name of a connector")
    return text


def _domain(text: str, name: str = "to") -> str:
    try:
        return normalise_domain(text.removeprefix("@")) if text else ""
    except AddressError as error:
        _wrong(name, str(error))


def _day(text: str) -> date | None:
    if not text:
        return None
    try:
        return date.fromisoformat(text)
    except ValueError:
        _wrong("day", "a day as in 2026-11-25")


def _address(name: str, text: str) -> str:
    """An address, or a domain as "@domain". `<>` asks for the null sender."""
    if text in ("", "<>"):
        return text
    try:
        if "@" in text.removeprefix("@"):
            return str(parse_mailbox(text.removeprefix("<").removesuffix(">")))
        return "@" + normalise_domain(text.removeprefix("@"))
    except AddressError as error:
        _wrong(name, str(error))


def _number(name: str, text: str, most: int) -> int:
    if not text.isdecimal() or not text.isascii() or len(text) > 9 or not 1 <= int(text) <= most:
        _wrong(name, f"a number from 1 to {most}")
    return int(text)


def _time(name: str, text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        _wrong(name, "a time as in 2026-11-25T08:00:00Z")
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
