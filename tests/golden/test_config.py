"""Every error that design section 4 names, as tests/golden/config/NN-name.yaml and the problems that it must give, NN-name.txt.

A file without a .txt must load. To take over new wording after reading it: GOLDEN_UPDATE=1 pytest tests/golden/test_config.py
"""

import os
from pathlib import Path

import pytest

from relay.config.load import ConfigError, load

FOLDER = Path(__file__).parent / "config"
CASES = sorted(FOLDER.glob("*.yaml"))
SECRET = "hunter2-is-secret"
ENVIRONMENT = {"SECRET": SECRET, "YAML": "relay.example.com\ntrust: [1, 2]"}


@pytest.mark.parametrize("case", CASES, ids=[case.stem for case in CASES])
def test_problems_of_the_file_are_the_expected_ones(case: Path) -> None:
    expected = case.with_suffix(".txt")
    lines: list[int] = []
    try:
        load(case, environment=ENVIRONMENT)
        found = ""
    except ConfigError as error:
        found = str(error).replace(f"{FOLDER}/", "") + "\n"
        lines = [problem.line for problem in error.problems]
    assert all(line > 0 for line in lines)
    if os.environ.get("GOLDEN_UPDATE"):
        expected.unlink(missing_ok=True)
        if found:
            expected.write_text(found, encoding="utf-8")
    assert found == (expected.read_text(encoding="utf-8") if expected.exists() else "")


@pytest.mark.parametrize("case", CASES, ids=[case.stem for case in CASES])
def test_no_message_holds_a_value_that_may_be_secret(case: Path) -> None:
    try:
        text = repr(load(case, environment=ENVIRONMENT))
    except ConfigError as error:
        text = f"{error}\n{error!r}\n{error.__cause__!r}\n{error.__context__!r}" + "".join(map(repr, error.problems))
    assert SECRET not in text
    assert "hunter2" not in text


def test_there_are_cases() -> None:
    assert len(CASES) > 60
    assert all(case.with_suffix(".yaml").exists() for case in FOLDER.glob("*.txt"))
