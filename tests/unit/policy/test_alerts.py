"""What is told of concerns and when, as tables of what was seen, the time, and what is told."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest

from relay.mail.alerts import AlertKind, Concern, Notice, NoticeState, Relief, Severity
from relay.policy.alerts import MOST, Board, Terms, gone, plain, step

NOW = datetime(2026, 11, 27, 12, 0, tzinfo=UTC)
TERMS = Terms(repeat=timedelta(days=1), withheld_after=timedelta(0), hourly=20)
P = AlertKind.PARTNER

Row = tuple[str, str, str]
"""After how long since the start, what is seen ("+" a concern, "-" its end, "." nothing), what is told."""


def concern(subject: str = "b.example", kind: AlertKind = P, stage: int = 0, *, repeats: bool = True) -> Concern:
    return Concern(
        kind, subject, f"{subject} is in trouble", "text", "remedy", Severity.CRITICAL, stage, repeats=repeats
    )


def relief(subject: str = "b.example", kind: AlertKind = P) -> Relief:
    return Relief(kind, subject, "it is well again")


def span(text: str) -> timedelta:
    units = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
    return timedelta(**{units[text[-1]]: int(text[:-1])})


@pytest.mark.parametrize(
    ("terms", "rows"),
    [
        pytest.param(TERMS, [("0s", "+", "raised"), ("1m", "+", ""), ("1h", ".", ""), ("23h", "+", "")], id="once"),
        pytest.param(
            TERMS,
            [
                ("0s", "+", "raised"),
                ("1d", ".", "repeated"),
                ("47h", ".", ""),
                ("48h", "+", "repeated"),
                ("49h", "-", "cleared"),
            ],
            id="again each day, and its end",
        ),
        pytest.param(
            Terms(repeat=timedelta(0)),
            [("0s", "+", "raised"), ("9d", ".", ""), ("10d", "-", "cleared")],
            id="never again",
        ),
        pytest.param(
            Terms(withheld_after=timedelta(minutes=10)),
            [("0s", "+", ""), ("9m", "+", ""), ("10m", ".", "raised"), ("11m", "-", "cleared")],
            id="once it lasts",
        ),
        pytest.param(
            Terms(withheld_after=timedelta(minutes=10)),
            [("0s", "+", ""), ("9m", "-", ""), ("11m", ".", "")],
            id="nobody hears of what was soon over",
        ),
        pytest.param(TERMS, [("0s", "-", ""), ("1s", ".", "")], id="the end of nothing"),
        pytest.param(
            TERMS,
            [
                ("0s", "+", "raised"),
                ("1m", "-", "cleared"),
                ("2m", "+", ""),
                ("3m", "-", ""),
                ("4m", "+", ""),
                ("15m", ".", "raised"),
            ],
            id="to and fro",
        ),
        pytest.param(
            TERMS,
            [("0s", "+", "raised"), ("1h", "-", "cleared"), ("2h", "+", "raised")],
            id="what comes back later is told at once",
        ),
    ],
)
def test_one_concern(terms: Terms, rows: Sequence[Row]) -> None:
    board = Board()
    for after, seen, told in rows:
        now = NOW + span(after)
        board, notices = step(board, terms, now, [concern()] if seen == "+" else [], [relief()] if seen == "-" else [])
        assert ",".join(each.state.value for each in notices) == told, after
        assert all(each.since == NOW or each.since <= now for each in notices)


def test_what_is_told() -> None:
    board, (notice,) = step(Board(), TERMS, NOW, [concern()])
    assert notice == Notice(
        notice.id,
        NoticeState.RAISED,
        P,
        "b.example",
        Severity.CRITICAL,
        "b.example is in trouble",
        "text",
        "remedy",
        NOW,
        NOW,
    )
    _board, (over,) = step(board, TERMS, NOW + span("1m"), (), [relief()])
    assert (over.state, over.severity, over.title) == (
        NoticeState.CLEARED,
        Severity.INFO,
        "over: b.example is in trouble",
    )
    assert (over.text, over.since, over.at) == ("it is well again", NOW, NOW + span("1m"))
    assert over.id != notice.id


def test_each_stage_is_told_once_and_a_better_one_is_not() -> None:
    board, told = Board(), []
    for hours, stage in enumerate((1, 1, 2, 2, 1, 2, 3)):
        concerns = [concern(stage=stage, repeats=False)]
        board, notices = step(board, TERMS, NOW + timedelta(hours=hours), concerns)
        told.append(len(notices))
    # The stage that it had before it got better is a new one again: an exception was extended and comes to its end again.
    assert told == [1, 0, 1, 0, 0, 1, 1]
    _board, notices = step(board, TERMS, NOW + timedelta(days=5), [concern(stage=3, repeats=False)])
    assert not notices


def test_keys_are_kind_and_subject() -> None:
    concerns = [concern("a"), concern("b"), concern("a", AlertKind.MTA_STS), concern("a")]
    _board, notices = step(Board(), TERMS, NOW, concerns)
    assert [(each.kind, each.subject) for each in notices] == [(P, "a"), (P, "b"), (AlertKind.MTA_STS, "a")]


def test_what_ended_and_began_again_in_one_moment_goes_on() -> None:
    board, _raised = step(Board(), TERMS, NOW, [concern()])
    board, notices = step(board, TERMS, NOW + span("1h"), [concern()], [relief()])
    assert notices == ()
    assert [each.since for each in board.standing.values()] == [NOW]


def test_more_than_the_hour_has_room_for_is_summed_up() -> None:
    terms = Terms(hourly=5)
    board, notices = step(Board(), terms, NOW, [concern(f"d{number}.example") for number in range(12)])
    assert len(notices) == 5
    more = notices[-1]
    assert (more.kind, more.title) == (AlertKind.MORE, "8 more not shown")
    assert "d11.example is in trouble" in more.text
    assert "relay alerts list" in more.remedy
    # In the same hour: nothing more, but counted.
    board, notices = step(board, terms, NOW + span("30m"), [concern("late.example"), concern("later.example")])
    assert notices == ()
    assert board.unshown_count == 2
    # Then one line sums up what was left out meanwhile.
    board, notices = step(board, terms, NOW + span("61m"))
    assert [(each.kind, each.title) for each in notices] == [(AlertKind.MORE, "2 more not shown")]
    # The end of what nobody was shown is told to nobody.
    board, notices = step(board, terms, NOW + span("62m"), (), [relief("d0.example"), relief("d11.example")])
    assert [(each.state.value, each.subject) for each in notices] == [("cleared", "d0.example")]


def test_the_worst_come_first_where_there_is_no_room_for_all() -> None:
    mild = [
        Concern(AlertKind.EXCEPTION, f"m{number}", "mild", "text", severity=Severity.WARNING) for number in range(5)
    ]
    _board, notices = step(Board(), Terms(hourly=2), NOW, [*mild, concern("bad.example")])
    assert [each.subject for each in notices] == ["bad.example", ""]


def test_no_hour_ever_has_more() -> None:
    """Whatever comes, minute by minute, no window of an hour has more notices than `hourly`."""
    terms, board, sent = Terms(hourly=4, repeat=timedelta(minutes=5)), Board(), list[datetime]()
    for minute in range(240):
        now = NOW + timedelta(minutes=minute)
        concerns = [concern(f"{minute % 37}.example"), concern(f"{minute % 11}.example", AlertKind.MTA_STS)]
        reliefs = [relief(f"{(minute * 7) % 37}.example")] if minute % 3 == 0 else []
        board, notices = step(board, terms, now, concerns, reliefs)
        sent.extend(now for _ in notices)
        assert sum(timedelta(0) <= now - each < timedelta(hours=1) for each in sent) <= 4
    assert len(sent) >= 12


def test_the_board_is_bounded() -> None:
    board = Board()
    for start in range(0, 3 * MOST, 100):
        board, _notices = step(board, TERMS, NOW, [concern(f"{start + number}.example") for number in range(100)])
    assert len(board.standing) == MOST
    assert board.unshown_count >= 2 * MOST
    assert len(board.unshown) <= 10
    assert len(board.sent) <= TERMS.hourly


def test_hostile_texts_are_bounded_and_clean() -> None:
    evil = "x\r\nBcc: all@b.example\x1b[2J\u202e" * 1000
    bad = Concern(P, evil, evil, evil, evil)
    board, (notice,) = step(Board(), TERMS, NOW, [bad])
    for text, limit in ((notice.subject, 255), (notice.title, 200), (notice.text, 1500), (notice.remedy, 1500)):
        assert len(text) <= limit
        assert text.isprintable()
    _board, (over,) = step(board, TERMS, NOW + span("1m"), (), [Relief(P, evil, evil)])
    assert over.state is NoticeState.CLEARED
    assert over.text.isprintable()


def test_a_clock_that_was_ahead() -> None:
    board, _raised = step(Board(), TERMS, NOW + timedelta(days=300), [concern()])
    board, notices = step(board, TERMS, NOW, [concern(), concern("new.example")])
    assert [each.subject for each in notices] == ["new.example"]
    _board, notices = step(board, TERMS, NOW + timedelta(days=1), [])
    assert {each.subject for each in notices} == {"b.example", "new.example"}


def test_a_configuration_that_somebody_is_at() -> None:
    waiting = concern("connectors.yaml", AlertKind.CONFIGURATION)
    board, notices = step(Board(), TERMS, NOW, [waiting])
    assert not notices
    _board, notices = step(board, TERMS, NOW + span("10m"), [waiting])
    assert [each.state for each in notices] == [NoticeState.RAISED]


def test_a_policy_that_nobody_tries_any_more_is_forgotten() -> None:
    board, _raised = step(Board(), TERMS, NOW, [concern(kind=AlertKind.MTA_STS)])
    board, notices = step(board, TERMS, NOW + span("47h"))
    assert [each.state.value for each in notices] == ["repeated"]
    board, notices = step(board, TERMS, NOW + span("48h"))
    assert [each.state.value for each in notices] == ["cleared"]
    assert not board.standing


def test_gone() -> None:
    board, _notices = step(Board(), TERMS, NOW, [concern("a"), concern("b"), concern("c", AlertKind.MTA_STS)])
    assert gone(board, [P], [concern("b")], "why") == (Relief(P, "a", "why"),)


@pytest.mark.parametrize(
    ("text", "expected"), [("a\n b", "a b"), ("abcdef", "abcd\u2026"), ("\x1b[0m", "[0m"), ("", "")]
)
def test_plain(text: str, expected: str) -> None:
    assert plain(text, 5) == expected
