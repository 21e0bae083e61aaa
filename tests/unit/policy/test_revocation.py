"""When an answer is fetched anew, and when a failed fetch is tried again."""

import ipaddress
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from relay.policy.admission import Peer, unchecked
from relay.policy.revocation import SOONEST, again_at, refresh_at
from tests.unit.policy.builders import book

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
CHANCE = st.floats(min_value=0, max_value=1, exclude_max=True)
SPANS = st.timedeltas(min_value=timedelta(minutes=10), max_value=timedelta(days=400))


def test_at_three_quarters_of_its_life() -> None:
    assert refresh_at(NOW, NOW + 8 * DAY, NOW, 0.0) == NOW + 6 * DAY
    assert NOW + 5 * DAY < refresh_at(NOW, NOW + 8 * DAY, NOW, 0.99) < NOW + 6 * DAY


def test_one_that_was_fetched_late_has_what_is_left() -> None:
    assert refresh_at(NOW - 7 * DAY, NOW + DAY, NOW, 0.0) == NOW + 18 * HOUR


@given(SPANS, SPANS, CHANCE)
def test_before_it_ends_and_never_at_once(before: timedelta, left: timedelta, chance: float) -> None:
    due = refresh_at(NOW - before, NOW + left, NOW, chance)
    assert NOW + SOONEST <= due < NOW + left


def test_more_and_more_seldom() -> None:
    first = timedelta(seconds=15)
    waits = [again_at(failures, first, NOW, 0.0) - NOW for failures in range(1, 10)]
    assert [each.total_seconds() for each in waits] == [15, 30, 60, 120, 240, 480, 600, 600, 600]
    assert again_at(1, first, NOW, 0.99) - NOW < first * 1.25
    assert again_at(50, HOUR, NOW, 0.0) - NOW == HOUR


def test_a_client_in_clear_makes_nobody_fetch() -> None:
    rules = book()
    peer = Peer(ipaddress.ip_address("192.0.2.1"), None)
    assert unchecked(rules, peer, rules.config.inbound) == frozenset()
