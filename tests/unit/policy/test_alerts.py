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


def test_what_is_back_and_worse_is_told_at_once() -> None:
    board = Board()
    for after, stage, told in [("0s", 1, 1), ("1m", 0, 1), ("16m", 1, 1), ("17m", 0, 0), ("18m", 1, 0), ("19m", 2, 1)]:
        concerns = [concern("q", AlertKind.STORE, stage)] if stage else []
        reliefs = [] if stage else [relief("q", AlertKind.STORE)]
        board, notices = step(board, TERMS, NOW + span(after), concerns, reliefs)
        assert len(notices) == told, after


def test_subjects_that_are_alike_as_far_as_they_are_kept_are_one() -> None:
    """A partner's certificates with long names, say: they must not make each other worse at every look."""
    both = [concern("x" * 255 + end, AlertKind.PARTNER_CERTIFICATE, stage) for end, stage in (("a", 3), ("b", 1))]
    board = Board()
    told: list[Notice] = []
    for minute in range(10):
        board, notices = step(board, TERMS, NOW + timedelta(minutes=minute), both[:: (-1) ** minute])
        told.extend(notices)
    assert [each.state for each in told] == [NoticeState.RAISED]
    assert board.of(AlertKind.PARTNER_CERTIFICATE)[0].concern.stage == 3


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
    # Then come those that waited, and one line sums up what else came meanwhile; nothing is in two of them.
    board, notices = step(board, terms, NOW + span("61m"))
    assert [each.subject for each in notices] == ["d4.example", "d5.example", "d6.example", "d7.example", ""]
    assert notices[-1].title == "2 more not shown"
    board, notices = step(board, terms, NOW + span("122m"), (), [relief("d11.example")])
    # The end of what nobody was shown is told to nobody.
    assert [each.subject for each in notices] == [
        "d8.example",
        "d9.example",
        "d10.example",
        "late.example",
        "later.example",
    ]
    _board, notices = step(board, terms, NOW + span("183m"), (), [relief("d0.example")])
    assert [(each.state.value, each.subject) for each in notices] == [("cleared", "d0.example")]


def test_the_worst_come_first_where_there_is_no_room_for_all() -> None:
    mild = [Concern(AlertKind.MTA_STS, f"m{number}", "mild", "text", severity=Severity.WARNING) for number in range(5)]
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
    assert board.strange.unshown_count >= 2 * MOST
    assert len(board.strange.unshown) <= 10
    assert len(board.strange.sent) <= TERMS.hourly
    for start in range(0, 3 * MOST, 100):
        own = [concern(f"{start + number}", AlertKind.EXCEPTION) for number in range(100)]
        board, _notices = step(board, TERMS, NOW, own)
    assert len(board.standing) == 2 * MOST


def flood(count: int, kinds: Sequence[AlertKind] = (P, AlertKind.MTA_STS)) -> list[Concern]:
    """What a stranger makes, with domains of his own."""
    return [concern(f"d{number}.example", kinds[number % len(kinds)]) for number in range(count)]


OWN = (
    AlertKind.STORE,
    AlertKind.WORKER,
    AlertKind.CERTIFICATE,
    AlertKind.CONFIGURATION,
    AlertKind.DANE,
    AlertKind.EXCEPTION,
    AlertKind.QUEUE,
)


@pytest.mark.parametrize("kind", OWN)
@pytest.mark.parametrize("hourly", [2, 20])
@pytest.mark.parametrize("count", [20, MOST, 3 * MOST])
def test_no_stranger_keeps_out_what_is_not_his(kind: AlertKind, hourly: int, count: int) -> None:
    """Raised in its time, again while it lasts, and its end, whatever else there is."""
    terms, board, told = Terms(hourly=hourly), Board(), list[tuple[str, str]]()
    rows = [("0s", ""), ("1m", "+"), ("11m", "+"), ("12m", "."), ("25h", "+"), ("26h", "-"), ("27h", ".")]
    for after, seen in rows:
        concerns = [*flood(count), *([concern("own", kind)] if seen == "+" else [])]
        reliefs = [relief("own", kind)] if seen == "-" else []
        board, notices = step(board, terms, NOW + span(after), concerns, reliefs)
        told.extend((after, each.state.value) for each in notices if each.kind is kind)
        assert ((kind, "own") in board.standing) is (after in ("1m", "11m", "12m", "25h"))
    raised = "11m" if kind is AlertKind.CONFIGURATION else "1m"
    assert told == [(raised, "raised"), ("25h", "repeated"), ("26h", "cleared")]


@pytest.mark.parametrize(
    ("kind", "rows"),
    [
        pytest.param(
            P, [("1m", "+", ""), ("59m", ".", ""), ("1h", ".", "raised"), ("2h", "-", "cleared")], id="a stranger's"
        ),
        pytest.param(
            AlertKind.STORE,
            [("1m", "+", ""), ("59m", ".", ""), ("1h", ".", "raised"), ("2h", "-", "cleared")],
            id="ours, among many of ours",
        ),
        pytest.param(AlertKind.STORE, [("1m", "+", ""), ("59m", "-", ""), ("1h", ".", "")], id="over while it waited"),
    ],
)
def test_what_found_no_room_is_raised_once_there_is_some(kind: AlertKind, rows: Sequence[Row]) -> None:
    others = AlertKind.EXCEPTION if kind is AlertKind.STORE else AlertKind.MTA_STS
    board, _notices = step(Board(), TERMS, NOW, flood(20, [others]))
    for after, seen, told in rows:
        concerns = [concern("late", kind)] if seen == "+" else []
        board, notices = step(board, TERMS, NOW + span(after), concerns, [relief("late", kind)] if seen == "-" else [])
        assert ",".join(each.state.value for each in notices if each.kind is kind) == told, after


def test_what_waits_for_room_is_in_one_sum_only() -> None:
    terms, board, sums, raised = Terms(hourly=5), Board(), list[str](), list[str]()
    for minute in range(0, 600, 5):
        board, notices = step(board, terms, NOW + timedelta(minutes=minute), flood(30))
        sums.extend(each.title for each in notices if each.kind is AlertKind.MORE)
        raised.extend(each.subject for each in notices if each.kind is not AlertKind.MORE)
    assert sums == ["26 more not shown"]
    assert sorted(raised) == sorted({each.subject for each in flood(30)})


def test_what_is_told_again_does_not_keep_out_what_was_never_told() -> None:
    terms = Terms(hourly=4, repeat=timedelta(hours=1))
    board, _notices = step(Board(), terms, NOW, flood(4))
    board, notices = step(board, terms, NOW + span("1h"), [concern("new.example")])
    assert (notices[0].subject, notices[0].state) == ("new.example", NoticeState.RAISED)


def test_sums_of_one_moment_have_ids_of_their_own() -> None:
    _board, notices = step(Board(), Terms(hourly=2), NOW, [*flood(5), *flood(5, [AlertKind.EXCEPTION])])
    assert len({each.id for each in notices}) == len(notices) == 4


Q = AlertKind.QUEUE
FLAPPING = [
    ("0s", "+", "raised"),
    ("1m", "-", "cleared"),
    ("2m", "+", ""),
    ("15m", ".", "raised"),
    ("16m", "-", ""),  # it has come back once: over after an hour away
    ("75m", "-", ""),
    ("76m", ".", "cleared"),
    ("77m", "+", "raised"),
    ("78m", "-", ""),  # twice: two hours
    ("100m", "+", ""),
    ("101m", "-", ""),  # it was there in between, and the two hours begin anew
    ("220m", ".", ""),
    ("221m", ".", "cleared"),
    ("222m", "+", "raised"),
    ("223m", "-", ""),
    ("462m", ".", ""),
    ("463m", "-", "cleared"),  # four hours, and no more than four
    ("464m", "+", "raised"),
    ("465m", "-", ""),
    ("705m", ".", "cleared"),
]


@pytest.mark.parametrize(
    ("kind", "rows"),
    [
        *(
            pytest.param(kind, FLAPPING, id=kind.value)
            for kind in (Q, AlertKind.STORE, AlertKind.WORKER, AlertKind.DANE, P)
        ),
        pytest.param(
            Q,
            [("0s", "+", "raised"), ("1m", "-", "cleared"), ("242m", "+", "raised"), ("243m", "-", "cleared")],
            id="what comes after hours is new",
        ),
        pytest.param(
            Q,
            [("0s", "+", "raised"), ("1m", "-", "cleared"), ("2m", "+", ""), ("3m", "-", ""), ("20m", "+", "raised")],
            id="what nobody was told of is over at once",
        ),
        pytest.param(
            AlertKind.EXCEPTION,
            [
                *[("0s", "+", "raised"), ("1m", "-", "cleared"), ("16m", "+", "raised"), ("17m", "-", "cleared")],
                *[("32m", "+", "raised"), ("33m", "-", "cleared")],
            ],
            id="an operator's word holds at once",
        ),
        pytest.param(
            Q,
            [
                ("0s", "+", "raised"),
                ("1m", "-", "cleared"),
                ("16m", "+", "raised"),
                ("17m", "-", ""),
                ("26h", ".", "cleared"),
            ],
            id="what is away is not told again",
        ),
        pytest.param(
            Q,
            [
                *[("0s", "+", "raised"), ("1m", "-", "cleared"), ("16m", "+", "raised"), ("17m", "-", "")],
                *[("60m", "+", ""), ("4h", "+", ""), ("255m", "+", ""), ("256m", ".", "raised"), ("8h", "+", "")],
                *[("9h", "-", ""), ("10h", ".", "cleared")],
            ],
            id="what is back while it is held, and stays, is told again",
        ),
    ],
)
def test_what_comes_and_goes(kind: AlertKind, rows: Sequence[Row]) -> None:
    board = Board()
    for after, seen, told in rows:
        concerns = [concern("q", kind)] if seen == "+" else []
        board, notices = step(board, TERMS, NOW + span(after), concerns, [relief("q", kind)] if seen == "-" else [])
        assert ",".join(each.state.value for each in notices) == told, after
        assert all(each.text == "it is well again" for each in notices if each.state is NoticeState.CLEARED)


@pytest.mark.parametrize("hourly", [2, 20])
@pytest.mark.parametrize("every", [1, 2, 7, 16, 30, 61, 125])
def test_a_stranger_who_makes_things_come_and_go_drowns_nothing(every: int, hourly: int) -> None:
    """Mail that is old and is not, a disk that is full and is not, workers that die: every so many minutes, for two days."""
    kinds, terms = (Q, AlertKind.STORE, AlertKind.WORKER), Terms(hourly=hourly)
    board, told, raised = Board(), dict[AlertKind, list[datetime]](), list[datetime]()
    for minute in range(2 * 24 * 60):
        now, up = NOW + timedelta(minutes=minute), minute // every % 2 == 0
        concerns = [concern("it", kind) for kind in kinds] if up else []
        if minute >= 600:
            concerns.append(concern("relay.example.com", AlertKind.CERTIFICATE, repeats=False))
        reliefs = [] if up else [relief("it", kind) for kind in kinds]
        board, notices = step(board, terms, now, concerns, reliefs)
        for each in notices:
            told.setdefault(each.kind, []).append(now)
        raised.extend(each.at for each in notices if each.kind is AlertKind.CERTIFICATE)
    for kind in kinds:
        of = told.get(kind, [])
        assert max((sum(timedelta(0) <= now - each < timedelta(hours=1) for each in of) for now in of), default=0) <= 3
        assert sum(now - NOW >= timedelta(days=1) for now in of) <= 12, "in the second day"
        assert of, "and it is told at all"
    (first,) = raised
    assert first - NOW <= timedelta(minutes=660)


def test_a_stranger_who_fills_the_memory_of_ends_frees_nothing_of_ours() -> None:
    board = Board()
    for start in range(0, 2 * MOST, 100):
        found = [concern(f"{start + number}.example") for number in range(100)]
        board, _notices = step(board, Terms(hourly=1000), NOW, found)
        board, _notices = step(board, Terms(hourly=1000), NOW, (), [relief(each.subject) for each in found])
    assert len(board.ended) == MOST
    for minute, seen, told in ((1, "+", "raised"), (2, "-", "cleared"), (17, "+", "raised"), (18, "-", "")):
        now = NOW + timedelta(minutes=minute)
        concerns, reliefs = ([concern("q", Q)], []) if seen == "+" else ([], [relief("q", Q)])
        board, notices = step(board, TERMS, now, concerns, reliefs)
        assert ",".join(each.state.value for each in notices) == told, minute


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


def test_a_clock_that_was_ahead_while_it_came_and_went() -> None:
    ahead = NOW + timedelta(days=300)
    board, _raised = step(Board(), TERMS, ahead, [concern()])
    board, _cleared = step(board, TERMS, ahead, (), [relief()])
    board, notices = step(board, TERMS, ahead + span("1m"), [concern()])
    assert notices == ()
    board, notices = step(board, TERMS, NOW)
    assert notices == ()
    board, (raised,) = step(board, TERMS, NOW + span("15m"))
    assert raised.state is NoticeState.RAISED
    board, _held = step(board, TERMS, NOW + span("16m"), (), [relief()])
    _board, (cleared,) = step(board, TERMS, NOW + span("76m"))
    assert cleared.state is NoticeState.CLEARED


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
