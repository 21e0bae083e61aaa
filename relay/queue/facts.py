"""Plans and evidence in the store: each distinct text once, however many attempts name it.

A connection's evidence is one object for all messages that go over it, so its text is made once (looked up by identity, weakly held).
Belongs to the writer, inside its transactions. Another process that shares the queue may delete a fact that nobody names any more,
and that this one remembers: counting finds it missing.
"""

import sqlite3
from collections import Counter
from hashlib import blake2b
from json import JSONEncoder
from weakref import WeakKeyDictionary

from relay.mail.codec import Json, evidence_json, plan_json
from relay.mail.plan import TlsPlan
from relay.mail.tls import Certificate, TlsEvidence

_LARGEST = 16 * 1024  # bytes of a certificate
_KNOWN = 4096  # texts remembered by hash, and plans by value

encode = JSONEncoder(
    separators=(",", ":")
).encode  # ASCII only: SQLite takes no lone surrogates, which a peer's text may hold


class StaleFacts(Exception):  # noqa: N818 - says what is
    """A fact that was named is not there any more. `forget`, and do the transaction again."""


class Facts:
    """Turns plans and evidence into row numbers of `fact`, None for None, and counts how often each was named since `write_counts`."""

    def __init__(self) -> None:
        self._evidence: WeakKeyDictionary[TlsEvidence, int] = WeakKeyDictionary()
        self._plans: dict[TlsPlan, int] = {}
        self._texts: dict[bytes, int] = {}
        self._named: Counter[int] = Counter()

    def evidence(self, db: sqlite3.Connection, evidence: TlsEvidence | None) -> int | None:
        if evidence is None:
            return None
        row = self._evidence.get(evidence)
        if row is None:
            row = self._evidence[evidence] = self._row(db, evidence_json(evidence), evidence.chain)
        self._named[row] += 1
        return row

    def plan(self, db: sqlite3.Connection, plan: TlsPlan | None) -> int | None:
        if plan is None:
            return None
        row = self._plans.get(plan)
        if row is None:
            if len(self._plans) >= _KNOWN:
                self._plans.clear()
            row = self._plans[plan] = self._row(db, plan_json(plan))
        self._named[row] += 1
        return row

    def unname(self, *rows: int | None) -> None:
        """What named these was there already, and counted."""
        for row in rows:
            if row is not None:
                self._named[row] -= 1

    def _row(self, db: sqlite3.Connection, data: Json | None, chain: tuple[Certificate, ...] = ()) -> int:
        text = encode(data)
        digest = blake2b(text.encode("ascii"), digest_size=16).digest()
        row = self._texts.get(digest)
        if row is None:
            if len(self._texts) >= _KNOWN:
                self._texts.clear()
            found = db.execute(
                "INSERT INTO fact (hash, text, refs) VALUES (?, ?, 0) ON CONFLICT (hash) DO UPDATE SET refs = refs RETURNING k",
                (digest, text),
            ).fetchone()
            row = self._texts[digest] = int(found[0])
            _keep_certificates(db, chain)
        return row

    def write_counts(self, db: sqlite3.Connection) -> None:
        """Raises StaleFacts."""
        if self._named:
            counted = db.execute(
                "UPDATE fact SET refs = refs + value FROM json_each(?) WHERE k = CAST(key AS INTEGER)",
                (encode(self._named),),
            )
            if counted.rowcount < len(self._named):
                raise StaleFacts
            self._named.clear()

    def forget(self) -> None:
        """After a rollback, or when rows were deleted: what is remembered may no longer be there."""
        self._evidence.clear()
        self._plans.clear()
        self._texts.clear()
        self._named.clear()


def _keep_certificates(db: sqlite3.Connection, chain: tuple[Certificate, ...]) -> None:
    """Their bytes, once each: a record without them could be shown again, never judged again. tally.py says when they go.

    Threat: chains that a stranger makes up, each another and each large.
    """
    for each in chain:
        if each.der and len(each.der) <= _LARGEST:
            db.execute(
                "INSERT OR IGNORE INTO certificate (sha256, der, used) VALUES (?, ?, 0)", (each.sha256, each.der)
            )
