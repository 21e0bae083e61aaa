"""The overview's first answer: is mail moving, is it safe, and what wants somebody's hand? Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from relay.admin.console.charts import percent_text
from relay.admin.console.tallies import CLEAR
from relay.admin.console.words import count, plural, span

Json = Mapping[str, Any]

OLD, TOO_OLD = 4 * 3600.0, 24 * 3600.0
"""Seconds: when the oldest message is worth a look (its sender hears of the delay then, by default), and when it is worth a hand."""
SOON, AT_ONCE = 30, 7
"""Days: from when on a certificate's end is spoken of, and from when on it is urgent."""
_UNVERIFIED = (CLEAR, "encrypted")


@dataclass(frozen=True, slots=True)
class Sight:
    """One thing to see. `kind` is "good", "warn", "bad", or "" where there is nothing to judge; `path` leads to more."""

    title: str
    kind: str
    text: str
    path: str


def relay(status: Json) -> Sight:
    troubles = status["troubles"]
    if troubles:
        return Sight("Relay", "bad", f"not ready: {troubles[0]}", "#moving")
    return Sight("Relay", "good", "takes mail", "#moving")


def queue(status: Json) -> Sight:
    waits, oldest = status["queue"]["messages"], status["queue"]["oldest"]
    if not waits:
        return Sight("Queue", "good", "nothing waits", "/queue")
    kind = "bad" if oldest >= TOO_OLD else "warn" if oldest >= OLD else "good"
    return Sight(
        "Queue",
        kind,
        f"{plural(waits, 'message')} {'waits' if waits == 1 else 'wait'}, oldest {span(oldest)}",
        "/queue",
    )


def partners(answer: Json) -> Sight:
    """`answer`: {troubled, more}."""
    troubled = answer["troubled"]
    if not troubled:
        return Sight("Partners", "good", "none in trouble", "/connectors")
    waiting = sum(each["recipients"] for each in troubled)
    number = f"{count(len(troubled))}{' or more' if answer['more'] else ''}"
    return Sight("Partners", "bad", f"{number} in trouble, {plural(waiting, 'recipient')} kept back", "#trouble")


def transit(shares: Json) -> Sight:
    """`shares` of mail out: how much of it was under TLS, and to somebody who was verified."""
    total = shares["messages"]
    if not total:
        return Sight("TLS out", "", "no mail in this time", "#safe")
    verified = {each["name"]: each["messages"] for each in shares["verified"]}
    clear, unproved = verified.get(CLEAR, 0), sum(verified.get(name, 0) for name in _UNVERIFIED)
    text = f"{percent_text(100 * (total - clear) / total)} under TLS, {percent_text(100 * (total - unproved) / total)} verified"
    return Sight("TLS out", "warn" if clear else "good", text, "#safe")


def certificates(ending: Sequence[Json]) -> Sight:
    """`ending`: those that end within SOON days or are in trouble, the first to end first."""
    if not ending:
        return Sight("Certificates", "good", f"none ends within {SOON} days", "/certificates")
    first = ending[0]
    days = first["days_left"]
    if days is None or first["broken"]:
        return Sight("Certificates", "bad", f"{first['name']} is in trouble", "#ending")
    if days < 0:
        return Sight("Certificates", "bad", f"{first['name']} has ended", "#ending")
    more = f", {len(ending) - 1} more within {SOON} days" if len(ending) > 1 else ""
    return Sight(
        "Certificates",
        "bad" if days < AT_ONCE else "warn",
        f"{first['name']} ends in {span(days * 86400)}{more}",
        "#ending",
    )


def configuration(waiting: Sequence[str]) -> Sight:
    if waiting:
        return Sight("Configuration", "warn", "the file on disk is not in force", "/change")
    return Sight("Configuration", "good", "in force as on disk", "/change")


def suspended(number: int) -> Sight:
    if number:
        return Sight("Suspended", "warn", f"{plural(number, 'suspension')} in force", "/queue#suspensions")
    return Sight("Suspended", "good", "nothing", "/queue")
