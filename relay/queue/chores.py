"""What the store does to itself, in steps small enough that no message notices.

Old traces are purged, bytes that no message needs are dropped, room is given back to the disk, what a process left behind that does not
come back is given to another.

Each step is one operation among others in the writer's next transaction.
"""

import json
import sqlite3
from collections.abc import Collection
from dataclasses import dataclass

from relay.queue import ordered
from relay.queue.batch import finish
from relay.queue.store import Command, Order

PURGED = 50  # messages in one step
_ADOPT = 100  # recipients in one step
_LOOSE = 1000  # messages in one round
_CHUNKS = 8  # rows of up to 256 KiB in one step
_PAGES = 256  # pages (1 MiB) given back in one step
_WORTH = 4096  # free pages (16 MiB) below which giving back is not worth the writing


@dataclass(frozen=True, slots=True)
class Loose:
    """Messages whose bytes nobody needs any more."""

    in_chunks: tuple[int, ...]
    in_files: tuple[int, ...]
    more: bool


def loose(db: sqlite3.Connection) -> Loose:
    """Some of them, whosever they were: two processes may drop one."""
    found = db.execute("SELECT n, n IN (SELECT n FROM body_file) FROM loose ORDER BY n LIMIT ?", (_LOOSE,)).fetchall()
    in_chunks, in_files = (tuple(n for n, in_file in found if in_file == which) for which in (0, 1))
    return Loose(in_chunks, in_files, len(found) == _LOOSE)


def nameless(db: sqlite3.Connection, messages: Collection[int]) -> tuple[int, ...]:
    """Those whose files no row names."""
    named = db.execute(
        "SELECT n FROM body_file WHERE n IN (SELECT value FROM json_each(?))", (json.dumps(list(messages)),)
    )
    return tuple(set(messages).difference(row[0] for row in named))


def unname(db: sqlite3.Connection, messages: Collection[int]) -> None:
    """No row names the files of these loose messages any more. Once that is on the disk, so is what made them loose: the files may go."""
    listed = json.dumps(list(messages))
    db.execute("DELETE FROM body_file WHERE n IN (SELECT value FROM json_each(?))", (listed,))
    db.execute("DELETE FROM loose WHERE n IN (SELECT value FROM json_each(?))", (listed,))


def drop_chunks(db: sqlite3.Connection, message: int) -> bool:
    """Drops some chunks of one loose message. True once they are all gone, and the note of it too."""
    db.execute(
        "DELETE FROM chunk WHERE n = ? AND seq IN (SELECT seq FROM chunk WHERE n = ? LIMIT ?)",
        (message, message, _CHUNKS),
    )
    if db.execute("SELECT 1 FROM chunk WHERE n = ? LIMIT 1", (message,)).fetchone():
        return False
    db.execute("DELETE FROM loose WHERE n = ?", (message,))
    return True


def purge(db: sqlite3.Connection, before: int) -> int:
    """Forgets some messages that ended before that time, with all that is known of them. How many: fewer than a step's worth at the end."""
    found = db.execute(
        "SELECT n FROM message WHERE finished IS NOT NULL AND finished < ? ORDER BY finished LIMIT ?", (before, PURGED)
    ).fetchall()
    return forget(db, [row[0] for row in found])


def forget(db: sqlite3.Connection, numbers: Collection[int]) -> int:
    """Forgets those of the messages that have ended; how many. Live mail is never touched, whoever asks."""
    found = db.execute(
        "SELECT n FROM message WHERE n IN (SELECT value FROM json_each(?)) AND finished IS NOT NULL",
        (json.dumps(list(numbers)),),
    ).fetchall()
    listed = json.dumps([row[0] for row in found])
    # Each fact loses as many references as rows go that name it.
    db.execute(
        """
        WITH gone (n) AS (SELECT value FROM json_each(?)), named (k) AS (
            SELECT plan FROM attempt WHERE n IN gone
            UNION ALL SELECT evidence FROM attempt WHERE n IN gone
            UNION ALL SELECT tls FROM message WHERE n IN gone
        )
        UPDATE fact SET refs = refs - times FROM (SELECT k AS named_k, count(*) AS times FROM named WHERE k IS NOT NULL GROUP BY k)
        WHERE fact.k = named_k
        """,
        (listed,),
    )
    for statement in (
        "DELETE FROM attempt WHERE n IN (SELECT value FROM json_each(?))",
        "DELETE FROM recipient WHERE n IN (SELECT value FROM json_each(?))",
        "DELETE FROM ordered WHERE n IN (SELECT value FROM json_each(?))",
        "DELETE FROM imported WHERE n IN (SELECT value FROM json_each(?))",
        "DELETE FROM message WHERE n IN (SELECT value FROM json_each(?))",
    ):
        db.execute(statement, (listed,))
    return len(found)


def give_back(db: sqlite3.Connection) -> bool:
    """Gives free pages at the file's end back to the disk, where they are more than a quarter of the file. True while there is more."""
    free, pages = (int(db.execute(f"PRAGMA {name}").fetchone()[0]) for name in ("freelist_count", "page_count"))
    if free < _WORTH or free * 4 < pages:
        return False
    db.execute(f"PRAGMA incremental_vacuum({_PAGES})").fetchall()  # it works as its rows are fetched
    return True


HASTENED = 500  # recipients in one step


def hasten(db: sqlite3.Connection, slot: int, now: int) -> int:
    """Makes some recipients of a slot due that wait for a later time, the latest first. How many: fewer than a step's worth at the end."""
    found = db.execute(
        "SELECT n, i FROM recipient INDEXED BY recipient_by_due WHERE state = 0 AND slot = ? AND due > ? ORDER BY due DESC LIMIT ?",
        (slot, now, HASTENED),
    ).fetchall()
    db.executemany("UPDATE recipient SET due = ? WHERE n = ? AND i = ? AND state = 0", ((now, n, i) for n, i in found))
    return len(found)


def put_aside(db: sqlite3.Connection, rows: Collection[tuple[int, int]]) -> None:
    """They wait, and are not due at any time."""
    db.executemany("UPDATE recipient SET due = NULL WHERE n = ? AND i = ? AND state = 0", rows)


def resume_aside(db: sqlite3.Connection, slot: int, now: int) -> int:
    """Makes some recipients of a slot due that were put aside. How many: fewer than a step's worth at the end."""
    found = db.execute(
        "SELECT n, i FROM recipient INDEXED BY recipient_by_due WHERE state = 0 AND slot = ? AND due IS NULL LIMIT ?",
        (slot, HASTENED),
    ).fetchall()
    db.executemany("UPDATE recipient SET due = ? WHERE n = ? AND i = ? AND state = 0", ((now, n, i) for n, i in found))
    return len(found)


def abandoned(db: sqlite3.Connection, count: int) -> tuple[int, ...]:
    """The slots from `count` on that have mail."""
    found: list[int] = []
    slot = count - 1
    while True:
        row = db.execute(
            "SELECT slot FROM recipient INDEXED BY recipient_by_due WHERE state = 0 AND slot > ? ORDER BY slot LIMIT 1",
            (slot,),
        ).fetchone()
        if row is None:
            return tuple(found)
        slot = row[0]
        found.append(slot)


def adopt(db: sqlite3.Connection, slot: int, into: int) -> tuple[str, ...]:
    """Gives some recipients that wait in `slot` to `into`. Their destinations; none when all have gone. Nobody may deliver in `slot`
    meanwhile."""
    found = db.execute(
        "UPDATE recipient SET slot = ? FROM ("
        "  SELECT n AS its_n, i AS its_i FROM recipient INDEXED BY recipient_by_due WHERE state = 0 AND slot = ? ORDER BY due LIMIT ?"
        ") WHERE n = its_n AND i = its_i RETURNING coalesce(via, domain)",
        (into, slot, _ADOPT),
    ).fetchall()
    return tuple({row[0] for row in found})


_AMEND = {
    # What was put aside is due as soon as it may be.
    Order.RETRY: "UPDATE recipient SET due = :now WHERE n = :n AND i = :i AND state = 0 AND due IS NOT NULL",
    Order.HOLD: "UPDATE recipient SET state = 1, due = NULL WHERE n = :n AND i = :i AND state = 0",
    Order.RELEASE: "UPDATE recipient SET state = 0, due = :now, slot = :slot WHERE n = :n AND i = :i AND state = 1",
    Order.DELETE: "UPDATE recipient SET state = 4, due = NULL WHERE n = :n AND i = :i AND state IN (0, 1)",
    # relay.policy.reroute.key
    Order.REROUTE: "UPDATE recipient SET via = CASE :detour WHEN '' THEN NULL ELSE domain || '>' || :detour END,"
    " due = CASE state WHEN 0 THEN :now END WHERE n = :n AND i = :i AND state IN (0, 1)",
}


def amend(
    db: sqlite3.Connection, rows: Collection[tuple[int, int]], command: Command, now: int, slot: int
) -> list[bool]:
    """Carries out an order for (message, index); which recipients it changed. What is released is `slot`'s from then on.

    What was ordered before it of the same kind, and is still written down, must not come again with the next start. The states are those
    of schema.STATES.
    """
    statement, given = _AMEND[command.order], {"now": now, "slot": slot, "detour": command.detour}
    changed = [db.execute(statement, {"n": n, "i": i, **given}).rowcount > 0 for n, i in rows]
    if command.order is not Order.RETRY:
        ordered.drop(db, rows, command.order)
    if command.order is Order.DELETE:
        finish(db, [n for n, _i in rows], now)
    return changed
