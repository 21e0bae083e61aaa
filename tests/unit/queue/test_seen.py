"""Partners' certificates in the store: the newest for each place, a bounded number, over a restart and from older schemas."""

import sqlite3
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from relay.mail.seen import Dated, Direction, Said, SeenCertificate, Spot
from relay.queue import schema
from relay.queue import seen as module
from relay.queue.schema import MIGRATIONS, prepare
from relay.queue.seen import SqliteSeen, read_seen
from relay.queue.sqlite import SqliteStore

NOW = datetime(2026, 11, 27, 12, tzinfo=UTC)
DAY = timedelta(days=1)
HOP = Spot(Direction.OUTBOUND, "contoso-out", "mx.contoso.com:25")
FIRST = SeenCertificate(
    spot=HOP,
    leaf=Dated("CN=mx.contoso.com", "ab" * 32, NOW + 50 * DAY),
    issuer="CN=CA",
    names=("mx.contoso.com", "contoso.com"),
    not_before=NOW - DAY,
    pin="sha256:" + "A" * 43 + "=",
    domain="contoso.com",
    address="192.0.2.1",
    failure="",
    first=NOW,
    last=NOW,
    sooner=Dated("CN=intermediate", "ef" * 32, NOW + 9 * DAY),
)


async def open_store(path: Path) -> SqliteStore:
    return await SqliteStore.open(path, emit=lambda _event: None, clock=lambda: NOW, free_space=0)


async def test_kept_over_a_restart_and_read_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "queue.db"
    store = await open_store(path)
    await SqliteSeen(store).note([FIRST])
    assert list(read_seen(path)) == [FIRST]
    await store.close()
    store = await open_store(path)
    assert list(await SqliteSeen(store).all()) == [FIRST]
    await store.close()


async def test_the_newest_of_a_place_and_since_when_it_is_shown(tmp_path: Path) -> None:
    store = await open_store(tmp_path / "queue.db")
    keeper = SqliteSeen(store)
    again = replace(FIRST, first=NOW + DAY, last=NOW + DAY, address="192.0.2.2")
    renewed = replace(
        FIRST, leaf=Dated("CN=new", "cd" * 32, NOW + 90 * DAY), first=NOW + 2 * DAY, last=NOW + 2 * DAY, sooner=None
    )
    refused = replace(FIRST, spot=replace(HOP, refused=True), failure="pin-mismatch", last=NOW + 3 * DAY)
    await keeper.note([FIRST])
    await keeper.note([again])
    assert list(await keeper.all()) == [replace(again, first=NOW)]
    await keeper.note([renewed, refused])
    assert list(await keeper.all()) == [renewed, refused]
    await keeper.note([again])  # another process comes late with what it saw before
    assert list(await keeper.all()) == [renewed, refused]
    await store.close()


async def test_a_stranger_pushes_out_only_his_own_like(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST", 3)
    store = await open_store(tmp_path / "queue.db")
    keeper = SqliteSeen(store)
    await keeper.note([FIRST])
    for number in range(10):
        spot = Spot(Direction.INBOUND, "anybody", f"name{number}.example")
        await keeper.note([replace(FIRST, spot=spot, last=NOW + number * DAY)])
    found = await keeper.all()
    assert [each.spot.hop for each in found] == [*(f"name{number}.example" for number in (7, 8, 9)), HOP.hop]
    await store.close()


async def test_forgotten_after_a_while(tmp_path: Path) -> None:
    store = await open_store(tmp_path / "queue.db")
    keeper = SqliteSeen(store)
    later = replace(FIRST, spot=replace(HOP, hop="mx2.contoso.com:25"), last=NOW + 2 * DAY)
    await keeper.note([FIRST, later])
    await keeper.say([Said("", "ab", 7, NOW), Said("contoso-out", "ab", 7, NOW + 2 * DAY)])
    await keeper.forget(NOW + DAY)
    assert list(await keeper.all()) == [later]
    assert [each.owner for each in await keeper.said()] == ["contoso-out"]
    await store.close()


async def test_the_tightest_threshold_that_was_said(tmp_path: Path) -> None:
    store = await open_store(tmp_path / "queue.db")
    keeper = SqliteSeen(store)
    for threshold in (14, 7, 30):
        await keeper.say([Said("", "ab", threshold, NOW)])
    assert list(await keeper.said()) == [Said("", "ab", 7, NOW)]
    await store.close()


def test_no_store_yet_and_one_of_an_older_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "queue.db"
    assert read_seen(path) == ()
    before = MIGRATIONS[: MIGRATIONS.index(schema._CERTIFICATES)]
    db = sqlite3.connect(path, isolation_level=None)
    with monkeypatch.context() as patch:
        patch.setattr(schema, "MIGRATIONS", before)
        prepare(db, str(path))
    assert read_seen(path) == ()
    prepare(db, str(path))
    assert db.execute("SELECT count(*) FROM certificate_seen").fetchone() == (0,)
    db.close()
