"""The queue's disk under a running relay: full, failing, locked, and gone with the power. bench/stress does more of each."""

import asyncio
import random
from pathlib import Path

import pytest

from bench.stress import powercut, trouble
from bench.stress.load import Lost
from bench.stress.platter import Cut, Platter
from bench.stress.shim import Change, Shim


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("kind", ["full", "broken", "unsynced", "locked"])
async def test_trouble_at_any_write_ends_without_a_restart(kind: str, tmp_path: Path) -> None:
    found = await trouble.run(kind, 3, 1, tmp_path)
    assert found["kept"] > 0
    assert set(found["refused"]) <= {452, 451}
    assert found["twice"] == {}


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Shim, powercut.Seen]:
    """What a relay did to its queue's files, in two lives."""
    return asyncio.run(powercut.record(tmp_path_factory.mktemp("powercut"), 80, lives=2))


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_what_got_its_250_outlives_the_power(recorded: tuple[Shim, powercut.Seen], tmp_path: Path) -> None:
    shim, seen = recorded
    assert len(seen.acknowledged) == 80
    assert powercut.try_cuts(shim, seen, 15, tmp_path, random.Random(1))["disks tried"] > 40


def change(kind: str, data: bytes = b"", offset: int = 0, name: str = "q") -> Change:
    return Change(kind, Path("/folder") if kind == "D" else Path("/folder", name), offset, data, 0)


def test_a_cut_takes_what_was_not_synced() -> None:
    platter = Platter(["q", "r"])
    for each in (change("C"), change("W", b"safe"), change("S"), change("D"), change("W", b"lost", 4)):
        platter.follow(each)
    for each in (change("C", name="r"), change("W", b"no name yet", name="r"), change("S", name="r")):
        platter.follow(each)
    q, r = Path("/folder/q"), Path("/folder/r")
    chance = random.Random(1)
    assert platter.after(Cut.NONE_KEPT, chance) == {q: b"safe"}
    assert platter.after(Cut.ALL_KEPT, chance) == {q: b"safelost", r: b"no name yet"}
    found = [platter.after(Cut.SOME_KEPT, chance) for _ in range(50)]
    assert {each[q] for each in found} == {b"safe", b"safelost"}
    assert {r in each for each in found} == {True, False}


def test_a_name_that_was_taken_away_comes_back_with_the_power() -> None:
    platter = Platter(["q"])
    for each in (change("C"), change("W", b"x"), change("S"), change("D"), change("U")):
        platter.follow(each)
    assert platter.after(Cut.NONE_KEPT, random.Random(1)) == {Path("/folder/q"): b"x"}
    platter.follow(change("D"))
    assert platter.after(Cut.NONE_KEPT, random.Random(1)) == {}


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_a_store_that_did_not_sync_would_be_found_out(
    recorded: tuple[Shim, powercut.Seen], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The simulation bites: on a disk that only says that it synced, messages are lost."""
    follow = Platter.follow

    def lies(self: Platter, change: Change) -> None:
        if change.kind != "S" or not change.path.name.endswith("-wal"):
            follow(self, change)

    monkeypatch.setattr(Platter, "follow", lies)
    with pytest.raises(Lost, match="had its 250 and is not there"):
        powercut.try_cuts(*recorded, 15, tmp_path, random.Random(1))
