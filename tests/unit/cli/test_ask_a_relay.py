"""Commands that go by the configuration file, and by a running relay where one is named; and those that ask one only."""

import ipaddress
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from relay.admin.asking import Message
from relay.mail.address import parse_mailbox
from relay.policy.admission import Peer
from relay.policy.explain import Arrival, DnsFacts, Question, explain
from relay.policy.explain_json import explanation_json
from tests.unit.admin.fake import FakeRelay
from tests.unit.cli.conftest import Shell
from tests.unit.policy.builders import book


@pytest.fixture
def socket(tmp_path: Path) -> tuple[str, str]:
    return ("--socket", str(tmp_path / "relay.sock"))


def explanation() -> Any:
    client = Peer(ipaddress.ip_address("192.0.2.1"), None)
    question = Question(parse_mailbox("bob@contoso.com"), Arrival(parse_mailbox("a@b.example"), client))
    return explanation_json(explain(book(), question, DnsFacts({}, {}), datetime(2026, 11, 25, tzinfo=UTC)))


def test_an_explanation(shell: Shell, relay: FakeRelay, socket: tuple[str, str], tmp_path: Path) -> None:
    relay.found = explanation()
    result = shell("explain", "--to", "bob@contoso.com", *socket)
    assert result.exit_code == 1  # no hop of it can be tried
    assert "Coming in: a@b.example, from 192.0.2.1, in clear" in result.stdout
    assert "Going out: bob@contoso.com" in result.stdout
    shown = shell("explain", "--to", "bob@contoso.com", "--json", *socket)
    assert (shown.exit_code, json.loads(shown.stdout)) == (1, relay.found)
    (tmp_path / "client.pem").write_text("a certificate")
    more = ("--from", "a@b.example", "--client-ip", "192.0.2.1", "--client-certificate", str(tmp_path / "client.pem"))
    shell("explain", "--to", "bob@contoso.com", *more, *socket)
    shell("explain", "--to", "bob@contoso.com", "--client-certificate", "nothing", "--tls-version", "none", *socket)
    assert relay.asked[-2:] == [
        Message("bob@contoso.com", "a@b.example", "192.0.2.1", "a certificate", None),
        Message("bob@contoso.com", None, None, None, "none"),
    ]


def test_a_probe(shell: Shell, relay: FakeRelay, socket: tuple[str, str]) -> None:
    unroutable = {"state": "bounced", "code": 550, "status": "5.1.2", "text": "no such domain", "failure": None}
    relay.found = {"domain": "x.test", "connector": "default", "passes": False, "unroutable": unroutable, "hops": []}
    result = shell("probe", "127.0.0.1:25", "--for", "x.test", *socket)
    assert (result.exit_code, "no such domain" in result.stdout) == (1, True)
    assert relay.asked == [("127.0.0.1:25", "x.test")]
    relay.found["passes"] = True
    shown = shell("probe", "x.test", "--json", *socket)
    assert (shown.exit_code, json.loads(shown.stdout)) == (0, relay.found)


def test_a_validation(shell: Shell, relay: FakeRelay, socket: tuple[str, str]) -> None:
    step = {"step": "hosts", "target": "x.test", "result": "failed", "text": "none", "remedy": "Ask.", "seconds": 0.5}
    relay.found = {"connector": "partner", "direction": "outbound", "passes": False, "steps": [step]}
    result = shell("connectors", "validate", "partner", "--domain", "x.test", *socket)
    assert result.exit_code == 1
    assert "failed  hosts               x.test: none  (0.500 s)" in result.stdout
    assert "-> Ask." in result.stdout
    assert relay.asked == [("partner", "x.test")]
    step["result"] = "ok"
    relay.found["passes"] = True
    shown = shell("connectors", "validate", "partner", "--json", *socket)
    assert (shown.exit_code, json.loads(shown.stdout)) == (0, {**relay.found, "trace": None})
    played = shell("connectors", "validate", "partner", "--as", "a.pem", "a.key", *socket)
    assert (played.exit_code, "--as plays from here" in played.stderr) == (2, True)
    relay.found = {}
    assert shell("connectors", "validate", "nobody", *socket).exit_code == 1


def test_a_test_message_by_the_relay_that_is_named(shell: Shell, relay: FakeRelay, socket: tuple[str, str]) -> None:
    relay.found = {"connector": "partner", "direction": "outbound", "passes": True, "steps": []}
    result = shell("connectors", "validate", "partner", "--send-test", "bob@x.test", "--wait", "1", "--json", *socket)
    assert result.exit_code == 1  # this relay delivers nothing
    assert relay.asked[:2] == [("partner", "x.test"), ("test-connector", "partner", "bob@x.test")]
    (step,) = json.loads(result.stdout)["steps"]
    assert (step["step"], step["result"], "has had no answer within the time" in step["text"]) == (
        "send-test",
        "failed",
        True,
    )


def test_status(shell: Shell, relay: FakeRelay) -> None:
    result = shell("status")
    assert result.exit_code == 0
    lines = {line[:14].strip(): line[14:] for line in result.stdout.splitlines()}
    assert lines["mail"] == "is taken"
    assert lines["queue"] == "2 messages, the oldest for 0:01:30"
    assert lines["listener"] == "mx 0.0.0.0:25 at 0.0.0.0:25, 3 connections"
    assert "relay.example.com, 12 days left" in result.stdout
    assert lines["certificate"] == "old, it has ended"
    assert lines["one way"] == "contoso.com is held to TLS by contoso-out, and inbound by nothing"
    assert lines["not in force"] == "tls goes from domain to encryption"
    relay.ready = False
    result = shell("status")
    assert (result.exit_code, "is NOT taken" in result.stdout) == (1, True)
    assert "trouble       no listener is open" in result.stdout
    shown = shell("status", "--json")
    assert (shown.exit_code, json.loads(shown.stdout)["ready"]) == (1, False)


CONTOSO: dict[str, Any] = {
    "name": "contoso-out",
    "direction": "outbound",
    "level": "domain",
    "plaintext": None,
    "domains": ["contoso.com", "*.contoso.com"],
    "waiting": 2,
    "held": 0,
    "last": None,
    "settings": {"route": {"smart_hosts": ["a:25", "b:25"], "auth": None}, "names": [], "tls": "domain", "dane": True},
}
FROM: dict[str, Any] = {
    **CONTOSO,
    "name": "contoso-in",
    "direction": "inbound",
    "level": None,
    "domains": [],
    "last": {"at": "2026-11-25T08:00:00.000Z", "hop": None, "evidence": None},
}


def test_connectors_in_force(shell: Shell, relay: FakeRelay) -> None:
    relay.in_force = [CONTOSO, FROM]
    assert shell("connectors", "in-force").stdout.splitlines() == [
        "contoso-out  outbound  contoso.com, *.contoso.com",
        "    tls domain; 2 recipients wait, 0 held",
        "    not used lately",
        "contoso-in  inbound",
        "    last used 2026-11-25T08:00:00Z, in clear",
    ]
    tls = {"version": "TLSv1.3", "cipher": "TLS_AES_256_GCM_SHA384"}
    relay.in_force[0] = {**CONTOSO, "plaintext": "never"}
    relay.in_force[0]["last"] = {"at": "2026-11-25T08:00:00.000Z", "hop": "a:25", "evidence": tls}
    assert shell("connectors", "in-force", "contoso-out").stdout.splitlines()[1:] == [
        "    tls domain, plaintext never; 2 recipients wait, 0 held",
        "    last used 2026-11-25T08:00:00Z with a:25, TLSv1.3 TLS_AES_256_GCM_SHA384",
        "    route:",
        "      smart_hosts: [a:25, b:25]",
        "    names: []",
        "    tls: domain",
        "    dane: true",
    ]
    assert json.loads(shell("connectors", "in-force", "contoso-out", "--json").stdout) == relay.in_force[0]
    assert json.loads(shell("connectors", "in-force", "--json").stdout) == {"connectors": relay.in_force}


@pytest.mark.parametrize(("name", "code"), [("nobody", 1), ("..", 2), ("a/b", 2), ("a b", 2), ("a?b", 2)])
def test_connectors_that_are_not_in_force(shell: Shell, relay: FakeRelay, name: str, code: int) -> None:
    result = shell("connectors", "in-force", name)
    assert (result.exit_code, result.stdout) == (code, "")
    assert relay.asked == ([name] if code == 1 else [])
