"""Every command held against what docs/operations.md says of it: what it goes by, `--json`, exit codes, help."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from relay.cli import COMMANDS, build
from tests.unit.admin.fake import GONE, FakeRelay
from tests.unit.cli.conftest import Shell

PAGE = (Path(__file__).parents[3] / "docs" / "operations.md").read_text(encoding="utf-8")
ROW = re.compile(r"^\| (`[a-z -]+`(?:, `[a-z -]+`)*) \| ([^|]+) \| ([^|]*) ?\|$", re.MULTILINE)
NAMED = {"--config", "--socket", "--url", "--token-file", "--cert", "--ca"}
NO_JSON = {"serve", "schema", "completion"}
# What each that needs more than its name is called with.
MORE = {
    "explain": "--to bob@contoso.com",
    "probe": "contoso.com",
    "queue show": "01JD3M8Z7Q",
    "queue retry": "--all",
    "queue hold": "--all",
    "queue release": "--all",
    "queue bounce": "--all --yes",
    "queue delete": "--all --yes",
    "queue reroute": "--all --via default",
    "queue suspend": "--to contoso.com",
    "queue resume": "--all",
    "queue export": "--all out",
    "queue import": "out --from a@b.example --to b@b.example",
    "trace show": "01JD3M8Z7Q",
    "trace purge": "--to bob@contoso.com --yes",
    "reports show": "contoso.com",
    "connectors in-force": "contoso-out",
    "connectors validate": "contoso-out",
    "certs next": "name",
    "certs request": "name",
    "certs check": "127.0.0.1:1",
    "password": "bob",
    "token": "name --scope read",
    "completion": "bash",
    "store backup": "copy",
}


def documented() -> dict[str, tuple[str, str]]:
    """By command: what it goes by, and what exit code 1 means."""
    section = PAGE.partition("| command | goes by |")[2].partition("\n## ")[0]
    rows = ROW.findall(section)
    return {name: (by.strip(), no.strip()) for names, by, no in rows for name in re.findall("`([^`]+)`", names)}


def commands() -> dict[str, set[str]]:
    """By command: its options."""
    return {name: {option for each in command.params for option in each.opts} for name, command in _walk()}


def _walk() -> Iterator[tuple[str, typer.core.TyperCommand]]:
    for each in COMMANDS:
        found = typer.main.get_command(build([each.name])).commands[each.name]  # type: ignore[attr-defined]
        for path, command in _below((each.name,), found):
            yield " ".join(path), command


def _below(path: tuple[str, ...], found: object) -> Iterator[tuple[tuple[str, ...], typer.core.TyperCommand]]:
    if isinstance(found, typer.core.TyperGroup):
        for name, each in found.commands.items():
            yield from _below((*path, name), each)
    else:
        assert isinstance(found, typer.core.TyperCommand)
        yield path, found


DOCUMENTED, OPTIONS = documented(), commands()
ASKING = sorted(name for name, (by, _no) in DOCUMENTED.items() if by == "relay")
EITHER = sorted(name for name, (by, _no) in DOCUMENTED.items() if "or" in by.split())


def run(*words: str) -> Result:
    return CliRunner().invoke(build(words), words)


def words_of(name: str) -> list[str]:
    return [*name.split(), *MORE.get(name, "").split()]


def test_the_page_names_every_command_and_no_other() -> None:
    assert DOCUMENTED.keys() == OPTIONS.keys()


@pytest.mark.parametrize("name", sorted(OPTIONS))
def test_options(name: str) -> None:
    by, options = DOCUMENTED[name][0], OPTIONS[name]
    expected = {
        "relay": NAMED,
        "file or relay": NAMED,
        "relay or file": NAMED,
        "file": {"--config"},
        "the `observe` listener": {"--config"},
        "nothing": set[str](),
    }[by]
    assert options & NAMED == expected
    assert ("--json" in options) is (name not in NO_JSON)


@pytest.mark.parametrize("name", sorted(OPTIONS))
def test_help(name: str) -> None:
    result = run(*name.split(), "--help")
    assert result.exit_code == 0
    about = " ".join(result.stdout.partition("\n\n")[2].split("\nOptions:")[0].split())
    assert re.match(r"[A-Z].{20,}\.", about), about
    if DOCUMENTED[name][0] == "file" and name not in ("init", "serve"):  # of these nobody expects that they ask one
        assert "Goes by local files" in about
    if name in EITHER:
        assert "running relay" in about
    undescribed = [
        line for line in result.stdout.splitlines() if re.fullmatch(r"  --[a-z-]+( [A-Z|a-z:.\[\]]+)?", line)
    ]
    assert not [each for each in undescribed if "|" not in each and "--listen" not in each]


@pytest.mark.parametrize("name", sorted(OPTIONS))
def test_wrong_usage_is_2(name: str) -> None:
    result = run(*words_of(name), "--nonsense")
    assert result.exit_code == 2
    assert "No such option: --nonsense" in result.output


@pytest.mark.parametrize("name", [*ASKING, *EITHER])
def test_a_relay_that_is_not_there_is_3(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "token").write_text("ironpost_x")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.eml").write_text("x")
    for way in (["--socket", "gone.sock"], ["--url", "https://127.0.0.1:1", "--token-file", "token"]):
        result = run(*words_of(name), *way)
        assert (result.exit_code, result.stdout) == (3, ""), result.output
        assert "the relay cannot be reached" in result.stderr
    assert sorted(each.name for each in tmp_path.rglob("*")) == ["a.eml", "out", "token"]


@pytest.mark.parametrize("name", [*ASKING, *EITHER])
def test_what_the_relay_refuses_is_1(name: str, shell: Shell, relay: FakeRelay, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.eml").write_text("x")
    relay.error = GONE
    words = [str(tmp_path / each) if each == "out" else each for each in words_of(name)]
    result = shell(*words, "--socket", str(tmp_path / "relay.sock"), config=False)
    assert result.exit_code == 1, result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)
    assert result.stderr.strip()
