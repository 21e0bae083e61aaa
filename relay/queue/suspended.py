"""Suspensions in the SQLite store, so that they outlive a restart and all processes of a relay know them (relay.policy.suspension)."""

import sqlite3
from functools import partial

from relay.policy.suspension import Stops, Suspension
from relay.queue.ids import milliseconds, moment
from relay.queue.sqlite import SqliteStore

MOST = 1000


class SqliteSuspensions:
    """Beside a SqliteStore. All may raise StoreUnavailable."""

    def __init__(self, store: SqliteStore) -> None:
        self._store = store

    async def load(self) -> tuple[Suspension, ...]:
        """All that are there, ended ones too, the oldest first."""
        return await self._store.ask(_load)

    async def add(self, suspension: Suspension) -> Suspension | None:
        """With its id; one about the same mail is replaced. None: there are too many."""
        return await self._store.work(partial(_add, suspension=suspension))

    async def remove(self, ids: tuple[int, ...]) -> tuple[Suspension, ...]:
        """Those that were there."""
        return await self._store.work(partial(_remove, ids=ids))


_COLUMNS = "s, kind, what, reason, who, since, until"


def _read(row: tuple[int, str, str, str, str, int, int | None]) -> Suspension:
    number, kind, what, reason, who, since, until = row
    return Suspension(Stops(kind), what, reason, who, moment(since), None if until is None else moment(until), number)


def _load(db: sqlite3.Connection) -> tuple[Suspension, ...]:
    return tuple(_read(row) for row in db.execute(f"SELECT {_COLUMNS} FROM suspension ORDER BY s"))  # noqa: S608 - the columns are above


def _add(db: sqlite3.Connection, suspension: Suspension) -> Suspension | None:
    it = suspension
    db.execute("DELETE FROM suspension WHERE kind = ? AND what = ?", (it.stops.value, it.what))
    if db.execute("SELECT count(*) FROM suspension").fetchone()[0] >= MOST:
        return None
    until = None if it.until is None else milliseconds(it.until)
    row = db.execute(
        f"INSERT INTO suspension (kind, what, reason, who, since, until) VALUES (?, ?, ?, ?, ?, ?) RETURNING {_COLUMNS}",  # noqa: S608 - as above
        (it.stops.value, it.what, it.reason, it.who, milliseconds(it.since), until),
    ).fetchone()
    return _read(row)


def _remove(db: sqlite3.Connection, ids: tuple[int, ...]) -> tuple[Suspension, ...]:
    gone = [
        db.execute(f"DELETE FROM suspension WHERE s = ? RETURNING {_COLUMNS}", (each,)).fetchone()  # noqa: S608 - as above
        for each in ids
    ]
    return tuple(_read(row) for row in gone if row is not None)
