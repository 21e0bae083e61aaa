"""What the scheduler reads: which domains have mail due, and the messages that are.

Domains are found in the order of `due`, whole pages of the index at a time, so that a start with a million due messages has its first
work after one page. A domain's own messages are found through the index by domain: a million messages for one destination are never
in the way of another's.
"""

import json
import sqlite3
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from typing import Any

from relay.mail.address import Address
from relay.mail.codec import accepted_from, envelope_from, evidence_from, notify_from, outcome_from
from relay.mail.envelope import Message, Recipient
from relay.mail.tls import TlsEvidence
from relay.policy.reroute import is_key
from relay.queue.ids import first_number, moment, number
from relay.queue.store import CHUNK, NEW, Cursor, DuePage, Last, Mark, Standing

_DUE = "state = 0 AND slot = ? AND due <= ?"
_BODIES = 2 * 2**20  # bytes read at a time
_EVIDENCE = 256  # pieces remembered: many messages came over one connection


@dataclass(frozen=True, slots=True)
class Loaded:
    """A message and where those of its recipients stand that were asked for. `content` is empty where it was not read with it."""

    message: Message
    standing: Mapping[int, Standing]
    content: bytes = b""


def due_domains(db: sqlite3.Connection, slot: int, mark: Mark, now: int, limit: int) -> DuePage:
    rows = db.execute(
        "SELECT domain, max(due), count(*) FROM (SELECT due, domain FROM recipient INDEXED BY recipient_by_due"
        " WHERE state = 0 AND slot = ? AND due <= ? AND (due, domain) > (?, ?) ORDER BY due, domain LIMIT ?) GROUP BY domain",
        (slot, now, mark.due, mark.domain, limit),
    ).fetchall()
    complete = sum(count for _domain, _due, count in rows) < limit
    # Rows like the last one of the page are passed over with it: they name the same domain.
    last = Mark(*max((due, domain) for domain, due, _count in rows)) if rows else mark
    return DuePage(tuple(domain for domain, _due, _count in rows), last, complete)


def next_due(db: sqlite3.Connection, slot: int, mark: Mark) -> int | None:
    found = db.execute(
        "SELECT due FROM recipient INDEXED BY recipient_by_due WHERE state = 0 AND slot = ? AND (due, domain) > (?, ?)"
        " ORDER BY due, domain LIMIT 1",
        (slot, mark.due, mark.domain),
    ).fetchone()
    return int(found[0]) if found else None


def parse_last(text: str | None) -> Last | None:
    if text is None:
        return None
    data = json.loads(text)
    return Last(outcome_from(data), moment(data["at"]), data["hop"])


def _with_bodies(db: sqlite3.Connection, found: list[Loaded]) -> list[Loaded]:
    """The first of them that are small, as far as there is room. A body that is not whole is left to whoever asks for it."""
    numbers, room = list[int](), _BODIES
    for each in found:
        if each.message.size <= min(CHUNK, room):
            numbers.append(number(each.message.id))
            room -= each.message.size
    rows = db.execute(
        "SELECT n, data FROM chunk WHERE n IN (SELECT value FROM json_each(?)) AND seq = 0", (json.dumps(numbers),)
    )
    contents = {n: bytes(data) for n, data in rows}
    return [
        replace(each, content=content)
        if len(content := contents.get(number(each.message.id), b"")) == each.message.size
        else each
        for each in found
    ]


def _there(destination: str) -> str:
    """The index to read and what to look for in it."""
    if is_key(destination):
        return "INDEXED BY recipient_by_via WHERE state = 0 AND via IS NOT NULL AND via = ?"
    return "INDEXED BY recipient_by_domain WHERE state = 0 AND domain = ? AND via IS NULL"


_DETOURS = """
    WITH RECURSIVE ways (via) AS (
        SELECT min(via) FROM recipient INDEXED BY recipient_by_via WHERE state = 0 AND via IS NOT NULL
        UNION ALL
        SELECT (SELECT min(via) FROM recipient INDEXED BY recipient_by_via WHERE state = 0 AND via IS NOT NULL AND via > ways.via)
        FROM ways WHERE ways.via IS NOT NULL
    )
    SELECT via,
        (SELECT min(due) FROM recipient r INDEXED BY recipient_by_via
         WHERE r.state = 0 AND r.via IS NOT NULL AND r.via = ways.via AND r.slot = :slot AND r.due <= :now),
        (SELECT min(due) FROM recipient r INDEXED BY recipient_by_via
         WHERE r.state = 0 AND r.via IS NOT NULL AND r.via = ways.via AND r.slot = :slot AND r.due > :now)
    FROM ways WHERE via IS NOT NULL
"""


def detours(db: sqlite3.Connection, slot: int, now: int) -> tuple[tuple[str, ...], int | None]:
    """The detours with mail due in that slot, and when the next one has. Three steps in the index for each, however much mail it has."""
    rows = db.execute(_DETOURS, {"slot": slot, "now": now}).fetchall()
    following = [later for _via, _due, later in rows if later is not None]
    return tuple(via for via, due, _later in rows if due is not None), min(following, default=None)


_ASIDE_WAYS = """
    WITH RECURSIVE ways (via) AS (
        SELECT min(via) FROM recipient INDEXED BY recipient_by_via WHERE state = 0 AND via IS NOT NULL AND via > :after
        UNION ALL
        SELECT (SELECT min(via) FROM recipient INDEXED BY recipient_by_via WHERE state = 0 AND via IS NOT NULL AND via > ways.via)
        FROM ways WHERE ways.via IS NOT NULL
    )
    SELECT via FROM ways WHERE via IS NOT NULL AND EXISTS
    (SELECT 1 FROM recipient r INDEXED BY recipient_by_via
     WHERE r.state = 0 AND r.via IS NOT NULL AND r.via = ways.via AND r.slot = :slot AND r.due IS NULL)
    LIMIT :limit
"""


def aside_destinations(db: sqlite3.Connection, slot: int, after: str, limit: int) -> tuple[str, ...]:
    """Some of those where mail was put aside, in their order, from behind `after`. One step in an index for each, however much that is."""
    found: list[str] = []
    while len(found) < limit:
        row = db.execute(
            "SELECT domain FROM recipient INDEXED BY recipient_by_due WHERE state = 0 AND slot = ? AND due IS NULL AND domain > ?"
            " ORDER BY domain LIMIT 1",
            (slot, found[-1] if found else after),
        ).fetchone()
        if row is None:
            break
        found.append(row[0])
    ways = db.execute(_ASIDE_WAYS, {"slot": slot, "after": after, "limit": limit})
    return tuple(sorted((*found, *(row[0] for row in ways))))[:limit]


class Loader:
    """Builds messages from rows: `due` and `overdue` from those of one slot. Belongs to one reader's thread."""

    def __init__(self, slot: int) -> None:
        self._slot = slot
        self._evidence: OrderedDict[int, TlsEvidence | None] = OrderedDict()

    def due(
        self, db: sqlite3.Connection, domain: str, now: int, limit: int, taken: Set[tuple[str, int]]
    ) -> tuple[list[Loaded], bool]:
        """With the bodies of small messages: one by one each would wait for this thread. And whether there may be more."""
        rows = db.execute(
            f"SELECT n, i FROM recipient {_there(domain)} AND slot = ? AND due <= ? ORDER BY due LIMIT ?",  # noqa: S608 - one of two
            (domain, self._slot, now, limit),
        ).fetchall()
        passed = {(number(message), index) for message, index in taken}
        # dict.fromkeys: each message once, in order
        wanted = dict.fromkeys(n for n, i in rows if (n, i) not in passed)
        found = self._messages(db, wanted, _DUE, (self._slot, now))
        return _with_bodies(db, found), len(rows) == limit

    def overdue(
        self, db: sqlite3.Connection, domain: str, times: tuple[int, int, int], after: Cursor | None, limit: int
    ) -> tuple[list[Loaded], Cursor | None]:
        """`times`: now, and the times before which a message must have begun to be expired, or late."""
        now, expired, late = times
        rows = db.execute(
            f"SELECT due, warned, n, i FROM recipient {_there(domain)} AND slot = ?"  # noqa: S608 - one of two
            " AND due <= ? AND (due, warned, n, i) > (?, ?, ?, ?) AND (n < ? OR (n < ? AND warned = 0)) ORDER BY due, warned, n, i LIMIT ?",
            (domain, self._slot, now, *(after or (-1, 0, 0, 0)), first_number(expired), first_number(late), limit),
        ).fetchall()
        found = self._messages(db, dict.fromkeys(row[2] for row in rows), _DUE, (self._slot, now))
        return found, rows[-1] if len(rows) == limit else None

    def aside(
        self, db: sqlite3.Connection, domain: str, times: tuple[int, int], after: Cursor | None, limit: int
    ) -> tuple[list[Loaded], Cursor | None]:
        """As `overdue`, of those without a due time."""
        expired, late = times
        rows = db.execute(
            f"SELECT warned, n, i FROM recipient {_there(domain)} AND slot = ? AND due IS NULL"  # noqa: S608 - one of two
            " AND (warned, n, i) > (?, ?, ?) AND (n < ? OR (n < ? AND warned = 0)) ORDER BY warned, n, i LIMIT ?",
            (domain, self._slot, *(after or (-1, 0, 0)), first_number(expired), first_number(late), limit),
        ).fetchall()
        which = "state = 0 AND slot = ? AND due IS NULL"
        found = self._messages(db, dict.fromkeys(row[1] for row in rows), which, (self._slot,))
        return found, rows[-1] if len(rows) == limit else None

    def load(self, db: sqlite3.Connection, ids: Sequence[str]) -> list[Loaded]:
        return self._messages(db, map(number, ids), "state <= 1", ())

    def _messages(
        self, db: sqlite3.Connection, numbers: Iterable[int], which: str, values: tuple[int, ...]
    ) -> list[Loaded]:
        """The messages with all their recipients, and the standing of those that are as `which` says."""
        listed = json.dumps(list(numbers))
        envelopes: dict[int, list[Recipient]] = {}
        standing: dict[int, dict[int, Standing]] = {}
        for n, i, domain, local, notify, orcpt, attempts, warned, last, via, wanted in db.execute(
            f"SELECT n, i, domain, local, notify, orcpt, attempts, warned, last, via, {which} FROM recipient"  # noqa: S608 - `which` is from above
            " WHERE n IN (SELECT value FROM json_each(?)) ORDER BY n, i",
            (*values, listed),
        ):
            envelopes.setdefault(n, []).append(Recipient(Address(local, domain), notify_from(notify), orcpt))
            if wanted:
                known = attempts or warned or last or via
                history = Standing(attempts, bool(warned), parse_last(last), via or "") if known else NEW
                standing.setdefault(n, {})[i] = history
        rows = db.execute(
            "SELECT n, message.id, size, message_id, eight_bit, header, about, tls FROM message"
            " JOIN json_each(?) ON n = value ORDER BY key",
            (listed,),
        ).fetchall()
        return [
            Loaded(self._message(db, row, tuple(envelopes[row[0]])), standing[row[0]])
            for row in rows
            if row[0] in standing
        ]

    def _message(self, db: sqlite3.Connection, row: tuple[Any, ...], recipients: tuple[Recipient, ...]) -> Message:
        _n, message, size, message_id, eight_bit, header, about, tls = row
        data = json.loads(about)
        return Message(
            id=message,
            envelope=envelope_from(data["envelope"], recipients),
            accepted=replace(accepted_from(data["accepted"]), tls=self._evidence_of(db, tls)),
            size=size,
            header=header,
            message_id=message_id,
            eight_bit=bool(eight_bit),
        )

    def _evidence_of(self, db: sqlite3.Connection, fact: int | None) -> TlsEvidence | None:
        if fact is None:
            return None
        if fact not in self._evidence:
            if len(self._evidence) >= _EVIDENCE:
                self._evidence.popitem(last=False)
            row = db.execute("SELECT text FROM fact WHERE k = ?", (fact,)).fetchone()
            self._evidence[fact] = evidence_from(json.loads(row[0])) if row else None
        return self._evidence[fact]
