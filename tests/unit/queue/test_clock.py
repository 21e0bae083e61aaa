"""The wall clock is set, by hours, while mail waits: nothing waits for the old time to come again, nothing is given up for it."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from relay.config.models import Retry
from relay.mail.events import ClockSetBack
from relay.mail.outcome import Outcome
from relay.queue.store import StoreUnavailable
from tests.unit.queue.world import DOWN, LATER, OK, World, world

HOURS = timedelta(hours=6)
SOON = timedelta(minutes=2)


async def test_deferred_mail_does_not_wait_for_the_old_time(queue: World) -> None:
    queue.hops.says[""] = [LATER, OK]
    message = await queue.put()
    await queue.settle()
    queue.set_clock(-HOURS)
    await queue.pass_(SOON)
    assert await queue.states(message) == ["delivered"]
    (seen,) = queue.of(ClockSetBack)
    assert 6 * 3600 - 60 <= seen.seconds <= 6 * 3600  # timers look at the clock once a minute at least


async def test_a_backlog_does_not_wait_for_the_old_time(queue: World) -> None:
    queue.hops.gate.clear()
    for number in range(200):
        await queue.put(f"u{number}@example.com")
    await queue.settle()
    assert queue.hops.running < 200
    queue.set_clock(-HOURS)
    queue.hops.gate.set()
    await queue.pass_(SOON)
    assert len(queue.hops.delivered) == len({to for _id, to in queue.hops.delivered}) == 200


async def test_a_destination_that_was_down_is_tried(queue: World) -> None:
    queue.hops.says[""] = list[Outcome | Exception]([DOWN] * 8 + [OK])
    for number in range(30):
        await queue.put(f"u{number}@example.com")
    await queue.settle()
    queue.set_clock(-HOURS)
    await queue.pass_(timedelta(minutes=10))
    assert len(queue.hops.delivered) == 30


async def test_more_than_one_step_of_mail(queue: World) -> None:
    queue.hops.says[""] = [LATER]
    for number in range(60):
        await queue.put(*(f"u{number}.{each}@example.com" for each in range(20)))
    await queue.pass_(timedelta(minutes=3))
    queue.hops.says[""] = [OK]
    queue.set_clock(-HOURS)
    await queue.pass_(SOON)
    assert len(queue.hops.delivered) == 1200


@pytest.mark.parametrize("outcome", [LATER, DOWN], ids=["deferred", "down"])
async def test_a_clock_that_was_set_back_while_nobody_ran(tmp_path: Path, outcome: Outcome) -> None:
    async with world(tmp_path / "queue.db") as before:
        before.clock.now += HOURS  # wrong, and put right before the next start
        before.hops.says[""] = [outcome]
        message = await before.put()
        await before.settle()
    async with world(tmp_path / "queue.db") as queue:
        await queue.pass_(SOON)
        assert await queue.states(message) == ["delivered"]
        assert len(queue.of(ClockSetBack)) == 1


async def test_what_was_under_way_is_not_delivered_twice(queue: World) -> None:
    queue.hops.gate.clear()
    messages = [await queue.put(f"u{number}@example.com") for number in range(5)]
    await queue.settle()
    queue.set_clock(-HOURS)
    await queue.pass_(SOON)
    queue.hops.gate.set()
    await queue.pass_(SOON)
    assert sorted(each for each, _to in queue.hops.delivered) == sorted(each.id for each in messages)


async def test_ahead_by_hours_mail_is_tried_and_not_given_up(queue: World) -> None:
    queue.retry = Retry(expire=timedelta(days=5), delay_warning=timedelta(0))
    queue.hops.says[""] = [LATER]
    messages = [await queue.put(f"u{number}@d{number % 3}.example") for number in range(30)]
    await queue.settle()
    for step in (HOURS, -HOURS, 2 * HOURS, -3 * HOURS, timedelta(hours=20)):
        queue.set_clock(step)
        await queue.pass_(SOON)
    assert {state for each in messages for state in await queue.states(each)} == {"waiting"}
    assert not queue.reporter.told
    queue.hops.says[""] = [OK]
    await queue.pass_(timedelta(hours=1))
    assert {state for each in messages for state in await queue.states(each)} == {"delivered"}


async def test_a_small_step_back_is_nothing_to_speak_of(queue: World) -> None:
    queue.hops.says[""] = [LATER, OK]
    message = await queue.put()
    await queue.settle()
    queue.set_clock(-timedelta(seconds=4))
    await queue.pass_(SOON)
    assert await queue.states(message) == ["delivered"]
    assert not queue.of(ClockSetBack)


async def test_a_store_in_trouble_is_asked_again(queue: World, monkeypatch: pytest.MonkeyPatch) -> None:
    queue.hops.says[""] = [LATER, OK]
    message = await queue.put()
    await queue.settle()
    work: Callable[..., object] = queue.store.work
    calls = 0

    def once_unavailable(step: object) -> object:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise StoreUnavailable("not now")
        return work(step)

    monkeypatch.setattr(queue.store, "work", once_unavailable)
    queue.set_clock(-HOURS)
    await queue.pass_(SOON)
    assert await queue.states(message) == ["delivered"]
