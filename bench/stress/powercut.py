"""The power goes: whatever was not synced is lost, kept, or torn. Every message that got its 250 is there all the same.

    python -m bench.stress.powercut [--messages 600] [--cuts 400] [--seed N]

A relay runs under load, with restarts, while all that it does to its queue's files is recorded. The record is then cut at any place, and
three disks are made of it: without anything that was not synced, with all of it, and with some of it, torn at sectors and out of order.
From each the store is opened as a start would, checked (`relay store check`), and compared: what had its 250 before the cut waits with
all its bytes or has arrived; nothing is marked as delivered that the sink had not taken by then; and what the sink had taken is there,
whether its client had been answered or not: it may hear a refusal yet, and send the message again.
"""

import argparse
import asyncio
import random
import shutil
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from bench.served import Served, configuration, outbound
from bench.stress.load import Book, Lost, body
from bench.stress.platter import Cut, Platter
from bench.stress.shim import Shim, changes
from relay.queue.bodies import BodyFolder
from relay.queue.check import check
from relay.queue.database import connect
from relay.queue.disk import create
from relay.queue.ids import SLOTS
from relay.queue.opening import find_strays, prepare
from relay.queue.store import StoreError
from relay.testing import Sink
from relay.testing.sink import Received

_QUEUE = "queue.db"
_BODIES = BodyFolder(Path(_QUEUE)).path.name
_FILES = (_QUEUE, f"{_QUEUE}-wal", f"{_QUEUE}-journal", _BODIES)
_QUICK = "/dev/shm" if Path("/dev/shm").is_dir() else None  # the rebuilt disks: thousands, each looked at once
_CLIENTS = 6


@dataclass
class Seen:
    """Places in the record: where each message had its 250 for certain, and where the sink had it."""

    acknowledged: dict[str, int] = field(default_factory=dict)
    arrived: dict[str, int] = field(default_factory=dict)


async def record(folder: Path, messages: int, lives: int = 4) -> tuple[Shim, Seen]:
    """Runs the relay, starting it anew so many times. Half of the mail can be delivered, the other half waits."""
    seen = Seen()
    place = folder / "relay"
    shim = Shim(folder / "shim", place / _QUEUE, record=True)

    def judge(recipient: str) -> str:
        return "250 OK" if int(recipient.partition("@")[0]) % 2 else "451 4.2.1 later"

    def received(message: Received) -> None:
        seen.arrived.setdefault(message.recipients[0], shim.recorded)

    async with Sink(judge=judge, received=received) as sink:
        relay = Served(configuration(place, [outbound("out", "*", sink.address)]), environment=shim.environment)
        book = Book(taken=lambda recipient: seen.acknowledged.setdefault(recipient, shim.recorded))
        for life in range(1, lives + 1):
            async with relay:
                await book.load(relay.address, clients=_CLIENTS, until=messages * life // lives)
    return shim, seen


def judge_disk(path: Path, place: int, seen: Seen) -> Counter[str]:
    """Opens what the cut left, as a start would. Raises Lost."""
    create(path)
    folder = BodyFolder(path)
    with closing(connect(path)) as db:
        prepare(db, folder)
        strays = find_strays(db, folder, range(SLOTS))
        folder.remove(strays)
        report = check(db, folder)
        if not report.is_sound:
            raise Lost("; ".join(map(str, report.problems)))
        states = {
            f"{local}@{domain}": (row, state)
            for row, local, domain, state in db.execute("SELECT n, local, domain, state FROM recipient")
        }
        for recipient, since in seen.arrived.items():
            if since <= place and recipient not in states:
                raise Lost(f"{recipient} had arrived and is not there: its end was sent before it was on the disk")
        for recipient, since in seen.acknowledged.items():
            if since > place:
                continue
            if recipient not in states:
                raise Lost(f"{recipient} had its 250 and is not there")
            row, state = states[recipient]
            if state == 2 and seen.arrived.get(recipient, place + 1) > place:
                raise Lost(f"{recipient} is marked as delivered and had not arrived")
            if state == 0 and _bytes(db, folder, row) != body(int(recipient.partition("@")[0])):
                raise Lost(f"{recipient} waits with other bytes than it came with")
        found = Counter(("waiting", "held", "delivered")[state] for _row, state in states.values())
        found["waiting in files"] = db.execute(f"{_IN_FILES} AND finished IS NULL").fetchone()[0]
        found["files swept"] = len(strays)
        return found


_IN_FILES = "SELECT count(*) FROM message WHERE n IN (SELECT n FROM body_file)"


def _bytes(db: sqlite3.Connection, folder: BodyFolder, row: int) -> bytes:
    if db.execute("SELECT 1 FROM body_file WHERE n = ?", (row,)).fetchone():
        return folder.file(row).read_bytes()
    return b"".join(each[0] for each in db.execute("SELECT data FROM chunk WHERE n = ? ORDER BY seq", (row,)))


def try_cuts(shim: Shim, seen: Seen, cuts: int, folder: Path, chance: random.Random) -> Mapping[str, int]:
    """Every kind of cut at `cuts` places. What was found, counted. Raises Lost, saying where."""
    record = list(changes(shim.log))
    places = set(chance.sample(range(len(record)), min(cuts, len(record))))
    # The moments around a sync are where a promise begins.
    syncs = [number for number, each in enumerate(record) if each.kind == "S"]
    places |= {number + more for number in chance.sample(syncs, min(cuts // 4, len(syncs))) for more in (-1, 0)}
    platter, counted, disks = Platter(_FILES), Counter[str](), 0
    for number, change in enumerate(record):
        platter.follow(change)
        if number not in places:
            continue
        for cut in Cut:
            disk = folder / "disk"
            shutil.rmtree(disk, ignore_errors=True)
            disk.mkdir()
            for path, content in platter.after(cut, chance).items():
                where = disk / _BODIES if path.parent.name == _BODIES else disk
                where.mkdir(exist_ok=True)
                (where / path.name).write_bytes(content)
            try:
                counted += judge_disk(disk / _QUEUE, change.end, seen)
            except (Lost, StoreError, sqlite3.Error) as error:
                raise Lost(f"cut at change {number} of {len(record)} ({cut}): {error}") from error
            disks += 1
    return {"disks tried": disks, **{f"{state} on them": count for state, count in counted.items()}}


def run(messages: int, cuts: int, seed: int) -> dict[str, int]:
    """Raises Lost. What was tried, in numbers."""
    chance = random.Random(seed)
    with tempfile.TemporaryDirectory(prefix="powercut-") as name, tempfile.TemporaryDirectory(dir=_QUICK) as disks:
        shim, seen = asyncio.run(record(Path(name), messages))
        found = try_cuts(shim, seen, cuts, Path(disks), chance)
    return {"messages": len(seen.acknowledged), "arrived": len(seen.arrived), **found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=600)
    parser.add_argument("--cuts", type=int, default=400)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    options = parser.parse_args()
    begun = time.perf_counter()
    try:
        found = run(options.messages, options.cuts, options.seed)
    except Lost as error:
        sys.exit(f"LOST (seed {options.seed}): {error}")
    print(f"seed {options.seed}: {found} in {time.perf_counter() - begun:.0f} s: nothing lost")


if __name__ == "__main__":
    main()
