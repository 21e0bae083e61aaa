"""Figures from the tally, in the JSON shapes of `relay security` and of the admin API's /security paths. Pure.

- overview: `{since, until, step, points: [{at, accepted, delivered, deferred, bounced, refused}], totals: {...}}`. `accepted` counts
  messages; `delivered`, `deferred`, `bounced` recipients, by attempt (one that is tried five times is deferred five times); `refused`
  commands and connections.
- shares: `{direction, messages, version: [{name, messages, share}], cipher: [...], group: [...], verified: [...]}`, of messages accepted or
  delivered; `share` from 0 to 1; mail in clear is "none" in each list.
- partner: `{domain, direction, connectors, messages, recipients, clear, versions, verified, asked, weakest, deferred, bounced, failures,
  first_seen, last_seen}`. `deferred` and `bounced` are recipients, by attempt; `failures` attempts by TlsFailure. `weakest` is
  `{version, cipher, group, verified}` of a message that went, null where none did.
- troubled: `{domain, connector, failure, reason, since, recipients, hop, text, remedy}`, `reason` "tls" or "unreachable".
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from relay.mail.codec import time_text
from relay.mail.tally import CLEAR, OTHER, Count, Refusal, Result, Style, Verified, Waiting, Way
from relay.mail.tls import TLS_VERSIONS, TlsFailure
from relay.policy.remedy import remedy

Json = dict[str, Any]
Line = tuple[Count, datetime, datetime]
"""A count of one kind, and the first and last hour in which it was counted."""

STEPS = {"hour": timedelta(hours=1), "day": timedelta(days=1)}
_SERIES = ("accepted", "delivered", "deferred", "bounced", "refused")


def overview(
    span: tuple[datetime, datetime],
    step: str,
    counted: Iterable[tuple[datetime, str, int, int]],
    refused: Iterable[tuple[datetime, int]],
) -> Json:
    """Every step of the span is there. `counted`: (time, result, messages, recipients)."""
    points: dict[datetime, Counter[str]] = {at: Counter() for at in _steps(span, step)}
    for at, result, messages, recipients in counted:
        points.setdefault(at, Counter())[result] += messages if result == Result.ACCEPTED else recipients
    for at, count in refused:
        points.setdefault(at, Counter())["refused"] += count
    shown = [{"at": time_text(at), **{name: point[name] for name in _SERIES}} for at, point in sorted(points.items())]
    return {
        **_span(span),
        "step": step,
        "points": shown,
        "totals": {name: sum(each[name] for each in shown) for name in _SERIES},
    }


def _steps(span: tuple[datetime, datetime], step: str) -> Iterable[datetime]:
    at = span[0].astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    at = at.replace(hour=0) if step == "day" else at
    while at < span[1]:
        yield at
        at += STEPS[step]


def _span(span: tuple[datetime, datetime]) -> Json:
    return {"since": time_text(span[0]), "until": time_text(span[1])}


def shares(lines: Iterable[Line], way: Way) -> Json:
    counts: dict[str, Counter[str]] = {name: Counter() for name in ("version", "cipher", "group", "verified")}
    total = 0
    for count, _first, _last in lines:
        if count.kind.way is not way or not count.kind.result.moved:
            continue
        total += count.messages
        style = count.kind.style
        for name, counter in counts.items():
            counter[getattr(style, name)] += count.messages
    return {
        "direction": way.value,
        "messages": total,
        **{
            name: [
                {"name": each, "messages": number, "share": round(number / total, 4)}
                for each, number in sorted(counter.items(), key=lambda item: (-item[1], item[0]))
            ]
            for name, counter in counts.items()
        },
    }


class _Partner:
    def __init__(self, domain: str, way: Way) -> None:
        self.domain, self.way = domain, way
        self.messages = self.recipients = self.clear = 0
        self.ended: Counter[str] = Counter()
        self.failures: Counter[str] = Counter()
        self.connectors: set[str] = set()
        self.versions: Counter[str] = Counter()
        self.verified: Counter[str] = Counter()
        self.asked: Counter[str] = Counter()
        self.weakest: Style | None = None
        self.first: datetime | None = None
        self.last: datetime | None = None

    def add(self, line: Line) -> None:
        count, first, last = line
        kind, style = count.kind, count.kind.style
        self.first = min(self.first or first, first)
        self.last = max(self.last or last, last)
        self.connectors.add(kind.connector)
        if kind.failure:
            self.failures[kind.failure] += count.messages
        if not kind.result.moved:
            self.ended[kind.result] += count.recipients
            return
        self.messages += count.messages
        self.recipients += count.recipients
        self.versions[style.version] += count.messages
        self.verified[style.verified] += count.messages
        if style.asked:
            self.asked[style.asked] += count.messages
        if style.version == CLEAR:
            self.clear += count.messages
        if self.weakest is None or _strength(style) < _strength(self.weakest):
            self.weakest = style

    def json(self) -> Json:
        weakest = self.weakest
        return {
            "domain": self.domain,
            "direction": self.way.value,
            "connectors": sorted(each for each in self.connectors if each),
            "messages": self.messages,
            "recipients": self.recipients,
            "clear": self.clear,
            "versions": dict(self.versions.most_common()),
            "verified": dict(self.verified.most_common()),
            "asked": dict(self.asked.most_common()),
            "weakest": None
            if weakest is None
            else {
                "version": weakest.version,
                "cipher": weakest.cipher,
                "group": weakest.group,
                "verified": weakest.verified,
            },
            "deferred": self.ended[Result.DEFERRED],
            "bounced": self.ended[Result.BOUNCED],
            "failures": dict(self.failures.most_common()),
            "first_seen": time_text(self.first) if self.first else None,
            "last_seen": time_text(self.last) if self.last else None,
        }


def _strength(style: Style) -> tuple[int, int, str]:
    """In clear first, then by version, then by how it was verified. What was summed up counts as weaker than what is known."""
    version = TLS_VERSIONS.index(style.version) + 1 if style.version in TLS_VERSIONS else 0
    verified = Verified(style.verified).rank if style.verified in set(Verified) else 0
    return (-1 if style.version == CLEAR else version, verified, style.cipher)


def partners(lines: Iterable[Line]) -> list[Json]:
    """The busiest first."""
    found: dict[tuple[str, Way], _Partner] = {}
    for line in lines:
        kind = line[0].kind
        key = (kind.domain, kind.way)
        if key not in found:
            found[key] = _Partner(*key)
        found[key].add(line)
    ordered = sorted(found.values(), key=lambda each: (each.domain == OTHER, -each.messages, each.domain, each.way))
    return [each.json() for each in ordered]


def refusals(found: Iterable[tuple[Refusal, int]]) -> list[Json]:
    return [
        {
            "what": each.what,
            "listener": each.listener,
            "command": each.command,
            "connector": each.connector,
            "code": each.code,
            "status": each.status,
            "count": count,
        }
        for each, count in found
    ]


def troubled(found: Sequence[Waiting], connector_of: Callable[[str], str]) -> list[Json]:
    """Those that wait because of TLS first, then by how much waits."""
    ordered = sorted(found, key=lambda each: (not each.failure, -each.recipients, each.domain))
    return [_trouble(each, connector_of(each.domain)) for each in ordered]


def _trouble(each: Waiting, connector: str) -> Json:
    if each.failure:
        advice = remedy(TlsFailure(each.failure), hop=each.hop, connector=connector, domain=each.domain)
    else:
        advice = (
            f"No host of {each.domain} could be reached. `relay probe {each.domain}` tries each of them now; see whether DNS and port 25 "
            "outwards work from here (`relay doctor`), then ask them."
        )
    return {
        "domain": each.domain,
        "connector": connector,
        "failure": each.failure or None,
        "reason": "tls" if each.failure else "unreachable",
        "since": time_text(each.since),
        "recipients": each.recipients,
        "hop": each.hop,
        "text": each.text,
        "remedy": advice,
    }


def clear_totals(rows: Sequence[Mapping[str, Any]], way: Way) -> Json:
    """Of partners' rows: messages, how many in clear, how many under TLS."""
    ours = [each for each in rows if each["direction"] == way]
    messages, clear = sum(each["messages"] for each in ours), sum(each["clear"] for each in ours)
    return {"messages": messages, "clear": clear, "tls": messages - clear}
