"""A queue of any length in seconds: the store's own schema and batches, with the safety that a benchmark can do without left off.

    python -m bench.fill FILE --messages 1000000 --domains 1000 --due -3600

Messages are deferred ones, as a queue that waits has them: one recipient each, tried once, with evidence that many share.
"""

import argparse
import os
import time
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

from relay.mail.address import Address
from relay.mail.attempt import Attempt
from relay.mail.envelope import Accepted, Envelope, Message, Recipient
from relay.mail.outcome import Deferred
from relay.mail.plan import Level, Plaintext, TlsPlan
from relay.queue.batch import Batch
from relay.queue.database import connect
from relay.queue.disk import create
from relay.queue.facts import Facts
from relay.queue.ids import Ids
from relay.queue.store import Change, Entry, Last, Record, State

_GROUP = 2000  # messages in one transaction
_BODY = b"Subject: waiting\r\n\r\n" + (b"x" * 70 + b"\r\n") * 56
_HEADER = (
    b"Received: from client.example ([192.0.2.9]) by relay.example.com with ESMTP; Sun, 22 Nov 2026 12:00:00 +0000\r\n"
)
_PLAN = TlsPlan(Level.OPPORTUNISTIC, Plaintext.IF_NOT_OFFERED, frozenset())
_LATER = Deferred(451, "4.4.1", "cannot connect to 192.0.2.1:25: connection refused")


def fill(
    path: Path,
    messages: int,
    *,
    domains: int = 1,
    due: timedelta,
    spread: timedelta = timedelta(0),
    body: bytes = _BODY,
) -> None:
    """Adds so many deferred messages to the queue in `path` (made where there is none; no relay may have it open).

    They came an hour ago and are due `due` from now on (before 0: they are due already), evenly over `spread`. All is on the disk at the end.
    """
    now = datetime.now(UTC)
    came = now - timedelta(hours=1)
    ids = Ids(lambda: came)
    create(path)
    with closing(connect(path)) as db:
        for pragma in ("synchronous = OFF", "wal_autocheckpoint = 20000", f"cache_size = -{512 * 1024}"):
            db.execute(f"PRAGMA {pragma}")
        first = int(db.execute("SELECT coalesce(max(k), 0) + 1 FROM attempt").fetchone()[0])
        facts = Facts()
        for start in range(0, messages, _GROUP):
            batch = Batch(db, facts, slot=0)
            db.execute("BEGIN IMMEDIATE")
            count = min(_GROUP, messages - start)
            made = [
                _message(ids.new(), f"waiting{(start + each) % domains}.example", came, body) for each in range(count)
            ]
            for message in made:
                batch.entry(Entry(message, (body,)))
            batch.flush()
            for number, message in enumerate(made, start):
                when = now + due + spread * (number / messages)
                batch.record(_deferred(message, came, when), range(first + number, first + number + 1), 0)
            batch.flush()
            db.execute("COMMIT")
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    settle(path)


def settle(path: Path) -> None:
    """Waits until a file is on the disk: for half a minute the kernel's writing of gigabytes would be part of what is measured."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _message(name: str, domain: str, came: datetime, body: bytes) -> Message:
    envelope = Envelope(Address("alice", "example.org"), (Recipient(Address("bob", domain)),))
    accepted = Accepted(came, "192.0.2.9:41234", "client.example", "0.0.0.0:25", "ESMTP")
    return Message(name, envelope, accepted, len(body), _HEADER, f"<{name}@example.org>")


def _deferred(message: Message, at: datetime, due: datetime) -> Record:
    attempt = Attempt(message.id, at, "mx.example:25", "192.0.2.1", "waiting", _PLAN, None, ((0, _LATER),))
    change = Change(0, State.WAITING, 1, due, Last(_LATER, at, "mx.example:25"))
    return Record(message, (attempt,), (change,))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--messages", type=int, default=100_000)
    parser.add_argument("--domains", type=int, default=1)
    parser.add_argument("--due", type=int, default=6 * 3600, help="seconds from now")
    parser.add_argument("--spread", type=int, default=0, help="seconds over which they fall due")
    options = parser.parse_args()
    begun = time.perf_counter()
    fill(
        options.file,
        options.messages,
        domains=options.domains,
        due=timedelta(seconds=options.due),
        spread=timedelta(seconds=options.spread),
    )
    print(f"{options.messages} messages in {time.perf_counter() - begun:.1f} s")


if __name__ == "__main__":
    main()
