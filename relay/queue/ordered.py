"""Orders about recipients that were being delivered when they were given: kept until the attempt is over, so that a crash forgets none.

A recipient has at most two: what is to become of it, and where it is to go. The later one of a kind takes the earlier one's place.
"""

import sqlite3
from collections.abc import Collection

from relay.queue.schema import STATES
from relay.queue.store import Command, Order, Row

_MOST = 500  # read at a time


def note(db: sqlite3.Connection, rows: Collection[tuple[int, int]], command: Command) -> None:
    """`rows` are messages and indexes."""
    told = (command.order is Order.REROUTE, command.order.value, command.reason, command.detour)
    db.executemany("INSERT OR REPLACE INTO ordered VALUES (?, ?, ?, ?, ?, ?)", ((n, i, *told) for n, i in rows))


def drop(db: sqlite3.Connection, rows: Collection[tuple[int, int]], order: Order) -> None:
    """It is carried out, or taken back."""
    db.executemany(
        "DELETE FROM ordered WHERE n = ? AND i = ? AND reroutes = ?", ((n, i, order is Order.REROUTE) for n, i in rows)
    )


def read(db: sqlite3.Connection, slot: int) -> tuple[tuple[Row, Command], ...]:
    """Some of those about mail of that slot, where it goes before what becomes of it. Those about messages that are gone are left out."""
    found = db.execute(
        "SELECT m.id, o.i, r.local, r.domain, r.state, r.slot, r.via, o.command, o.reason, o.detour FROM ordered o"
        " JOIN recipient r ON r.n = o.n AND r.i = o.i JOIN message m ON m.n = o.n"
        " WHERE r.slot = ? ORDER BY o.n, o.i, o.reroutes DESC LIMIT ?",
        (slot, _MOST),
    )
    return tuple(
        (
            Row(message, index, f"{local}@{domain}" if domain else local, domain, STATES[state], its, via or ""),
            Command(Order(order), reason, detour),
        )
        for message, index, local, domain, state, its, via, order, reason, detour in found
    )
