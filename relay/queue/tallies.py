"""Questions to the tally, answered as nouns of `relay.mail.tally`. Functions of a reading connection."""

import json
import sqlite3
from collections import Counter

from relay.mail.tally import Count, Refusal, Sighting, Waiting
from relay.queue.ids import begun, milliseconds, moment
from relay.queue.questions import domains as live_domains
from relay.queue.tally import HOUR, WAYS, kind_of
from relay.queue.tallyold import ROLL

MOST_LINES = 200_000
_MOST_DOMAINS = 2000  # that are looked at for trouble
_LOOKED_AT = 100  # recipients of each
_HOURS_A_DAY = 24

_COUNTS = (
    "SELECT CASE :by WHEN 'hour' THEN hour WHEN 'day' THEN hour - hour % 24 ELSE 0 END AS at,"
    " way, domain, connector, version, cipher, groups, verified, asked, result, failure, sum(messages), sum(recipients), min(hour), max(hour)"
    " FROM tally CROSS JOIN tally_kind USING (c) WHERE hour >= :since AND hour < :until AND (:domain = '' OR domain = :domain)"
    " GROUP BY at, c LIMIT :most"
)
_SERIES = (
    "SELECT CASE :by WHEN 'hour' THEN hour ELSE hour - hour % 24 END AS at, result, sum(messages), sum(recipients)"
    " FROM tally CROSS JOIN tally_kind USING (c) WHERE hour >= :since AND hour < :until GROUP BY at, result"
)

Span = tuple[int, int]
"""Hours since 1970: from, and up to but not including."""


def lines(db: sqlite3.Connection, span: Span, domain: str = "") -> list[tuple[Count, int, int]]:
    """One for each kind, with the first and the last hour in which it was counted; `at` of the count is the first."""
    given = {"by": "", "since": span[0], "until": span[1], "domain": domain, "most": MOST_LINES}
    return [
        (Count(moment(first * HOUR), kind_of(kind), messages, recipients), first, last)
        for _at, *kind, messages, recipients, first, last in db.execute(_COUNTS, given)
    ]


def series(db: sqlite3.Connection, span: Span, by: str) -> list[tuple[int, str, int, int]]:
    """(hour, result, messages, recipients), by "hour" or "day"."""
    return db.execute(_SERIES, {"by": by, "since": span[0], "until": span[1]}).fetchall()


def refused_series(db: sqlite3.Connection, span: Span, by: str) -> list[tuple[int, int]]:
    return db.execute(
        "SELECT CASE ? WHEN 'hour' THEN hour ELSE hour - hour % 24 END AS at, sum(count) FROM tally_refused"
        " WHERE hour >= ? AND hour < ? GROUP BY at",
        (by, *span),
    ).fetchall()


def refusals(db: sqlite3.Connection, span: Span) -> list[tuple[Refusal, int]]:
    """The most frequent first."""
    rows = db.execute(
        "SELECT what, listener, command, connector, code, status, sum(count) AS times FROM tally_refused WHERE hour >= ? AND hour < ?"
        " GROUP BY what, listener, command, connector, code, status ORDER BY times DESC, what, listener, command LIMIT 1000",
        span,
    )
    return [(Refusal(*row[:6]), row[6]) for row in rows]


def sightings(db: sqlite3.Connection, since_day: int, domain: str = "") -> list[Sighting]:
    """What was shown since that day, by way, domain, host and chain."""
    rows = db.execute(
        "SELECT way, domain, host, h, sum(messages), max(latest), certificates FROM tally_seen JOIN tally_chain USING (h)"
        " WHERE day >= ? AND (? = '' OR domain = ?) GROUP BY way, domain, host, h LIMIT ?",
        (since_day, domain, domain, MOST_LINES),
    ).fetchall()
    kept: dict[str, bytes | None] = {}
    found: list[Sighting] = []
    for way, name, host, _h, messages, latest, listed in rows:
        wanted = json.loads(listed)
        for sha256 in wanted:
            if sha256 not in kept:
                row = db.execute("SELECT der FROM certificate WHERE sha256 = ?", (sha256,)).fetchone()
                kept[sha256] = row[0] if row else None
        chain = tuple(der for der in (kept[each] for each in wanted) if der is not None)
        found.append(Sighting(WAYS[way], name, host, chain, len(chain) == len(wanted), messages, moment(latest)))
    return found


def counted_to(db: sqlite3.Connection, now: int) -> int:
    """Up to when all is counted, milliseconds since 1970: the time of what comes next, `now` where nothing does."""
    marks = dict(db.execute("SELECT what, upto FROM tally_mark"))
    row = db.execute("SELECT at FROM attempt WHERE k > ? ORDER BY k LIMIT 1", (marks["attempts"],)).fetchone()
    message = db.execute("SELECT n FROM message WHERE n > ? ORDER BY n LIMIT 1", (marks["messages"],)).fetchone()
    open_ = db.execute("SELECT min(n) FROM tally_open").fetchone()[0]
    times: list[int] = [now, *(row or ())]
    times += [milliseconds(begun(each)) for each in ((message or (None,))[0], open_) if each is not None]
    return min(times)


def waiting(db: sqlite3.Connection) -> tuple[list[Waiting], bool]:
    """Domains whose mail waits because of TLS, or since no host of theirs could be reached; and whether some were not looked at.

    The recipients of each that are due first are looked at: they have been tried longest.
    """
    names = live_domains(db)
    found: list[Waiting] = []
    for domain in names[:_MOST_DOMAINS]:
        rows = db.execute(
            "SELECT n, last FROM recipient INDEXED BY recipient_by_domain WHERE domain = ? AND state = 0 AND last IS NOT NULL LIMIT ?",
            (domain, _LOOKED_AT),
        ).fetchall()
        telling = [(n, last) for n, last in ((n, json.loads(text)) for n, text in rows) if _is_trouble(last)]
        if not telling:
            continue
        (recipients,) = db.execute(
            "SELECT count(*) FROM recipient INDEXED BY recipient_by_domain WHERE domain = ? AND state = 0", (domain,)
        ).fetchone()
        failures = Counter(last["failure"] or "" for _n, last in telling)
        failure = max(failures, key=lambda each: (bool(each), failures[each]))
        last = next(last for _n, last in telling if (last["failure"] or "") == failure)
        since = begun(min(n for n, last in telling if (last["failure"] or "") == failure))
        found.append(Waiting(domain, failure, since, recipients, last["hop"], last["text"]))
    return found, len(names) > _MOST_DOMAINS


def _is_trouble(last: dict[str, object]) -> bool:
    """TLS, or nobody reached: RFC 3463 section 3.5, X.4.1 to X.4.4."""
    return bool(last["failure"]) or str(last["status"])[1:] in (".4.1", ".4.2", ".4.3", ".4.4")


def is_rolled(hour: int, today: int) -> bool:
    """True where an hour stands for its day."""
    return hour < (today - ROLL) * _HOURS_A_DAY


def has_news(db: sqlite3.Connection, slot: int) -> bool:
    """True where some process has written since that slot was last told to be complete."""
    row = db.execute("SELECT attempts, messages, open FROM tally_slot WHERE slot = ?", (slot,)).fetchone()
    if row is None or row[2] != "[]":
        return True
    return bool(
        db.execute(
            "SELECT EXISTS (SELECT 1 FROM attempt WHERE k > ?) OR EXISTS (SELECT 1 FROM message WHERE n > ?)", row[:2]
        ).fetchone()[0]
    )
