"""Limits that several processes keep together: never passed one after the other, and nobody is left out for good."""

import random
from collections.abc import Iterator
from typing import Any

import pytest

from relay.clients.limits import Connections, Entry
from relay.policy.route import Lane
from relay.queue.lanes import LaneState
from relay.workers import limits
from relay.workers.limits import SharedConnections, SharedLane, SharedLanes
from relay.workers.table import Table

SECOND = 1_000_000_000


class Time:
    """The monotonic clock, as a test wants it."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def monotonic_ns(self) -> int:
        return int(self.now * SECOND)


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    made = Time()
    monkeypatch.setattr(limits, "time", made)
    return made


@pytest.fixture
def table() -> Iterator[Table]:
    made = Table(3)
    yield made
    made.close()


def test_connections_in_all_and_by_client_hold_together(table: Table) -> None:
    one, two, three = (Connections(SharedConnections(table, slot)) for slot in range(3))
    assert [each.enter(3) for each in (one, two, three)] == [Entry.FREE] * 3
    assert [each.enter(3) for each in (one, two, three)] == [Entry.FULL] * 3
    assert [each.enter_client(7, 2) for each in (one, two, three)] == [Entry.FREE, Entry.FREE, Entry.CLIENT_FULL]
    assert three.enter_client(8, 2) is Entry.FREE
    one.leave(7)
    assert three.enter(3) is Entry.FREE
    assert three.enter_client(7, 2) is Entry.FREE
    assert one.enter(3) is Entry.FULL
    two.leave(7)
    three.leave(7)
    three.leave(8)
    assert one.enter(1) is Entry.FREE
    one.leave(None)


def test_connections_of_a_dead_process_are_free_again(table: Table) -> None:
    one, two = (Connections(SharedConnections(table, slot)) for slot in range(2))
    for _ in range(2):
        one.enter(2)
        one.enter_client(-5, 2)
    assert two.enter(2) is Entry.FULL
    table.clear(0)
    assert two.enter(2) is Entry.FREE
    assert two.enter_client(-5, 1) is Entry.FREE


class Process:
    """One process's part of a destination: starts what it may, as the scheduler does."""

    def __init__(self, table: Table, slot: int, key: str = "connector inner") -> None:
        self.lane: SharedLane = SharedLanes(table, slot)(key)
        self.running = 0
        self.wants = 0

    def start(self, limit: int) -> bool:
        if not self.wants:
            self.lane.forget()
            return False
        if not self.lane.may_start(self.running, limit):
            return False
        self.lane.started()
        self.running += 1
        self.wants -= 1
        return True

    def end(self) -> None:
        self.lane.ended()
        self.running -= 1


def test_one_alone_may_use_all_places(table: Table, time: Time) -> None:
    one = Process(table, 0)
    one.wants = 100
    assert sum(one.start(20) for _ in range(100)) == 20


def test_one_that_finds_no_place_gets_its_part_as_others_end(table: Table, time: Time) -> None:
    one, two = Process(table, 0), Process(table, 1)
    one.wants = two.wants = 1000
    while one.start(20):
        pass
    assert not two.start(20)
    for _ in range(100):
        if one.running:
            one.end()
        one.start(20)
        while two.start(20):
            pass
        assert one.running + two.running <= 20
    assert one.running >= 6
    assert two.running >= 6


@pytest.mark.parametrize("limit", [1, 2, 3, 5, 20])
def test_nobody_starves_and_the_limit_holds(table: Table, time: Time, limit: int) -> None:
    chance = random.Random(limit)
    made = [Process(table, slot) for slot in range(3)]
    started = [0, 0, 0]
    for _ in range(3000):
        time.now += 0.01
        for each in made:
            each.wants = 10
        for each in made:
            while each.running and chance.random() < 0.3:
                each.end()
        for slot, each in enumerate(made):
            while each.start(limit):
                started[slot] += 1
            assert sum(other.running for other in made) <= limit
    assert min(started) > max(started) / 3, started
    assert sum(started) > 300 * min(limit, 3)


def test_one_that_wants_no_more_leaves_all_places_to_others(table: Table, time: Time) -> None:
    one, two = Process(table, 0), Process(table, 1)
    one.wants = two.wants = 100
    while one.start(4):
        pass
    assert not two.start(4)
    two.wants = 0
    two.start(4)  # it has nothing to deliver any more
    one.end()
    assert one.start(4)


def test_the_places_of_a_dead_process_are_free_again(table: Table, time: Time) -> None:
    one, two = Process(table, 0), Process(table, 1)
    one.wants = two.wants = 100
    while one.start(4):
        pass
    assert not two.start(4)
    table.clear(0)
    assert two.start(4)


def test_a_rate_holds_for_all(table: Table, time: Time) -> None:
    """A second's worth at once, then one after the other; nothing is lost when nothing is sent for a while, and nothing saved up."""
    made = [Process(table, slot) for slot in range(3)]
    rate, began, sent = 5.0, time.now, 0
    for step in range(1, 1001):
        time.now = began + step / 100
        each = made[step % 3]
        if not each.lane.wait(rate):
            each.lane.spend(rate)
            sent += 1
        assert sent <= rate + (time.now - began) * rate + 1
    assert sent >= rate * 10
    time.now += 3600
    burst = 0
    while not made[0].lane.wait(rate):
        made[burst % 3].lane.spend(rate)
        burst += 1
    assert burst == 5
    assert 0 < made[1].lane.wait(rate) <= SECOND // 5


def test_a_slow_rate(table: Table, time: Time) -> None:
    one, two = Process(table, 0), Process(table, 1)
    rate = 1 / 60
    assert one.lane.wait(rate) == 0
    one.lane.spend(rate)
    assert two.lane.wait(rate) == pytest.approx(60 * SECOND, rel=1e-6)
    time.now += 60.001
    assert two.lane.wait(rate) == 0


def test_what_was_started_too_much_is_paid_back(table: Table, time: Time) -> None:
    """Two that ask at the same moment both may; the next waits for both."""
    one, two = Process(table, 0), Process(table, 1)
    assert one.lane.wait(1.0) == two.lane.wait(1.0) == 0
    one.lane.spend(1.0)
    two.lane.spend(1.0)
    assert one.lane.wait(1.0) == pytest.approx(2 * SECOND, rel=1e-6)


def test_a_lock_that_nobody_gives_back_stops_no_delivery(
    table: Table, time: Time, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = Process(table, 0)
    monkeypatch.setattr(one.lane._shared.lock, "take", lambda: False)
    given: list[Any] = []
    monkeypatch.setattr(one.lane._shared.lock, "give", lambda: given.append(1))
    one.lane.spend(1.0)
    assert one.lane.wait(1.0) > 0
    assert not given


def test_a_lane_asks_its_allowance(table: Table, time: Time) -> None:
    lane = Lane("x", "default", 2, 10.0, None)  # type: ignore[arg-type]  # its retry is not looked at here
    one, two = (LaneState(lane, 0, SharedLanes(table, slot)("x")) for slot in range(2))
    assert (one.has_place, two.has_place) == (True, True)
    one.start()
    one.start()
    assert (one.has_place, two.has_place) == (False, False)
    one.end()
    assert (one.has_place, two.has_place) == (False, True)  # the other has waited for it
    for _ in range(8):
        assert two.opens_at(5) == 5
        two.start()
        two.end()
    assert 5 < two.opens_at(5) <= 105
    one.end()
    time.now += 1
    assert two.is_idle(5)
    two.rest()
