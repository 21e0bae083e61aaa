"""One timer for all sessions: each is told once, after its deadline and soon."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.inbound.deadlines import NOT_FILED, Deadlines


@dataclass(eq=False)
class Alarm:
    when: float
    callback: Callable[[], None]
    off: bool = False

    def cancel(self) -> None:
        self.off = True


@dataclass
class FakeTimer:
    """A clock that the test moves."""

    now: float = 1000.25
    alarms: list[Alarm] = field(default_factory=list)
    rung: int = 0

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, callback: Callable[[], None], /) -> Alarm:
        self.alarms.append(Alarm(when, callback))
        return self.alarms[-1]

    @property
    def armed(self) -> list[Alarm]:
        return [alarm for alarm in self.alarms if not alarm.off]

    def go(self, to: float, late: float = 0.0) -> None:
        while due := [alarm for alarm in self.armed if alarm.when <= to]:
            alarm = min(due, key=lambda each: each.when)
            self.now = max(self.now, alarm.when + late)
            alarm.off = True
            self.alarms = self.armed
            self.rung += 1
            alarm.callback()
        self.now = max(self.now, to)


class Session:
    __slots__ = ("deadline", "expirations", "name", "on_expiry", "tick", "timer")

    def __init__(self, timer: FakeTimer, on_expiry: Callable[[], None] = lambda: None) -> None:
        self.deadline, self.tick, self.timer, self.on_expiry = 0.0, NOT_FILED, timer, on_expiry
        self.expirations: list[float] = []

    def expired(self) -> None:
        self.expirations.append(self.timer.now)
        self.on_expiry()


@pytest.fixture
def timer() -> FakeTimer:
    return FakeTimer()


@pytest.fixture
def deadlines(timer: FakeTimer) -> Deadlines:
    return Deadlines(timer)


def test_expires_within_a_tick_after_its_deadline(timer: FakeTimer, deadlines: Deadlines) -> None:
    session = Session(timer)
    deadlines.set(session, 1010.5)
    timer.go(1010.5)
    assert session.expirations == []
    timer.go(1020)
    assert session.expirations == [1011]
    assert not timer.armed
    assert len(deadlines) == 0


def test_a_later_deadline_costs_nothing_until_the_old_one_comes(timer: FakeTimer, deadlines: Deadlines) -> None:
    session = Session(timer)
    deadlines.set(session, 1005)
    filed = session.tick
    for moment in range(1010, 2000, 7):
        deadlines.set(session, moment)
    assert session.tick == filed
    timer.go(1990)
    assert session.expirations == []
    timer.go(2010)
    assert len(session.expirations) == 1


def test_an_earlier_deadline_counts(timer: FakeTimer, deadlines: Deadlines) -> None:
    session = Session(timer)
    deadlines.set(session, 2800)
    deadlines.set(session, 1003)
    timer.go(2900)
    assert session.expirations == [1004]


def test_a_deadline_of_the_past_expires_at_the_next_look(timer: FakeTimer, deadlines: Deadlines) -> None:
    session = Session(timer)
    deadlines.set(session, 1.0)
    timer.go(1002)
    assert session.expirations == [1001]


def test_removed_is_not_told_and_the_timer_rests(timer: FakeTimer, deadlines: Deadlines) -> None:
    session, other = Session(timer), Session(timer)
    deadlines.set(session, 1005)
    deadlines.set(other, 1005)
    deadlines.remove(session)
    deadlines.remove(session)
    deadlines.remove(other)
    timer.go(1010)
    assert session.expirations == []
    assert not timer.armed
    assert timer.rung == 1


def test_closed(timer: FakeTimer, deadlines: Deadlines) -> None:
    deadlines.close()
    deadlines.set(Session(timer), 1005)
    deadlines.close()
    assert not timer.armed
    assert len(deadlines) == 0


def test_one_timer_however_many_sessions(timer: FakeTimer, deadlines: Deadlines) -> None:
    sessions = [Session(timer) for _ in range(1000)]
    for number, session in enumerate(sessions):
        deadlines.set(session, 1001 + number % 300)
    assert len(timer.armed) == 1
    timer.go(1400)
    assert all(len(session.expirations) == 1 for session in sessions)
    assert timer.rung <= 302


def test_expired_may_ask_for_more_time(timer: FakeTimer, deadlines: Deadlines) -> None:
    session = Session(timer)
    session.on_expiry = lambda: deadlines.set(session, timer.now + 5) if len(session.expirations) < 3 else None
    deadlines.set(session, 1001.5)
    timer.go(1100)
    assert session.expirations == [1002, 1008, 1014]
    assert not timer.armed


def test_expired_may_take_others_out(timer: FakeTimer, deadlines: Deadlines) -> None:
    first, second = Session(timer), Session(timer)
    first.on_expiry = lambda: deadlines.remove(second)
    second.on_expiry = lambda: deadlines.remove(first)
    deadlines.set(first, 1001.5)
    deadlines.set(second, 1001.5)
    timer.go(1100)
    assert len(first.expirations) + len(second.expirations) == 1
    assert not timer.armed


def test_expired_may_take_the_last_out_and_file_a_new_one(timer: FakeTimer, deadlines: Deadlines) -> None:
    first, second = Session(timer), Session(timer)

    def swap() -> None:
        deadlines.set(second, timer.now + 2)
        deadlines.remove(second)
        deadlines.set(second, timer.now + 3)

    first.on_expiry = swap
    deadlines.set(first, 1001.5)
    timer.go(1002)
    assert len(timer.armed) == 1
    timer.go(1100)
    assert second.expirations == [1006]


def test_a_loop_that_stood_still(timer: FakeTimer, deadlines: Deadlines) -> None:
    sessions = [Session(timer) for _ in range(3)]
    for session, deadline in zip(sessions, (1002, 1500, 9_000), strict=True):
        deadlines.set(session, deadline)
    timer.go(1001, late=3600)
    assert [len(session.expirations) for session in sessions] == [1, 1, 0]
    timer.go(9_100)
    assert len(sessions[2].expirations) == 1


def test_a_timer_that_rings_early(timer: FakeTimer, deadlines: Deadlines) -> None:
    session = Session(timer)
    deadlines.set(session, 1001.9)
    timer.go(1010, late=-0.5)
    assert len(session.expirations) == 1
    assert session.expirations[0] >= 1001.9


@given(st.lists(st.tuples(st.integers(0, 4), st.floats(0, 50), st.floats(0, 3)), max_size=60))
def test_told_once_and_never_early(steps: list[tuple[int, float, float]]) -> None:
    timer = FakeTimer()
    deadlines = Deadlines(timer)
    sessions = [Session(timer) for _ in range(5)]
    for number, span, pause in steps:
        session = sessions[number]
        if not session.expirations:
            deadlines.set(session, timer.now + span)
        timer.go(timer.now + pause)
    timer.go(timer.now + 100)
    for session in sessions:
        assert len(session.expirations) == (1 if session.deadline else 0)
        assert all(session.deadline <= moment <= session.deadline + 1.01 for moment in session.expirations)


async def test_on_a_real_loop() -> None:
    loop = asyncio.get_running_loop()
    done = asyncio.Event()
    session = Session(FakeTimer(), done.set)
    Deadlines(loop, width=0.01).set(session, loop.time() + 0.02)
    await asyncio.wait_for(done.wait(), 5)
    assert session.tick == NOT_FILED
