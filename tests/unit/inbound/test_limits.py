"""Counting clients: what one address may hold, what one /64 may hold, and who is told to wait."""

import ipaddress

import pytest

from relay.clients.limits import Connections, Entry, LoginFailures, limit_key
from relay.inbound.room import Room


def key(text: str) -> int | str:
    return limit_key(ipaddress.ip_address(text))


def test_a_key_is_an_address_or_a_64() -> None:
    assert key("192.0.2.1") != key("192.0.2.2")
    assert key("2001:db8::1") == key("2001:db8::ffff:2")
    assert key("2001:db8:0:1::1") != key("2001:db8::1")
    assert key("0.0.0.0") != key("::")
    assert key("0.0.0.1") != key("0:0:0:1::")


def test_connections_in_all() -> None:
    connections = Connections()
    assert [connections.enter(2) for _ in range(3)] == [Entry.FREE, Entry.FREE, Entry.FULL]
    connections.leave(None)
    assert connections.enter(2) is Entry.FREE
    assert connections.total == 2


def test_connections_of_one_client() -> None:
    connections = Connections()
    one, other = key("192.0.2.1"), key("192.0.2.2")
    assert connections.enter_client(one, 1) is Entry.FREE
    assert connections.enter_client(one, 1) is Entry.CLIENT_FULL
    assert connections.enter_client(one, 2) is Entry.FREE
    assert connections.enter_client(other, 1) is Entry.FREE
    connections.leave(one)
    connections.leave(one)
    assert connections.enter_client(one, 1) is Entry.FREE
    connections.leave(one)
    connections.leave(other)
    assert not connections._by_client  # nothing is kept of clients that have gone


def test_when_room_is_short_nobody_gets_more_than_a_share() -> None:
    room = Room(most=100, share=10)
    assert room.take(0, 95)
    assert room.take(95, 5)
    assert not room.take(100, 1)
    assert [room.take(held, 5) for held in (0, 5, 10)] == [True, True, False]
    assert room.taken == 110
    room.give_back(95)
    assert room.take(10, 50)


@pytest.fixture
def failures() -> LoginFailures:
    return LoginFailures(tries=3, memory=600, first=30, longest=100, size=4)


def test_the_wait_grows_and_is_bounded(failures: LoginFailures) -> None:
    waits = []
    now = 1000.0
    for _ in range(6):
        failures.add(7, now)
        waits.append(failures.wait(7, now))
        now += waits[-1]
        assert failures.wait(7, now) == 0
    assert waits == [0, 0, 30, 60, 100, 100]
    assert failures.wait(8, now) == 0


def test_failures_are_forgotten(failures: LoginFailures) -> None:
    for _ in range(3):
        failures.add(7, 1000)
    assert failures.wait(7, 1029) == 1
    failures.add(7, 1030 + 600)
    assert failures.wait(7, 1630) == 0


def test_failures_far_apart_never_add_up(failures: LoginFailures) -> None:
    for number in range(10):
        failures.add(7, number * 601.0)
        assert failures.wait(7, number * 601.0) == 0


def test_what_another_process_knows_counts_where_it_is_more(failures: LoginFailures) -> None:
    other = LoginFailures(tries=3, memory=600, first=30)
    for key, here, there in (("both", 1, 3), ("ours", 3, 1), ("theirs", 0, 3)):
        for _ in range(here):
            failures.add(key, 1000)
        for _ in range(there):
            other.add(key, 1000)
    failures.learn(other.remembered(1010))
    assert [failures.wait(key, 1010) for key in ("both", "ours", "theirs")] == [20, 20, 20]
    assert other.remembered(1630) == {}


def test_the_table_is_bounded_whoever_fills_it(failures: LoginFailures) -> None:
    other = LoginFailures()
    for number in range(10):
        other.add(number, 1000)
    failures.learn(other.remembered(1000))
    assert len(failures) == 4


def test_the_table_is_bounded_and_drops_the_oldest(failures: LoginFailures) -> None:
    for _ in range(3):
        failures.add("old", 1000)
    for number in range(3):
        failures.add(number, 1001)
    assert failures.wait("old", 1002) > 0
    failures.add(99, 1002)
    assert len(failures) == 4
    assert failures.wait("old", 1002) == 0


def test_no_number_of_failures_overflows() -> None:
    failures = LoginFailures(tries=1)
    for number in range(3000):
        failures.add(1, float(number))
    assert failures.wait(1, 2999.0) == 900
