"""Partners' certificates as seen, and which warnings about ends were given: kept over a restart, in the queue's database.

Small transactions behind those of mail. A connector's rows are at most MOST: a stranger who can show many certificates pushes out his own
like only.
"""

import json
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, Final

from relay.mail.seen import Dated, Direction, Said, SeenCertificate, Spot
from relay.queue.facts import encode
from relay.queue.ids import milliseconds, moment
from relay.queue.sqlite import SqliteStore

MOST: Final = 200  # rows of one connector and direction
_ROWS: Final = 20_000
_PATIENCE: Final = 2.0  # seconds that a reader waits for somebody else's lock


class SqliteSeen:
    """Beside a SqliteStore. All raise StoreUnavailable."""

    def __init__(self, store: SqliteStore) -> None:
        self._store = store

    async def note(self, seen: Sequence[SeenCertificate]) -> None:
        """Remembers them; where another process has seen something later at the same spot, that stays."""
        await self._store.work(partial(_note, seen=tuple(seen)))

    async def all(self) -> Sequence[SeenCertificate]:
        """By connector and hop."""
        return await self._store.ask(_all)

    async def said(self) -> Sequence[Said]:
        return await self._store.ask(_said)

    async def say(self, said: Sequence[Said]) -> None:
        await self._store.work(partial(_say, said=tuple(said)))

    async def forget(self, before: datetime) -> None:
        """What was seen last, or ended, before that."""
        await self._store.work(partial(_forget, before=milliseconds(before)))


def _note(db: sqlite3.Connection, seen: Sequence[SeenCertificate]) -> None:
    for each in seen:
        spot, about = each.spot, encode(_about(each))
        db.execute(
            "INSERT INTO certificate_seen (direction, connector, hop, refused, sha256, about, first, last) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
            " ON CONFLICT (direction, connector, hop, refused) DO UPDATE SET about = excluded.about, last = excluded.last,"
            " first = CASE WHEN sha256 = excluded.sha256 THEN first ELSE excluded.first END, sha256 = excluded.sha256"
            " WHERE excluded.last >= last",
            (
                *(spot.direction.value, spot.connector, spot.hop, int(spot.refused)),
                *(each.leaf.sha256, about, milliseconds(each.first), milliseconds(each.last)),
            ),
        )
    for direction, connector in {(each.spot.direction.value, each.spot.connector) for each in seen}:
        db.execute(
            "DELETE FROM certificate_seen WHERE direction = :direction AND connector = :connector AND (hop, refused) IN ("
            "SELECT hop, refused FROM certificate_seen WHERE direction = :direction AND connector = :connector"
            " ORDER BY last DESC, hop LIMIT -1 OFFSET :most)",
            {"direction": direction, "connector": connector, "most": MOST},
        )


def _about(seen: SeenCertificate) -> dict[str, Any]:
    return {
        "subject": seen.leaf.subject,
        "ends": milliseconds(seen.leaf.ends),
        "begins": milliseconds(seen.not_before),
        "issuer": seen.issuer,
        "names": seen.names,
        "pin": seen.pin,
        "domain": seen.domain,
        "address": seen.address,
        "failure": seen.failure,
        "sooner": [seen.sooner.subject, seen.sooner.sha256, milliseconds(seen.sooner.ends)] if seen.sooner else None,
    }


def _all(db: sqlite3.Connection) -> list[SeenCertificate]:
    rows = db.execute(
        "SELECT direction, connector, hop, refused, sha256, about, first, last FROM certificate_seen"
        " ORDER BY connector, direction, hop, refused LIMIT ?",
        (_ROWS,),
    )
    return [_seen(*row) for row in rows]


def _seen(
    direction: str, connector: str, hop: str, refused: int, sha256: str, text: str, first: int, last: int
) -> SeenCertificate:
    about, sooner = json.loads(text), None
    if about["sooner"] is not None:
        subject, digest, ends = about["sooner"]
        sooner = Dated(subject, digest, moment(ends))
    return SeenCertificate(
        spot=Spot(Direction(direction), connector, hop, bool(refused)),
        leaf=Dated(about["subject"], sha256, moment(about["ends"])),
        issuer=about["issuer"],
        names=tuple(about["names"]),
        not_before=moment(about["begins"]),
        pin=about["pin"],
        domain=about["domain"],
        address=about["address"],
        failure=about["failure"],
        first=moment(first),
        last=moment(last),
        sooner=sooner,
    )


def _said(db: sqlite3.Connection) -> list[Said]:
    rows = db.execute("SELECT owner, sha256, threshold, ends FROM certificate_said LIMIT ?", (_ROWS,))
    return [Said(owner, sha256, threshold, moment(ends)) for owner, sha256, threshold, ends in rows]


def _say(db: sqlite3.Connection, said: Sequence[Said]) -> None:
    db.executemany(
        "INSERT INTO certificate_said (owner, sha256, threshold, ends) VALUES (?, ?, ?, ?) ON CONFLICT (owner, sha256)"
        " DO UPDATE SET threshold = min(threshold, excluded.threshold)",
        [(each.owner, each.sha256, each.threshold, milliseconds(each.ends)) for each in said],
    )


def _forget(db: sqlite3.Connection, before: int) -> None:
    db.execute("DELETE FROM certificate_seen WHERE last < ?", (before,))
    db.execute("DELETE FROM certificate_said WHERE ends < ?", (before,))


def read_seen(path: Path) -> Sequence[SeenCertificate]:
    """What a relay's store keeps, for a command beside it: read as it is, never written. Raises sqlite3.Error."""
    if not path.exists():
        return ()
    with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=_PATIENCE)) as db:
        try:
            return _all(db)
        except sqlite3.OperationalError as error:
            if "no such table" in str(error):  # an older version made it, or nobody has opened it yet
                return ()
            raise
