"""The tally: what attempts and accepted messages add up to, by hour, kept for long after their traces are gone.

Made behind what is written, by the first worker, in steps: one reads a few hundred rows (`Tally.read`, in a reader's thread), one adds up
what they come to and moves the mark past them (`write`, in one transaction). So a row counts exactly once, whatever is killed when. Which
rows are complete is said by each process (progress.py); what was still arriving then is remembered in `tally_open`, and counted when it is
there.

Threat: whoever can send chooses sender domains, and domains to send to. So an hour has room for a thousand domains each way, and a domain
for some dozens of lines; past that they are summed up as "(other)". Chains that are shown are kept within limits too.
"""

import ipaddress
import json
import sqlite3
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

from relay.mail.envelope import LOCAL, TLS_REPORTS
from relay.mail.tally import NULL_SENDER, OTHER, Kind, Refusal, Result, Style, Way
from relay.policy.counted import inbound_style, outbound_style
from relay.queue.facts import encode
from relay.queue.progress import Complete

HOUR = 3600 * 1000  # milliseconds
DAY = 24 * HOUR
WAYS = (Way.IN, Way.OUT)

STEP = 128  # rows that are read in one step
_KNOWN = 4096  # facts remembered
_REMEMBERED = 16_384  # row keys
_HOURS = 8  # whose domains are remembered


_MESSAGE = (
    "n, json_extract(about, '$.accepted.protocol'), json_extract(about, '$.accepted.connector'), json_extract(about, '$.accepted.client'),"
    " json_extract(about, '$.envelope.sender[1]'), tls, CAST(strftime('%s', json_extract(about, '$.accepted.at')) AS INTEGER) * 1000,"
    " (SELECT count(*) FROM recipient r WHERE r.n = message.n)"
)
# With the domain of the first recipient, which most messages have alone.
_ATTEMPT = (
    "k, n, at, hop, connector, plan, evidence, outcomes, (SELECT domain FROM recipient r WHERE r.n = a.n AND r.i = 0)"
)


@dataclass(frozen=True, slots=True)
class Room:
    """For what strangers choose. `domains` an hour and way; `lines` a domain of an hour; `chains` a domain of a day."""

    domains: int = 1000
    lines: int = 64
    chains: int = 64


Numbers = tuple[int, int]  # messages, recipients
Seen = tuple[int, Way, str, str, tuple[str, ...]]  # day, way, domain, host, sha256 of the chain's certificates


@dataclass(slots=True)
class Step:
    """What some rows come to. `marks` maps what was read to (where the mark was, where it is to be).

    `keys` and `chains` are the row keys that are known already; `write` adds those that it made. They are used every day that they are
    remembered, so that none of them is deleted meanwhile (tallyold.py).
    """

    marks: dict[str, tuple[int, int]] = field(default_factory=dict)
    counts: dict[tuple[int, Kind], list[int]] = field(default_factory=dict)  # by hour: messages, recipients
    seen: dict[Seen, Numbers] = field(default_factory=dict)  # messages, latest
    keys: dict[Kind, int] = field(default_factory=dict)
    chains: dict[tuple[str, ...], int] = field(default_factory=dict)
    used: set[tuple[int, tuple[str, ...]]] = field(
        default_factory=set
    )  # days and chains whose certificates are noted as used
    opened: set[int] = field(default_factory=set)
    settled: set[int] = field(default_factory=set)
    more: bool = False

    def count(self, at: int, kind: Kind, recipients: int) -> None:
        key = (at // HOUR, kind)
        numbers = self.counts.get(key)
        if numbers is None:
            numbers = self.counts[key] = [0, 0]
        numbers[0] += 1
        numbers[1] += recipients

    def see(self, at: int, way: Way, domain: str, host: str, chain: tuple[str, ...]) -> None:
        key = (at // DAY, way, domain, host, chain)
        messages, latest = self.seen.get(key, (0, 0))
        self.seen[key] = (messages + 1, max(latest, at))

    @property
    def is_empty(self) -> bool:
        return not (self.marks or self.opened or self.settled)


class Tally:
    """Reads and adds up. `proves` gives the inbound connectors in force that require a certificate. Not for several threads at a time."""

    def __init__(self, *, processes: int, proves: Callable[[], frozenset[str]], room: Room = Room()) -> None:
        self._processes = processes
        self._proves = proves
        self._room = room
        self._facts: dict[int, Any] = {}
        self._keys: dict[Kind, int] = {}
        self._chain_keys: dict[tuple[str, ...], int] = {}
        self._used: set[tuple[int, tuple[str, ...]]] = set()
        self._chains: dict[int, tuple[str, ...]] = {}
        self._styles: dict[tuple[int | None, int | None], Style] = {}
        self._lines: OrderedDict[tuple[int, Way], dict[str, set[Kind]]] = OrderedDict()
        self._shown: OrderedDict[tuple[int, Way], dict[str, set[tuple[str, tuple[str, ...]]]]] = OrderedDict()

    def forget(self) -> None:
        """What is remembered may not be what is in the store."""
        for each in (self._keys, self._chain_keys, self._used):
            each.clear()
        self._lines.clear()
        self._shown.clear()

    def learn(self, step: Step) -> None:
        """It was written."""
        for known in (self._keys, self._chain_keys, self._used):
            if len(known) > _REMEMBERED:
                known.clear()
        self._keys |= step.keys
        self._chain_keys |= step.chains
        self._used |= step.used

    def read(self, db: sqlite3.Connection, limit: int = STEP) -> Step:
        """In a read transaction: the next rows. An empty step where there is nothing to do."""
        step = Step()
        marks = dict(db.execute("SELECT what, upto FROM tally_mark"))
        complete = _complete(db, self._processes)
        if complete is None:
            return step
        if complete.attempts > marks["attempts"]:
            self._attempts(db, step, marks["attempts"], complete.attempts, limit)
        still_open = frozenset(complete.still_open)
        self._late(db, step, still_open)
        if complete.messages > marks["messages"]:
            self._messages(db, step, (marks["messages"], complete.messages), still_open, limit)
        step.keys = {kind: self._keys[kind] for _hour, kind in step.counts if kind in self._keys}
        chains = {seen[-1] for seen in step.seen}
        step.chains = {chain: self._chain_keys[chain] for chain in chains if chain in self._chain_keys}
        step.used = {(seen[0], seen[-1]) for seen in step.seen} & self._used
        return step

    # --- attempts ---

    def _attempts(self, db: sqlite3.Connection, step: Step, mark: int, upto: int, limit: int) -> None:
        rows = db.execute(
            f"SELECT {_ATTEMPT} FROM attempt a WHERE k > ? AND k <= ? ORDER BY k LIMIT ?",  # noqa: S608 - from above
            (mark, upto, limit),
        ).fetchall()
        if not rows:
            return
        for _k, n, at, hop, connector, plan, evidence, told, first in rows:
            if connector == TLS_REPORTS:
                continue
            style = self._style(db, plan, evidence)
            parts: dict[tuple[str, str, str], int] = {}
            for index, outcome in json.loads(told):
                domain = _domain(db, n, index) if index or first is None else first
                part = (domain, outcome["state"], outcome["failure"] or "")
                parts[part] = parts.get(part, 0) + 1
            for (domain, state, failure), recipients in parts.items():
                step.count(
                    at, self._line(db, at, Kind(Way.OUT, domain, connector, style, Result(state), failure)), recipients
                )
                if state == Result.DELIVERED and evidence is not None:
                    self._see(db, step, at, Way.OUT, domain, hop, evidence)
        step.marks["attempts"] = (mark, rows[-1][0])
        step.more |= len(rows) == limit

    def _style(self, db: sqlite3.Connection, plan: int | None, evidence: int | None) -> Style:
        key = (plan, evidence)
        style = self._styles.get(key)
        if style is None:
            if len(self._styles) >= _KNOWN:
                self._styles.clear()
            style = self._styles[key] = outbound_style(self._fact(db, plan), self._fact(db, evidence))
        return style

    # --- messages ---

    def _late(self, db: sqlite3.Connection, step: Step, still_open: frozenset[int]) -> None:
        """Those that were open when the mark went past them."""
        waited = {row[0] for row in db.execute("SELECT n FROM tally_open")}
        if not waited:
            return
        there = self._read_messages(db, "n IN (SELECT value FROM json_each(?))", (encode(sorted(waited)),))
        for row in there:
            self._accept(db, step, row)
        step.settled = {row[0] for row in there} | (waited - still_open)

    def _messages(
        self, db: sqlite3.Connection, step: Step, span: tuple[int, int], still_open: frozenset[int], limit: int
    ) -> None:
        rows = self._read_messages(db, "n > ? AND n <= ? ORDER BY n LIMIT ?", (*span, limit))
        step.more |= len(rows) == limit
        last = rows[-1][0] if len(rows) == limit else span[1]
        step.opened = {each for each in still_open if span[0] < each <= last}
        counted = [row for row in rows if row[0] not in step.opened]
        for row in counted:
            self._accept(db, step, row)
        if rows or step.opened:
            step.marks["messages"] = (span[0], last)

    @staticmethod
    def _read_messages(db: sqlite3.Connection, condition: str, values: tuple[object, ...]) -> list[Any]:
        sql = f"SELECT {_MESSAGE} FROM message WHERE {condition}"  # noqa: S608 - from above
        return db.execute(sql, values).fetchall()

    def _accept(self, db: sqlite3.Connection, step: Step, row: tuple[Any, ...]) -> None:
        _n, protocol, connector, client, domain, tls, at, recipients = row
        if protocol == LOCAL:
            return  # we wrote it
        connector, domain = connector or "", domain or NULL_SENDER
        style = inbound_style(self._fact(db, tls), proved=connector in self._proves())
        step.count(at, self._line(db, at, Kind(Way.IN, domain, connector, style, Result.ACCEPTED)), recipients)
        if tls is not None:
            self._see(db, step, at, Way.IN, domain, _network(client), tls)

    # --- what they share ---

    def _fact(self, db: sqlite3.Connection, row: int | None) -> Any:
        if row is None:
            return None
        if row not in self._facts:
            if len(self._facts) >= _KNOWN:
                self._facts.clear()
            found = db.execute("SELECT text FROM fact WHERE k = ?", (row,)).fetchone()
            if found is None:
                return None
            self._facts[row] = json.loads(found[0])
        return self._facts[row]

    def _chain(self, db: sqlite3.Connection, evidence: int) -> tuple[str, ...]:
        chain = self._chains.get(evidence)
        if chain is None:
            if len(self._chains) >= _KNOWN:
                self._chains.clear()
            told = self._fact(db, evidence)
            chain = self._chains[evidence] = tuple(each["sha256"] for each in (told or {}).get("chain", ()))
        return chain

    def _line(self, db: sqlite3.Connection, at: int, kind: Kind) -> Kind:
        """The line that it goes into: itself, or the sum that has room for it."""
        domains = self._known_lines(db, at // HOUR, kind.way)
        lines = domains.get(kind.domain)
        if lines is None:
            if len(domains) >= self._room.domains and kind.domain != OTHER:
                return self._line(db, at, replace(kind, domain=OTHER))
            lines = domains[kind.domain] = set()
        if kind not in lines:
            if len(lines) >= self._room.lines:
                style = kind.style
                kind = replace(kind, connector=OTHER, style=Style(OTHER, OTHER, OTHER, style.verified, OTHER))
            lines.add(kind)
        return kind

    def _known_lines(self, db: sqlite3.Connection, hour: int, way: Way) -> dict[str, set[Kind]]:
        key = (hour, way)
        if key not in self._lines:
            found = self._lines[key] = {}
            for kind in _kinds(db, "c IN (SELECT c FROM tally WHERE hour = ?) AND way = ?", (hour, WAYS.index(way))):
                found.setdefault(kind.domain, set()).add(kind)
            while len(self._lines) > _HOURS:
                self._lines.popitem(last=False)
        self._lines.move_to_end(key)
        return self._lines[key]

    def _see(
        self, db: sqlite3.Connection, step: Step, at: int, way: Way, domain: str, host: str, evidence: int
    ) -> None:
        """Past the limits a sum without a chain stands for the rest: who reads it knows that not all is known."""
        chain = self._chain(db, evidence)
        domains = self._known_chains(db, at // DAY, way)
        if domain not in domains and len(domains) >= self._room.domains:
            return
        shown = domains.setdefault(domain, set())
        if (host, chain) not in shown and len(shown) >= self._room.chains:
            host, chain = OTHER, ()
        shown.add((host, chain))
        step.see(at, way, domain, host, chain)

    def _known_chains(self, db: sqlite3.Connection, day: int, way: Way) -> dict[str, set[tuple[str, tuple[str, ...]]]]:
        key = (day, way)
        if key not in self._shown:
            found = self._shown[key] = {}
            for domain, host, listed in db.execute(
                "SELECT domain, host, certificates FROM tally_seen JOIN tally_chain USING (h) WHERE day = ? AND way = ?",
                (day, WAYS.index(way)),
            ):
                found.setdefault(domain, set()).add((host, tuple(json.loads(listed))))
            while len(self._shown) > _HOURS:
                self._shown.popitem(last=False)
        self._shown.move_to_end(key)
        return self._shown[key]


@lru_cache(maxsize=4096)
def _network(client: str) -> str:
    """The client's network, /24 or /48: partners send from several addresses of one."""
    try:
        address = ipaddress.ip_address(client.strip("[]"))
    except ValueError:
        return ""
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return str(ipaddress.ip_network((address, 24 if address.version == 4 else 48), strict=False))


def _domain(db: sqlite3.Connection, n: int, index: int) -> str:
    found = db.execute("SELECT domain FROM recipient WHERE n = ? AND i = ?", (n, index)).fetchone()
    return str(found[0]) if found else OTHER


def _complete(db: sqlite3.Connection, processes: int) -> Complete | None:
    """Up to where the rows of all processes are there. None while one has not said so yet. Slots beyond `processes` have nobody who writes."""
    found = db.execute("SELECT attempts, messages, open FROM tally_slot WHERE slot < ?", (processes,)).fetchall()
    if len(found) < processes:
        return None
    still_open = [each for row in found for each in json.loads(row[2])]
    return Complete(min(row[0] for row in found), min(row[1] for row in found), tuple(still_open))


_KIND = "way, domain, connector, version, cipher, groups, verified, asked, result, failure"


def _kinds(db: sqlite3.Connection, condition: str, values: tuple[object, ...]) -> Iterator[Kind]:
    for row in db.execute(f"SELECT {_KIND} FROM tally_kind WHERE {condition}", values):  # noqa: S608 - from above
        yield kind_of(row)


def kind_of(row: tuple[Any, ...]) -> Kind:
    way, domain, connector, *style, result, failure = row
    return Kind(WAYS[way], domain, connector, Style(*style), Result(result), failure)


# --- writing: functions of the writing connection, each small ---


def say_complete(db: sqlite3.Connection, slot: int, complete: Complete) -> None:
    """What `Progress.complete` says of a slot."""
    db.execute(
        "INSERT INTO tally_slot (slot, attempts, messages, open) VALUES (?, ?, ?, ?) ON CONFLICT (slot) DO UPDATE"
        " SET attempts = excluded.attempts, messages = excluded.messages, open = excluded.open",
        (slot, complete.attempts, complete.messages, encode(complete.still_open)),
    )


def write(db: sqlite3.Connection, step: Step) -> bool:
    """False where the marks are not where they were: somebody else has counted these rows, and nothing is written."""
    for what, (was, _now) in step.marks.items():
        if db.execute("SELECT upto FROM tally_mark WHERE what = ?", (what,)).fetchone() != (was,):
            return False
    if step.settled:
        here = db.execute(
            "SELECT count(*) FROM tally_open WHERE n IN (SELECT value FROM json_each(?))",
            (encode(sorted(step.settled)),),
        )
        if here.fetchone()[0] != len(step.settled):
            return False
    for what, (_was, now) in step.marks.items():
        db.execute("UPDATE tally_mark SET upto = ? WHERE what = ?", (now, what))
    db.execute("DELETE FROM tally_open WHERE n IN (SELECT value FROM json_each(?))", (encode(sorted(step.settled)),))
    db.execute("INSERT OR IGNORE INTO tally_open (n) SELECT value FROM json_each(?)", (encode(sorted(step.opened)),))
    for _hour, kind in step.counts:
        if kind not in step.keys:
            step.keys[kind] = _key(db, kind)
    # One statement for all: the writer has the event loop.
    db.execute(
        "INSERT INTO tally (hour, c, messages, recipients) SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3 FROM json_each(?)"
        " WHERE true ON CONFLICT DO UPDATE SET messages = messages + excluded.messages, recipients = recipients + excluded.recipients",
        (encode([(hour, step.keys[kind], *numbers) for (hour, kind), numbers in step.counts.items()]),),
    )
    _write_seen(db, step)
    return True


def _key(db: sqlite3.Connection, kind: Kind) -> int:
    style = kind.style
    row = (
        *(WAYS.index(kind.way), kind.domain, kind.connector),
        *(style.version, style.cipher, style.group, style.verified, style.asked, kind.result, kind.failure),
    )
    marks = ", ".join("?" * len(row))
    sql = f"INSERT INTO tally_kind ({_KIND}) VALUES ({marks}) ON CONFLICT DO UPDATE SET way = way RETURNING c"  # noqa: S608 - constants
    return int(db.execute(sql, row).fetchone()[0])


def _write_seen(db: sqlite3.Connection, step: Step) -> None:
    rows = []
    for (day, way, domain, host, chain), numbers in step.seen.items():
        if chain not in step.chains:
            step.chains[chain] = db.execute(
                "INSERT INTO tally_chain (certificates) VALUES (?) ON CONFLICT DO UPDATE SET h = h RETURNING h",
                (encode(chain),),
            ).fetchone()[0]
        if (day, chain) not in step.used:
            step.used.add((day, chain))
            db.execute(
                "UPDATE certificate SET used = ? WHERE used < ? AND sha256 IN (SELECT value FROM json_each(?))",
                (day, day, encode(chain)),
            )
        rows.append((day, WAYS.index(way), domain, host, step.chains[chain], *numbers))
    db.execute(
        "INSERT INTO tally_seen (day, way, domain, host, h, messages, latest) SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3,"
        " value ->> 4, value ->> 5, value ->> 6 FROM json_each(?) WHERE true ON CONFLICT DO UPDATE"
        " SET messages = messages + excluded.messages, latest = max(latest, excluded.latest)",
        (encode(rows),),
    )


def refuse(db: sqlite3.Connection, group: Mapping[tuple[int, Refusal], int]) -> None:
    """Adds numbers of refusals, by (hour, what)."""
    db.executemany(
        "INSERT INTO tally_refused (hour, what, listener, command, connector, code, status, count) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
        " ON CONFLICT DO UPDATE SET count = count + excluded.count",
        [
            (hour, each.what, each.listener, each.command, each.connector, each.code, each.status, count)
            for (hour, each), count in group.items()
        ],
    )
