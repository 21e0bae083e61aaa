"""CRLs and OCSP answers in the store: kept over a restart, replaced by newer ones only, forgotten when nobody uses them."""

import sqlite3
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from relay.mail.events import StoreTrouble
from relay.mail.revocation import Kind, RevocationKept
from relay.queue import revocations
from relay.queue.keepers import SqliteRevocations
from relay.queue.schema import MIGRATIONS, prepare
from tests.unit.queue.test_trouble import recovered
from tests.unit.queue.world import START, World

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
LARGE = bytes(range(256)) * 1024 * 3  # three pieces
KEPT = RevocationKept(
    key="a",
    kind=Kind.CRL,
    url="http://crl.example/a.crl",
    certificate=b"",
    issuer=b"issuer",
    this_update=START - HOUR,
    ends=START + 7 * DAY,
    fetched=START,
    refresh=START + 5 * DAY,
    used=START,
    data=LARGE,
)


def kept_by(queue: World) -> SqliteRevocations:
    return SqliteRevocations(queue.store, queue.clock)


async def pieces(queue: World) -> int:
    return await queue.store.ask(lambda db: db.execute("SELECT count(*) FROM revocation_piece").fetchone()[0])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "queue.db"


async def test_kept_over_a_restart(path: Path) -> None:
    queue = World(path)
    await queue.start()
    await kept_by(queue).save_revocation(KEPT)
    await queue.close()
    again = World(path)
    await again.start()
    assert await kept_by(again).load_revocation("a", None) == KEPT
    assert await kept_by(again).load_revocation("a", START) is None
    assert await kept_by(again).load_revocation("b", None) is None
    await again.close()


async def test_a_command_beside_the_relay_reads_it(path: Path) -> None:
    beside = revocations.KeptRevocations(path)
    assert await beside.load_revocation("a", None) is None
    other = path.with_name("other.db")
    with closing(sqlite3.connect(other)) as db:
        db.execute("CREATE TABLE of_an_older_version (a)")
    assert await revocations.KeptRevocations(other).load_revocation("a", None) is None
    queue = World(path)
    await queue.start()
    await kept_by(queue).save_revocation(KEPT)
    assert await beside.load_revocation("a", None) == KEPT
    assert await beside.load_revocation("a", START) is None
    await queue.close()


async def test_only_a_newer_one_takes_its_place(path: Path) -> None:
    queue = World(path)
    await queue.start()
    await kept_by(queue).save_revocation(KEPT)
    newer = replace(KEPT, this_update=START, fetched=START + HOUR, data=b"newer")
    await kept_by(queue).save_revocation(newer)
    assert await pieces(queue) == 1
    await kept_by(queue).save_revocation(replace(KEPT, this_update=START - DAY, fetched=START + 2 * HOUR, data=b"old"))
    assert await kept_by(queue).load_revocation("a", START) == newer
    assert await pieces(queue) == 1
    await queue.close()


async def test_half_of_one_is_none(path: Path) -> None:
    """A crash between two pieces, or before the row: what was there before still counts, the stray pieces go."""
    queue = World(path)
    await queue.start()
    await kept_by(queue).save_revocation(KEPT)
    half = replace(KEPT, this_update=START, fetched=START + HOUR)
    await queue.store.work(lambda db: revocations.put_piece(db, half, 0, LARGE[: revocations.PIECE]))
    assert await kept_by(queue).load_revocation("a", None) == KEPT
    await queue.store.work(lambda db: db.execute("DELETE FROM revocation_piece WHERE seq = 2"))
    assert await kept_by(queue).load_revocation("a", None) is None
    queue.clock.now = START + 3 * HOUR
    await kept_by(queue).drop_revocations(START - DAY)
    assert await pieces(queue) == 2
    await queue.close()


async def limit_pages(queue: World, most: int) -> None:
    def limit(db: sqlite3.Connection) -> None:
        pages = db.execute("PRAGMA page_count").fetchone()[0]
        db.execute(f"PRAGMA max_page_count = {pages + most}")

    await queue.store.work(limit)


@pytest.mark.parametrize("room", range(0, 200, 20))
async def test_a_disk_that_is_full_in_the_middle_of_one(path: Path, room: int) -> None:
    """What was kept is still whole, half of the new one is never read, and mail is taken again once there is room."""
    queue = World(path)
    await queue.start()
    small = replace(KEPT, data=b"small")
    await kept_by(queue).save_revocation(small)
    await limit_pages(queue, room)
    newer = replace(KEPT, this_update=START, fetched=START + HOUR)
    await kept_by(queue).save_revocation(newer)
    found = await kept_by(queue).load_revocation("a", None)
    assert found == (newer if room * 4096 > len(LARGE) else small)
    if found == small:
        assert queue.of(StoreTrouble)
        await kept_by(queue).save_revocation(newer)
        assert await kept_by(queue).load_revocation("a", None) == small, "while there is no room, nobody tries"
    await limit_pages(queue, 1_000_000)
    if queue.store.trouble:
        await recovered(queue)
    assert await queue.put(body=b"x")
    await kept_by(queue).save_revocation(newer)
    assert await kept_by(queue).load_revocation("a", None) == newer
    assert await pieces(queue) == 3, "of the half nothing is left"
    await queue.close()


async def test_what_is_due_and_what_is_forgotten(path: Path) -> None:
    queue = World(path)
    await queue.start()
    unnamed = replace(KEPT, key="staple", url="", data=b"x")
    for each in (KEPT, replace(KEPT, key="b", refresh=START + DAY, data=b"x"), unnamed):
        await kept_by(queue).save_revocation(each)

    async def due(now: timedelta) -> list[str]:
        return [each.key for each in await kept_by(queue).due_revocations(START + now, START - DAY, 10)]

    assert [await due(HOUR), await due(2 * DAY), await due(6 * DAY)] == [[], ["b"], ["b", "a"]]
    await kept_by(queue).postpone_revocation("b", START + 3 * DAY)
    assert await due(2 * DAY) == []
    await kept_by(queue).use_revocation("a", START + DAY)
    assert await kept_by(queue).due_revocations(START + 6 * DAY, START + HOUR, 10) == (
        replace(KEPT, used=START + DAY, data=b""),
    )
    await kept_by(queue).drop_revocations(START + HOUR)
    assert await kept_by(queue).load_revocation("b", None) is None
    assert await kept_by(queue).load_revocation("a", None) is not None
    await queue.close()


async def test_all_together_have_a_limit(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Threat: a disk filled by what certificates name. The longest unused go."""
    monkeypatch.setattr(revocations, "MOST", 3 * len(LARGE))
    queue = World(path)
    await queue.start()
    for number in range(5):
        await kept_by(queue).save_revocation(replace(KEPT, key=str(number), used=START + number * HOUR))
    left = [number for number in range(5) if await kept_by(queue).load_revocation(str(number), None)]
    assert left == [2, 3, 4]
    await queue.close()


async def test_a_store_of_before_there_were_any(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = next(each for each in MIGRATIONS if any("revocation_piece" in statement for statement in each))
    with closing(sqlite3.connect(path)) as db, monkeypatch.context() as patch:
        patch.setattr("relay.queue.schema.MIGRATIONS", MIGRATIONS[: MIGRATIONS.index(ours)])
        prepare(db, "queue.db")
    queue = World(path)
    await queue.start()
    await kept_by(queue).save_revocation(KEPT)
    assert await kept_by(queue).load_revocation("a", None) == KEPT
    await queue.close()
