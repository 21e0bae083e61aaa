"""A disk that is full while something other than mail is written: nothing is half there, and it goes on once there is room."""

import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from relay.admin.endpoint import Unavailable
from relay.app.transfer import Transfer
from relay.config.load import load
from relay.queue.operations import Selection
from relay.queue.share import Share
from relay.queue.store import StoreUnavailable
from relay.queue.tallying import Tallying
from relay.testing import write_config
from tests.unit.queue.test_trouble import recovered
from tests.unit.queue.world import START, World

ORIGIN = "D23FDT61G001IBU2IT2N"


@pytest.fixture
async def queue(small_disk: Path) -> AsyncIterator[World]:
    made = World(small_disk / "queue.db")
    await made.start(free_space=0)
    yield made
    await made.close()


def fill(folder: Path) -> Path:
    """All that is left; what to remove for room again."""
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    return ballast


async def test_the_tally_counts_each_once(queue: World, small_disk: Path) -> None:
    for number in range(25):
        await queue.put(f"bob@d{number}.example")
    await queue.settle()
    made = Tallying(queue.store, Share(), clock=queue.clock, proves=frozenset)
    await made.say()
    ballast = fill(small_disk)
    with pytest.raises(StoreUnavailable):
        await made.run()
    with pytest.raises(StoreUnavailable):
        await made.run()
    ballast.unlink()
    await recovered(queue)
    await made.run()
    await made.run()
    lines = await made.lines(START.replace(hour=0), queue.clock.now.replace(hour=23))
    assert sum(count.messages for count, _first, _last in lines if count.kind.way.value == "out") == 25
    assert sum(count.messages for count, _first, _last in lines if count.kind.way.value == "in") == 25


def transfer(queue: World, folder: Path) -> Transfer:
    file = write_config(
        folder,
        {
            "hostname": "relay.test",
            "postmaster": "postmaster@relay.test",
            "listeners": [{"address": "127.0.0.1:0", "starttls": "off"}],
            "accept": {"networks": ["127.0.0.0/8"]},
        },
        {},
    )
    config = load(file)
    return Transfer(queue.store, queue.intake, queue.operations, lambda: config, queue.clock)


async def exported(size: int) -> AsyncIterator[bytes]:
    envelope = {"sender": "a@b.example", "recipients": [{"address": "bob@example.com"}], "id": ORIGIN}
    yield json.dumps(envelope).encode() + b"\n"
    yield b"Subject: x\r\n\r\n"
    for _ in range(size // 1000):
        yield b"y" * 998 + b"\r\n"


@pytest.mark.parametrize("size", [4_000_000, 10_000])
async def test_an_import_is_whole_or_not_there(queue: World, small_disk: Path, tmp_path: Path, size: int) -> None:
    """A large one fills the disk itself; to a small one it was full before."""
    made = transfer(queue, tmp_path)
    queue.hops.gate.clear()
    ballast = fill(small_disk) if size < 100_000 else small_disk / "none"
    with pytest.raises(Unavailable):
        await made.take(exported(size), again=False, who="uid 0")
    ballast.unlink(missing_ok=True)
    await recovered(queue)
    await queue.store.tidy()
    assert (await queue.operations.list(Selection(everything=True)))["messages"] == []
    assert await queue.store.known_as(ORIGIN) == "", "it may come again"
    left = await queue.store.ask(lambda db: db.execute("SELECT count(*) FROM chunk").fetchone()[0])
    assert left == 0
    await queue.until_files()
    done = await made.take(exported(10_000), again=False, who="uid 0")
    queue.hops.gate.set()
    await queue.settle()
    assert queue.hops.bodies[done["id"]] == b"Subject: x\r\n\r\n" + (b"y" * 998 + b"\r\n") * 10
