import json
from pathlib import Path
from typing import Any

import pytest

from relay.admin.queue import Action, Selection
from relay.cli import queue, queue_common
from tests.unit.admin.fake import GONE, LAST, FakeRelay, message, recipient
from tests.unit.cli.conftest import Shell

ID = "01JD3M8Z7Q0000000001"


def test_an_empty_queue_says_so(shell: Shell, relay: FakeRelay) -> None:
    result = shell("queue", "list")
    assert (result.exit_code, result.stdout) == (0, "The queue is empty.\n")
    assert shell("queue", "list", "--to", "contoso.com").stdout == "Nothing in the queue matches.\n"
    assert json.loads(shell("queue", "list", "--json").stdout) == []


def test_a_list_that_fits_80_columns(shell: Shell, relay: FakeRelay) -> None:
    waiting = recipient(attempts=1, last={**LAST, "text": "\x1b[2J" + "x" * 200})
    relay.queue = [message(1, waiting, recipient("carol@contoso.com", "held")), message(2, sender="", size=5 * 2**20)]
    result = shell("queue", "list")
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        "ID                    ACCEPTED                   SIZE  SENDER",
        "01JD3M8Z7Q0000000001  2026-11-25T08:00:00Z    4.0 KiB  alice@example.com",
        "    waiting     bob@contoso.com  (1 attempt, next 2026-11-25T08:30:00Z)",
        "      451 4.7.4 [2J" + "x" * 58 + "...",
        "    held        carol@contoso.com  (0 attempts)",
        "01JD3M8Z7Q0000000002  2026-11-25T08:00:00Z    5.0 MiB  <>",
        "    waiting     bob@contoso.com  (0 attempts, next 2026-11-25T08:30:00Z)",
    ]
    assert max(map(len, result.stdout.splitlines())) <= 80


def test_a_long_list_comes_in_pages(shell: Shell, relay: FakeRelay, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue, "_PAGE", 2)
    relay.queue = [message(number) for number in range(1, 6)]
    assert json.loads(shell("queue", "list", "--json").stdout) == relay.queue
    assert len(relay.asked) == 3
    assert json.loads(shell("queue", "list", "--json", "--limit", "3").stdout) == relay.queue[:3]
    assert len(relay.asked) == 5
    assert shell("queue", "list", "--limit", "1").stdout.count("alice@") == 1


def test_filters(shell: Shell, relay: FakeRelay) -> None:
    shell("queue", "list", "--to", "Contoso.com", "--connector", "c", "--state", "held", "--state", "waiting")
    expected = Selection(everything=True, domain="contoso.com", connector="c", states=("held", "waiting"))
    assert relay.asked == [(expected, "", 500)]


def test_a_filter_that_cannot_be_is_wrong_usage(shell: Shell, relay: FakeRelay) -> None:
    result = shell("queue", "list", "--state", "lost")
    assert result.exit_code == 2
    assert result.stderr.startswith("state: 'lost' is none of waiting")


def test_show_names_the_remedy(shell: Shell, relay: FakeRelay) -> None:
    relay.queue = [message(1, recipient(attempts=1, last=LAST))]
    result = shell("queue", "show", ID.lower())
    assert result.exit_code == 0
    words = " ".join(result.stdout.split())
    assert "what to do mx.contoso.com:25 does not offer STARTTLS. Ask contoso.com to switch TLS on there" in words
    found = json.loads(shell("queue", "show", ID, "--json").stdout)
    assert found["recipients"][0]["remedy"].startswith("mx.contoso.com:25 does not offer STARTTLS.")


def test_show_of_what_is_not_there(shell: Shell, relay: FakeRelay) -> None:
    result = shell("queue", "show", ID)
    assert (result.exit_code, result.stderr) == (1, f"there is no message {ID} in the queue\n")


@pytest.mark.parametrize("name", ["../trace", "a b", "", "ü"])
def test_an_id_never_becomes_another_path(shell: Shell, relay: FakeRelay, name: str) -> None:
    for words in (("show", name), ("retry", name)):
        result = shell("queue", *words)
        assert result.exit_code == 2
        assert "is not a message id" in result.stderr
    assert relay.asked == []


@pytest.mark.parametrize("action", Action)
def test_orders_by_id(shell: Shell, relay: FakeRelay, action: Action) -> None:
    result = shell("queue", action.value, ID, ID.replace("1", "2"), "--yes")
    assert result.exit_code == 0
    assert result.stdout.startswith("1 recipient ")
    assert relay.asked == [(action, Selection(ids=(ID, ID.replace("1", "2"))))]


def test_many_ids_go_in_pieces_and_are_counted_together(
    shell: Shell, relay: FakeRelay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue_common, "_CHUNK", 2)
    relay.result = {"changed": 2, "running": 1, "unknown": []}
    result = shell("queue", "hold", "A", "B", "C", "--json")
    assert json.loads(result.stdout) == {"changed": 4, "running": 2, "unknown": []}
    assert relay.asked == [(Action.HOLD, Selection(ids=("A", "B"))), (Action.HOLD, Selection(ids=("C",)))]


@pytest.mark.parametrize(
    ("words", "selection"),
    [
        (["--all"], Selection(everything=True)),
        (["--to", "contoso.com"], Selection(everything=True, domain="contoso.com")),
        (["--connector", "c"], Selection(everything=True, connector="c")),
        (["--all", "--to", "a.example"], Selection(everything=True, domain="a.example")),
    ],
)
def test_orders_by_selection(shell: Shell, relay: FakeRelay, words: list[str], selection: Selection) -> None:
    assert shell("queue", "retry", *words).exit_code == 0
    assert relay.asked == [(Action.RETRY, selection)]


@pytest.mark.parametrize(
    ("words", "said"),
    [([], "say which messages"), ([ID, "--all"], "not both"), ([ID, "--to", "a.example"], "not both")],
)
def test_orders_about_nothing_or_two_things_are_wrong_usage(
    shell: Shell, relay: FakeRelay, words: list[str], said: str
) -> None:
    result = shell("queue", "delete", "--yes", *words)
    assert result.exit_code == 2
    assert said in result.stderr
    assert relay.asked == []


@pytest.mark.parametrize(
    ("result", "code", "out", "err"),
    [
        ({"changed": 0, "running": 0, "unknown": ["X"]}, 1, "0 recipients to be tried", "Not in the queue: X."),
        ({"changed": 0, "running": 0, "unknown": []}, 1, "0 recipients to be tried", ""),
        ({"changed": 0, "running": 2, "unknown": []}, 0, "2 under way just now", ""),
        ({"changed": 1, "running": 0, "unknown": ["X"]}, 1, "1 recipient to be tried at once.", "X"),
        (
            {"changed": 1, "running": 0, "unknown": [], "after": {"suspended": 1}},
            0,
            "1 recipient to be tried at once.",
            "1 recipient stays suspended: `relay queue suspensions`",
        ),
    ],
)
def test_what_came_of_it(shell: Shell, relay: FakeRelay, result: dict[str, Any], code: int, out: str, err: str) -> None:
    relay.result = result
    said = shell("queue", "retry", "X")
    assert said.exit_code == code
    assert out in said.stdout
    assert err in said.stderr


@pytest.mark.parametrize("action", ["bounce", "delete"])
def test_what_cannot_be_undone_needs_a_yes(shell: Shell, relay: FakeRelay, action: str) -> None:
    said = shell("queue", action, "--to", "contoso.com")
    assert said.exit_code == 2
    assert f"{action} everything, to contoso.com: this cannot be undone; add --yes" in said.stderr
    assert relay.asked == []
    assert shell("queue", action, "--all", "--yes").exit_code == 0
    assert len(relay.asked) == 1


def test_a_deletion_by_id_needs_one_too(shell: Shell, relay: FakeRelay) -> None:
    """Nobody would hear of a slip of the pen; of a bounce the sender does."""
    for words, what in (((ID,), ID), ((ID, ID), "2 messages")):
        said = shell("queue", "delete", *words)
        assert said.exit_code == 2
        assert f"delete {what}: this cannot be undone; add --yes" in said.stderr
    assert relay.asked == []
    assert shell("queue", "delete", ID, "--yes").exit_code == 0
    assert shell("queue", "bounce", ID).exit_code == 0
    assert len(relay.asked) == 2


@pytest.mark.parametrize(("answer", "code", "asked"), [("y\n", 0, 1), ("n\n", 1, 0), ("\n", 1, 0)])
def test_on_a_terminal_it_asks(
    shell: Shell, relay: FakeRelay, monkeypatch: pytest.MonkeyPatch, answer: str, code: int, asked: int
) -> None:
    monkeypatch.setattr(queue, "_is_terminal", lambda: True)
    said = shell("queue", "delete", "--all", stdin=answer)
    assert said.exit_code == code
    assert "Delete everything: deleted without a word to the sender. Go on?" in said.stderr
    assert len(relay.asked) == asked


def test_the_relay_is_not_running(shell: Shell, tmp_path: Path) -> None:
    result = shell("queue", "list")
    assert result.exit_code == 3
    assert (
        f"the relay cannot be reached at {tmp_path}/relay.sock: there is no such socket. Is it running?"
        in result.stderr
    )
    (tmp_path / "relay.sock").touch()
    assert "nobody listens there" in shell("queue", "list", "--json").stderr


def test_the_relay_cannot_now(shell: Shell, relay: FakeRelay) -> None:
    relay.error = GONE
    result = shell("queue", "list")
    assert (result.exit_code, result.stderr) == (1, "the queue cannot be read now: disk gone\n")


def test_sizes() -> None:
    assert [queue._size(count) for count in (0, 1023, 1024, 2**20, 3 * 2**30, 5 * 2**40)] == [
        "0 B",
        "1023 B",
        "1.0 KiB",
        "1.0 MiB",
        "3.0 GiB",
        "5120.0 GiB",
    ]
