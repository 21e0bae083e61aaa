"""`relay alerts` from the command line."""

import json

from relay.admin.endpoint import Unavailable
from tests.unit.admin.fake import FakeRelay
from tests.unit.cli.conftest import Shell

ACTIVE = {
    "kind": "partner-unsafe",
    "subject": "contoso.com",
    "severity": "critical",
    "title": "contoso.com cannot be reached safely\x1b[2J",
    "detail": "Mail waits.",
    "remedy": "Call them.",
    "message": "01J",
    "since": "2026-11-27T07:00:00.000Z",
    "seen": "2026-11-27T07:10:00.000Z",
    "told": None,
    "away": None,
}


def test_the_list(shell: Shell, relay: FakeRelay) -> None:
    relay.active = [ACTIVE]
    result = shell("alerts", "list")
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        "critical  contoso.com cannot be reached safely [2J, since 2026-11-27T07:00Z",
        "    Mail waits.",
        "    Call them.",
    ]
    assert "1 still to be sent by webhook" in result.stderr
    assert json.loads(shell("alerts", "list", "--json").stdout)["alerts"] == [ACTIVE]


def test_what_comes_and_goes(shell: Shell, relay: FakeRelay) -> None:
    relay.active = [{**ACTIVE, "away": "2026-11-27T07:20:00.000Z"}]
    assert "    It comes and goes: away since 2026-11-27T07:20Z" in shell("alerts", "list").stdout


def test_nothing_to_see_to(shell: Shell, relay: FakeRelay) -> None:
    result = shell("alerts", "list")
    assert (result.exit_code, result.stdout) == (0, "There is nothing to see to.\n")


def test_a_test(shell: Shell, relay: FakeRelay) -> None:
    result = shell("alerts", "test")
    assert (result.exit_code, result.stdout) == (0, f"mail: queued as {'0' * 20}\n")
    relay.tested = {"webhook": {"error": "hooks.example answered 503", "message": None}}
    result = shell("alerts", "test", "--webhook")
    assert (result.exit_code, result.stdout) == (1, "webhook: not sent: hooks.example answered 503\n")
    assert relay.asked == [("test-alerts", ()), ("test-alerts", ("webhook",))]


def test_what_is_not_configured(shell: Shell, relay: FakeRelay) -> None:
    relay.error = Unavailable("the configuration in force has no `alerts.webhook`")
    result = shell("alerts", "test", "--webhook")
    assert result.exit_code == 1
    assert "no `alerts.webhook`" in result.output


def test_no_relay(shell: Shell) -> None:
    assert shell("alerts", "list").exit_code == 3
