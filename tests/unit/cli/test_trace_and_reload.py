import json
from datetime import UTC, datetime, timedelta

import pytest

from relay.admin.reload import Reload
from relay.admin.trace import TraceQuery
from relay.cli.common import since_text
from tests.unit.admin.fake import FakeRelay, trace
from tests.unit.cli.conftest import Shell

ID = "01JD3M8Z7Q0000000001"
NOW = datetime(2026, 11, 25, 8, tzinfo=UTC)


def test_one_trace(shell: Shell, relay: FakeRelay) -> None:
    relay.traces = [trace(1)]
    result = shell("trace", ID.lower())
    assert result.exit_code == 0
    assert result.stdout.startswith(f"Message       {ID}\n")
    assert relay.asked == [TraceQuery(id=ID, limit=20)]


def test_traces_by_what_is_known(shell: Shell, relay: FakeRelay) -> None:
    relay.traces = [trace(3), trace(2), trace(1)]
    result = shell("trace", "--to", "contoso.com", "--from", "a@b.example", "--message-id", "<1@x>", "--limit", "2")
    assert result.exit_code == 0
    assert result.stdout.count("\n" + "-" * 80 + "\n") == 1
    assert result.stderr == "The newest 2 are shown; there may be more: --limit N.\n"
    expected = TraceQuery(recipient="@contoso.com", sender="a@b.example", message_id="<1@x>", limit=2)
    assert relay.asked == [expected]
    assert json.loads(shell("trace", "--to", "contoso.com", "--json").stdout) == relay.traces


def test_since(shell: Shell, relay: FakeRelay) -> None:
    relay.traces = [trace(1)]
    assert shell("trace", "--since", "2026-11-25T08:00:00Z").exit_code == 0
    assert relay.asked[0].since == NOW


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2h", NOW - timedelta(hours=2)),
        ("1d12h", NOW - timedelta(hours=36)),
        ("2026-11-25", NOW - timedelta(hours=8)),
        ("2026-11-25T10:00:00+02:00", NOW),
    ],
)
def test_how_since_is_written(text: str, moment: datetime) -> None:
    assert datetime.fromisoformat(since_text(text, NOW)) == moment


def test_nothing_found_and_nothing_asked(shell: Shell, relay: FakeRelay) -> None:
    result = shell("trace", "--to", "contoso.com")
    assert (result.exit_code, result.stdout) == (1, "No message matches.\n")
    result = shell("trace", "--json", ID)
    assert (result.exit_code, json.loads(result.stdout)) == (1, [])
    asked = len(relay.asked)
    for words, said in (
        ((), "say which messages: ID, --to"),
        (("--since", "yesterday"), "--since 'yesterday': write how long ago"),
        (("--since", "9999999d"), "--since '9999999d'"),
        (("--to", "a b"), "to: 'a b' is not a domain name"),
        (("--limit", "0"), "Invalid value for '--limit'"),
    ):
        result = shell("trace", *words)
        assert result.exit_code == 2
        assert said in result.stderr
    assert len(relay.asked) == asked


@pytest.mark.parametrize(
    ("answer", "words", "code", "out", "err"),
    [
        (Reload(taken=True, changed=True), (), 0, "Taken: it holds at once, for queued mail too.\n", ""),
        (Reload(taken=True, changed=False), (), 0, "Nothing to take: the file says what is in force already.\n", ""),
        (
            Reload(taken=True, changed=True, weaker=("contoso-out: tls domain -> encryption",)),
            (),
            0,
            "Weaker than before:\n  - contoso-out: tls domain -> encryption\nTaken: it holds at once, for queued mail too.\n",
            "",
        ),
        (
            Reload(taken=True, changed=True, restart=("`queue` changed",)),
            (),
            0,
            "Not yet: `queue` changed\nTaken: it holds at once, for queued mail too.\n",
            "",
        ),
        (
            Reload(taken=False, changed=True, weaker=("x",)),
            ("--dry-run",),
            0,
            "Weaker than what is in force:\n  - x\nIt would be taken.\n",
            "",
        ),
        (
            Reload(taken=False, changed=True, errors=("connectors.yaml:3:1: no such key",)),
            (),
            1,
            "",
            "connectors.yaml:3:1: no such key\nNothing was taken: the relay goes on with the configuration that it has.\n",
        ),
    ],
)
def test_reload(
    shell: Shell, relay: FakeRelay, answer: Reload, words: tuple[str, ...], code: int, out: str, err: str
) -> None:
    relay.reloaded = answer
    result = shell("reload", *words)
    assert (result.exit_code, result.stdout, result.stderr) == (code, out, err)
    assert relay.asked == [bool(words)]
    result = shell("reload", "--json", *words)
    assert result.exit_code == code
    assert json.loads(result.stdout) == {
        "taken": answer.taken,
        "changed": answer.changed,
        "dry_run": bool(words),
        "weaker": list(answer.weaker),
        "restart": list(answer.restart),
        "errors": list(answer.errors),
    }


@pytest.mark.parametrize("name", ["queue", "trace", "reload"])
def test_help(shell: Shell, name: str) -> None:
    result = shell(name, "--help", config=False)
    assert result.exit_code == 0
    assert "Usage:" in result.stdout
