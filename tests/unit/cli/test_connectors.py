"""`relay connectors` from the command line: what it takes, its steps as JSON, its exit codes."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from relay.cli import build
from tests.hostile import Behaviour, Pki
from tests.unit.cli.test_probe import Dns, in_a_thread


@pytest.fixture
def pki(tmp_path: Path) -> Pki:
    return Pki(tmp_path / "pki", "mx.partner.test")


def write(folder: Path, port: int) -> Path:
    path = folder / "connectors.yaml"
    path.write_text(
        f"""\
hostname: relay.example.com
postmaster: postmaster@example.com
listeners: [{{address: "127.0.0.1:2525", starttls: off}}]
trust: pki/ca.pem
connectors:
  - name: partner
    direction: outbound
    match: {{recipient_domains: [partner.test, "*.partner.test"]}}
    tls: certificate
    route: {{smart_hosts: ["mx.partner.test:{port}"]}}
  - {{name: wild, direction: outbound, match: {{recipient_domains: ["*.wild.test"]}}, tls: encryption}}
  - {{name: from-partner, direction: inbound, match: {{sender_domains: [other.test]}}, require: {{tls: true}}}}
exceptions: [{{recipient_domain: a.partner.test, allow: plaintext, until: 2036-01-01, reason: old}}]
""",
        encoding="utf-8",
    )
    return path


@pytest.fixture(autouse=True)
def _dns(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Dns(hosts={"mx.partner.test": ["127.0.0.1"]})
    monkeypatch.setattr("relay.cli.outside.DnsResolver.of", lambda *_given: made)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(build(["connectors"]), ["connectors", *arguments])


def test_list(tmp_path: Path, pki: Pki) -> None:
    file = write(tmp_path, 25)
    found = json.loads(run("list", "--json", "--config", str(file)).stdout)["connectors"]
    assert [(each["name"], each["direction"], each["level"]) for each in found] == [
        ("partner", "outbound", "certificate"),
        ("wild", "outbound", "encryption"),
        ("from-partner", "inbound", None),
    ]
    assert found[0]["exceptions"] == [
        {"recipient_domain": "a.partner.test", "allow": "plaintext", "until": "2036-01-01"}
    ]
    assert found[0]["one_way"] == [
        {"domain": "partner.test", "missing": "inbound"},
        {"domain": "*.partner.test", "missing": "inbound"},
    ]
    assert found[2]["one_way"] == [{"domain": "other.test", "missing": "outbound"}]
    shown = run("list", "--config", str(file))
    assert shown.exit_code == 0
    assert "exception: plaintext for a.partner.test until 2036-01-01" in shown.output
    assert "forced in one direction only: mail to partner.test, *.partner.test must have TLS" in shown.output


def test_a_partner_that_is_as_it_should_be(tmp_path: Path, pki: Pki) -> None:
    with in_a_thread(Behaviour(tls=pki.tls12)) as server:
        file = write(tmp_path, server.port)
        result = run("validate", "partner", "--json", "--config", str(file))
        text = run("validate", "partner", "--config", str(file))
    found = json.loads(result.stdout)
    assert (result.exit_code, found["passes"], found["connector"], found["trace"]) == (0, True, "partner", None)
    assert {"hosts", "connect", "ehlo", "starttls", "certificate", "policy"} <= {
        each["step"] for each in found["steps"]
    }
    assert text.exit_code == 0
    assert "no step failed" in text.stdout
    assert "satisfied: mail would be sent" in text.stdout


def test_a_partner_that_is_not(tmp_path: Path, pki: Pki) -> None:
    with in_a_thread(Behaviour()) as server:
        file = write(tmp_path, server.port)
        result = run("validate", "partner", "--config", str(file))
    assert result.exit_code == 1
    assert "STARTTLS is not offered" in result.stdout
    assert "-> mx.partner.test" in result.stdout
    assert "at least one step failed" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["validate", "nobody"], "there are: from-partner, partner, wild"),
        (["validate", "partner", "--domain", "other.test"], "is governed by default, not by partner"),
        (["validate", "partner", "--send-test", "a@other.test"], "is governed by default, not by partner"),
        (["validate", "from-partner", "--domain", "other.test"], "is inbound"),
        (["validate", "from-partner", "--send-test", "a@other.test"], "is inbound"),
        (["validate", "partner", "--as", "a.pem", "a.key"], "is outbound"),
        (["validate", "partner", "--listener", "127.0.0.1:1"], "it goes with --as only"),
        (["validate", "from-partner", "--as", "a.pem", "a.key"], "a.pem"),
        (["validate", "wild"], "--domain: connector wild names only wildcards and goes by MX: say one domain"),
    ],
)
def test_wrong_usage(arguments: list[str], says: str, tmp_path: Path, pki: Pki) -> None:
    result = run(*arguments, "--config", str(write(tmp_path, 25)))
    assert result.exit_code == 2
    assert says in " ".join(result.output.split())


def test_a_test_message_needs_the_running_relay(tmp_path: Path, pki: Pki) -> None:
    with in_a_thread(Behaviour(tls=pki.tls12)) as server:
        file = write(tmp_path, server.port)
        without = run("validate", "partner", "--send-test", "a@partner.test", "--config", str(file))
        file.write_text(file.read_text() + "admin: {socket: relay.sock}\n")
        down = run("validate", "partner", "--send-test", "a@partner.test", "--config", str(file))
    assert without.exit_code == down.exit_code == 3
    assert "needs the running relay" in without.output
    assert "no such socket" in down.output


def test_inbound_without_a_running_relay(tmp_path: Path, pki: Pki) -> None:
    result = run("validate", "from-partner", "--json", "--config", str(write(tmp_path, 25)))
    found = {each["step"]: each["result"] for each in json.loads(result.stdout)["steps"]}
    assert found == {
        "configuration": "ok",
        "ca": "ok",
        "advice": "warning",
        "listener": "failed",
        "last-seen": "skipped",
    }
    assert result.exit_code == 1
