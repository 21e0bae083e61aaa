"""Where the lines and bars of a chart go: numbers for a template to write as SVG. No I/O.

A chart is sized by attributes and coloured by classes, since the console's policy allows no inline style. Each stands for a table that a
template gives beside it, and each bar is labelled, so that nothing depends on seeing colours.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar of a column chart; `label` says it in words."""

    x: float
    y: float
    width: float
    height: float
    label: str


@dataclass(frozen=True, slots=True)
class Columns:
    """A column chart in a box of `width` by `height`. `top` is the value at the upper edge; `ticks` are (x, text) below."""

    width: int
    height: int
    top: int
    bars: Sequence[Bar]
    ticks: Sequence[tuple[float, str]]
    total: int
    peak: str

    @property
    def is_empty(self) -> bool:
        return not self.total


@dataclass(frozen=True, slots=True)
class Share:
    """One part of a whole. `percent` is of the whole, `width` the bar's in per cent of the widest."""

    label: str
    count: int
    percent: float
    kind: str = ""

    @property
    def text(self) -> str:
        return percent_text(self.percent)


@dataclass(frozen=True, slots=True)
class Mark:
    """One event on a life line: where it is, its kind ("accepted", "delivered", "deferred", "bounced"), and what it was, in words."""

    x: float
    kind: str
    label: str
    text: str


@dataclass(frozen=True, slots=True)
class LifeLine:
    width: int
    marks: Sequence[Mark]
    begins: datetime
    ends: datetime


def columns(values: Sequence[tuple[datetime, int]], step: timedelta, width: int = 170, height: int = 64) -> Columns:
    """One bar for each moment (the start of its step), oldest first."""
    top = nice_top(max((count for _at, count in values), default=0))
    room = width / max(len(values), 1)
    gap = min(room * 0.2, 2.0)
    bars = []
    for index, (at, count) in enumerate(values):
        tall = round(height * count / top, 2)
        if count:
            tall = max(tall, 1.5)  # a single message among thousands is still to be seen
        label = f"{_moment(at, step)}: {count:,}"
        bars.append(Bar(round(index * room + gap / 2, 2), round(height - tall, 2), round(room - gap, 2), tall, label))
    most = max(values, key=lambda each: each[1], default=None)
    peak = f"most {most[1]:,} at {_moment(most[0], step)}" if most and most[1] else ""
    return Columns(width, height, top, bars, _ticks(values, step, room), sum(count for _at, count in values), peak)


def nice_top(most: int) -> int:
    """The next of 1, 2, 5, 10, 20, ... that is not less; 1 for nothing."""
    if most <= 1:
        return 1
    power = 10 ** int(math.log10(most))
    return int(next(factor * power for factor in (1, 2, 5, 10) if factor * power >= most))


def shares(counts: Sequence[tuple[str, int, str]], most: int = 8) -> Sequence[Share]:
    """Of (label, count, kind), the largest first; what is beyond `most` is one share, "others"."""
    total = sum(count for _label, count, _kind in counts)
    if not total:
        return ()
    ordered = sorted((each for each in counts if each[1]), key=lambda each: (-each[1], each[0]))
    shown, rest = ordered[:most], sum(count for _label, count, _kind in ordered[most:])
    if rest:
        shown.append(("others", rest, ""))
    return [Share(label, count, 100 * count / total, kind) for label, count, kind in shown]


def percent_text(percent: float) -> str:
    """Never 100 % where something is missing, nor 0 % where something is there."""
    if 99.9 < percent < 100:
        return "99.9 %"
    if 0 < percent < 0.1:
        return "< 0.1 %"
    return f"{percent:.1f} %" if percent % 1 else f"{percent:.0f} %"


def life_line(events: Sequence[tuple[datetime, str, str, str]], width: int = 720, margin: int = 14) -> LifeLine:
    """Of (time, kind, label, text), in order of time. Marks that would lie upon each other are moved apart."""
    begins, ends = events[0][0], max(each[0] for each in events)
    whole = (ends - begins).total_seconds() or 1.0
    room = width - 2 * margin
    apart = min(22.0, room / max(len(events), 1))
    places = [margin + room * (at - begins).total_seconds() / whole for at, *_rest in events]
    for index in range(1, len(places)):
        places[index] = max(places[index], places[index - 1] + apart)
    last = float(width - margin)
    for index in reversed(range(len(places))):
        places[index] = min(places[index], last)
        last = places[index] - apart
    marks = [Mark(round(x, 1), kind, label, text) for x, (_at, kind, label, text) in zip(places, events, strict=True)]
    return LifeLine(width, marks, begins, ends)


def _moment(at: datetime, step: timedelta) -> str:
    return at.strftime("%Y-%m-%d") if step >= timedelta(days=1) else at.strftime("%Y-%m-%d %H:%MZ")


def _ticks(values: Sequence[tuple[datetime, int]], step: timedelta, room: float) -> Sequence[tuple[float, str]]:
    """About four, evenly spread."""
    every = max(math.ceil(len(values) / 4), 1)
    shown = "%H:%M" if step < timedelta(days=1) and len(values) <= 48 else "%m-%d"
    return [(round(index * room, 2), values[index][0].strftime(shown)) for index in range(0, len(values), every)]
