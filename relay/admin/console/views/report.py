"""The security report: how mail was protected in transit, for a day or a span, all partners or one. As a page, printable, and as CSV by day."""

import csv
import io
from collections.abc import Iterable
from datetime import UTC, date, datetime, time, timedelta

from starlette.responses import Response

from relay.admin.console import tallies
from relay.admin.console.desk import Json
from relay.admin.console.visit import Visit
from relay.admin.console.words import csv_cell
from relay.admin.endpoint import BadQuestionError

_MOST_DAYS = 400
_MOST_DAYS_CSV = 93  # each is a report of its own; a quarter is what auditors ask for
_PAGE = 200
_COLUMNS = (
    *("day", "partner", "direction", "connectors", "messages", "in_clear", "deferred", "bounced"),
    *("versions", "verified_how", "asked", "weakest", "failures"),
)


async def report(visit: Visit) -> Response:
    """`since` and `until` are days (both inclusive), `partner` a domain, `from` how many rows are passed over; `all` shows them in one page."""
    trouble, (first, last), partner = "", _default(visit), visit.query("partner")
    try:
        first, last = _days(visit, _MOST_DAYS)
        found = await visit.facts.report(_begin(first), _begin(last + timedelta(days=1)), partner)
    except BadQuestionError as error:
        trouble, (first, last), partner = str(error), _default(visit), ""
        found = await visit.facts.report(_begin(first), _begin(last + timedelta(days=1)), "")
    today, days = visit.now.date(), (last - first).days + 1
    rows, start = found["partners"], 0 if visit.query("all") else visit.number("from")
    end = len(rows) if visit.query("all") else start + _PAGE
    return visit.show(
        "report.html",
        "/report",
        status=400 if trouble else 200,
        trouble=trouble,
        first=first,
        last=last,
        presets=[
            (title, today - timedelta(days=back), today - timedelta(days=until))
            for title, back, until in (
                ("Today so far", 0, 0),
                ("Yesterday", 1, 1),
                ("7 days", 7, 1),
                ("30 days", 30, 1),
            )
        ],
        csv_first=max(first, last - timedelta(days=_MOST_DAYS_CSV - 1)),
        csv_days=min(days, _MOST_DAYS_CSV),
        csv_whole=days <= _MOST_DAYS_CSV,
        partner=partner,
        report=found,
        rows=rows[start:end],
        number=len(rows),
        start=start,
        following=end if len(rows) > end else 0,
        shares=[
            (way, [tallies.shares_of(found["shares"][way], of) for of in ("version", "verified", "cipher")])
            for way in ("out", "in")
        ],
        versions_of=tallies.version_words,
        verified_of=tallies.verified_words,
        counted=tallies.counted,
    )


async def report_csv(visit: Visit) -> Response:
    """One row for each day, partner and direction, the newest day first."""
    first, last = _days(visit, _MOST_DAYS_CSV)
    partner, days = visit.query("partner"), []
    for number in range((last - first).days + 1):
        day = last - timedelta(days=number)
        days.append((day, await visit.facts.partners(_begin(day), _begin(day + timedelta(days=1)), partner)))
    headers = {"content-disposition": f'attachment; filename="security-report-{first}-{last}.csv"'}
    return Response(csv_text(days), media_type="text/csv; charset=utf-8", headers=headers)


def csv_text(days: Iterable[tuple[date, Iterable[Json]]]) -> str:
    """RFC 4180; a cell that a spreadsheet would take for a formula is made text."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow(_COLUMNS)
    for day, partners in days:
        for each in partners:
            writer.writerow([csv_cell(cell) for cell in (day, *_cells(each))])
    return out.getvalue()


def _cells(partner: Json) -> tuple[object, ...]:
    weakest = partner["weakest"]
    return (
        partner["domain"],
        partner["direction"],
        " ".join(partner["connectors"]),
        *(partner[key] for key in ("messages", "clear", "deferred", "bounced")),
        tallies.version_words(partner["versions"]),
        tallies.verified_words(partner["verified"]),
        tallies.counted(partner["asked"]),
        f"{weakest['version']} {weakest['cipher']} {weakest['verified']}" if weakest else "",
        tallies.counted(partner["failures"]),
    )


def _days(visit: Visit, most: int) -> tuple[date, date]:
    first, last = _default(visit)
    last = _day(visit, "until", last)
    first = _day(visit, "since", min(first, last))
    if first > last:
        raise BadQuestionError("since: it is behind until")
    if (last - first).days >= most:
        raise BadQuestionError(f"since: at most {most} days here")
    return first, last


def _default(visit: Visit) -> tuple[date, date]:
    """Today, so far."""
    today = visit.now.date()
    return today, today


def _day(visit: Visit, name: str, default: date) -> date:
    text = visit.query(name, 10)
    try:
        found = date.fromisoformat(text) if text else default
    except ValueError:
        raise BadQuestionError(f"{name}: a day as in 2026-11-25") from None
    if not date(2000, 1, 1) <= found < date(9999, 1, 1):
        raise BadQuestionError(f"{name}: a day as in 2026-11-25")
    return found


def _begin(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)
