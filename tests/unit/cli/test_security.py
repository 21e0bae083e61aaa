import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from relay.admin.endpoint import Unavailable
from relay.admin.security import Span, SuggestQuery
from tests.unit.admin.fake import FakeRelay
from tests.unit.cli.conftest import Shell
from tests.unit.report.test_security import line, made


def test_a_report_of_a_day(shell: Shell, relay: FakeRelay) -> None:
    relay.security_answer = made(line())
    result = shell("security", "report", "--day", "2026-11-25", "--domain", "B.example")
    assert result.exit_code == 0
    assert result.stdout.startswith("Security report of relay.example.com: ")
    day = Span(datetime(2026, 11, 25, tzinfo=UTC), datetime(2026, 11, 26, tzinfo=UTC))
    assert relay.asked == [(day, "b.example")]


@pytest.mark.parametrize(
    ("option", "begins"), [("--csv", "ironpost security report\r\n"), ("--html", "<!doctype html>"), ("--json", "{\n")]
)
def test_its_forms(shell: Shell, relay: FakeRelay, tmp_path: Path, option: str, begins: str) -> None:
    relay.security_answer = made(line())
    file = tmp_path / "report"
    assert shell("security", "report", option, "--output", str(file)).exit_code == 0
    assert file.read_bytes().startswith(begins.encode())
    assert shell("security", "report", option).stdout_bytes.startswith(begins.encode())
    assert relay.asked == [(Span(), "")] * 2
    if option == "--json":
        assert json.loads(file.read_text()) == relay.security_answer


@pytest.mark.parametrize(
    ("words", "wrong"),
    [
        (("--csv", "--html"), "choose one"),
        (("--day", "2026-11-25", "--since", "2h"), "not both"),
        (("--day", "yesterday"), "a day as in"),
        (("--until", "soon"), "--until 'soon'"),
        (("--domain", "no domain"), "domain:"),
    ],
)
def test_wrong_usage(shell: Shell, relay: FakeRelay, words: tuple[str, ...], wrong: str) -> None:
    result = shell("security", "report", *words)
    assert (result.exit_code, wrong in result.stderr) == (2, True), result.stderr


def test_where_it_cannot_be_written(shell: Shell, relay: FakeRelay, tmp_path: Path) -> None:
    relay.security_answer = made()
    result = shell("security", "report", "--output", str(tmp_path / "no" / "report"))
    assert result.exit_code == 1
    assert "No such file" in result.stderr


def test_the_relay_cannot_answer_or_is_not_there(shell: Shell, relay: FakeRelay, tmp_path: Path) -> None:
    relay.error = Unavailable("the queue cannot be read now")
    assert shell("security", "report").exit_code == 1
    result = shell("security", "troubled", "--socket", str(tmp_path / "none.sock"))
    assert result.exit_code == 3


def test_partners_in_trouble(shell: Shell, relay: FakeRelay) -> None:
    trouble = {
        "domain": "b.example", "connector": "to-b", "failure": "certificate-expired", "reason": "tls", "recipients": 3,
        "since": "2026-11-25T08:00:00.000Z", "hop": "mx.b.example:25", "text": "it has\x1b expired", "remedy": "ask them",
    }  # fmt: skip
    relay.security_answer = {"at": "", "troubled": [trouble], "more": False}
    result = shell("security", "troubled")
    assert result.exit_code == 1
    assert result.stdout.splitlines() == [
        "b.example: certificate-expired since 2026-11-25T08:00Z, 3 waiting",
        "    it has expired",
        "    ask them",
    ]
    relay.security_answer = {"at": "", "troubled": [], "more": False}
    result = shell("security", "troubled")
    assert (result.exit_code, result.stdout) == (0, "No partner is in trouble.\n")
    assert json.loads(shell("security", "troubled", "--json").stdout) == relay.security_answer


def suggestion(**more: Any) -> dict[str, Any]:
    return {"domain": "b.example", "direction": "out", "how": "none", "why": "3 messages are too few", **more}


def test_suggestions(shell: Shell, relay: FakeRelay) -> None:
    relay.security_answer = {
        "yaml": "connectors:\n",
        "days": 7,
        "suggestions": [suggestion(), suggestion(how="new", domain="c.example")],
    }
    result = shell("connectors", "suggest", "--days", "7", "--min-messages", "3")
    assert (result.exit_code, result.stdout, result.stderr) == (
        0,
        "connectors:\n",
        "to b.example: 3 messages are too few\n",
    )
    assert relay.asked == [SuggestQuery(7, 3)]
    relay.security_answer["suggestions"].pop()
    assert shell("connectors", "suggest").exit_code == 1
    assert json.loads(shell("connectors", "suggest", "--json").stdout) == relay.security_answer
    assert shell("connectors", "suggest", "--days", "101").exit_code == 2
