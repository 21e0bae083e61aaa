"""What alerts ask of the queue's database and keep there: one document, the oldest mail that waits, and who waits because of TLS.

Functions of connections, and one class that gives them to `relay.app.alerts`. In trouble they raise StoreUnavailable.
"""

import sqlite3
from collections.abc import Sequence
from datetime import datetime
from functools import partial

from relay.mail.envelope import LOCAL
from relay.queue.ids import begun, number
from relay.queue.schema import STATES
from relay.queue.sqlite import SqliteStore
from relay.queue.store import State

_LOOKED_AT = 10_000  # rows of one domain, or messages in a row: what is behind them is known later

_WAITS = "EXISTS (SELECT 1 FROM recipient r WHERE r.n = m.n AND r.state = 0)"
_SHOWN = "SELECT m.n, m.id, (SELECT r.domain FROM recipient r WHERE r.n = m.n AND r.state = 0 LIMIT 1)"
_REPORT = f"(m.sender = '' AND json_extract(m.about, '$.accepted.protocol') = '{LOCAL}')"
# The first that still has somebody waiting: held mail is old on purpose.
_OLDEST = f"{_SHOWN}, {_REPORT} FROM message m INDEXED BY message_live WHERE m.finished IS NULL AND {_WAITS} ORDER BY m.n LIMIT 1"
# From one on, the first that waits and is no report of ours.
_NO_REPORT = f"""
    {_SHOWN} FROM (SELECT n, id, sender, about FROM message INDEXED BY message_live WHERE finished IS NULL AND n >= :n ORDER BY n LIMIT :most) m
    WHERE {_WAITS} AND NOT {_REPORT} ORDER BY m.n LIMIT 1
"""  # noqa: S608
_AS_MANY = "SELECT 1 FROM message INDEXED BY message_live WHERE finished IS NULL AND n >= :n LIMIT 1 OFFSET :most"
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
        """The oldest message that waits: its id, since when, and a domain that it waits for.

        Reports of ours to senders do not count, unless there are very many: a stranger's server need only take none to make them old.
        """
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
    if row is not None and row[3]:
        bounds = {"n": row[0], "most": _LOOKED_AT}
        row = db.execute(_NO_REPORT, bounds).fetchone() or (row if db.execute(_AS_MANY, bounds).fetchone() else None)
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
