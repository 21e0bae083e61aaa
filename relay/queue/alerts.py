"""What alerts ask of the queue's database and keep there: one document, the oldest mail that waits, and who waits because of TLS.

Functions of connections, and one class that gives them to `relay.app.alerts`. In trouble they raise StoreUnavailable.
"""

import sqlite3
from collections.abc import Sequence
from datetime import datetime
from functools import partial

from relay.queue.ids import begun, number
from relay.queue.schema import STATES
from relay.queue.sqlite import SqliteStore
from relay.queue.store import State

_LOOKED_AT = 10_000  # rows of one domain: what is behind them is known later

# The first that still has somebody waiting: held mail is old on purpose.
_OLDEST = """
    SELECT m.n, m.id, (SELECT r.domain FROM recipient r WHERE r.n = m.n AND r.state = 0 LIMIT 1)
    FROM message m INDEXED BY message_live WHERE m.finished IS NULL
    AND EXISTS (SELECT 1 FROM recipient r WHERE r.n = m.n AND r.state = 0) ORDER BY m.n LIMIT 1
"""
_WITHHELD = """
    SELECT 1 FROM (SELECT last FROM recipient INDEXED BY recipient_by_domain WHERE state = 0 AND domain = :domain LIMIT :most)
    WHERE last IS NOT NULL AND json_extract(last, '$.failure') IS NOT NULL LIMIT 1
"""


class SqliteAlerts:
    """Beside a SqliteStore."""

    def __init__(self, store: SqliteStore) -> None:
        self._store = store

    async def load(self) -> str:
        """The document, "" where none was kept."""
        return await self._store.ask(_load)

    async def save(self, text: str) -> None:
        await self._store.work(partial(_save, text=text))

    async def oldest(self) -> tuple[str, datetime, str] | None:
        """The oldest message that waits: its id, since when, and a domain that it waits for."""
        return await self._store.ask(_oldest)

    async def withheld(self, domains: Sequence[str]) -> bool:
        """True while any mail for one of these domains waits and its last failure was one of TLS."""
        return await self._store.ask(partial(_withheld, domains=tuple(domains)))

    async def domains(self) -> tuple[str, ...]:
        """That mail waits for."""
        return await self._store.domains()

    async def state(self, message: str) -> str:
        """Of a message's recipients, the one that says most: "waiting", "bounced", "deleted", "delivered"; "" where it is gone."""
        return await self._store.ask(partial(_state, message=message))


def _load(db: sqlite3.Connection) -> str:
    row = db.execute("SELECT about FROM alerts WHERE one = 1").fetchone()
    return "" if row is None else str(row[0])


def _save(db: sqlite3.Connection, text: str) -> None:
    db.execute(
        "INSERT INTO alerts (one, about) VALUES (1, ?) ON CONFLICT (one) DO UPDATE SET about = excluded.about", (text,)
    )


def _oldest(db: sqlite3.Connection) -> tuple[str, datetime, str] | None:
    row = db.execute(_OLDEST).fetchone()
    return None if row is None else (str(row[1]), begun(int(row[0])), str(row[2]))


def _withheld(db: sqlite3.Connection, domains: tuple[str, ...]) -> bool:
    return any(db.execute(_WITHHELD, {"domain": each, "most": _LOOKED_AT}).fetchone() for each in domains)


def _state(db: sqlite3.Connection, message: str) -> str:
    try:
        row = number(message)
    except ValueError:
        return ""
    found = {STATES[code] for (code,) in db.execute("SELECT state FROM recipient WHERE n = ?", (row,))}
    for state in (State.WAITING, State.HELD, State.BOUNCED, State.DELETED, State.DELIVERED):
        if state in found:
            return state.value
    return ""
