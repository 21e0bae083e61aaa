"""`relay check`, `relay schema`, `relay init` and the root command."""

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from relay import __version__
from relay.cli import COMMANDS, build, main
from relay.cli.init import create_missing, sample
from relay.config.schema import schema

ROOT = Path(__file__).parents[3]
GOLDEN = ROOT / "tests/golden/config"
NOW = datetime.now(UTC)


def run(*arguments: str, environment: dict[str, str] | None = None) -> Result:
    return CliRunner().invoke(build(arguments), list(arguments), env=environment or {})


@pytest.fixture
def served(tmp_path: Path) -> Path:
    """A folder after `relay init`."""
    path = tmp_path / "connectors.yaml"
    create_missing(path, NOW)
    return path


def test_help_lists_every_command_and_imports_none() -> None:
    result = run("--help")
    assert result.exit_code == 0
    for command in COMMANDS:
        assert command.name in result.output


def test_help_is_fast_because_it_loads_little() -> None:
    code = (
        "import sys; from relay.cli import build\n"
        "try: build(['--help'])(['--help'], prog_name='relay')\n"
        "except SystemExit: pass\n"
        "heavy = {'pydantic', 'cryptography', 'rich', 'OpenSSL', 'ruamel.yaml', 'httpx', 'dns'} & set(sys.modules)\n"
        "print('heavy:', sorted(heavy))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert "heavy: []" in done.stdout


@pytest.mark.parametrize("command", [each.name for each in COMMANDS])
def test_every_command_can_be_loaded_and_explains_itself(command: str) -> None:
    result = run(command, "--help")
    assert result.exit_code == 0
    assert len(result.output.splitlines()) > 4


def test_version() -> None:
    assert run("--version").output == f"ironpost {__version__}\n"


def test_the_installed_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.argv", ["relay", "check", "--config", "/nowhere/connectors.yaml"])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 1
    assert "does not exist" in capsys.readouterr().out


def test_an_unknown_command_is_wrong_usage() -> None:
    result = run("chekc")
    assert result.exit_code == 2
    assert "check" in result.output


def test_the_sample_in_a_fresh_clone_is_taken(tmp_path: Path) -> None:
    """What the repository ships, without the keys that a first start makes."""
    for name in ("connectors.yaml", *(f"certs/partners/{each.name}" for each in (ROOT / "certs/partners").iterdir())):
        target = tmp_path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((ROOT / name).read_bytes())
    result = run("check", "--config", str(tmp_path / "connectors.yaml"))
    assert result.exit_code == 0
    assert "will not start on this machine: no certificate with its key" in result.output
    assert run("check", "--strict", "--config", str(tmp_path / "connectors.yaml")).exit_code == 1


def test_after_init_nothing_is_left_to_say(served: Path) -> None:
    result = run("check", "--strict", "--config", str(served))
    assert (result.exit_code, result.output) == (0, f"{served} is fine: no errors, no warnings\n")


def test_errors_are_printed_with_all_there_is_to_know() -> None:
    result = run("check", "--config", str(GOLDEN / "27-wrong-words.yaml"))
    assert result.exit_code == 1
    lines = result.output.splitlines()
    at = next(index for index, line in enumerate(lines) if "27-wrong-words.yaml:9:5" in line)
    assert lines[at].startswith("error ")
    assert lines[at + 1 : at + 5] == [
        '    connectors[0] "contoso-out" . tls',
        "    `verify` is none of the words that belong here",
        "    did you mean `domain`?",
        "    allowed: opportunistic, encryption, certificate, domain",
    ]
    assert lines[-1].endswith("27-wrong-words.yaml cannot be used: 10 errors, no warnings")


def test_errors_as_json() -> None:
    result = run("check", "--json", "--config", str(GOLDEN / "25-misspelt-hostname.yaml"))
    assert result.exit_code == 1
    found = json.loads(result.output)
    (problem,) = found["problems"]
    assert not found["valid"]
    assert problem["file"].endswith("25-misspelt-hostname.yaml")
    expected = ("error", 1, 1, "host_name", "hostname")
    assert tuple(problem[key] for key in ("severity", "line", "column", "key", "meant")) == expected


def test_a_file_that_is_not_there() -> None:
    result = run("check", "--config", "/nowhere/connectors.yaml")
    assert result.exit_code == 1
    assert "error /nowhere/connectors.yaml\n" in result.output
    assert "`relay init` writes one" in result.output


def test_the_file_can_be_named_by_the_environment(served: Path) -> None:
    assert run("check", environment={"RELAY_CONFIG": str(served)}).exit_code == 0


def test_warnings_are_told_and_do_not_count_unless_asked(served: Path) -> None:
    text = served.read_text(encoding="utf-8").replace("plaintext: if-not-offered", "plaintext: if-tls-fails")
    served.write_text(text, encoding="utf-8")
    result = run("check", "--config", str(served))
    assert result.exit_code == 0
    assert "warning " in result.output
    assert "defaults.outbound.plaintext" in result.output
    assert "can be used: no errors, 2 warnings" in result.output
    assert run("check", "--strict", "--config", str(served)).exit_code == 1
    found = json.loads(run("check", "--json", "--config", str(served)).output)
    assert (found["valid"], [each["severity"] for each in found["problems"]]) == (True, ["warning", "warning"])


def test_certificates_that_can_not_be_used_are_errors(served: Path) -> None:
    (served.parent / "certs/broken.pem").write_text("no PEM", encoding="utf-8")
    result = run("check", "--config", str(served))
    assert result.exit_code == 1
    assert "broken.pem" in result.output


def test_trust_data_that_can_not_be_used_is_an_error(served: Path) -> None:
    broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
    (served.parent / "certs/partners/inner-ca.pem").write_text(broken, encoding="utf-8")
    result = run("check", "--config", str(served))
    assert result.exit_code == 1
    assert 'connectors[0] "inner" . ca' in result.output


def test_schema_is_printed() -> None:
    result = run("schema")
    assert (result.exit_code, json.loads(result.output)) == (0, schema())


# init


def test_the_sample_and_its_copies_in_the_repository_are_one() -> None:
    shipped = ROOT / "relay/config/sample"
    copies = [each.relative_to(shipped) for each in sorted(shipped.rglob("*")) if each.is_file()]
    assert len(copies) == 4
    for copy in copies:
        assert (ROOT / copy).read_bytes() == (shipped / copy).read_bytes(), copy
    assert sample() == (ROOT / "connectors.yaml").read_text(encoding="utf-8")


def test_init_makes_what_is_missing_and_says_so(tmp_path: Path) -> None:
    path = tmp_path / "new" / "connectors.yaml"
    result = run("init", "--config", str(path))
    assert result.exit_code == 0
    made = {line.removeprefix(f"created {path.parent}/") for line in result.output.splitlines()}
    assert made == {
        "connectors.yaml",
        "certs/partners/contoso-ca.pem",
        "certs/partners/inner-ca.pem",
        "certs/partners/on-premises-ca.pem",
        "certs/relay.example.com.pem",
        "certs/relay.example.com.key",
    }
    assert (path.parent / "certs/relay.example.com.key").stat().st_mode & 0o077 == 0


def test_what_init_made_as_json(tmp_path: Path) -> None:
    path = tmp_path / "connectors.yaml"
    found = json.loads(run("init", "--json", "--config", str(path)).stdout)
    assert str(path) in found["created"]
    assert all(Path(each).exists() for each in found["created"])
    assert json.loads(run("init", "--json", "--config", str(path)).stdout) == {"created": []}


def test_init_leaves_what_is_there(served: Path) -> None:
    before = {each: each.read_bytes() for each in served.parent.rglob("*") if each.is_file()}
    result = run("init", "--config", str(served))
    assert (result.exit_code, result.output) == (0, "nothing is missing\n")
    assert {each: each.read_bytes() for each in served.parent.rglob("*") if each.is_file()} == before


def test_init_makes_the_certificate_of_a_file_that_is_there(tmp_path: Path) -> None:
    path = tmp_path / "connectors.yaml"
    path.write_text(
        "hostname: mx.example.net\npostmaster: p@example.net\ncertificates: tls/\n"
        'listeners: [{address: "127.0.0.1:25"}]\n',
        encoding="utf-8",
    )
    made = create_missing(path, NOW)
    assert [each.relative_to(tmp_path).as_posix() for each in made] == [
        "tls",
        "tls/mx.example.net.pem",
        "tls/mx.example.net.key",
    ]
    assert create_missing(path, NOW + timedelta(days=1)) == ()


def test_init_without_certificates_makes_none(tmp_path: Path) -> None:
    path = tmp_path / "connectors.yaml"
    text = "hostname: a.example\npostmaster: p@a.example\nlisteners: [{address: '127.0.0.1:25', starttls: off}]\n"
    path.write_text(text, encoding="utf-8")
    assert create_missing(path, NOW) == ()


@pytest.mark.parametrize("text", ["certificates: [x]\n", "certificates: '${X}'\n", "a: [\n", "\xff"])
def test_init_says_what_is_wrong_with_a_file_that_is_there(text: str, tmp_path: Path) -> None:
    path = tmp_path / "connectors.yaml"
    path.write_bytes(text.encode("latin-1"))
    result = run("init", "--config", str(path))
    assert result.exit_code == 1
    assert str(path) in result.stderr


def test_init_overwrites_no_certificate_that_lacks_its_key(served: Path) -> None:
    (served.parent / "certs/relay.example.com.key").unlink()
    result = run("init", "--config", str(served))
    assert result.exit_code == 1
    assert "is left as it is" in result.stderr


def test_read_config_reports_on_standard_error() -> None:
    result = run("explain", "--to", "a@example.com", "--config", str(GOLDEN / "01-empty-file.yaml"))
    assert (result.exit_code, result.stdout) == (1, "")
    assert "the file is empty" in result.stderr
