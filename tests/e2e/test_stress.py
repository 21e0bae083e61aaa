"""Small runs of what bench/stress does at full size: a clock that is set, a crowd, dead destinations, slow peers, a soak."""

import random
from pathlib import Path

import pytest

from bench.stress import clock, crowd, dead, slow, soak
from bench.stress.load import Lost

pytestmark = [pytest.mark.slow, pytest.mark.timeout(200)]


async def test_a_clock_that_is_set_holds_nothing_up(tmp_path: Path) -> None:
    found = await clock.run(4, 1, tmp_path)
    assert found["set back"] == 2
    assert found["kept"] > 100


async def test_who_is_in_is_served_while_others_hear_421(tmp_path: Path) -> None:
    found = await crowd.run(200, 40, 60, tmp_path)
    assert found["answers"] == {220: 200, 421: 40}


async def test_mail_goes_on_beside_destinations_that_are_dead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dead, "_KEPT", 0.0)  # all of it arrives; the rate is for a machine that does nothing else
    assert (await dead.run(60, 6, 60, 1, tmp_path))["kept"] > 0


async def test_mail_goes_on_beside_slow_peers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slow, "_KEPT", 0.0)
    assert (await slow.run(2, 100, tmp_path))["slow peers"] == 28


async def test_a_soak(tmp_path: Path) -> None:
    assert len((await soak.run(400, tmp_path))["MiB"]) == 20


def test_memory_that_grows_is_found_out() -> None:
    chance = random.Random(1)
    noise = [chance.uniform(-1, 1) for _ in range(20)]
    assert soak.is_flat([60 + 30 * (each < 3) + noise[each] for each in range(20)])
    assert not soak.is_flat([60 + each + noise[each] for each in range(20)])


async def test_a_crowd_that_is_let_in_beyond_the_limit_is_found_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crowd, "configuration", lambda *about, limits, **keys: _unlimited(*about, **keys))
    with pytest.raises(Lost, match="20 may come in, 5 may not"):
        await crowd.run(20, 5, 0, tmp_path)


def _unlimited(folder: Path, connectors: list[dict[str, object]]) -> Path:
    from bench.served import configuration

    return configuration(folder, connectors)
