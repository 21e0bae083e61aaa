"""What is known of connectors just now: recipients that wait, by domain, and the newest use of each. Cheap, whatever the history holds."""

import json
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from relay.mail.codec import Json, time_text
from relay.queue.ids import moment

_ATTEMPTS = 10_000  # of the newest, that are looked through
_MESSAGES = 2_000


@dataclass(frozen=True, slots=True)
class Live:
    """`by_domain`: recipients that wait, and that are held. `attempted` and `accepted`: by connector, `{at, hop, state, failure, evidence}`."""

    by_domain: Mapping[str, tuple[int, int]]
    attempted: Mapping[str, Json]
    accepted: Mapping[str, Json]


def live(db: sqlite3.Connection) -> Live:
    counts: dict[str, tuple[int, int]] = {}
    for domain, count in db.execute(
        "SELECT domain, count(*) FROM recipient INDEXED BY recipient_by_domain WHERE state = 0 GROUP BY domain"
    ):
        counts[domain] = (count, 0)
    for domain, count in db.execute(
        "SELECT domain, count(*) FROM recipient INDEXED BY recipient_held WHERE state = 1 GROUP BY domain"
    ):
        counts[domain] = (counts.get(domain, (0, 0))[0], count)
    attempted = {
        connector: {"at": time_text(moment(at)), "hop": hop, **_came_to(outcomes), "evidence": _fact(db, evidence)}
        for connector, _newest, at, hop, outcomes, evidence in db.execute(
            # `k` is made of the time: it says which are the newest, and not how many.
            "SELECT connector, max(k), at, hop, outcomes, evidence"
            " FROM (SELECT k, connector, at, hop, address, outcomes, evidence FROM attempt ORDER BY k DESC LIMIT ?)"
            " WHERE address != '' GROUP BY connector",
            (_ATTEMPTS,),
        )
    }
    accepted = {
        connector: {"at": at, "hop": None, "state": "accepted", "failure": None, "evidence": _fact(db, tls)}
        for connector, _newest, at, tls in db.execute(
            "SELECT json_extract(about, '$.accepted.connector') AS connector, max(n), json_extract(about, '$.accepted.at'), tls"
            " FROM (SELECT n, about, tls FROM message ORDER BY n DESC LIMIT ?) GROUP BY connector HAVING connector IS NOT NULL",
            (_MESSAGES,),
        )
    }
    return Live(counts, attempted, accepted)


def _came_to(outcomes: str) -> Json:
    """Of an attempt with several recipients the best: it is about what the hop was."""
    each = [outcome for _recipient, outcome in json.loads(outcomes)]
    states = {one["state"] for one in each}
    state = next((one for one in ("delivered", "deferred", "bounced") if one in states), "deferred")
    return {"state": state, "failure": next((one["failure"] for one in each if one["failure"]), None)}


def _fact(db: sqlite3.Connection, key: int | None) -> Any:
    if key is None:
        return None
    row = db.execute("SELECT text FROM fact WHERE k = ?", (key,)).fetchone()
    return json.loads(row[0]) if row else None
