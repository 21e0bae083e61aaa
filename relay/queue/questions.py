"""What operators ask: lists, traces, counts. In the JSON shapes of design section 11.

Traces are looked for from the newest backwards, without an index of their own: one by recipient would cost every message a page of
disk, and the answer is seldom far back.
"""

import json
import sqlite3
from collections.abc import Iterable
from typing import Any

from relay.mail.codec import time_text
from relay.queue.ids import first_number, milliseconds, moment, number
from relay.queue.schema import CODES, FINAL, STATES
from relay.queue.store import Json, Query, Row, State, TracePurge, TraceQuery

_LIVE_DOMAINS = """
    WITH RECURSIVE
    waiting (domain) AS (
        SELECT min(domain) FROM recipient INDEXED BY recipient_by_domain WHERE state = 0
        UNION ALL
        SELECT (SELECT min(domain) FROM recipient INDEXED BY recipient_by_domain WHERE state = 0 AND domain > waiting.domain)
        FROM waiting WHERE waiting.domain IS NOT NULL
    ),
    held (domain) AS (
        SELECT min(domain) FROM recipient INDEXED BY recipient_held WHERE state = 1
        UNION ALL
        SELECT (SELECT min(domain) FROM recipient INDEXED BY recipient_held WHERE state = 1 AND domain > held.domain)
        FROM held WHERE held.domain IS NOT NULL
    )
    SELECT domain FROM waiting WHERE domain IS NOT NULL UNION SELECT domain FROM held WHERE domain IS NOT NULL
"""


_BY_ID = """
    SELECT DISTINCT r.n FROM recipient r
    WHERE r.n IN (SELECT value FROM json_each(:ids)) AND r.n > :after AND r.state IN (SELECT value FROM json_each(:codes))
    AND (:domains IS NULL OR r.domain IN (SELECT value FROM json_each(:domains)))
    ORDER BY r.n LIMIT :limit
"""
# The domains are the outer loop: each is one range of the partial indexes.
_LIVE_BY_DOMAIN = """
    SELECT r.n FROM json_each(:domains) d CROSS JOIN recipient r INDEXED BY recipient_by_domain
    WHERE :waiting AND r.domain = d.value AND r.state = 0 AND r.n > :after
    UNION
    SELECT r.n FROM json_each(:domains) d CROSS JOIN recipient r INDEXED BY recipient_held
    WHERE :held AND r.domain = d.value AND r.state = 1 AND r.n > :after
    ORDER BY 1 LIMIT :limit
"""
_LIVE = """
    SELECT m.n FROM message m INDEXED BY message_live WHERE m.finished IS NULL AND m.n > :after AND EXISTS
    (SELECT 1 FROM recipient r WHERE r.n = m.n AND r.state IN (SELECT value FROM json_each(:codes)))
    ORDER BY m.n LIMIT :limit
"""
_ANY = """
    SELECT m.n FROM message m WHERE m.n > :after AND EXISTS
    (SELECT 1 FROM recipient r WHERE r.n = m.n AND r.state IN (SELECT value FROM json_each(:codes))
     AND (:domains IS NULL OR r.domain IN (SELECT value FROM json_each(:domains))))
    ORDER BY m.n LIMIT :limit
"""


def domains(db: sqlite3.Connection) -> tuple[str, ...]:
    """One step in the index for each domain, however much mail it has."""
    return tuple(row[0] for row in db.execute(_LIVE_DOMAINS))


def _numbers(ids: Iterable[str]) -> list[int]:
    found = []
    for text in ids:
        try:
            found.append(number(text))
        except ValueError:
            continue  # not an id: no message has it
    return found


def _codes(states: Iterable[State]) -> list[int]:
    """DELIVERING and SUSPENDED are WAITING to the store."""
    return sorted({CODES.get(state, CODES[State.WAITING]) for state in states})


def _matching(db: sqlite3.Connection, query: Query) -> list[int]:
    """The row keys of the messages that have a recipient which matches, oldest first."""
    codes = _codes(query.states)
    given = {
        "after": number(query.after) if query.after else -1,
        "codes": json.dumps(codes),
        "domains": None if query.domains is None else json.dumps(query.domains),
        "ids": json.dumps(_numbers(query.ids)),
        "waiting": CODES[State.WAITING] in codes,
        "held": CODES[State.HELD] in codes,
        "limit": query.limit,
    }
    live = all(code < FINAL for code in codes)
    if query.ids:
        statement = _BY_ID
    elif query.domains is not None and live:
        statement = _LIVE_BY_DOMAIN
    else:
        statement = _LIVE if live else _ANY
    return [row[0] for row in db.execute(statement, given)]


def rows(db: sqlite3.Connection, query: Query) -> tuple[Row, ...]:
    wanted = set(_codes(query.states))
    listed = json.dumps(_matching(db, query))
    found = db.execute(
        "SELECT m.id, r.i, r.local, r.domain, r.state, r.slot, r.via, m.sender FROM json_each(?) CROSS JOIN message m ON m.n = value"
        " JOIN recipient r ON r.n = m.n ORDER BY m.n, r.i",
        (listed,),
    )
    return tuple(
        Row(message, index, f"{local}@{domain}" if domain else local, domain, STATES[state], slot, via or "", sender)
        for message, index, local, domain, state, slot, via, sender in found
        if state in wanted and (query.domains is None or domain in query.domains)
    )


def listing(db: sqlite3.Connection, query: Query) -> list[Json]:
    return _messages(db, _matching(db, query))


def _messages(db: sqlite3.Connection, numbers: list[int]) -> list[Json]:
    """In the order of `numbers`."""
    listed = json.dumps(numbers)
    found: dict[int, Json] = {}
    for n, message, message_id, sender, size, accepted, requiretls, tls_optional in db.execute(
        "SELECT n, message.id, message_id, sender, size, json_extract(about, '$.accepted.at'), json_extract(about, '$.envelope.requiretls'),"
        " json_extract(about, '$.envelope.tls_optional') FROM json_each(?) CROSS JOIN message ON n = value ORDER BY key",
        (listed,),
    ):
        found[n] = {
            "id": message,
            "message_id": message_id,
            "sender": sender,
            "size": size,
            "accepted_at": accepted,
            # A message of an older version says neither.
            "requiretls": bool(requiretls),
            "tls_optional": bool(tls_optional),
            "recipients": [],
        }
    for n, domain, local, state, due, attempts, last, via in db.execute(
        "SELECT n, domain, local, state, due, attempts, last, via FROM recipient"
        " WHERE n IN (SELECT value FROM json_each(?)) ORDER BY n, i",
        (listed,),
    ):
        found[n]["recipients"].append(
            {
                "address": f"{local}@{domain}" if domain else local,
                "domain": domain,
                "via": via,
                "state": STATES[state].value,
                "attempts": attempts,
                "next_attempt": time_text(moment(due)) if due is not None else None,
                "last": _timed(json.loads(last)) if last else None,
            }
        )
    return list(found.values())


def traces(db: sqlite3.Connection, query: TraceQuery) -> list[Json]:
    conditions, values = ["1"], list[object]()
    if query.id:
        numbers = _numbers([query.id])
        conditions.append("m.n = ?")
        values.append(numbers[0] if numbers else -1)
    if query.since is not None:
        conditions.append("m.n >= ?")
        values.append(first_number(milliseconds(query.since)))
    if query.before:
        conditions.append("m.n < ?")
        values.append(next(iter(_numbers([query.before])), -1))
    if query.message_id:
        bare = query.message_id.strip("<>")
        conditions.append("m.message_id IN (?, ?)")
        values += [bare, f"<{bare}>"]
    if query.sender:
        sender = query.sender.strip("<>")
        # "@domain" means everybody there. Not LIKE: _ and % are legal in addresses.
        conditions.append(
            "substr(lower(m.sender), -length(?)) = lower(?)" if sender.startswith("@") else "lower(m.sender) = lower(?)"
        )
        values += [sender, sender] if sender.startswith("@") else [sender]
    if query.recipient:
        local, _at, domain = query.recipient.strip("<>").rpartition("@")
        conditions.append(
            "EXISTS (SELECT 1 FROM recipient r WHERE r.n = m.n AND r.domain = ? AND (? = '' OR lower(r.local) = lower(?)))"
        )
        values += [domain.lower(), local, local]
    found = db.execute(
        f"SELECT m.n FROM message m WHERE {' AND '.join(conditions)} ORDER BY m.n DESC LIMIT ?",  # noqa: S608 - the conditions are from above
        (*values, query.limit),
    )
    return _traces(db, [row[0] for row in found])


def _traces(db: sqlite3.Connection, numbers: list[int]) -> list[Json]:
    result = dict(zip(numbers, _messages(db, numbers), strict=True))
    facts: dict[int, Any] = {}
    for n, accepted, tls in db.execute(
        "SELECT n, json_extract(about, '$.accepted'), tls FROM message WHERE n IN (SELECT value FROM json_each(?))",
        (json.dumps(numbers),),
    ):
        message = result[n]
        del message["accepted_at"]
        # A queue of an older version has neither of the first two.
        known = {"client_port": None, "server": None} | json.loads(accepted)
        message["accepted"] = {**known, "tls": _fact(db, facts, tls)}
        message["attempts"] = []
    for n, at, hop, address, connector, plan, evidence, outcomes, seconds in db.execute(
        "SELECT n, at, hop, address, connector, plan, evidence, outcomes, seconds FROM attempt"
        " WHERE n IN (SELECT value FROM json_each(?)) ORDER BY k",
        (json.dumps(numbers),),
    ):
        recipients = result[n]["recipients"]
        result[n]["attempts"].append(
            {
                "at": time_text(moment(at)),
                "hop": hop,
                "address": address,
                "connector": connector,
                "plan": _fact(db, facts, plan),
                "evidence": _fact(db, facts, evidence),
                "seconds": round(seconds, 3),
                "outcomes": [
                    {"recipient": recipients[index]["address"], **outcome} for index, outcome in json.loads(outcomes)
                ],
            }
        )
    return list(result.values())


def _timed(last: Json) -> Json:
    return {**last, "at": time_text(moment(last["at"]))}


def _fact(db: sqlite3.Connection, known: dict[int, Any], row: int | None) -> Any:
    if row is None:
        return None
    if row not in known:
        found = db.execute("SELECT text FROM fact WHERE k = ?", (row,)).fetchone()
        known[row] = json.loads(found[0]) if found else None
    return known[row]


_SENT_BY = "substr(lower(m.sender), -length(:sender)) = lower(:sender)"
_SENT_BY_ONE = "lower(m.sender) = lower(:sender)"
_SENT_TO = "EXISTS (SELECT 1 FROM recipient r WHERE r.n = m.n AND r.domain = :domain AND (:local = '' OR lower(r.local) = lower(:local)))"


def ended(db: sqlite3.Connection, purge: TracePurge, after: int, limit: int) -> list[int]:
    """Row keys behind `after` of messages that have ended and that all of `purge` speaks of, in order."""
    conditions = ["m.finished IS NOT NULL", "m.n > :after"]
    given: dict[str, object] = {"after": after, "limit": limit}
    if purge.id:
        conditions.append("m.n = :n")
        given["n"] = next(iter(_numbers([purge.id])), -1)
    if purge.before is not None:
        conditions.append("m.finished < :before")
        given["before"] = milliseconds(purge.before)
    if purge.sender:
        # "@domain" means everybody there.
        conditions.append(_SENT_BY if purge.sender.startswith("@") else _SENT_BY_ONE)
        given["sender"] = purge.sender
    if purge.recipient:
        conditions.append(_SENT_TO)
        given["local"], _at, given["domain"] = purge.recipient.rpartition("@")
    found = db.execute(
        f"SELECT m.n FROM message m WHERE {' AND '.join(conditions)} ORDER BY m.n LIMIT :limit",  # noqa: S608 - the conditions are from above
        given,
    )
    return [row[0] for row in found]


def known_as(db: sqlite3.Connection, origin: str) -> str:
    """The message that has this id, or that was imported as it."""
    row = db.execute(
        "SELECT id FROM message WHERE n = :n AND id = :origin"
        " UNION ALL SELECT m.id FROM imported i JOIN message m ON m.n = i.n WHERE i.origin = :origin LIMIT 1",
        {"n": next(iter(_numbers([origin])), -1), "origin": origin},
    ).fetchone()
    return str(row[0]) if row else ""


def counts(db: sqlite3.Connection) -> tuple[int, int, int, int | None]:
    """Recipients that wait and that are held, messages with such, the oldest one's row key.

    Counted in the partial indexes: 40 ms for a million waiting recipients, whatever the history holds.
    """
    waiting, held, messages, oldest = db.execute(
        "SELECT (SELECT count(*) FROM recipient INDEXED BY recipient_by_due WHERE state = 0),"
        " (SELECT count(*) FROM recipient INDEXED BY recipient_held WHERE state = 1),"
        " (SELECT count(*) FROM message INDEXED BY message_live WHERE finished IS NULL),"
        " (SELECT min(n) FROM message INDEXED BY message_live WHERE finished IS NULL)"
    ).fetchone()
    return waiting, held, messages, oldest
