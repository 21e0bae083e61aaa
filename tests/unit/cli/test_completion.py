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


FILE = """\
hostname: relay.example.com
certificates: certs/   # ours
alerts:
  webhook: {name: not-one, url: "https://x.example"}
connectors:
  # - name: asleep
  - name: contoso-out
    direction: outbound
  - {direction: inbound, name: "contoso-in"}   # name: neither
  - name:
defaults: {outbound: {helo: x}}
exceptions: [{name: nor-this}]
half: {
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "connectors.yaml").write_text(FILE)
    (tmp_path / "certs").mkdir()
    for name in (
        "relay.example.com.pem",
        "relay.example.com.key",
        "relay.example.com.next.pem",
        "other.pem",
        "$(reboot).pem",
    ):
        (tmp_path / "certs" / name).touch()
    return tmp_path


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("queue list --connector ", {"contoso-out", "contoso-in", "neither"}),
        ("queue list --connector contoso-i", {"contoso-in"}),
        ("queue hold --connector x", set()),
        ("queue reroute --via de", {"default"}),
        ("queue suspend --connector contoso-o", {"contoso-out"}),
        ("queue list --state h", {"held"}),
        ("connectors validate contoso-o", {"contoso-out"}),
        ("connectors in-force d", {"default"}),
        ("certs check --connector contoso-o", {"contoso-out"}),
        ("certs sheet ", {"relay.example.com", "other"}),
        ("certs next r", {"relay.example.com"}),
        ("certs request o", {"other"}),
        ("token monitoring --scope ", {"read", "operate", "admin"}),
        ("password alice --scope o", {"operate"}),
        ("connectors validate --config nothing.yaml ", set()),
        ("connectors validate --config . ", set()),
        ("connectors validate --config binary ", set()),
    ],
)
def test_values(relay: dict[str, str], folder: Path, line: str, expected: set[str]) -> None:
    """Whatever is wrong with the file: nothing else than values is printed."""
    (folder / "binary").write_bytes(b"\xff\xfe\0" * 100)
    words = f"relay {line}"
    environment = {
        **relay,
        "_RELAY_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split(" ")) - 1),
    }
    done = subprocess.run(
        ["relay"], env=environment, cwd=folder, capture_output=True, text=True, timeout=30, check=False
    )
    assert (set(done.stdout.split()), done.stderr) == (expected, "")


def test_values_come_from_the_file_that_is_named(relay: dict[str, str], folder: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "relay.yaml").write_text("connectors:\n- {name: there}\n")
    for words, more in (
        ("relay connectors validate --config elsewhere/relay.yaml ", {}),
        ("relay connectors validate ", {"RELAY_CONFIG": "elsewhere/relay.yaml"}),
    ):
        cword = str(len(words.split(" ")) - 1)
        environment = {**relay, "_RELAY_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": cword, **more}
        done = subprocess.run(
            ["relay"], env=environment, cwd=folder, capture_output=True, text=True, timeout=30, check=True
        )
        assert done.stdout.split() == ["there"]


@pytest.mark.parametrize("words", ["relay queue list --connector contoso-i", "relay certs sheet rel"])
def test_zsh_completes(relay: dict[str, str], folder: Path, words: str) -> None:
    """What the script evaluates, in zsh itself where it is there."""
    environment = {**relay, "_RELAY_COMPLETE": "complete_zsh", "_TYPER_COMPLETE_ARGS": words}
    done = subprocess.run(
        ["relay"], env=environment, cwd=folder, capture_output=True, text=True, timeout=30, check=True
    )
    wanted = "contoso-in" if "queue" in words else "relay.example.com"
    assert done.stdout.strip() == f"_arguments '*: :((\"{wanted}\"))'"


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
