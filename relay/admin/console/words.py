"""Values as people read them: times, sizes, ages, counts. No I/O."""

import re
from datetime import UTC, datetime, timedelta

_UNFIT = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]+")
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "|", "%")


def clean(text: str) -> str:
    """Without control characters and direction overrides, which could show an address or a reply as what it is not."""
    return _UNFIT.sub("\N{REPLACEMENT CHARACTER}", text)


def moment(value: datetime | str | None) -> datetime | None:
    """An aware time in UTC of a time or its RFC 3339 text; None where it is neither."""
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            return None
    if value is None:
        return None
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def rfc3339(value: datetime) -> str:
    """To the second, in UTC."""
    return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def clock(value: datetime) -> str:
    """The same for people: with a blank, as RFC 3339 section 5.6 lets it."""
    return rfc3339(value).replace("T", " ")


def span(seconds: float) -> str:
    """How long, in its largest unit or two: "45 s", "12 min", "3 h 20 min", "2 d 4 h", "41 d"."""
    whole = int(abs(seconds))
    days, rest = divmod(whole, 86400)
    hours, rest = divmod(rest, 3600)
    minutes, left = divmod(rest, 60)
    if days >= 10 or (days and not hours):
        return f"{days} d"
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    return f"{minutes} min" if minutes else f"{left} s"


def took(time: timedelta) -> str:
    """As `span`, and in milliseconds below a second."""
    seconds = time.total_seconds()
    return span(seconds) if seconds >= 1 else f"{seconds * 1000:.0f} ms"


def ago(value: datetime, now: datetime) -> str:
    """Relative to now: "12 min ago", "in 3 d", "now"."""
    seconds = (now - value) / timedelta(seconds=1)
    if abs(seconds) < 1:
        return "now"
    return f"{span(seconds)} ago" if seconds > 0 else f"in {span(seconds)}"


def size(octets: float) -> str:
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if octets < 1024:
            return f"{octets:.0f} {unit}" if unit == "bytes" else f"{octets:.1f} {unit}"
        octets /= 1024
    return f"{octets:.1f} TiB"


def count(number: float) -> str:
    return f"{number:,.0f}"


def plural(number: int, one: str, many: str = "") -> str:
    """ "1 message", "2 messages"."""
    return f"{count(number)} {one if number == 1 else many or one + 's'}"


def csv_cell(value: object) -> str:
    """For a spreadsheet that would take `=`, `+`, `-` or `@` at the start of a cell for a formula: an apostrophe makes it text."""
    text = clean(str(value))
    return f"'{text}" if text.startswith(_FORMULA) else text
