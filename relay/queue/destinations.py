"""What waits, by recipient domain: how much, since when, what was said last. A function of a reading connection.

One step in the partial indexes for each domain, however much mail others have; a domain's own mail is counted in the index: 40 ms for a
million recipients.
"""

import json
import sqlite3
from typing import Any

from relay.mail.codec import time_text
from relay.queue.ids import begun, moment
from relay.queue.questions import domains

_WAITING = (
    "SELECT count(*), min(n), min(due) FROM recipient INDEXED BY recipient_by_domain WHERE domain = ? AND state = 0"
)
_HELD = "SELECT count(*), min(n) FROM recipient INDEXED BY recipient_held WHERE domain = ? AND state = 1"
_LAST = (
    "SELECT last, max(json_extract(last, '$.at')) FROM"
    " (SELECT last FROM recipient WHERE domain = ? AND state = {state} AND last IS NOT NULL LIMIT ?)"
)
_LOOKED_AT = 100  # recipients of a domain, for the newest answer


def destinations(db: sqlite3.Connection, after: str, limit: int) -> list[dict[str, Any]]:
    """In the order of domains behind `after`: {domain, waiting, held, oldest, next_attempt, last}; counts are recipients."""
    return [_destination(db, each) for each in [each for each in domains(db) if not after or each > after][:limit]]


def _destination(db: sqlite3.Connection, domain: str) -> dict[str, Any]:
    waiting, oldest, due = db.execute(_WAITING, (domain,)).fetchone()
    held, oldest_held = db.execute(_HELD, (domain,)).fetchone()
    rows = [
        json.loads(row[0])
        for state in (0, 1)
        for row in db.execute(_LAST.format(state=state), (domain, _LOOKED_AT))  # the number is from above
        if row[0] is not None
    ]
    last = max(rows, key=lambda each: each["at"], default=None)
    begins = [each for each in (oldest, oldest_held) if each is not None]
    return {
        "domain": domain,
        "waiting": waiting,
        "held": held,
        "oldest": time_text(begun(min(begins))) if begins else None,
        "next_attempt": time_text(moment(due)) if due is not None else None,
        "last": {**last, "at": time_text(moment(last["at"]))} if last is not None else None,
    }
