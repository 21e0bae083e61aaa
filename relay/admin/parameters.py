"""The kinds of values that endpoints ask for, each with its check and an error that says what it may be. No I/O."""

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, GetCoreSchemaHandler, WithJsonSchema
from pydantic_core.core_schema import CoreSchema, int_schema, no_info_before_validator_function

from relay.mail.address import AddressError, normalise_domain, parse_mailbox

MAX_IDS = 1000
MAX_LINE = 300

_ID = re.compile(r"[0-9A-Z]{1,40}\Z")
_CONNECTOR = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("a string")
    return value


def _id(value: Any) -> str:
    text = _text(value)
    if text and not _ID.match(text):
        raise ValueError(f"{text[:80]!r} is not a message id (capital letters and digits)")
    return text


def _ids(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or not all(isinstance(each, str) for each in value):
        raise ValueError("a list of message ids")
    if len(value) > MAX_IDS:
        raise ValueError(f"at most {MAX_IDS} in one request")
    return tuple(_id(each) for each in value)


def _connector(value: Any) -> str:
    text = _text(value)
    if text and not _CONNECTOR.match(text):
        raise ValueError(f"{text[:80]!r} is not the name of a connector")
    return text


def _domain(value: Any) -> str:
    text = _text(value)
    return _said(normalise_domain, text.removeprefix("@")) if text else ""


def _mailbox(value: Any) -> str:
    text = _text(value)
    if text in ("", "<>"):
        return text
    if "@" in text.removeprefix("@"):
        return _said(lambda given: str(parse_mailbox(given)), text.removeprefix("<").removesuffix(">"))
    return "@" + _said(normalise_domain, text.removeprefix("@"))


def _said(parse: Any, text: str) -> str:
    try:
        return str(parse(text))
    except AddressError as error:
        raise ValueError(str(error)) from None


def _flag(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if value in ("true", "false"):  # in a query all is text
        return bool(value == "true")
    raise ValueError("true or false")


def _day(value: Any) -> date | None:
    text = value.isoformat() if isinstance(value, date) else "" if value is None else _text(value)
    if not text:
        return None
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise ValueError("a day as in 2026-11-25") from None


def _moment(value: Any) -> datetime | None:
    if value is None or value == "":
        return None
    try:
        moment = value if isinstance(value, datetime) else datetime.fromisoformat(_text(value))
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (
        ValueError,
        OverflowError,
    ):  # the first and the last hours of all time are on another day in UTC, which has no year
        raise ValueError("a time as in 2026-11-25T08:00:00Z") from None


@dataclass(frozen=True, slots=True)
class Between:
    """`Annotated[int, Between(1, 100)]`: a whole number in these limits, in JSON or as the text of a query."""

    least: int
    most: int

    def check(self, value: Any) -> int:
        text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
        if isinstance(text, str) and text.isdecimal() and text.isascii() and len(text) < 10:
            found = int(text)
            if self.least <= found <= self.most:
                return found
        raise ValueError(f"a number from {self.least} to {self.most}")

    def __get_pydantic_core_schema__(self, _source: Any, _handler: GetCoreSchemaHandler) -> CoreSchema:
        return no_info_before_validator_function(self.check, int_schema(ge=self.least, le=self.most))


def _line(value: Any) -> str:
    text = _text(value).strip()
    # It stands in mail: no line ends, no control characters, no turning of the writing direction.
    if any(not each.isprintable() for each in text):
        raise ValueError("one line without control characters")
    if len(text) > MAX_LINE:
        raise ValueError(f"at most {MAX_LINE} characters")
    return text


Line = Annotated[str, BeforeValidator(_line), Field(max_length=MAX_LINE)]
"""Words of an operator for others to read."""
Text = Annotated[str, BeforeValidator(_text), Field(max_length=1000)]
Flag = Annotated[bool, BeforeValidator(_flag)]
MessageId = Annotated[str, BeforeValidator(_id), WithJsonSchema({"type": "string", "pattern": "^[0-9A-Z]{0,40}$"})]
MessageIds = Annotated[
    tuple[str, ...],
    BeforeValidator(_ids),
    WithJsonSchema({"type": "array", "items": {"type": "string"}, "maxItems": MAX_IDS}),
]
PageLimit = Annotated[int, Between(1, 1000)]
ConnectorName = Annotated[str, BeforeValidator(_connector)]
Domain = Annotated[str, BeforeValidator(_domain)]
"""A recipient or report domain, as A-labels."""
Mailbox = Annotated[str, BeforeValidator(_mailbox)]
"""An address, or a domain as "@domain". `<>` asks for the null sender."""
Day = Annotated[
    date | None, BeforeValidator(_day), WithJsonSchema({"type": "string", "format": "date", "examples": ["2026-11-25"]})
]
Moment = Annotated[
    datetime | None,
    BeforeValidator(_moment),
    WithJsonSchema({"type": "string", "format": "date-time", "examples": ["2026-11-25T08:00:00Z"]}),
]
