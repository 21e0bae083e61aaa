"""MTA-STS policies in the SQLite store: other domains' rules about how they are to be reached, kept over a restart.

Functions of a connection; when they are called is `relay.dns.sts`'s.
"""

import asyncio
import json
import sqlite3
from contextlib import closing
from datetime import datetime
from pathlib import Path

from relay.mail.published import StsFetched, StsKept, StsMode, StsPolicy, StsUnknown
from relay.queue.ids import milliseconds, moment

_PATIENCE = 2.0  # seconds that a reader waits for somebody else's lock


def save(db: sqlite3.Connection, kept: StsKept) -> None:
    policy = kept.fetched.policy
    about = {
        "mode": policy.mode.value,
        "mx": policy.mx,
        "max_age": policy.max_age,
        "id": policy.id,
        "text": policy.text,
    }
    # Another process of the relay may have fetched a newer one, while this one could not.
    db.execute(
        "INSERT INTO sts_policy (domain, about, fetched, ends, refresh, used) VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (domain) DO UPDATE"
        " SET about = excluded.about, fetched = excluded.fetched, ends = excluded.ends, refresh = excluded.refresh, used = excluded.used"
        " WHERE excluded.fetched >= fetched",
        (
            kept.domain,
            json.dumps(about, separators=(",", ":")),
            *map(milliseconds, (kept.fetched.at, kept.fetched.ends, kept.refresh, kept.used)),
        ),
    )


def load(db: sqlite3.Connection, domain: str) -> StsKept | None:
    row = db.execute("SELECT about, fetched, refresh, used FROM sts_policy WHERE domain = ?", (domain,)).fetchone()
    if row is None:
        return None
    about = json.loads(row[0])
    policy = StsPolicy(StsMode(about["mode"]), tuple(about["mx"]), about["max_age"], about["id"], tuple(about["text"]))
    fetched, refresh, used = map(moment, row[1:])
    return StsKept(domain, StsFetched(policy, fetched), refresh, used)


def due(db: sqlite3.Connection, now: int, used: int, limit: int) -> tuple[str, ...]:
    """Those in force whose refresh is due and that mail has asked for since `used`, the longest due first."""
    rows = db.execute(
        "SELECT domain FROM sts_policy WHERE refresh <= ? AND ends >= ? AND used >= ? ORDER BY refresh LIMIT ?",
        (now, now, used, limit),
    )
    return tuple(row[0] for row in rows)


def drop(db: sqlite3.Connection, ended: int) -> None:
    db.execute("DELETE FROM sts_policy WHERE ends < ?", (ended,))


class KeptPolicies:
    """What a relay's store keeps, for a command beside it: read as it is, never written. A `relay.dns.sts.StsKeeper`."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def load_sts(self, domain: str) -> StsKept | StsUnknown | None:
        return await asyncio.to_thread(self._load, domain)

    def save_sts(self, _kept: StsKept) -> None:
        """The relay itself will fetch it."""

    async def due_sts(self, _now: datetime, _used: datetime, _limit: int) -> tuple[str, ...]:
        return ()

    async def drop_sts(self, _ended: datetime) -> None:
        """That is the relay's to do."""

    def _load(self, domain: str) -> StsKept | StsUnknown | None:
        if not self._path.exists():
            return None
        try:
            with closing(
                sqlite3.connect(f"{self._path.resolve().as_uri()}?mode=ro", uri=True, timeout=_PATIENCE)
            ) as db:
                return load(db, domain)
        except sqlite3.OperationalError as error:
            # A store that an older version made, or that nobody has opened yet, has no such table.
            return None if "no such table" in str(error) else StsUnknown(f"{self._path}: {error}")
        except sqlite3.Error as error:
            return StsUnknown(f"{self._path}: {error}")
