"""What a group of operations writes, gathered so that many rows go to SQLite in one statement.

Each call into SQLite gives up the interpreter's lock and takes it again; one statement for twenty rows
costs one such exchange instead of twenty. Belongs to the writer.
"""

import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

from relay.mail.attempt import Attempt
from relay.mail.codec import Json, accepted_json, envelope_json, notify_text, outcome_json
from relay.queue.facts import Facts, encode
from relay.queue.ids import milliseconds, number
from relay.queue.schema import CODES, FINAL
from relay.queue.store import CHUNK, Change, Entry, Last, Record

_MOST = 32  # rows in one statement: each size is a statement of its own in SQLite's cache
_MESSAGE = "message (n, id, size, message_id, sender, eight_bit, header, about, tls)"
_RECIPIENT = "recipient (n, i, state, domain, local, notify, orcpt, due, attempts, warned, last, slot)"
_CHUNK = "chunk (n, seq, data)"
_BODY_FILE = "body_file (n, size)"
_ATTEMPT = "attempt (k, n, at, hop, address, connector, plan, evidence, outcomes, seconds)"

_FACTS_OF_ATTEMPT = slice(6, 8)  # plan, evidence

Values = Sequence[Any]


@lru_cache(maxsize=256)
def _insert(verb: str, table: str, rows: int) -> str:
    row = f"({', '.join('?' * (table.count(',') + 1))})"
    return f"{verb} INTO {table} VALUES {', '.join([row] * rows)}"


@lru_cache(maxsize=_MOST)
def _insert_telling(verb: str, table: str, rows: int) -> str:
    """Tells the keys of the rows that were not there."""
    return f"{_insert(verb, table, rows)} RETURNING k"


# An ended recipient stays as it is: what was decided and reported is not taken back.
_UPDATE = """
    UPDATE recipient
    SET state = v.column3, due = v.column4, attempts = v.column5, warned = v.column6, last = coalesce(v.column7, last)
    FROM (VALUES rows) AS v
    WHERE recipient.n = v.column1 AND recipient.i = v.column2 AND recipient.state < v.column8
"""


@lru_cache(maxsize=_MOST)
def _update(_verb: str, _table: str, rows: int) -> str:
    return _UPDATE.replace("rows", ", ".join(["(?, ?, ?, ?, ?, ?, ?, ?)"] * rows))


def _write(
    db: sqlite3.Connection, sql: Callable[[str, str, int], str], verb: str, table: str, rows: list[Values]
) -> list[Values]:
    """What the statements return."""
    told: list[Values] = []
    for start in range(0, len(rows), _MOST):
        some = rows[start : start + _MOST]
        told += db.execute(sql(verb, table, len(some)), [value for row in some for value in row])
    rows.clear()
    return told


def last_json(last: Last) -> Json:
    return {"at": milliseconds(last.at), "hop": last.hop, **outcome_json(last.outcome)}


class Batch:
    """Rows on their way into one transaction. `slot` is that of new messages."""

    def __init__(self, db: sqlite3.Connection, facts: Facts, slot: int) -> None:
        self.loosened = False  # a large message ended: its bytes wait to be deleted
        self._db = db
        self._slot = slot
        self.facts = facts
        self._messages: list[Values] = []
        self._reports: list[Values] = []
        self._recipients: list[Values] = []
        self._report_recipients: list[Values] = []
        self._chunks: list[Values] = []
        self._report_chunks: list[Values] = []
        self._attempts: list[Values] = []
        self._updates: list[Values] = []
        self._over: list[int] = []  # small messages whose only recipient has ended
        self._ended: list[int] = []  # others with a recipient that has
        self._in_files: list[Values] = []
        self._now = 0  # when the records were made, for `message.finished`

    def entry(self, entry: Entry) -> None:
        row = number(entry.message.id)
        if entry.in_file:
            self._in_files.append((row, entry.message.size))
        self._add(entry, row, self._messages, self._recipients, self._chunks)

    def record(self, record: Record, attempt_rows: range, now: int) -> None:
        """`attempt_rows` are keys for the attempts, the same when a record whose commit was in doubt is written once more."""
        message = record.message
        row = number(message.id)
        for key, attempt in zip(attempt_rows, record.attempts, strict=True):
            self._attempts.append(self._attempt(key, row, attempt))
        for change in record.changes:
            self._updates.append(self._change(row, change))
            if change.state.is_final:
                alone = len(message.envelope.recipients) == 1 and message.size <= CHUNK
                (self._over if alone else self._ended).append(row)
        for report in record.reports:
            target = number(report.message.id)
            self._add(report, target, self._reports, self._report_recipients, self._report_chunks)
        self._now = now

    def _add(
        self, entry: Entry, row: int, messages: list[Values], recipients: list[Values], chunks: list[Values]
    ) -> None:
        message = entry.message
        envelope, accepted = message.envelope, message.accepted
        evidence = self.facts.evidence(self._db, accepted.tls)
        if evidence is not None:
            accepted = replace(accepted, tls=None)  # its text is in `fact`
        messages.append(
            (
                row,
                message.id,
                message.size,
                message.message_id.encode("utf-8", "backslashreplace").decode(),
                str(envelope.sender),
                message.eight_bit,
                message.header,
                encode({"envelope": envelope_json(envelope), "accepted": accepted_json(accepted)}),
                evidence,
            )
        )
        due = milliseconds(accepted.at)
        for index, recipient in enumerate(envelope.recipients):
            address = recipient.address
            notify = notify_text(recipient.notify) if recipient.notify else ""
            recipients.append(
                (row, index, 0, address.domain, address.local, notify, recipient.orcpt, due, 0, False, None, self._slot)
            )
        for sequence, data in enumerate(entry.chunks):
            chunks.append((row, sequence, data))

    def _attempt(self, key: int, row: int, attempt: Attempt) -> Values:
        plan = self.facts.plan(self._db, attempt.plan)
        evidence = self.facts.evidence(self._db, attempt.evidence)
        outcomes = encode([[index, outcome_json(outcome)] for index, outcome in attempt.outcomes])
        at = milliseconds(attempt.at)
        return (
            key, row, at, attempt.hop, attempt.address, attempt.connector, plan, evidence, outcomes, attempt.seconds,
        )  # fmt: skip

    @staticmethod
    def _change(row: int, change: Change) -> Values:
        due = milliseconds(change.due) if change.due is not None else None
        last = encode(last_json(change.last)) if change.last is not None else None
        return (row, change.index, CODES[change.state], due, change.attempts, change.warned, last, FINAL)

    def flush(self) -> None:
        """Writes what was gathered; the transaction is the caller's."""
        db = self._db
        _write(db, _insert, "INSERT", _MESSAGE, self._messages)
        _write(db, _insert, "INSERT", _RECIPIENT, self._recipients)
        _write(db, _insert, "INSERT", _CHUNK, self._chunks)
        _write(db, _insert, "INSERT", _BODY_FILE, self._in_files)
        # A record whose commit was in doubt comes a second time: what it inserts may be there.
        _write(db, _insert, "INSERT OR IGNORE", _MESSAGE, self._reports)
        _write(db, _insert, "INSERT OR IGNORE", _RECIPIENT, self._report_recipients)
        _write(db, _insert, "INSERT OR IGNORE", _CHUNK, self._report_chunks)
        self._write_attempts()
        _write(db, _update, "", "", self._updates)
        if self._over:
            listed = encode(self._over)
            db.execute(
                "UPDATE message SET finished = ? WHERE n IN (SELECT value FROM json_each(?))", (self._now, listed)
            )
            db.execute("DELETE FROM chunk WHERE n IN (SELECT value FROM json_each(?))", (listed,))
            self._over.clear()
        if self._ended:
            self.loosened |= finish(db, self._ended, self._now)
            self._ended.clear()
        self.facts.write_counts(db)

    def _write_attempts(self) -> None:
        """One that is there already does not name its plan and evidence a second time."""
        given = {row[0]: row for row in self._attempts}
        for (key,) in _write(self._db, _insert_telling, "INSERT OR IGNORE", _ATTEMPT, self._attempts):
            del given[key]
        for row in given.values():
            self.facts.unname(*row[_FACTS_OF_ATTEMPT])


def finish(db: sqlite3.Connection, rows: Sequence[int], now: int) -> bool:
    """Marks the messages among `rows` whose last recipient has ended, and drops their bytes. True if there are large ones to drop later.

    A large message's chunks fill thousands of pages: deleting them here would keep everyone in this group waiting. And its file may go only
    once this is on the disk.
    """
    listed = encode(sorted(set(rows)))
    db.execute(
        "UPDATE message SET finished = ? WHERE n IN (SELECT value FROM json_each(?)) AND finished IS NULL"
        " AND NOT EXISTS (SELECT 1 FROM recipient r WHERE r.n = message.n AND r.state < ?)",
        (now, listed, FINAL),
    )
    db.execute(
        "DELETE FROM chunk WHERE n IN (SELECT n FROM message"
        " WHERE n IN (SELECT value FROM json_each(?)) AND finished IS NOT NULL AND size <= ?)",
        (listed, CHUNK),
    )
    large = db.execute(
        "INSERT OR IGNORE INTO loose (n) SELECT n FROM message"
        " WHERE n IN (SELECT value FROM json_each(?)) AND finished IS NOT NULL AND size > ?",
        (listed, CHUNK),
    )
    return large.rowcount > 0
