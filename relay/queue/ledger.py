"""What TLS reports keep in the queue's database: counts, reports on their way, reports received (relay.report.tlsrpt.ledger.Ledger).

Small transactions behind those of mail; in trouble they are refused (StoreUnavailable), and their callers try again.
"""

import hashlib
import json
import sqlite3
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from functools import partial
from typing import Any

from relay.mail.codec import Json, received_json
from relay.mail.published import PolicyKind
from relay.mail.tls import TlsFailure
from relay.mail.tlsreport import Counts, Failing, Line, Policy, Posting, PostState, Received, Summary, Wanted
from relay.queue.facts import encode
from relay.queue.ids import milliseconds, moment
from relay.queue.sqlite import SqliteStore

_MOST = 10_000  # domains in one answer
_STEP = 500  # rows deleted in one transaction


class SqliteLedger:
    """Implements relay.report.tlsrpt.ledger.Ledger beside a SqliteStore."""

    def __init__(self, store: SqliteStore) -> None:
        self._store = store

    async def add(self, group: Mapping[Line, int]) -> None:
        await self._store.work(partial(_add, group=dict(group)))

    async def lines(self, day: date) -> Sequence[Line]:
        return await self._store.ask(partial(_lines, day=day))

    async def counts(self, day: date, domain: str) -> Sequence[Counts]:
        return await self._store.ask(partial(_counts, day=day, domain=domain))

    async def summaries(self, wanted: Wanted) -> Sequence[Summary]:
        return await self._store.ask(partial(_summaries, wanted=wanted))

    async def unposted(self, day: date, ends: datetime) -> Sequence[str]:
        return await self._store.ask(partial(_unposted, day=day, ends=milliseconds(ends)))

    async def post(self, day: date, domain: str, postings: Sequence[Posting]) -> None:
        await self._store.work(partial(_post, day=day, domain=domain, postings=tuple(postings)))

    async def note(self, posting: Posting) -> None:
        await self._store.work(partial(_note, posting=posting))

    async def due(self, now: datetime, limit: int) -> Sequence[Posting]:
        return await self._store.ask(partial(_due, now=milliseconds(now), limit=limit))

    async def postings(self, day: date, domain: str) -> Sequence[Posting]:
        return await self._store.ask(partial(_postings, day=day, domain=domain))

    async def take(self, received: Received) -> bool:
        return await self._store.work(partial(_take, received=received))

    async def received(self, since: datetime | None, limit: int) -> Sequence[Json]:
        after = -1 if since is None else milliseconds(since)
        return await self._store.ask(partial(_received, since=after, limit=limit))

    async def forget(self, *, days: date, received: datetime, most: int) -> None:
        while await self._store.work(partial(_forget_days, before=days.isoformat())):
            pass
        await self._store.work(partial(_forget_received, before=milliseconds(received), most=most))


def _hash(policy: Policy) -> bytes:
    told = encode([policy.kind.value, policy.domain, policy.strings, policy.mx])
    return hashlib.blake2b(told.encode(), digest_size=16).digest()


def _add(db: sqlite3.Connection, group: Mapping[Line, int]) -> None:
    for line, number in group.items():
        policy, failing = line.policy, line.failing
        successes = number if failing is None else 0
        row = (
            *(line.day.isoformat(), line.domain, _hash(policy), policy.kind.value, policy.domain),
            *(encode(policy.strings), encode(policy.mx), successes),
        )
        (key,) = db.execute(
            "INSERT INTO tlsrpt_policy (day, domain, hash, kind, policy_domain, strings, mx, successes) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
            " ON CONFLICT (day, domain, hash) DO UPDATE SET successes = successes + excluded.successes RETURNING p",
            row,
        ).fetchone()
        if failing is not None:
            told = (failing.result.value, failing.source, failing.host, failing.address, failing.reason)
            db.execute(
                "INSERT INTO tlsrpt_failing (p, result, source, host, address, reason, sessions) VALUES (?, ?, ?, ?, ?, ?, ?)"
                " ON CONFLICT DO UPDATE SET sessions = sessions + excluded.sessions",
                (key, *told, number),
            )


def _policy(kind: str, domain: str, strings: str, mx: str) -> Policy:
    return Policy(PolicyKind(kind), domain, tuple(json.loads(strings)), tuple(json.loads(mx)))


def _lines(db: sqlite3.Connection, day: date) -> list[Line]:
    policies = db.execute(
        "SELECT p, domain, kind, policy_domain, strings, mx, successes FROM tlsrpt_policy WHERE day = ?",
        (day.isoformat(),),
    ).fetchall()
    found: list[Line] = []
    for key, domain, kind, policy_domain, strings, mx, successes in policies:
        policy = _policy(kind, policy_domain, strings, mx)
        if successes:
            found.append(Line(day, domain, policy))
        found.extend(Line(day, domain, policy, failing) for failing, _sessions in _failing(db, key))
    return found


def _failing(db: sqlite3.Connection, key: int) -> list[tuple[Failing, int]]:
    rows = db.execute(
        "SELECT result, source, host, address, reason, sessions FROM tlsrpt_failing WHERE p = ? ORDER BY sessions DESC",
        (key,),
    )
    return [(Failing(TlsFailure(result), *told), sessions) for result, *told, sessions in rows]


def _counts(db: sqlite3.Connection, day: date, domain: str) -> list[Counts]:
    policies = db.execute(
        "SELECT p, kind, policy_domain, strings, mx, successes FROM tlsrpt_policy WHERE day = ? AND domain = ? ORDER BY kind, policy_domain, p",
        (day.isoformat(), domain),
    ).fetchall()
    return [Counts(_policy(*policy), successes, tuple(_failing(db, key))) for key, *policy, successes in policies]


_SUMMARIES = """
    SELECT day, domain, sum(successes), sum((SELECT coalesce(sum(sessions), 0) FROM tlsrpt_failing f WHERE f.p = tlsrpt_policy.p)) AS failures
    FROM tlsrpt_policy WHERE (:day = '' OR day = :day) AND (:domain = '' OR domain = :domain)
    GROUP BY day, domain ORDER BY day DESC, failures DESC, domain LIMIT :limit
"""


def _summaries(db: sqlite3.Connection, wanted: Wanted) -> list[Summary]:
    day = "" if wanted.day is None else wanted.day.isoformat()
    rows = db.execute(_SUMMARIES, {"day": day, "domain": wanted.domain, "limit": wanted.limit})
    return [Summary(date.fromisoformat(each), domain, good, bad) for each, domain, good, bad in rows]


def _unposted(db: sqlite3.Connection, day: date, ends: int) -> list[str]:
    rows = db.execute(
        "SELECT DISTINCT domain FROM tlsrpt_policy c WHERE day = ? AND NOT EXISTS (SELECT 1 FROM tlsrpt_posting t"
        " WHERE t.day = c.day AND t.domain = c.domain AND t.ends >= ?) ORDER BY domain LIMIT ?",
        (day.isoformat(), ends, _MOST),
    )
    return [row[0] for row in rows]


_POSTING = "day, domain, uri, state, ends, due, until, tries, message, text"


def _row(posting: Posting) -> tuple[object, ...]:
    return (
        *(posting.day.isoformat(), posting.domain, posting.to, posting.state.value),
        *(milliseconds(each) for each in (posting.ends, posting.due, posting.until)),
        *(posting.tries, posting.message, posting.text),
    )


def _posted(row: Sequence[Any]) -> Posting:
    day, domain, uri, state, ends, due, until, tries, message, text = row
    state = PostState(state)
    when = {"ends": moment(ends), "due": moment(due), "until": moment(until)}
    return Posting(date.fromisoformat(day), domain, uri, state, **when, tries=tries, message=message, text=text)


def _post(db: sqlite3.Connection, day: date, domain: str, postings: Sequence[Posting]) -> None:
    db.execute("DELETE FROM tlsrpt_posting WHERE day = ? AND domain = ?", (day.isoformat(), domain))
    for each in postings:
        db.execute(f"INSERT INTO tlsrpt_posting ({_POSTING}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", _row(each))  # noqa: S608 - a constant


def _note(db: sqlite3.Connection, posting: Posting) -> None:
    day, domain, uri, *rest = _row(posting)
    db.execute(
        "UPDATE tlsrpt_posting SET state = ?, ends = ?, due = ?, until = ?, tries = ?, message = ?, text = ?"
        " WHERE day = ? AND domain = ? AND uri = ?",
        (*rest, day, domain, uri),
    )


def _due(db: sqlite3.Connection, now: int, limit: int) -> list[Posting]:
    rows = db.execute(
        f"SELECT {_POSTING} FROM tlsrpt_posting WHERE state IN ('asking', 'waiting', 'queued') AND due <= ? ORDER BY due LIMIT ?",  # noqa: S608 - a constant
        (now, limit),
    )
    return [_posted(row) for row in rows]


def _postings(db: sqlite3.Connection, day: date, domain: str) -> list[Posting]:
    rows = db.execute(
        f"SELECT {_POSTING} FROM tlsrpt_posting WHERE day = ? AND domain = ? ORDER BY uri",  # noqa: S608 - a constant
        (day.isoformat(), domain),
    )
    return [_posted(row) for row in rows]


def _take(db: sqlite3.Connection, received: Received) -> bool:
    row = (
        *(milliseconds(received.at), received.organization, received.report_id, received.signer),
        encode(received_json(received)),
    )
    done = db.execute(
        "INSERT OR IGNORE INTO tlsrpt_received (at, organization, report_id, signer, about) VALUES (?, ?, ?, ?, ?)", row
    )
    return done.rowcount > 0


def _received(db: sqlite3.Connection, since: int, limit: int) -> list[Json]:
    rows = db.execute(
        "SELECT about FROM tlsrpt_received WHERE at >= ? ORDER BY at DESC, r DESC LIMIT ?", (since, limit)
    )
    return [json.loads(row[0]) for row in rows]


def _forget_days(db: sqlite3.Connection, before: str) -> bool:
    """A step. True while there is more."""
    found = db.execute("SELECT p FROM tlsrpt_policy WHERE day < ? LIMIT ?", (before, _STEP)).fetchall()
    listed = encode([row[0] for row in found])
    db.execute("DELETE FROM tlsrpt_failing WHERE p IN (SELECT value FROM json_each(?))", (listed,))
    db.execute("DELETE FROM tlsrpt_policy WHERE p IN (SELECT value FROM json_each(?))", (listed,))
    if not found:
        db.execute("DELETE FROM tlsrpt_posting WHERE day < ?", (before,))
    return bool(found)


def _forget_received(db: sqlite3.Connection, before: int, most: int) -> None:
    db.execute(
        "DELETE FROM tlsrpt_received WHERE at < ? OR r <= (SELECT coalesce(max(r), 0) - ? FROM tlsrpt_received)",
        (before, most),
    )
