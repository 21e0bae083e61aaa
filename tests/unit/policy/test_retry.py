"""Back-off, expiry and the delay warning, as tables over a fixed clock."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.config.models import Retry
from relay.policy.retry import Again, Expired, delay_warning_is_due, next_attempt
from tests.unit.policy.builders import NOW

SETTINGS = Retry.model_validate({"initial": "1m", "maximum": "1h", "expire": "5d", "delay_warning": "4h"})


@pytest.mark.parametrize(
    ("attempts", "minutes"), [(1, 1), (2, 2), (3, 4), (4, 8), (5, 16), (6, 32), (7, 60), (8, 60), (10_000, 60)]
)
def test_the_wait_doubles_up_to_its_maximum(attempts: int, minutes: int) -> None:
    found = next_attempt(SETTINGS, accepted_at=NOW, attempts=attempts, now=NOW, spread=0.0)
    assert found == Again(NOW + timedelta(minutes=minutes))


@pytest.mark.parametrize("initial", ["1ms", "6h", "365d"])
def test_no_wait_is_too_long_to_reckon_with(initial: str) -> None:
    settings = Retry.model_validate({"initial": initial, "maximum": "365d", "expire": "365d"})
    found = next_attempt(settings, accepted_at=NOW, attempts=10_000, now=NOW, spread=0.0)
    assert found == Again(NOW + timedelta(days=365))


def test_the_spread_shortens_the_wait_by_at_most_a_fifth() -> None:
    found = next_attempt(SETTINGS, accepted_at=NOW, attempts=7, now=NOW, spread=1.0)
    assert found == Again(NOW + timedelta(minutes=48))


def test_the_last_attempt_falls_on_the_moment_of_expiry() -> None:
    now = NOW + timedelta(days=5) - timedelta(minutes=10)
    assert next_attempt(SETTINGS, accepted_at=NOW, attempts=99, now=now, spread=0.0) == Again(NOW + timedelta(days=5))


@pytest.mark.parametrize("late", [timedelta(0), timedelta(days=3)])
def test_a_message_at_its_expiry_is_given_up(late: timedelta) -> None:
    now = NOW + timedelta(days=5) + late
    assert next_attempt(SETTINGS, accepted_at=NOW, attempts=1, now=now, spread=0.0) == Expired()


@given(st.integers(1, 10**6), st.floats(0, 1), st.timedeltas(timedelta(0), timedelta(days=6)))
def test_the_next_attempt_is_always_later_and_never_after_expiry(attempts: int, spread: float, age: timedelta) -> None:
    now = NOW + age
    found = next_attempt(SETTINGS, accepted_at=NOW, attempts=attempts, now=now, spread=spread)
    if isinstance(found, Again):
        assert now < found.at <= NOW + SETTINGS.expire
    else:
        assert now >= NOW + SETTINGS.expire


@pytest.mark.parametrize(
    ("hours", "warning", "due"), [(3, "4h", False), (4, "4h", True), (100, "4h", True), (100, "0s", False)]
)
def test_the_delay_warning(hours: int, warning: str, due: bool) -> None:
    settings = Retry.model_validate({"delay_warning": warning})
    assert delay_warning_is_due(settings, accepted_at=NOW, now=NOW + timedelta(hours=hours)) is due
