"""`weakened`, as the table in compare.yaml: two configurations and all that is said of the second."""

from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from relay.policy.compare import weakened
from tests.unit.policy.builders import OTHER_PIN, PIN, config

TABLE = Path(__file__).parent / "compare.yaml"
STANDS_FOR = {"CA": str(Path(__file__).parent / "config/files/ca.pem"), "PIN1": PIN, "PIN2": OTHER_PIN}
ROWS = YAML(typ="safe").load(TABLE.read_text(encoding="utf-8"))


def _filled(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _filled(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_filled(each) for each in value]
    return STANDS_FOR.get(value, value) if isinstance(value, str) else value


def _said(row: dict[str, Any]) -> list[str]:
    old, new = config(**_filled(row["old"])), config(**_filled(row["new"]))
    base = f"{Path.cwd()}/"
    said = []
    for text in weakened(old, new):
        short = text
        for word, stands_for in STANDS_FOR.items():
            short = short.replace(stands_for, word)
        said.append(short.replace(base, ""))
    return said


@pytest.mark.parametrize("index", range(len(ROWS)))
def test_what_is_said_of_a_change(index: int) -> None:
    assert _said(ROWS[index]) == ROWS[index]["says"]


def test_nothing_is_said_of_no_change() -> None:
    for row in ROWS:
        for side in ("old", "new"):
            assert _said({"old": row[side], "new": row[side]}) == []
