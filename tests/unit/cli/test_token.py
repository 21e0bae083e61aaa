"""`relay token` and `relay password --scope`: lines of the accounts file."""

import json
import stat
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from relay.admin.accounts import hash_token, read
from relay.admin.endpoint import Scope
from relay.cli import build


def run(*words: str, stdin: str | None = None) -> Result:
    return CliRunner().invoke(build(words), list(words), input=stdin)


def test_a_token_is_printed_once_and_kept_as_a_hash(tmp_path: Path) -> None:
    file = tmp_path / "accounts"
    result = run("token", "ci", "--scope", "operate", "--file", str(file))
    token = result.stdout.strip()
    assert result.exit_code == 0
    assert len(token) > 43
    assert token not in file.read_text()
    account = read(file)["ci"]
    assert (account.secret, account.scope) == (hash_token(token), Scope.OPERATE)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert token not in result.stderr


def test_a_new_token_ends_the_old_one_and_leaves_the_others(tmp_path: Path) -> None:
    file = tmp_path / "accounts"
    file.write_text("# ours\n")
    file.chmod(0o600)
    for name in ("ci", "nagios", "ci"):
        result = run("token", name, "--scope", "read", "--file", str(file), "--json")
    assert json.loads(result.stdout)["name"] == "ci"
    assert list(read(file)) == ["ci", "nagios"]
    assert file.read_text().startswith("# ours\n")


def test_a_person_for_the_console(tmp_path: Path) -> None:
    file = tmp_path / "accounts"
    result = run("password", "alice", "--scope", "admin", "--file", str(file), stdin="correct horse\n")
    assert (result.exit_code, "scope admin" in result.stdout) == (0, True)
    assert not read(file)["alice"].is_token
    assert "correct horse" not in file.read_text()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("token", "ci", "--scope", "root"), "none of read, operate, admin"),
        (("token", "a:b", "--scope", "read"), "cannot be a user name"),
        (("password", "alice", "--scope", "read", "--senders", "*"), "give one of them"),
    ],
)
def test_wrong_usage(tmp_path: Path, words: tuple[str, ...], said: str) -> None:
    result = run(*words, "--file", str(tmp_path / "accounts"), stdin="x\n")
    assert (result.exit_code, said in result.stderr) == (2, True)
    assert not (tmp_path / "accounts").exists()


def test_a_file_with_errors_is_left_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "accounts"
    file.write_text("alice:hunter2:admin\n")
    result = run("token", "ci", "--scope", "read", "--file", str(file))
    assert result.exit_code == 1
    assert "hunter2" not in result.stderr
    assert file.read_text() == "alice:hunter2:admin\n"
