import json
from datetime import date
from typing import Any

import pytest

from relay.admin.endpoint import Unavailable
from relay.admin.reports import ReportsQuery
from tests.unit.admin.fake import FakeRelay
from tests.unit.cli.conftest import Shell


def posting(state: str, to: str | None = "mailto:r@contoso.com", **more: Any) -> dict[str, Any]:
    usual = {"to": to, "state": state, "until": "", "next_try": None, "tries": 1, "message": None, "text": ""}
    return usual | more


def summary(*to: dict[str, Any], domain: str = "contoso.com") -> dict[str, Any]:
    counts = {"day": "2026-11-25", "domain": domain, "successes": 40, "failures": 2}
    return counts | {"due": None if to else "2026-11-26T01:02:03.000Z", "to": list(to)}


def test_the_list(shell: Shell, relay: FakeRelay) -> None:
    again = posting("waiting", "https://contoso.com/r", next_try="2026-11-26T01:10:00.000Z", text="answered 503")
    relay.reports_answer = {
        "sending": True,
        "uncounted": 0,
        "reports": [summary(posting("sent"), again), summary(domain="b.example")],
    }
    result = shell("reports", "list", "contoso.com", "--day", "2026-11-25")
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        "2026-11-25  contoso.com: 40 good, 2 failed",
        "    sent mailto:r@contoso.com",
        "    waiting https://contoso.com/r, next try 2026-11-26T01:10Z (answered 503)",
        "2026-11-25  b.example: 40 good, 2 failed",
        "    due at 2026-11-26T01:02Z",
    ]
    assert relay.asked == [ReportsQuery("contoso.com", date(2026, 11, 25))]
    assert json.loads(shell("reports", "list", "--json").stdout) == relay.reports_answer


def test_the_list_while_sending_is_off_and_room_is_short(shell: Shell, relay: FakeRelay) -> None:
    relay.reports_answer = {"sending": False, "uncounted": 7, "reports": [summary()]}
    result = shell("reports", "list")
    assert "sending is off" in result.stdout
    assert "7 sessions were not counted" in result.stderr
    relay.reports_answer = {"sending": False, "uncounted": 0, "reports": []}
    assert shell("reports", "list").stdout == "Nothing was counted.\n"


def test_one_report(shell: Shell, relay: FakeRelay) -> None:
    result = shell("reports", "show", "contoso.com")
    assert (result.exit_code, result.stderr) == (1, "no session was counted for contoso.com on that day\n")
    relay.report_answer = {"organization-name": "Example"}
    for words in ((), ("--json",)):
        result = shell("reports", "show", "contoso.com", "--day", "2026-11-25", *words)
        assert (result.exit_code, json.loads(result.stdout)) == (0, relay.report_answer)
    assert shell("reports", "show").exit_code == 2


def test_sending(shell: Shell, relay: FakeRelay) -> None:
    result = shell("reports", "send")
    assert (result.exit_code, result.stdout) == (1, "There is nothing to send.\n")
    unwanted = posting("unwanted", None, text="it has no TLSRPT record")
    relay.sent_answer = {
        "states": {"queued": 1, "unwanted": 1},
        "reports": [{"day": "2026-11-25", "domain": domain, **each} for domain, each in
                    (("contoso.com", posting("queued")), ("b.example", unwanted))],
    }  # fmt: skip
    result = shell("reports", "send", "contoso.com", "--day", "2026-11-25")
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        "2026-11-25  contoso.com: queued mailto:r@contoso.com",
        "2026-11-25  b.example: unwanted (it has no TLSRPT record)",
    ]
    assert json.loads(shell("reports", "send", "--json").stdout) == relay.sent_answer
    assert shell("reports", "send", "--day", "never").exit_code == 2


def received(**more: Any) -> dict[str, Any]:
    failing = {"result": "certificate-expired", "sessions": 3, "mx": "mx.us.example", "receiving_ip": "192.0.2.1"}
    policy = {
        "policy": "sts",
        "domain": "us.example",
        "successes": 40,
        "failures": 4,
        "failing": [
            failing | {"reason": None},
            {"result": "x", "sessions": 1, "mx": None, "receiving_ip": None, "reason": None},
        ],
    }
    usual = {"organization": "Contoso", "begins": "2026-11-25T00:00:00.000Z", "signed_by": "contoso.com", "successes": 40,
             "failures": 4, "policies": [policy]}  # fmt: skip
    return usual | more


def test_received(shell: Shell, relay: FakeRelay) -> None:
    assert shell("reports", "received").stdout == "No report was received.\n"
    relay.received = [received(), received(organization="Evil\x1b[2J", signed_by=None, policies=[])]
    result = shell("reports", "received", "--since", "2026-11-25", "--limit", "2")
    assert result.stdout.splitlines() == [
        "2026-11-25  Contoso (signed by contoso.com): 40 good, 4 failed",
        "    sts us.example: 40 good, 4 failed",
        "      3 x certificate-expired: mx.us.example 192.0.2.1",
        "      1 x x",
        "2026-11-25  Evil [2J (signature not asked for): 40 good, 4 failed",
    ]
    assert json.loads(shell("reports", "received", "--json").stdout) == relay.received
    assert shell("reports", "received", "--since", "yesterday").exit_code == 2


@pytest.mark.parametrize("command", [("list",), ("send",), ("show", "contoso.com")])
def test_a_relay_without_reports(command: tuple[str, ...], shell: Shell, relay: FakeRelay) -> None:
    relay.error = Unavailable("nothing is counted: the configuration has no `tlsrpt`")
    result = shell("reports", *command)
    assert (result.exit_code, result.stderr) == (1, "nothing is counted: the configuration has no `tlsrpt`\n")
