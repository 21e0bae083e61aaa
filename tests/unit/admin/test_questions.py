from datetime import UTC, date, datetime
from typing import Any

import pytest

from relay.admin.api import parse
from relay.admin.endpoint import BadQuestionError
from relay.admin.queue import PageQuestion, Selection, SelectionQuestion
from relay.admin.reload import ReloadQuestion
from relay.admin.reports import (
    ReceivedQuestion,
    ReportQuestion,
    ReportsQuestion,
    SendQuestion,
    refuse_unfinished,
)
from relay.admin.trace import TraceQuery, TraceQuestion

ID = "01JD3M8Z7Q0000000001"


def page(given: dict[str, Any]) -> tuple[Selection, str, int]:
    found = parse(PageQuestion, given)
    return found.selection, found.after, found.limit


def test_a_page() -> None:
    assert page({}) == (Selection(everything=True), "", 100)
    query = {"to": "Contoso.COM.", "connector": "contoso-out", "after": ID, "limit": "7", "state": ["held"]}
    expected = Selection(everything=True, domain="contoso.com", connector="contoso-out", states=("held",))
    assert page(query) == (expected, ID, 7)
    assert page({"to": "bücher.example"})[0].domain == "xn--bcher-kva.example"


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ({"limit": "0"}, "limit: a number from 1 to 1000"),
        ({"limit": "1001"}, "limit:"),
        ({"limit": "-1"}, "limit:"),
        ({"limit": "9" * 5000}, "limit:"),
        ({"limit": "٣"}, "limit:"),
        ({"to": "not a domain"}, "to: 'not a domain' is not a domain name"),
        ({"connector": "a b"}, "connector: 'a b' is not the name of a connector"),
        ({"after": "x'--"}, 'after: "x\'--" is not a message id'),
        ({"statr": "held"}, "statr: there is no such parameter here, only after, connector, limit, state, to"),
    ],
)
def test_a_page_that_cannot_be(query: dict[str, str], said: str) -> None:
    with pytest.raises(BadQuestionError) as error:
        parse(PageQuestion, query)
    assert str(error.value).startswith(said)


def test_a_state_that_is_none() -> None:
    with pytest.raises(BadQuestionError, match="state: 'x' is none of waiting, suspended, delivering"):
        parse(PageQuestion, {"state": ["x"]})


@pytest.mark.parametrize(
    ("body", "selection", "words"),
    [
        ({"ids": [ID]}, Selection(ids=(ID,)), ID),
        ({"all": True}, Selection(everything=True), "all"),
        ({"to": "contoso.com"}, Selection(everything=True, domain="contoso.com"), "to contoso.com"),
        ({"to": "@contoso.com"}, Selection(everything=True, domain="contoso.com"), "to contoso.com"),
        (
            {"all": True, "to": "a.example", "connector": "b"},
            Selection(everything=True, domain="a.example", connector="b"),
            "to a.example, connector b",
        ),
        ({"ids": [ID] * 7}, Selection(ids=(ID,) * 7), f"{ID}, {ID}, {ID}, {ID}, {ID} and 2 more"),
    ],
)
def test_an_action(body: Any, selection: Selection, words: str) -> None:
    assert parse(SelectionQuestion, body).selection == selection
    assert str(selection) == words


def test_an_empty_selection_is_nothing() -> None:
    assert str(Selection()) == "nothing"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({}, "say which messages: ids, all, to or connector"),
        ({"ids": []}, "say which messages"),
        ({"all": False}, "say which messages"),
        ({"ids": ID}, "ids: a list of message ids"),
        ({"ids": [1]}, "ids: a list of message ids"),
        ({"ids": ["a b"]}, "ids: 'a b' is not a message id"),
        ({"ids": [ID] * 1001}, "ids: at most 1000"),
        ({"all": "yes"}, "all: true or false"),
        ({"to": 5}, "to: a string"),
        ({"connector": None}, "connector: a string"),
        ({"ids": [ID], "all": True}, "give ids, or a selection, not both"),
        ({"ids": [ID], "to": "a.example"}, "give ids, or a selection, not both"),
        ({"id": ID}, "id: there is no such parameter"),
    ],
)
def test_an_action_that_cannot_be(body: Any, said: str) -> None:
    with pytest.raises(BadQuestionError) as error:
        parse(SelectionQuestion, body)
    assert str(error.value).startswith(said)


def traced(given: dict[str, Any]) -> TraceQuery:
    return parse(TraceQuestion, given).wanted


def test_a_trace() -> None:
    query = {"to": "Bob@Contoso.com", "from": "example.com", "since": "2026-11-25T09:00:00+01:00", "limit": "5"}
    expected = TraceQuery(
        recipient="Bob@contoso.com", sender="@example.com", since=datetime(2026, 11, 25, 8, tzinfo=UTC), limit=5
    )
    assert traced(query) == expected
    assert traced({"since": "2026-11-25"}).since == datetime(2026, 11, 25, tzinfo=UTC)
    assert traced({"id": ID, "message_id": "<1@x>"}) == TraceQuery(id=ID, message_id="<1@x>")
    assert traced({"from": "<>"}).sender == "<>"
    assert traced({"to": "<bob@x.example>"}).recipient == "bob@x.example"


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ({}, "say which messages: id, to, from, message_id or since"),
        ({"limit": "5"}, "say which messages"),
        ({"since": "yesterday"}, "since: a time as in"),
        ({"since": "0001-01-01T00:00:00+14:00"}, "since: a time as in"),
        ({"since": "9999-12-31T23:59:59-14:00"}, "since: a time as in"),
        ({"to": "a b@c"}, "to: 'a b' is not a valid local part"),
        ({"from": "-"}, "from: '-' is not a domain name"),
        ({"id": "x"}, "id: 'x' is not a message id"),
        ({"id": ID, "limit": "201"}, "limit: a number from 1 to 200"),
    ],
)
def test_a_trace_that_cannot_be(query: dict[str, str], said: str) -> None:
    with pytest.raises(BadQuestionError) as error:
        traced(query)
    assert str(error.value).startswith(said)


def test_reload() -> None:
    assert parse(ReloadQuestion, {}).dry_run is False
    assert parse(ReloadQuestion, {"dry_run": True}).dry_run is True
    for body in ({"dry_run": 1}, {"force": True}):
        with pytest.raises(BadQuestionError):
            parse(ReloadQuestion, body)


DAY = date(2026, 11, 25)


def test_reports() -> None:
    assert parse(ReportsQuestion, {}) == ReportsQuestion()
    query = {"domain": "Contoso.com.", "day": "2026-11-25", "limit": "7"}
    assert parse(ReportsQuestion, query) == ReportsQuestion(domain="contoso.com", day=DAY, limit=7)
    assert parse(ReportQuestion, {"domain": "contoso.com"}) == ReportQuestion(domain="contoso.com")
    assert parse(ReceivedQuestion, {}) == ReceivedQuestion()
    found = parse(ReceivedQuestion, {"since": "2026-11-25", "limit": "3"})
    assert (found.since, found.limit) == (datetime(2026, 11, 25, tzinfo=UTC), 3)


def sent(body: dict[str, Any]) -> SendQuestion:
    found = parse(SendQuestion, body)
    refuse_unfinished(found, DAY)
    return found


def test_sending_reports() -> None:
    assert sent({}) == SendQuestion()
    assert sent({"day": "2026-11-24"}) == SendQuestion(day=date(2026, 11, 24))
    assert sent({"domain": "contoso.com", "day": "2026-11-25"}) == SendQuestion(domain="contoso.com", day=DAY)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"days": 1}, "days: there is no such parameter here, only day, domain"),
        ({"day": 5}, "day: a string"),
        ({"day": "today"}, "day: a day as in 2026-11-25"),
        ({"day": "2026-11-25"}, "day: it is not over; the report of one domain, named, can be sent"),
        ({"day": "2026-11-26", "domain": "contoso.com"}, "day: it is not over"),
        ({"domain": "a b"}, "domain: 'a b' is not a domain name"),
    ],
)
def test_what_cannot_be_sent(body: Any, said: str) -> None:
    with pytest.raises(BadQuestionError) as error:
        sent(body)
    assert str(error.value).startswith(said)


def test_reports_that_cannot_be() -> None:
    with pytest.raises(BadQuestionError, match="say which report: domain"):
        parse(ReportQuestion, {"day": "2026-11-25"})
    with pytest.raises(BadQuestionError, match="limit: there is no such parameter"):
        parse(ReportQuestion, {"domain": "contoso.com", "limit": "1"})
    with pytest.raises(BadQuestionError, match="since: "):
        parse(ReceivedQuestion, {"since": "yesterday"})
