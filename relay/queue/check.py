"""Is the store sound? SQLite's own check, and what must be true of our rows, whatever crash or disk came in between.

`check` reads everything (about a second for 100,000 messages) and may run beside a relay. `glance` is for the start of one: it takes no
longer with a long queue, and looks where a crash would have left its mark, at the messages that came last.

Reports, repairs nothing: what is missing here is missing for good, and a repair would only hide it. A message whose bytes are not all
there is never sent in part (`BodyMissing`).
"""

import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from relay.queue.bodies import BodyFolder
from relay.queue.ids import spell
from relay.queue.schema import FINAL

_Step = Callable[[sqlite3.Connection], Iterator["Problem"]]

_EXAMPLES = 5
_LATEST = 1000  # messages that a glance looks at
_STRAY = 3600.0  # seconds without a write after which a file that no row names is nobody's
_SMALL = 32 * 2**20  # bytes of a file that a glance reads whole: 50 ms


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong, how often, and ids of some messages that it is wrong with. `harmless`: costs room, loses nothing."""

    what: str
    count: int
    examples: tuple[str, ...] = ()
    harmless: bool = False

    def __str__(self) -> str:
        where = f" (such as {', '.join(self.examples)})" if self.examples else ""
        return f"{self.count} {self.what}{where}"


@dataclass(frozen=True, slots=True)
class Report:
    """`live` and `ended` count messages; `problems` is empty for a sound store."""

    live: int
    ended: int
    problems: tuple[Problem, ...]

    @property
    def is_sound(self) -> bool:
        return all(each.harmless for each in self.problems)


# Each selects the row keys of what is wrong. `live` is the messages to look at.
_LIVE = "SELECT n, size FROM message WHERE finished IS NULL"
_OF_MESSAGES = {
    "messages that wait without a recipient that waits": (
        f"SELECT n FROM live m WHERE NOT EXISTS (SELECT 1 FROM recipient r WHERE r.n = m.n AND r.state < {FINAL})"  # noqa: S608 - a constant
    ),
    "messages with a gap in their list of recipients": (
        "SELECT m.n FROM live m JOIN recipient r ON r.n = m.n GROUP BY m.n HAVING max(r.i) + 1 <> count(*)"
    ),
    "recipients that do not wait and have a time for their next attempt": (
        "SELECT m.n FROM live m JOIN recipient r ON r.n = m.n WHERE r.state <> 0 AND r.due IS NOT NULL"
    ),
}
_NOT_WHOLE = "messages whose bytes are not all there"
_IN_CHUNKS = (
    "SELECT m.n FROM live m LEFT JOIN chunk c ON c.n = m.n WHERE m.n NOT IN ({elsewhere}) GROUP BY m.n"
    " HAVING coalesce(sum(length(c.data)), 0) <> m.size OR coalesce(max(c.seq) + 1, 0) <> count(c.seq)"
)
_IN_FILES = "SELECT n, live.size FROM live JOIN body_file USING (n)"
_OF_ALL = {
    "messages that ended with recipients that wait": (
        "SELECT m.n FROM recipient r JOIN message m ON m.n = r.n WHERE r.state IN (0, 1) AND m.finished IS NOT NULL"
    ),
    "recipients without a message": "SELECT n FROM recipient WHERE n NOT IN (SELECT n FROM message)",
    "attempts without a message": "SELECT n FROM attempt WHERE n NOT IN (SELECT n FROM message)",
}
# A large message that has ended keeps its chunks until `loose` is worked off; so does one that is still arriving.
_STRAY_CHUNKS = "SELECT DISTINCT n FROM chunk WHERE n NOT IN (SELECT n FROM message WHERE finished IS NULL) AND n NOT IN (SELECT n FROM loose)"
_NAMED = (
    "WITH named AS (SELECT k, count(*) AS times FROM (SELECT plan AS k FROM attempt UNION ALL SELECT evidence FROM attempt"
    " UNION ALL SELECT tls FROM message) WHERE k IS NOT NULL GROUP BY k)"
)
# Mail of a suspended sender is put aside: it waits, and is not due at any time until that is over. Each start looks at all of it anew.
_ASIDE = (
    "SELECT n FROM recipient WHERE state = 0 AND due IS NULL AND n IN (SELECT n FROM live)"
    " AND NOT EXISTS (SELECT 1 FROM suspension WHERE kind = 'from')"
)
_FACTS = {
    "plans or pieces of evidence that traces name and that are not there": (
        "SELECT count(*) FROM named LEFT JOIN fact USING (k) WHERE refs IS NULL"
    ),
    "plans or pieces of evidence that are counted too low: they would be forgotten too early": (
        "SELECT count(*) FROM named JOIN fact USING (k) WHERE refs < times"
    ),
    "plans or pieces of evidence that are kept for longer than needed": (
        "SELECT count(*) FROM fact LEFT JOIN named USING (k) WHERE refs > coalesce(times, 0)"
    ),
}


def check(db: sqlite3.Connection, folder: BodyFolder) -> Report:
    """All of it. `db` need not be able to write; what it shows should be of one moment (a read transaction)."""
    problems: list[Problem] = []
    of_files: tuple[_Step, ...] = (lambda db: _stray_files(db, folder), lambda db: _not_whole(db, _LIVE, folder))
    for step in (*_STEPS, *of_files):
        try:
            problems.extend(step(db))
        except sqlite3.DatabaseError as error:
            problems.append(Problem(f"error of SQLite: {error}", 1))  # the other steps may still be able to read
    try:
        live = _count(db, "SELECT count(*) FROM message WHERE finished IS NULL")
        ended = _count(db, "SELECT count(*) FROM message WHERE finished IS NOT NULL")
    except sqlite3.DatabaseError:
        live = ended = 0
    return Report(live, ended, tuple(dict.fromkeys(problems)))


def glance(db: sqlite3.Connection, folder: BodyFolder) -> tuple[Problem, ...]:
    """What can be told in a moment. Raises sqlite3.DatabaseError where the file is damaged and cannot be used, OSError."""
    pages, size = (_count(db, f"PRAGMA {name}") for name in ("page_count", "page_size"))
    if pages * size <= _SMALL:
        for damage in _by_sqlite(db, "quick_check"):
            raise sqlite3.DatabaseError(str(damage))
    latest = f"{_LIVE} ORDER BY n DESC LIMIT {_LATEST}"
    return (*_rows(db, latest, _OF_MESSAGES), *_not_whole(db, latest, folder))


def _count(db: sqlite3.Connection, sql: str) -> int:
    return int(db.execute(sql).fetchone()[0])


def _by_sqlite(db: sqlite3.Connection, pragma: str) -> Iterator[Problem]:
    # Older versions say all in one row, under a headline.
    rows = db.execute(f"PRAGMA {pragma}").fetchall()
    said = [line for row in rows for line in row[0].splitlines() if not line.startswith("***")]
    if said != ["ok"]:
        yield Problem(f"faults that SQLite found: {'; '.join(said[:_EXAMPLES])}", len(said))


def _rows(db: sqlite3.Connection, live: str, questions: dict[str, str], *, harmless: bool = False) -> Iterator[Problem]:
    for what, sql in questions.items():
        yield from _told(db, what, _found(db, live, sql), harmless=harmless)


def _found(db: sqlite3.Connection, live: str, sql: str) -> list[int]:
    return [row[0] for row in db.execute(f"WITH live AS ({live}) {sql}")]


def _told(db: sqlite3.Connection, what: str, found: Sequence[int], *, harmless: bool = False) -> Iterator[Problem]:
    if found:
        yield Problem(what, len(found), tuple(_name(db, row) for row in found[:_EXAMPLES]), harmless)


def _name(db: sqlite3.Connection, row: int) -> str:
    known = db.execute("SELECT id FROM message WHERE n = ?", (row,)).fetchone()
    return str(known[0]) if known else spell(row)


def _has(db: sqlite3.Connection, table: str) -> bool:
    """A file of an older version may not have it."""
    return db.execute("SELECT 1 FROM sqlite_schema WHERE name = ?", (table,)).fetchone() is not None


def _not_whole(db: sqlite3.Connection, live: str, folder: BodyFolder) -> Iterator[Problem]:
    if not _has(db, "body_file"):
        yield from _told(db, _NOT_WHOLE, _found(db, live, _IN_CHUNKS.format(elsewhere="NULL")))
        return
    found = _found(db, live, _IN_CHUNKS.format(elsewhere="SELECT n FROM body_file"))
    files = db.execute(f"WITH live AS ({live}) {_IN_FILES}").fetchall()
    wrong = [n for n, size in files if folder.size(n) != size]
    if wrong and db.in_transaction:
        db.execute("ROLLBACK")
        db.execute("BEGIN")
    # A relay beside us may have delivered one since, and removed its file: then by now no row names that.
    found += [n for n in wrong if db.execute("SELECT 1 FROM body_file WHERE n = ?", (n,)).fetchone()]
    yield from _told(db, _NOT_WHOLE, sorted(found))


def _stray_files(db: sqlite3.Connection, folder: BodyFolder) -> Iterator[Problem]:
    """Beside a relay: not what has just arrived, or is arriving."""
    if _has(db, "body_file"):
        named, now = {row[0] for row in db.execute("SELECT n FROM body_file")}, time.time()
        found = [row for row in folder.rows() if row not in named and folder.age(row, now) > _STRAY]
        yield from _told(db, "files of messages that nobody needs: a start removes them", found, harmless=True)


def _aside(db: sqlite3.Connection) -> Iterator[Problem]:
    if _has(db, "suspension"):
        what = "recipients that wait without a time for their next attempt, and no sender is suspended: the next start takes them up"
        yield from _rows(db, _LIVE, {what: _ASIDE}, harmless=True)


def _facts(db: sqlite3.Connection) -> Iterator[Problem]:
    for what, sql in _FACTS.items():
        count = _count(db, f"{_NAMED} {sql}")
        if count:
            yield Problem(what, count, harmless="longer" in what)


_STEPS: tuple[_Step, ...] = (
    lambda db: _by_sqlite(db, "integrity_check"),
    lambda db: _rows(db, _LIVE, _OF_MESSAGES),
    lambda db: _rows(db, _LIVE, _OF_ALL),
    _aside,
    lambda db: _rows(db, _LIVE, {"pieces of messages that nobody needs": _STRAY_CHUNKS}, harmless=True),
    _facts,
)
