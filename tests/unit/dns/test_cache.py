"""Answers are good for their time, one question is asked once, and memory is bounded."""

import asyncio

import pytest

from relay.dns.cache import Cache, Timed


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Asked:
    """Answers "KEY N" for the Nth question about KEY, good for 10 seconds. `gate` holds the answers back."""

    def __init__(self) -> None:
        self.count = 0
        self.gate = asyncio.Event()
        self.gate.set()

    async def __call__(self, key: str) -> Timed[str]:
        self.count += 1
        number = self.count
        await self.gate.wait()
        if key == "bug":
            raise RuntimeError("a bug")
        return Timed(f"{key} {number}", 10.0)


async def test_an_answer_is_good_for_its_time_and_no_longer() -> None:
    asked, clock = Asked(), Clock()
    cache = Cache(asked, size=10, monotonic=clock)
    assert await cache.get("a") == "a 1"
    clock.now += 9.9
    assert await cache.get("a") == "a 1"
    clock.now += 0.2
    assert await cache.get("a") == "a 2"


async def test_one_question_is_asked_once_however_many_wait() -> None:
    asked = Asked()
    asked.gate.clear()
    cache = Cache(asked, size=10, monotonic=Clock())
    waiting = [asyncio.create_task(cache.get("a")) for _ in range(20)]
    await asyncio.sleep(0)
    asked.gate.set()
    assert await asyncio.gather(*waiting) == ["a 1"] * 20


async def test_one_who_stops_waiting_takes_the_answer_from_nobody() -> None:
    asked = Asked()
    asked.gate.clear()
    cache = Cache(asked, size=10, monotonic=Clock())
    first, second = asyncio.create_task(cache.get("a")), asyncio.create_task(cache.get("a"))
    await asyncio.sleep(0)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    asked.gate.set()
    assert await second == "a 1"


async def test_a_bug_reaches_who_waits_and_is_not_remembered() -> None:
    asked = Asked()
    cache = Cache(asked, size=10, monotonic=Clock())
    for expected in (1, 2):
        with pytest.raises(RuntimeError, match="a bug"):
            await cache.get("bug")
        assert asked.count == expected
    assert len(cache) == 0


async def test_the_least_recently_used_goes_first() -> None:
    asked = Asked()
    cache = Cache(asked, size=2, monotonic=Clock())
    for key in ("a", "b", "a", "c"):
        await cache.get(key)
    assert len(cache) == 2
    assert await cache.get("a") == "a 1"
    assert await cache.get("b") == "b 4"


async def test_closing_ends_the_questions_under_way() -> None:
    asked = Asked()
    asked.gate.clear()
    cache = Cache(asked, size=2, monotonic=Clock())
    waiting = asyncio.create_task(cache.get("a"))
    await asyncio.sleep(0)
    await cache.close()
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_answers_have_weight() -> None:
    cache = Cache(Asked(), size=10, monotonic=Clock(), weigh=len)
    cache.put("a", Timed("four", 10.0))
    cache.put("b", Timed("four", 10.0))
    cache.put("a", Timed("fourfo", 10.0))
    assert (cache.held("b"), cache.held("a")) == ("four", "fourfo")
    cache.put("c", Timed("x", 10.0))
    assert [cache.held(key) for key in "abc"] == ["fourfo", None, "x"]
    cache.put("d", Timed("more than there is room for", 10.0))
    assert len(cache) == 0
    cache.clear()
    cache.put("a", Timed("ten letter", 10.0))
    assert cache.held("a") == "ten letter"


async def test_an_answer_that_is_not_good_any_more_can_still_be_built_on() -> None:
    asked, clock = Asked(), Clock()
    cache = Cache(asked, size=10, monotonic=clock)
    assert cache.last("a") is None
    await cache.get("a")
    clock.now += 20
    assert (cache.held("a"), cache.last("a")) == (None, "a 1")
    cache.put("a", Timed("told", 10.0))
    assert await cache.get("a") == "told"
    assert asked.count == 1
