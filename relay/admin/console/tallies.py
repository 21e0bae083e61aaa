"""Counts of what went through, from the API's answers about evidence, into the series and shares that pages draw. Pure."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from relay.admin.console.charts import Columns, Share, columns, shares
from relay.admin.console.words import moment

Json = Mapping[str, Any]

CLEAR = "none"
"""What the API calls mail in clear, in a version, a cipher or a way to verify."""
_VERSIONS = {CLEAR: ("in clear", "bad")}
VERIFIED = {
    CLEAR: ("in clear", "bad"),
    "encrypted": ("TLS, not verified", "warn"),
    "pkix": ("certificate (PKIX)", "good"),
    "pkix+name": ("certificate and name (PKIX)", "good"),
    "mta-sts": ("MTA-STS", "good"),
    "dane": ("DANE", "good"),
    "pins": ("pinned key", "good"),
    "client-certificate": ("client certificate", "good"),
}
KINDS = (
    ("accepted", "Messages in", "in"),
    ("delivered", "Delivered", "delivered"),
    ("deferred", "Deferred", "deferred"),
    ("bounced", "Bounced", "refused"),
    ("refused", "Refused by us", "refused"),
)


@dataclass(frozen=True, slots=True)
class Range:
    """A span of time to look at: what it is called, how far back, how wide one bar is, and the API's step for it."""

    name: str
    title: str
    back: timedelta
    bar: timedelta
    step: str


RANGES = {
    each.name: each
    for each in (
        Range("24h", "24 hours", timedelta(hours=24), timedelta(hours=1), "hour"),
        Range("7d", "7 days", timedelta(days=7), timedelta(hours=6), "hour"),
        Range("30d", "30 days", timedelta(days=30), timedelta(days=1), "day"),
    )
}


@dataclass(frozen=True, slots=True)
class Series:
    """One small chart."""

    key: str
    name: str
    kind: str
    chart: Columns


def whole_bars(now: datetime, span: Range) -> tuple[datetime, datetime]:
    """From where to where: whole bars in UTC, the last one still running."""
    seconds = span.bar.total_seconds()
    end = datetime.fromtimestamp((now.timestamp() // seconds + 1) * seconds, now.tzinfo)
    return end - span.back, end


def series(points: Sequence[Json], since: datetime, until: datetime, bar: timedelta) -> Sequence[Series]:
    """The charts, each with every bar of the time, also where nothing happened."""
    number, totals = round((until - since) / bar), _by_bar(points, since, bar)
    moments = [since + bar * index for index in range(number)]
    return [
        Series(key, name, kind, columns([(at, totals[key][index]) for index, at in enumerate(moments)], bar))
        for key, name, kind in KINDS
    ]


def rows_of(points: Sequence[Json], since: datetime, bar: timedelta) -> Sequence[tuple[datetime, Sequence[int]]]:
    """The table that stands for the charts: the counts of KINDS, newest first, empty ones left out."""
    totals = _by_bar(points, since, bar)
    places = sorted({place for counts in totals.values() for place, count in counts.items() if count}, reverse=True)
    return [(since + bar * place, [totals[key][place] for key, _name, _kind in KINDS]) for place in places]


def _by_bar(points: Sequence[Json], since: datetime, bar: timedelta) -> dict[str, Counter[int]]:
    totals: dict[str, Counter[int]] = {key: Counter() for key, _name, _kind in KINDS}
    for each in points:
        at = moment(each["at"])
        if at is not None and at >= since:
            for key, counts in totals.items():
                counts[(at - since) // bar] += each[key]
    return totals


def shares_of(answer: Json, of: str) -> Sequence[Share]:
    """`of` is "version", "cipher", "group" or "verified"."""
    words = VERIFIED if of == "verified" else _VERSIONS
    kinds = [(*words.get(each["name"], (each["name"], "")), each["messages"]) for each in answer[of]]
    if of in ("cipher", "group"):
        kinds = [each for each in kinds if each[0] != "in clear"]
    return shares([(label, number, kind) for label, kind, number in kinds])


def verified_words(counts: Mapping[str, int]) -> str:
    """ "DANE 40, in clear 5", the most first."""
    return counted({VERIFIED.get(name, (name, ""))[0]: number for name, number in counts.items()})


def version_words(counts: Mapping[str, int]) -> str:
    return counted({_VERSIONS.get(name, (name, ""))[0]: number for name, number in counts.items()})


def counted(counts: Mapping[str, int]) -> str:
    """ "TLSv1.3 120, TLSv1.2 3", the most first."""
    ordered = sorted(counts.items(), key=lambda each: (-each[1], each[0]))
    return ", ".join(f"{label} {number:,}" for label, number in ordered if number)
