"""`relay password`: who gets a line, what it says, and what a person or a program types."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from relay.cli import build
from relay.clients.passwords import verify
from relay.inbound.passwords import Accounts, Senders

CONFIG = """\
hostname: relay.example.com
postmaster: postmaster@example.com
listeners: [{address: "127.0.0.1:0", starttls: "off"}]
submission: {passwords: users}
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "connectors.yaml"
    path.write_text(CONFIG)
    return path


def run(*arguments: str, stdin: str = "geheim\n") -> Result:
    words = ["password", *arguments]
    return CliRunner().invoke(build(words), words, input=stdin)


def test_a_new_user_and_a_new_password(config: Path) -> None:
    result = run("bob@example.com", "--config", str(config))
    assert result.exit_code == 0, result.output
    assert "written" in result.output
    assert "bob@example.com may" not in result.output  # the sentence is about the user
    result = run("bob@example.com", "--config", str(config), stdin="neu\r\n")
    assert "changed" in result.output
    account = Accounts.read(config.parent / "users").by_user["bob@example.com"]
    assert verify(account.hash, "neu")
    assert account.senders == Senders.parse("bob@example.com")
    assert "neu" not in result.output


def test_senders_are_given_or_stay(config: Path) -> None:
    file = config.parent / "others"
    assert run("scanner", "--senders", "@example.com,x@example.org", "--file", str(file)).exit_code == 0
    result = run("scanner", "--file", str(file))
    assert "may send as x@example.org,@example.com" in result.output
    assert run("scanner", "--senders", "*", "--file", str(file)).exit_code == 0
    assert Accounts.read(file).by_user["scanner"].senders.anyone
    assert not (config.parent / "users").exists()


@pytest.mark.parametrize(
    ("arguments", "stdin", "code", "words"),
    [
        (("bob",), "x\n", 2, "say as whom bob may send"),
        (("b:b", "--senders", "*"), "x\n", 2, "cannot be a user name"),
        (("bob", "--senders", "example.com"), "x\n", 2, "write senders as"),
        (("bob", "--senders", "*"), "", 2, "empty password"),
        (("bob", "--senders", "*", "--file", "/proc/none/users"), "x\n", 1, "cannot write /proc/none/users"),
    ],
)
def test_what_cannot_be(config: Path, arguments: tuple[str, ...], stdin: str, code: int, words: str) -> None:
    result = run(*arguments, "--config", str(config), stdin=stdin)
    assert result.exit_code == code
    assert words in result.output
    assert not (config.parent / "users").exists()


def test_a_file_with_errors_is_named_and_left(config: Path) -> None:
    file = config.parent / "users"
    file.write_text("nonsense\n")
    result = run("bob", "--senders", "*", "--config", str(config))
    assert result.exit_code == 1
    assert f"{file}:1: " in result.output
    assert file.read_text() == "nonsense\n"


def test_a_configuration_without_submission(config: Path) -> None:
    config.write_text(CONFIG.replace("submission: {passwords: users}\n", ""))
    result = run("bob", "--senders", "*", "--config", str(config))
    assert result.exit_code == 2
    assert "has no `submission" in result.output


def test_a_person_is_asked_twice(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []

    def prompt(text: str, **options: object) -> str:
        asked.append((text, options["hide_input"], options["confirmation_prompt"]))
        return "geheim"

    monkeypatch.setattr("typer.prompt", prompt)
    monkeypatch.setattr("relay.cli.password.sys", FakeSys())
    assert run("bob@example.com", "--config", str(config)).exit_code == 0
    assert asked == [("Password", True, "Once more")]


class FakeSys:
    """A terminal."""

    class stdin:  # noqa: N801 - stands for sys.stdin
        @staticmethod
        def isatty() -> bool:
            return True


def test_what_was_written_as_json(config: Path) -> None:
    found = json.loads(run("bob@example.com", "--json", "--config", str(config)).stdout)
    assert found == {
        "file": str(config.parent / "users"),
        "user": "bob@example.com",
        "changed": False,
        "senders": ["bob@example.com"],
    }
    accounts = str(config.parent / "accounts")
    words = ("alice", "--scope", "read", "--file", accounts, "--json", "--config", str(config))
    assert json.loads(run(*words, stdin="correct horse battery\n").stdout) == {
        "file": accounts,
        "user": "alice",
        "scope": "read",
    }
