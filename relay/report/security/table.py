"""The security report as CSV (RFC 4180): one table, a row for each partner; then the rest in tables below it, each under its own heading row.

Threat: domains and texts are strangers'. A cell that a spreadsheet would take for a formula is defused with an apostrophe.
"""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from relay.report.security.document import text_of
from relay.report.text import one_line

_DANGEROUS = ("=", "+", "-", "@", "\t", "\r")

_TABLES: Sequence[tuple[str, Sequence[str]]] = (
    (
        "partners",
        (
            *(
                "domain",
                "direction",
                "connectors",
                "messages",
                "recipients",
                "clear",
                "versions",
                "verified",
                "asked",
                "weakest",
            ),
            *("deferred", "bounced", "failures", "first_seen", "last_seen"),
        ),
    ),
    ("demands", ("connector", "direction", "asked", "domains", "messages", "clear", "verified", "failures")),
    ("clear", ("domain", "direction", "connector", "messages", "why")),
    ("exceptions", ("recipient_domain", "allow", "until", "reason", "running")),
    ("refusals", ("what", "listener", "command", "connector", "code", "status", "count")),
    ("troubled", ("domain", "connector", "failure", "reason", "since", "recipients", "hop", "text", "remedy")),
)


def defused(value: Any) -> str:
    """The cell's text, safe to open in a spreadsheet. Numbers stay numbers: ours are never negative."""
    text = text_of(value)
    if text.startswith(_DANGEROUS):  # before the blanks go, with which a tab would go too
        text = "'" + text
    text = one_line(text)
    return "'" + text if text.startswith(_DANGEROUS) else text


def csv_of(report: Mapping[str, Any]) -> str:
    out = io.StringIO()
    write = csv.writer(out, lineterminator="\r\n").writerow
    head = ("hostname", "version", "made_at", "time_zone", "since", "until", "counted_to", "domain")
    write(["ironpost security report"])
    for key in head:
        write([key, defused(report[key])])
    for name, columns in _TABLES:
        write([])
        write([name])
        write(columns)
        for row in report[name]:
            write(_cells(row, columns))
    write([])
    write(["shares", "of", "name", "messages", "share"])
    for way, shares in report["shares"].items():
        for what in ("version", "cipher", "group", "verified"):
            for each in shares[what]:
                write([way, what, *map(defused, (each["name"], each["messages"], each["share"]))])
    write([])
    write(["not in this report"])
    for text in report["left_out"]:
        write([defused(text)])
    return out.getvalue()


def _cells(row: Mapping[str, Any], columns: Iterable[str]) -> list[str]:
    return [defused(row[column]) for column in columns]
