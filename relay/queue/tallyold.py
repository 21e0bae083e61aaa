"""How the tally grows old: hours of days long past become days, and then go; so do the chains and certificates that nobody showed since.

Steps of the writing connection, each small, so that no message notices.
"""

import sqlite3

from relay.queue.facts import encode

ROLL = 35  # days after which hours become days
KEEP = 400  # days
KEEP_SEEN = 100  # days that chains are kept
MOST_CERTIFICATES = 50_000

_STEP = 200  # rows in one step


def roll(db: sqlite3.Connection, today: int) -> bool:
    """A step. True while there is more. `today` in days since 1970."""
    before = (today - ROLL) * 24
    (mark,) = db.execute("SELECT upto FROM tally_mark WHERE what = 'rolled'").fetchone()
    if mark >= before:
        return False
    # Once a day's last hour is past the mark its rows are days': they stay, and the next step begins behind them.
    rows = db.execute(
        "SELECT hour, c, messages, recipients FROM tally WHERE hour >= ? AND hour < ? AND hour % 24 <> 0 ORDER BY hour LIMIT ?",
        (mark, before, _STEP),
    ).fetchall()
    for hour, key, messages, recipients in rows:
        db.execute("DELETE FROM tally WHERE hour = ? AND c = ?", (hour, key))
        db.execute(
            "INSERT INTO tally (hour, c, messages, recipients) VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE"
            " SET messages = messages + excluded.messages, recipients = recipients + excluded.recipients",
            (hour - hour % 24, key, messages, recipients),
        )
    more = len(rows) == _STEP
    db.execute("UPDATE tally_mark SET upto = ? WHERE what = 'rolled'", (rows[-1][0] if more else before,))
    return more


def forget(db: sqlite3.Connection, today: int) -> bool:
    """A step. True while there is more."""
    before = (today - KEEP) * 24
    old = db.execute("SELECT hour, c FROM tally WHERE hour < ? ORDER BY hour LIMIT ?", (before, _STEP)).fetchall()
    db.executemany("DELETE FROM tally WHERE hour = ? AND c = ?", old)
    listed = encode(sorted({key for _hour, key in old}))
    db.execute(
        "DELETE FROM tally_kind WHERE c IN (SELECT value FROM json_each(?)) AND NOT EXISTS (SELECT 1 FROM tally t WHERE t.c = tally_kind.c)",
        (listed,),
    )
    refused = db.execute(
        "DELETE FROM tally_refused WHERE (hour, what, listener, command, connector, code, status) IN"
        " (SELECT hour, what, listener, command, connector, code, status FROM tally_refused WHERE hour < ? LIMIT ?)",
        (before, _STEP),
    ).rowcount
    return len(old) == _STEP or refused == _STEP


def forget_seen(db: sqlite3.Connection, today: int) -> bool:
    """A step. True while there is more."""
    before = today - KEEP_SEEN
    old = db.execute(
        "SELECT day, way, domain, host, h FROM tally_seen WHERE day < ? ORDER BY day LIMIT ?", (before, _STEP)
    ).fetchall()
    db.executemany("DELETE FROM tally_seen WHERE day = ? AND way = ? AND domain = ? AND host = ? AND h = ?", old)
    db.execute(
        "DELETE FROM tally_chain WHERE h IN (SELECT value FROM json_each(?))"
        " AND NOT EXISTS (SELECT 1 FROM tally_seen s WHERE s.h = tally_chain.h)",
        (encode(sorted({row[4] for row in old})),),
    )
    return len(old) == _STEP


def forget_certificates(db: sqlite3.Connection, today: int, most: int = MOST_CERTIFICATES) -> bool:
    """A step. True while there is more. One that no counted chain names yet (`used` 0) has a round's time: it gets its first day here."""
    db.execute("UPDATE certificate SET used = ? WHERE used = 0", (today - KEEP_SEEN + 2,))
    (count,) = db.execute("SELECT count(*) FROM certificate INDEXED BY certificate_used").fetchone()
    over = min(max(count - most, 0), _STEP)
    old = db.execute(
        "DELETE FROM certificate WHERE sha256 IN (SELECT sha256 FROM certificate WHERE used < ? ORDER BY used LIMIT ?)"
        " OR sha256 IN (SELECT sha256 FROM certificate ORDER BY used LIMIT ?)",
        (today - KEEP_SEEN, _STEP, over),
    ).rowcount
    return old >= _STEP
