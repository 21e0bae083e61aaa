"""The security report as one JSON document: what an auditor asks, and what is not in it.

`{hostname, version, made_at, time_zone, since, until, counted_to, domain, totals: {in, out, refused}, shares: {in, out}, partners, demands,
exceptions, clear, refusals, troubled, left_out}`. Partners and shares as in `figures`.

- demands: `[{connector, direction, asked, domains, messages, clear, verified, failures}]`: what each connector asked against what was had.
- exceptions: `[{recipient_domain, allow, until, reason, running}]` of the configuration in force; `until` is the last day.
- clear: `[{domain, direction, connector, messages, why}]`: mail that went in clear, and what allowed it.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from relay import __version__
from relay.config.models import Config, TlsException
from relay.mail.codec import time_text
from relay.mail.tally import CLEAR, OTHER, Refusal, Result, Way
from relay.report.security import figures
from relay.report.security.figures import Json, Line

MOST_PARTNERS = 5000

LEFT_OUT = (
    "Counts are of messages and attempts, not of people or content: no address, no subject and no message is in this report.",
    "Time is cut to the hour in UTC, and to the day for what is older than 35 days.",
    "What other mail servers did with a message after they had taken it from us, or before they gave it to us, cannot be known here.",
    "Mail that the relay wrote itself (delivery reports) is not counted as incoming.",
    "How a client of an inbound connector was verified is told by the connectors in force when the message was counted.",
    "Recipients that were given up for their age are not among those refused for good; `relay trace` shows them.",
    "Refusals of the half minute before a crash may be missing.",
)


@dataclass(frozen=True, slots=True)
class Subject:
    """What a report is about; `domain` "" for all partners."""

    since: datetime
    until: datetime
    made_at: datetime
    counted_to: datetime
    domain: str = ""


@dataclass(frozen=True, slots=True)
class Found:
    """What it is made of. `troubled` in the shape of `figures`."""

    lines: Sequence[Line]
    refusals: Sequence[tuple[Refusal, int]]
    troubled: Sequence[Json]


def report(config: Config, subject: Subject, found: Found) -> Json:
    """Without `domain` restricted figures of refusals: those are not known by domain, and left out where one is asked for."""
    rows = figures.partners(found.lines)
    refused = [] if subject.domain else figures.refusals(found.refusals)
    ended = {each: _recipients(found.lines, each) for each in (Result.DEFERRED, Result.BOUNCED)}
    left_out = list(LEFT_OUT)
    if subject.domain:
        left_out.append("Refusals are not counted by domain, so there are none in a report about one.")
    if len(rows) > MOST_PARTNERS:
        left_out.append(
            f"{len(rows) - MOST_PARTNERS} partners with the least mail have no row; they are in totals and shares."
        )
    if any(each["domain"] == OTHER for each in rows):
        left_out.append(f'"{OTHER}" sums up what did not fit into the limits of an hour (1,000 domains each way).')
    return {
        "hostname": config.hostname,
        "version": __version__,
        "made_at": time_text(subject.made_at),
        "time_zone": "UTC",
        "since": time_text(subject.since),
        "until": time_text(subject.until),
        "counted_to": time_text(subject.counted_to),
        "domain": subject.domain or None,
        "totals": {
            "in": figures.clear_totals(rows, Way.IN),
            "out": {
                **figures.clear_totals(rows, Way.OUT),
                "deferred": ended[Result.DEFERRED],
                "bounced": ended[Result.BOUNCED],
            },
            "refused": sum(each["count"] for each in refused),
        },
        "shares": {way.value: figures.shares(found.lines, way) for way in Way},
        "partners": rows[:MOST_PARTNERS],
        "demands": demands(found.lines),
        "exceptions": [
            _exception(each, subject) for each in config.exceptions if subject.domain in ("", each.recipient_domain)
        ],
        "clear": in_clear(config, found.lines),
        "refusals": refused,
        "troubled": [each for each in found.troubled if subject.domain in ("", each["domain"])],
        "left_out": left_out,
    }


def _recipients(lines: Sequence[Line], result: Result) -> int:
    return sum(count.recipients for count, _first, _last in lines if count.kind.result is result)


def _exception(exception: TlsException, subject: Subject) -> Json:
    return {
        "recipient_domain": exception.recipient_domain,
        "allow": exception.allow.value,
        "until": exception.until.isoformat(),
        "reason": exception.reason,
        "running": subject.made_at.astimezone(UTC).date() <= exception.until,
    }


def demands(lines: Sequence[Line]) -> list[Json]:
    """By connector and what it asked, the busiest first."""
    found: dict[tuple[Way, str, str], list[Line]] = {}
    for line in lines:
        kind = line[0].kind
        found.setdefault((kind.way, kind.connector, kind.style.asked), []).append(line)
    rows: list[Json] = []
    for (way, connector, asked), its in found.items():
        moved = [count for count, _first, _last in its if count.kind.result.moved]
        verified: Counter[str] = Counter()
        failures: Counter[str] = Counter()
        for count in moved:
            verified[count.kind.style.verified] += count.messages
        for count, _first, _last in its:
            if count.kind.failure:
                failures[count.kind.failure] += count.messages
        rows.append(
            {
                "connector": connector,
                "direction": way.value,
                "asked": asked,
                "domains": len({count.kind.domain for count, _first, _last in its}),
                "messages": sum(each.messages for each in moved),
                "clear": sum(each.messages for each in moved if each.kind.style.version == CLEAR),
                "verified": dict(verified.most_common()),
                "failures": dict(failures.most_common()),
            }
        )
    return sorted(rows, key=lambda each: (-each["messages"], each["direction"], each["connector"], each["asked"]))


def in_clear(config: Config, lines: Sequence[Line]) -> list[Json]:
    """Mail that went in clear, the most first, and what allowed it."""
    found: Counter[tuple[Way, str, str, str]] = Counter()
    for count, _first, _last in lines:
        kind = count.kind
        if kind.result.moved and kind.style.version == CLEAR:
            found[kind.way, kind.domain, kind.connector, kind.style.asked] += count.messages
    return [
        {
            "domain": domain,
            "direction": way.value,
            "connector": connector,
            "messages": messages,
            "why": _why(config, way, connector, asked),
        }
        for (way, domain, connector, asked), messages in found.most_common(MOST_PARTNERS)
    ]


def _why(config: Config, way: Way, connector: str, asked: str) -> str:
    if way is Way.IN:
        if connector:
            return f"connector {connector} does not require TLS"
        return "no connector names the sender's domain, so TLS was not required of the client"
    if asked.startswith("exception"):
        return "an exception allowed it"
    if asked.startswith("opportunistic"):
        names = {each.name for each in config.outbound}
        who = f"connector {connector}" if connector in names else "the default"
        return f"{who} asks for TLS where it is offered only, and it was not offered, or broke where `plaintext: if-tls-fails` allows that"
    return "what allowed it was summed up"


def text_of(value: Any) -> str:
    """A value in words: counts by name as "name 3, other 1"."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {number}" for name, number in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return "" if value is None else str(value)
