"""Completion as a real shell asks for it: bash with the script that `relay completion bash` prints."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from relay.cli import COMMANDS, _typed, build

BASH = """
source "$1"
COMP_WORDS=($2)
COMP_CWORD=$3
_relay_completion relay
printf '%s\\n' "${COMPREPLY[@]}"
"""


def script(shell: str) -> str:
    command = ("completion", shell)
    done = CliRunner().invoke(build(command), command)
    assert done.exit_code == 0
    return done.stdout


@pytest.fixture
def relay(tmp_path: Path) -> dict[str, str]:
    """An environment in which `relay` is this one."""
    program = tmp_path / "relay"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m relay "$@"\n')
    program.chmod(0o755)
    return {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}


@pytest.mark.parametrize(
    ("line", "word", "expected"),
    [
        ("relay qu", 1, {"queue"}),
        ("relay queue li", 2, {"list"}),
        ("relay check --str", 2, {"--strict"}),
        ("relay doctor --off", 2, {"--offline"}),
    ],
)
def test_bash_completes(tmp_path: Path, relay: dict[str, str], line: str, word: int, expected: set[str]) -> None:
    (tmp_path / "script").write_text(script("bash"))
    done = subprocess.run(
        ["bash", "-c", BASH, "bash", str(tmp_path / "script"), line, str(word)],
        env=relay,
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert set(done.stdout.split()) == expected


def test_every_command_is_offered(relay: dict[str, str]) -> None:
    environment = {**relay, "_RELAY_COMPLETE": "complete_bash", "COMP_WORDS": "relay ", "COMP_CWORD": "1"}
    done = subprocess.run(["relay"], env=environment, capture_output=True, text=True, timeout=30, check=True)
    assert {each.name for each in COMMANDS} <= set(done.stdout.split())


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_scripts_name_the_variable_that_we_look_at(shell: str) -> None:
    assert "_RELAY_COMPLETE=" in script(shell).replace("env _RELAY", "_RELAY")


def test_what_stands_at_the_prompt_decides_which_command_is_imported() -> None:
    assert _typed(["queue"], {}) == ["queue"]
    assert _typed([], {"_RELAY_COMPLETE": "complete_bash", "COMP_WORDS": "relay trace --to"}) == ["trace", "--to"]
    assert _typed([], {"_RELAY_COMPLETE": "complete_zsh", "_TYPER_COMPLETE_ARGS": "relay trace "}) == ["trace"]
