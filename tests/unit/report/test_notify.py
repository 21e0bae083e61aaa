"""RFC 3461 section 4.1 as a table: NOTIFY x what happened -> what the sender hears."""

from typing import Any

import pytest

from relay.mail.address import NULL
from relay.mail.envelope import Notify
from relay.mail.outcome import Delivered
from relay.report.notify import Kind, due
from tests.unit.report.builders import BOB, CAROL, delayed, delivered, failed, message

RELAYING: dict[str, Any] = {"may_relay": True}
TAKEN_OVER = Delivered(250, "2.0.0", "ok", dsn=True)


@pytest.mark.parametrize(
    ("notify", "told"),
    [
        ("", {Kind.FAILURE, Kind.DELAY}),
        ("NEVER", set()),
        ("FAILURE", {Kind.FAILURE}),
        ("DELAY", {Kind.DELAY}),
        ("SUCCESS", {Kind.SUCCESS}),
        ("SUCCESS,FAILURE", {Kind.SUCCESS, Kind.FAILURE}),
        ("FAILURE,DELAY", {Kind.FAILURE, Kind.DELAY}),
        ("SUCCESS,FAILURE,DELAY", {Kind.SUCCESS, Kind.FAILURE, Kind.DELAY}),
    ],
)
def test_row(notify: str, told: set[Kind]) -> None:
    words = frozenset(Notify(word) for word in notify.split(",") if word)
    about = message(notify=words, **RELAYING)
    heard = {kind for end in (failed(), delayed(), delivered()) for kind in due(about, [end])}
    assert heard == told


@pytest.mark.parametrize(
    ("how", "told"),
    [({}, False), ({"may_relay": True}, True), ({"auth": "joe"}, True), ({"connector": "partner-in"}, False)],
)
def test_success_is_told_only_to_clients_that_may_relay(how: dict[str, Any], told: bool) -> None:
    about = message(notify=frozenset({Notify.SUCCESS}), **how)
    assert bool(due(about, [delivered()])) is told


def test_a_hop_that_took_the_duty_over_reports_itself() -> None:
    about = message(notify=frozenset({Notify.SUCCESS}), **RELAYING)
    assert due(about, [delivered(outcome=TAKEN_OVER)]) == {}


@pytest.mark.parametrize("notify", [frozenset(), frozenset(set(Notify) - {Notify.NEVER})])
def test_a_bounce_is_never_bounced(notify: frozenset[Notify]) -> None:
    about = message(sender=NULL, notify=notify, **RELAYING)
    assert due(about, [failed(), delayed(), delivered()]) == {}


def test_recipients_are_gathered_by_kind() -> None:
    ends = [failed(0), delayed(1), failed(1)]
    assert due(message(BOB, CAROL), ends) == {Kind.FAILURE: [ends[0], ends[2]], Kind.DELAY: [ends[1]]}
