"""A destination's health, rate and window, and who has which recipient in hand."""

import asyncio
from datetime import timedelta

import pytest

from relay.config.models import Retry
from relay.mail.outcome import Bounced, Deferred, Delivered, Outcome
from relay.mail.tls import TlsFailure
from relay.policy.route import Lane
from relay.queue.claims import Claims
from relay.queue.lanes import Candidate, LaneState, concerns_destination
from relay.queue.reader import MemoryBody
from relay.queue.store import NEW
from tests.unit.queue.world import DOWN, LATER, NO, OK, World

SECOND = 1000


def state(concurrency: int = 20, rate: float = 0.0, **retry: timedelta) -> LaneState:
    return LaneState(Lane("example.com", "default", concurrency, rate, Retry(**retry)), 0)


@pytest.mark.parametrize(
    ("outcome", "concerns"),
    [
        (OK, False),
        (NO, False),
        (LATER, False),
        (DOWN, True),
        (Deferred(451, "4.4.3", "no answer from DNS"), True),
        (Deferred(421, "4.3.2", "closing"), True),
        (Deferred(451, "4.7.5", "wrong name", TlsFailure.CERTIFICATE_HOST_MISMATCH), True),
        (Deferred(451, "4.7.1", "greylisted"), False),
        (Deferred(452, "4.5.3", "too many recipients"), False),
        (Bounced(554, "5.7.5", "for good", TlsFailure.CERTIFICATE_EXPIRED), False),
    ],
)
def test_what_is_about_the_destination(outcome: Outcome, concerns: bool) -> None:
    assert concerns_destination(outcome) is concerns


def test_five_failures_in_a_row_close_a_lane_and_probes_double_the_wait() -> None:
    lane = state(initial=timedelta(minutes=1), maximum=timedelta(minutes=5))
    assert [lane.learn([DOWN], 0) for _ in range(5)] == [False, False, False, False, True]
    assert (lane.is_down, lane.slots, lane.depth, lane.trouble) == (True, 1, 1, DOWN)
    assert lane.opens_at(0) == 60 * SECOND
    assert not lane.learn([DOWN], 30 * SECOND)  # it was under way before
    assert lane.opens_at(30 * SECOND) == 60 * SECOND
    now = 60 * SECOND
    for wait in (120, 240, 300, 300):
        assert lane.opens_at(now) == now
        assert lane.learn([DOWN], now)
        assert lane.opens_at(now) == now + wait * SECOND
        now += wait * SECOND
    assert not lane.learn([DOWN, LATER], now)  # one recipient was answered: it can be reached
    assert (lane.is_down, lane.slots, lane.trouble) == (False, 20, None)
    assert lane.opens_at(now) == now


def test_a_success_in_between_starts_the_count_anew() -> None:
    lane = state()
    for _ in range(10):
        assert not any(lane.learn([DOWN], 0) for _ in range(4))
        assert not lane.learn([Delivered(250, "2.0.0", "ok")], 0)
    assert not lane.learn([], 0)
    assert not lane.is_down


def test_a_token_bucket_of_one_second() -> None:
    lane = state(rate=10.0)
    for _ in range(10):
        assert lane.opens_at(0) == 0
        lane.start()
    opens = lane.opens_at(0)
    assert 100 <= opens <= 102
    assert lane.opens_at(opens) == opens
    lane.start()
    assert lane.opens_at(opens) > opens
    # A clock that jumps fills it once, one that is set back does not block it.
    assert lane.opens_at(10**9) == 10**9
    for _ in range(10):
        lane.start()
    assert lane.opens_at(0) <= 102


def test_a_slow_rate_is_asked_again_within_a_minute() -> None:
    lane = state(rate=0.001)
    lane.start()
    assert lane.opens_at(0) == 60 * SECOND


def test_a_lane_is_forgotten_only_when_that_loses_nothing() -> None:
    lane = state(rate=1.0)
    assert lane.is_idle(0)
    lane.start()
    assert not lane.is_idle(0)
    lane.running -= 1
    assert not lane.is_idle(0)  # its rate would be forgotten
    assert lane.is_idle(2 * SECOND)
    lane.backlog["example.com"] = 0
    assert not lane.is_idle(2 * SECOND)


@pytest.mark.parametrize(("concurrency", "depth"), [(1, 16), (8, 128), (20, 320), (1000, 512)])
def test_the_window_goes_with_the_concurrency(concurrency: int, depth: int) -> None:
    assert state(concurrency).depth == depth


async def test_what_is_given_back_while_others_read_stays_out_of_reach(queue: World) -> None:
    message = await queue.put("a@example.com", "b@example.com")
    claims, lane = Claims(), state()
    candidate = Candidate(lane, message, MemoryBody(()), {0: NEW, 1: NEW})
    claims.take(candidate)
    assert lane.claimed == 2
    first, second = candidate.keys
    with claims.reading():
        claims.free([first])
        assert not claims.is_free(first)
        with claims.reading():
            claims.free([second])
        assert not claims.is_free(second)
    assert claims.is_free(first)
    assert claims.is_free(second)
    assert lane.claimed == len(claims) == 0


async def test_waiting_for_a_recipient_to_be_given_back() -> None:
    claims = Claims()
    key = ("m", 0)
    claims.reserve([key])
    waiting = [asyncio.create_task(claims.freed(key)) for _ in range(2)]
    gone = asyncio.create_task(claims.freed(key))
    await asyncio.sleep(0)
    assert not waiting[0].done()
    gone.cancel()
    await asyncio.sleep(0)
    claims.free([key])
    await asyncio.gather(*waiting)
    await claims.freed(key)
    assert claims.reserved == 0
