"""The queue's disk under a running relay: full, failing, locked, and gone with the power. bench/stress does more of each."""

import asyncio
import random
from pathlib import Path

import pytest

from bench.stress import powercut, trouble
from bench.stress.load import Lost
from bench.stress.platter import Cut, Platter
from bench.stress.shim import Change, Shim, changes


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


def test_a_folder_without_a_name_takes_its_files_with_it() -> None:
    platter = Platter(["q-bodies"])
    folder = Path("/folder/q-bodies")
    made, written = Change("M", folder, 0, b"", 0), Change("W", folder / "1", 0, b"x", 0)
    for each in (made, Change("C", folder / "1", 0, b"", 0), written, Change("S", folder / "1", 0, b"", 0)):
        platter.follow(each)
    assert platter.after(Cut.NONE_KEPT, random.Random(1)) == {}
    platter.follow(Change("D", folder, 0, b"", 0))
    assert platter.after(Cut.NONE_KEPT, random.Random(1)) == {}
    assert platter.after(Cut.ALL_KEPT, random.Random(1)) == {folder / "1": b"x"}
    platter.follow(Change("D", folder.parent, 0, b"", 0))
    assert platter.after(Cut.NONE_KEPT, random.Random(1)) == {folder / "1": b"x"}


def test_a_name_that_was_taken_away_comes_back_with_the_power() -> None:
    platter = Platter(["q"])
    for each in (change("C"), change("W", b"x"), change("S"), change("D"), change("U")):
        platter.follow(each)
    assert platter.after(Cut.NONE_KEPT, random.Random(1)) == {Path("/folder/q"): b"x"}
    platter.follow(change("D"))
    assert platter.after(Cut.NONE_KEPT, random.Random(1)) == {}


def is_of(change: Change, kind: str, end: str) -> bool:
    return change.kind == kind and (change.path.name.endswith(end) or change.path.parent.name.endswith(end))


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("kind", "of", "found"),
    [
        ("S", "-wal", "had (its 250|arrived) and is not there"),
        ("S", "-bodies", "bytes are not all there"),  # of a body's file
        ("D", "-bodies", "bytes are not all there|bodies is gone"),  # of the folder: a file has no name
        ("D", "relay", "bodies is gone"),  # of the folder above: the folder has none
    ],
)
def test_a_store_that_did_not_sync_would_be_found_out(
    kind: str,
    of: str,
    found: str,
    recorded: tuple[Shim, powercut.Seen],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The simulation bites: on a disk that only says that it synced, messages are lost."""
    follow = Platter.follow
    place = next(each.path.parent for each in changes(recorded[0].log) if each.kind == "M")

    def lies(self: Platter, change: Change) -> None:
        if of == "relay" and change.kind == "D" and change.path == place:
            # All but the new folder's name is kept, or there would be no queue at all.
            made = dict(self._folders)
            follow(self, change)
            self._folders = made
        elif not is_of(change, kind, of):
            follow(self, change)

    monkeypatch.setattr(Platter, "follow", lies)
    with pytest.raises(Lost, match=found):
        powercut.try_cuts(*recorded, 15, tmp_path, random.Random(1))
