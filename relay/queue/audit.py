"""The audit log in the queue's database: written with the next transaction, read newest first, bounded by age and number.

Threat: somebody who floods it with failed sign-ins so that what he did is pushed out. Those have a bound of their own.
"""

import json
import sqlite3
from collections.abc import Sequence
from datetime import datetime
from functools import partial
from typing import Any

from relay.mail.audit import AuditEntry, AuditQuery
from relay.mail.codec import Json, time_text
from relay.queue.ids import milliseconds, moment
from relay.queue.sqlite import SqliteStore

MOST = 500_000
MOST_FAILED = 50_000
FAILED = "sign-in-failed"
_LONGEST = 64 * 1024  # characters of `before` and of `after`
_COLUMNS = "k, at, who, via, address, action, what, count, before, after"
_STEP = 500  # rows deleted in one transaction


class SqliteAudit:
    """Beside a SqliteStore. Each method may raise StoreUnavailable; nothing is changed then."""

    def __init__(self, store: SqliteStore) -> None:
        self._store = store

    async def add(self, entries: Sequence[AuditEntry]) -> None:
        await self._store.work(partial(_add, entries=tuple(entries)))

    async def entries(self, query: AuditQuery) -> Sequence[Json]:
        """`{n, at, who, via, address, action, what, count, before, after}`, newest first."""
        return await self._store.ask(partial(_entries, query=query))

    async def forget(self, before: datetime, most: int = MOST, most_failed: int = MOST_FAILED) -> None:
        """What is older, or beyond the newest `most`, failed sign-ins beyond the newest `most_failed`."""
        while await self._store.work(partial(_forget, before=milliseconds(before), most=most, most_failed=most_failed)):
            pass


def _add(db: sqlite3.Connection, entries: Sequence[AuditEntry]) -> None:
    db.executemany(
        "INSERT INTO audit (at, who, via, address, action, what, count, before, after) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            (
                *(milliseconds(each.at), each.who, each.via, each.address, each.action, each.what[:4000], each.count),
                *(_text(each.before), _text(each.after)),
            )
            for each in entries
        ),
    )


def _text(value: Any) -> str | None:
    if value is None:
        return None
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return text if len(text) <= _LONGEST else json.dumps({"too long": text[: _LONGEST // 2]}, ensure_ascii=False)


def _entries(db: sqlite3.Connection, query: AuditQuery) -> list[Json]:
    conditions, values = ["1"], list[object]()
    for condition, value in (
        ("at >= ?", milliseconds(query.since) if query.since is not None else None),
        ("who = ?", query.who or None),
        ("action = ?", query.action or None),
        ("k < ?", query.below),
    ):
        if value is not None:
            conditions.append(condition)
            values.append(value)
    rows = db.execute(
        f"SELECT {_COLUMNS} FROM audit WHERE {' AND '.join(conditions)} ORDER BY k DESC LIMIT ?",  # noqa: S608 - from above
        (*values, query.limit),
    )
    return [
        {
            "n": k,
            "at": time_text(moment(at)),
            "who": who,
            "via": via,
            "address": address or None,
            "action": action,
            "what": what,
            "count": count,
            "before": json.loads(before) if before is not None else None,
            "after": json.loads(after) if after is not None else None,
        }
        for k, at, who, via, address, action, what, count, before, after in rows
    ]


def _forget(db: sqlite3.Connection, before: int, most: int, most_failed: int) -> bool:
    """A step. True while there is more."""
    old = db.execute(
        "DELETE FROM audit WHERE k IN (SELECT k FROM audit WHERE at < ? OR k <= (SELECT coalesce(max(k), 0) - ? FROM audit) LIMIT ?)",
        (before, most, _STEP),
    ).rowcount
    failed = db.execute(
        "DELETE FROM audit WHERE k IN (SELECT k FROM audit WHERE action = ? ORDER BY k DESC LIMIT ? OFFSET ?)",
        (FAILED, _STEP, most_failed),
    ).rowcount
    return max(old, failed) >= _STEP
