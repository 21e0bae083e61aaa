import asyncio
from datetime import UTC, datetime, timedelta

from relay.queue.timers import LoopTimers


async def test_a_time_that_has_passed_rings_at_once() -> None:
    rung = asyncio.Event()
    LoopTimers(lambda: datetime.now(UTC)).call_at(datetime.now(UTC) - timedelta(days=1), rung.set)
    await asyncio.wait_for(rung.wait(), 5)
    assert rung.is_set()


async def test_a_far_time_is_looked_at_again_within_a_minute() -> None:
    timer = LoopTimers(lambda: datetime.now(UTC)).call_at(datetime.now(UTC) + timedelta(days=1), lambda: None)
    assert isinstance(timer, asyncio.TimerHandle)
    assert timer.when() - asyncio.get_running_loop().time() <= 60
    timer.cancel()
