"""CRLs and OCSP answers in the SQLite store, kept over a restart and for the relay's other processes.

Functions of a connection; when they are called is `relay.tls.revocation.answers`'s. What is there is judged again whenever it is read.

A CRL may be 20 MiB: it is written in pieces, a transaction each, since these run in the event loop. The row that says which pieces count comes
last, so that half of one is never read. Threat: a disk filled by what certificates name. All of it together has at most `MOST` bytes.
"""

import asyncio
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime
from pathlib import Path

from relay.mail.revocation import Kind, RevocationKept
from relay.queue.ids import milliseconds, moment
from relay.tls.revocation.answers import KeepsNothing

PIECE = 256 * 1024
MOST = 256 * 2**20
_PATIENCE = 2.0  # seconds that a reader waits for somebody else's lock
_STRAY = 3_600_000  # milliseconds after which pieces without a row are nobody's


def pieces(kept: RevocationKept) -> Iterator[tuple[int, bytes]]:
    return ((start // PIECE, kept.data[start : start + PIECE]) for start in range(0, len(kept.data), PIECE))


def put_piece(db: sqlite3.Connection, kept: RevocationKept, number: int, data: bytes) -> None:
    db.execute(
        "INSERT OR REPLACE INTO revocation_piece (key, batch, seq, data) VALUES (?, ?, ?, ?)",
        (kept.key, milliseconds(kept.fetched), number, data),
    )


def save(db: sqlite3.Connection, kept: RevocationKept) -> None:
    """Its pieces count from now on, unless a newer one is there."""
    times = map(milliseconds, (kept.this_update, kept.ends, kept.fetched, kept.refresh, kept.used))
    db.execute(
        "INSERT INTO revocation (key, kind, url, certificate, issuer, size, this_update, ends, fetched, refresh, used)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (key) DO UPDATE SET url = excluded.url, size = excluded.size,"
        " certificate = excluded.certificate, this_update = excluded.this_update, ends = excluded.ends, fetched = excluded.fetched,"
        " refresh = excluded.refresh, used = max(used, excluded.used)"
        " WHERE excluded.this_update >= this_update AND excluded.fetched >= fetched",
        (kept.key, kept.kind.value, kept.url, kept.certificate, kept.issuer, len(kept.data), *times),
    )
    db.execute(
        "DELETE FROM revocation_piece WHERE key = ? AND batch <> (SELECT fetched FROM revocation WHERE key = ?)",
        (kept.key, kept.key),
    )
    _shrink(db)


def _shrink(db: sqlite3.Connection) -> None:
    """The longest unused go until the rest has room."""
    total = db.execute("SELECT coalesce(sum(size), 0) FROM revocation").fetchone()[0]
    while total > MOST:
        key, size = db.execute("SELECT key, size FROM revocation ORDER BY used LIMIT 1").fetchone()
        _delete(db, key)
        total -= size


def _delete(db: sqlite3.Connection, key: str) -> None:
    db.execute("DELETE FROM revocation WHERE key = ?", (key,))
    db.execute("DELETE FROM revocation_piece WHERE key = ?", (key,))


_COLUMNS = "key, kind, url, certificate, issuer, this_update, ends, fetched, refresh, used"


def load(db: sqlite3.Connection, key: str, after: int) -> RevocationKept | None:
    """None where nothing that was fetched `after` is there, or not all of it."""
    row = db.execute(
        f"SELECT {_COLUMNS}, size FROM revocation WHERE key = ? AND fetched > ?",  # noqa: S608 - names of ours
        (key, after),
    ).fetchone()
    if row is None:
        return None
    found = db.execute("SELECT data FROM revocation_piece WHERE key = ? AND batch = ? ORDER BY seq", (key, row[7]))
    data = b"".join(piece for (piece,) in found)
    return _kept(row[:10], data) if len(data) == row[10] else None


def _kept(row: tuple[object, ...], data: bytes) -> RevocationKept:
    key, kind, url, certificate, issuer, *times = row
    this_update, ends, fetched, refresh, used = (moment(int(str(each))) for each in times)
    return RevocationKept(
        key=str(key),
        kind=Kind(str(kind)),
        url=str(url),
        certificate=bytes(certificate),  # type: ignore[call-overload]  # a BLOB
        issuer=bytes(issuer),  # type: ignore[call-overload]
        this_update=this_update,
        ends=ends,
        fetched=fetched,
        refresh=refresh,
        used=used,
        data=data,
    )


def due(db: sqlite3.Connection, now: int, used: int, limit: int) -> tuple[RevocationKept, ...]:
    """Those that have an address, whose refresh is due and that were used since `used`, the longest due first."""
    rows = db.execute(
        f"SELECT {_COLUMNS} FROM revocation WHERE refresh <= ? AND used >= ? AND url <> '' ORDER BY refresh LIMIT ?",  # noqa: S608
        (now, used, limit),
    ).fetchall()
    return tuple(_kept(row, b"") for row in rows)


def use(db: sqlite3.Connection, key: str, now: int) -> None:
    db.execute("UPDATE revocation SET used = ? WHERE key = ? AND used < ?", (now, key, now))


def postpone(db: sqlite3.Connection, key: str, until: int) -> None:
    db.execute("UPDATE revocation SET refresh = ? WHERE key = ?", (until, key))


def drop(db: sqlite3.Connection, unused: int, now: int) -> None:
    """What nobody used since, and pieces that a crash left behind."""
    for (key,) in db.execute("SELECT key FROM revocation WHERE used < ? LIMIT 100", (unused,)).fetchall():
        _delete(db, key)
    db.execute(
        "DELETE FROM revocation_piece WHERE batch < ? AND NOT EXISTS"
        " (SELECT 1 FROM revocation r WHERE r.key = revocation_piece.key AND r.fetched = revocation_piece.batch)",
        (now - _STRAY,),
    )


class KeptRevocations(KeepsNothing):
    """What a relay's store keeps, for a command beside it: read as it is, never written. A `relay.tls.revocation.answers.RevocationKeeper`."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def load_revocation(self, key: str, after: datetime | None) -> RevocationKept | None:
        return await asyncio.to_thread(self._load, key, -1 if after is None else milliseconds(after))

    def _load(self, key: str, after: int) -> RevocationKept | None:
        """None too where the store is not there, of an older version, or in trouble: then it is fetched."""
        if not self._path.exists():
            return None
        try:
            with closing(
                sqlite3.connect(f"{self._path.resolve().as_uri()}?mode=ro", uri=True, timeout=_PATIENCE)
            ) as db:
                return load(db, key, after)
        except sqlite3.Error:
            return None
