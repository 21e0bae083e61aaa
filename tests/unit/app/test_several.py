"""`workers`: how many processes a relay has."""

from pathlib import Path

import pytest

from relay.app.several import MOST_BY_ITSELF, cores, how_many
from relay.config.load import ConfigError
from tests.unit.config.builders import loaded


@pytest.mark.parametrize("number", [1, 2, 64])
def test_a_number_is_what_it_says(number: int, tmp_path: Path) -> None:
    assert how_many(loaded(f"workers: {number}\n", tmp_path).config) == number


@pytest.mark.parametrize("text", ["", "workers: auto\n"])
def test_by_itself_it_is_one_for_each_core(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = loaded(text, tmp_path).config
    monkeypatch.setattr("relay.app.several.cores", lambda: 3)
    assert how_many(config) == 3
    monkeypatch.setattr("relay.app.several.cores", lambda: 96)
    assert how_many(config) == MOST_BY_ITSELF


@pytest.mark.parametrize("text", ["0", "65", "true", "1.5", '"2"', "[2]", "-1", "one"])
def test_what_is_no_number_of_workers(text: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="write `auto`, or a number from 1 to 64"):
        loaded(f"workers: {text}\n", tmp_path)


@pytest.mark.parametrize(
    ("granted", "bound", "expected"),
    [
        ("max 100000\n", 4, 4),
        ("100000 100000\n", 4, 1),
        ("150000 100000\n", 4, 2),
        ("50000 100000\n", 4, 1),
        ("800000 100000\n", 4, 4),
        ("nonsense", 4, 4),
        (None, 4, 4),
    ],
)
def test_a_container_has_the_cores_that_it_is_granted(
    granted: str | None, bound: int, expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sixty-four processes on half a core would only be in each other's way."""
    monkeypatch.setattr("os.sched_getaffinity", lambda _pid: set(range(bound)))
    if granted is not None:
        (tmp_path / "cpu.max").write_text(granted)
    assert cores(tmp_path) == expected
