"""What the overview says first, for each state of the relay."""

from typing import Any

import pytest

from relay.admin.console import glance
from relay.admin.console.views.traces import went

HOUR = 3600.0


def queue(messages: int, oldest: float) -> dict[str, Any]:
    return {"queue": {"messages": messages, "oldest": oldest}, "troubles": []}


@pytest.mark.parametrize(
    ("messages", "oldest", "kind", "text"),
    [
        (0, 0, "good", "nothing waits"),
        (1, 60, "good", "1 message waits, oldest 1 min"),
        (31, 4 * HOUR - 1, "good", "31 messages wait, oldest 3 h 59 min"),
        (31, 4 * HOUR, "warn", "31 messages wait, oldest 4 h"),
        (100_000, 24 * HOUR, "bad", "100,000 messages wait, oldest 1 d"),
    ],
)
def test_queue(messages: int, oldest: float, kind: str, text: str) -> None:
    found = glance.queue(queue(messages, oldest))
    assert (found.kind, found.text) == (kind, text)


def test_relay() -> None:
    assert glance.relay(queue(0, 0)).kind == "good"
    found = glance.relay({"troubles": ["the disk is full", "more"]})
    assert (found.kind, found.text) == ("bad", "not ready: the disk is full")


def test_partners() -> None:
    assert glance.partners({"troubled": [], "more": False}).kind == "good"
    found = glance.partners({"troubled": [{"recipients": 3}, {"recipients": 1}], "more": True})
    assert (found.kind, found.text) == ("bad", "2 or more in trouble, 4 recipients kept back")


@pytest.mark.parametrize(
    ("verified", "kind", "text"),
    [
        ({}, "", "no mail in this time"),
        ({"dane": 10}, "good", "100 % under TLS, 100 % verified"),
        ({"dane": 9, "encrypted": 1}, "good", "100 % under TLS, 90 % verified"),
        ({"pins": 8, "encrypted": 1, "none": 1}, "warn", "90 % under TLS, 80 % verified"),
        ({"pkix": 99_999, "none": 1}, "warn", "99.9 % under TLS, 99.9 % verified"),
    ],
)
def test_transit(verified: dict[str, int], kind: str, text: str) -> None:
    answer = {
        "messages": sum(verified.values()),
        "verified": [{"name": name, "messages": number} for name, number in verified.items()],
    }
    found = glance.transit(answer)
    assert (found.kind, found.text) == (kind, text)


def ending(days: float | None, *, broken: bool = False) -> dict[str, Any]:
    return {"name": "mx.example.com", "days_left": days, "broken": broken}


@pytest.mark.parametrize(
    ("found", "kind", "text"),
    [
        ([], "good", "none ends within 30 days"),
        ([ending(29.5)], "warn", "mx.example.com ends in 29 d"),
        ([ending(6.9), ending(20)], "bad", "mx.example.com ends in 6 d 21 h, 1 more within 30 days"),
        ([ending(-1)], "bad", "mx.example.com has ended"),
        ([ending(None)], "bad", "mx.example.com is in trouble"),
        ([ending(90, broken=True)], "bad", "mx.example.com is in trouble"),
    ],
)
def test_certificates(found: list[dict[str, Any]], kind: str, text: str) -> None:
    sight = glance.certificates(found)
    assert (sight.kind, sight.text) == (kind, text)


def test_what_waits_and_what_is_suspended() -> None:
    assert [glance.configuration(each).kind for each in ((), ("weaker",))] == ["good", "warn"]
    assert [glance.suspended(each).text for each in (0, 1, 2)] == [
        "nothing",
        "1 suspension in force",
        "2 suspensions in force",
    ]


def attempt(state: str, version: str | None) -> dict[str, Any]:
    return {"outcomes": [{"state": state}], "evidence": {"version": version} if version else None}


@pytest.mark.parametrize(
    ("attempts", "words"),
    [
        ([], []),
        ([attempt("deferred", None)], ["no TLS"]),
        ([attempt("deferred", "TLSv1.2"), attempt("delivered", "TLSv1.3")], ["TLSv1.3"]),
        (
            [attempt("delivered", None), attempt("delivered", "TLSv1.3"), attempt("deferred", "TLSv1.2")],
            ["no TLS", "TLSv1.3"],
        ),
    ],
)
def test_what_a_message_went_by(attempts: list[dict[str, Any]], words: list[str]) -> None:
    assert went(attempts) == words
