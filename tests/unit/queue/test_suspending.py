"""Suspended mail waits and is not tried; its time runs on; nothing is forgotten over restarts and crashes."""

from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from relay.config.models import Retry
from relay.policy.route import Lane
from relay.policy.suspension import NONE, WHY, Stops, Suspension, Suspensions
from relay.queue.operations import Selection
from relay.queue.reports import Fate
from relay.queue.store import State
from relay.queue.suspended import SqliteSuspensions
from tests.unit.queue.world import DOWN, LATER, START, World, world

MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
ALL = Selection(everything=True)


@pytest.fixture
async def queue(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path / "queue.db") as made:
        yield made


def stop(queue: World, stops: Stops, what: str, until: timedelta | None = None) -> None:
    ends = None if until is None else queue.clock.now + until
    held = Suspension(stops, what, "why", "uid 0", queue.clock.now, ends, 1)
    queue.scheduler.suspend(Suspensions((held,)))


KINDS = [
    (Stops.TO, "example.com"),
    (Stops.TO, "*"),
    (Stops.CONNECTOR, "default"),
    (Stops.FROM, "alice@example.org"),
    (Stops.FROM, "@example.org"),
]


@pytest.mark.parametrize(("stops", "what"), KINDS)
async def test_new_and_waiting_mail_is_not_tried(queue: World, stops: Stops, what: str) -> None:
    queue.hops.says[""] = [LATER]
    waiting = await queue.put()
    await queue.settle()
    queue.hops.says.clear()
    stop(queue, stops, what)
    new = await queue.put()
    await queue.pass_(HOUR)
    assert len(queue.hops.seen) == 1
    for each in (waiting, new):
        found = await queue.operations.show(each.id)
        assert found is not None
        (recipient,) = found["recipients"]
        assert (recipient["state"], recipient["next_attempt"]) == ("suspended", None)
        assert recipient["suspended"] == {
            "id": 1,
            stops.value: what,
            "reason": "why",
            "who": "uid 0",
            "since": "2026-11-22T12:00:00.000Z",
            "until": None,
        }
    listed = await queue.operations.list(Selection(everything=True, states=frozenset({State.SUSPENDED})))
    assert len(listed["messages"]) == 2
    queue.scheduler.suspend(NONE)
    await queue.settle()
    assert {name for name, _to in queue.hops.delivered} == {waiting.id, new.id}


@pytest.mark.parametrize(("stops", "what"), [(Stops.TO, "a.example"), (Stops.FROM, "bad@example.org")])
async def test_other_mail_goes_on(queue: World, stops: Stops, what: str) -> None:
    stop(queue, stops, what)
    held = [await queue.put("x@a.example", sender="bad@example.org") for _ in range(40)]
    gone = await queue.put("x@b.example", "y@c.example")
    await queue.settle()
    assert sorted(queue.hops.delivered) == [(gone.id, "x@b.example"), (gone.id, "y@c.example")]
    assert [await queue.states(each) for each in held] == [["suspended"]] * 40


async def test_one_message_with_some_recipients_that_may_go(queue: World) -> None:
    stop(queue, Stops.TO, "a.example")
    message = await queue.put("x@a.example", "y@b.example")
    await queue.settle()
    assert await queue.states(message) == ["suspended", "delivered"]
    queue.scheduler.suspend(NONE)
    await queue.settle()
    assert await queue.states(message) == ["delivered", "delivered"]
    assert len(queue.hops.delivered) == 2


async def test_a_sender_in_front_of_others_in_one_lane(queue: World) -> None:
    """Many of a suspended sender's messages are the longest due ones of their destination."""
    queue.hops.says["example.com"] = [DOWN]
    for _ in range(60):
        await queue.put(sender="bad@example.org")
    for _ in range(5):
        await queue.put(sender="good@example.org")
    await queue.settle()
    stop(queue, Stops.FROM, "bad@example.org")
    queue.hops.says.clear()
    await queue.operations.retry(ALL)
    await queue.settle()
    assert len(queue.hops.delivered) == 5
    queue.scheduler.suspend(NONE)
    await queue.settle()
    assert len(queue.hops.delivered) == 65


async def test_a_delivery_under_way_is_let_finish(queue: World) -> None:
    queue.hops.gate.clear()
    message = await queue.put()
    stop(queue, Stops.TO, "example.com")
    assert await queue.states(message) == ["delivering"]
    queue.hops.gate.set()
    await queue.settle()
    assert await queue.states(message) == ["delivered"]


@pytest.mark.parametrize(("stops", "what"), KINDS)
async def test_it_ends_by_itself(queue: World, stops: Stops, what: str) -> None:
    stop(queue, stops, what, until=HOUR)
    message = await queue.put()
    await queue.pass_(HOUR - MINUTE)
    assert await queue.states(message) == ["suspended"]
    await queue.pass_(2 * MINUTE)
    assert await queue.states(message) == ["delivered"]
    assert not queue.scheduler.suspensions


@pytest.mark.parametrize(("stops", "what"), KINDS)
async def test_its_time_runs_on(queue: World, stops: Stops, what: str) -> None:
    queue.retry = Retry(expire=timedelta(hours=4), delay_warning=timedelta(hours=1))
    stop(queue, stops, what)
    message = await queue.put()
    await queue.pass_(2 * HOUR)
    assert await queue.states(message) == ["suspended"]
    assert queue.reporter.told == [(message.id, Fate.DELAYED, 0)]
    await queue.pass_(3 * HOUR)
    assert await queue.states(message) == ["bounced"]
    assert [fate for name, fate, _index in queue.reporter.told if name == message.id] == [Fate.DELAYED, Fate.FAILED]
    assert WHY.text in queue.reporter.ended[1].outcome.text
    assert not any(name == message.id for name, _to in queue.hops.seen)


async def test_what_is_held_does_not_expire(queue: World) -> None:
    queue.retry = Retry(expire=timedelta(hours=1))
    stop(queue, Stops.FROM, "alice@example.org")
    message = await queue.put()
    await queue.settle()
    assert (await queue.operations.hold(ALL))["changed"] == 1
    await queue.pass_(5 * HOUR)
    assert await queue.states(message) == ["held"]


async def test_retry_release_and_flush_honour_it(queue: World) -> None:
    for stops, what in KINDS:
        stop(queue, stops, what)
        message = await queue.put()
        await queue.settle()
        await queue.operations.retry(ALL)
        await queue.settle()
        await queue.operations.hold(ALL)
        await queue.operations.release(ALL)
        await queue.settle()
        assert await queue.states(message) == ["suspended"]
        assert (await queue.operations.bounce(Selection(ids=(message.id,)), "no more"))["changed"] == 1
        await queue.settle()
        assert await queue.states(message) == ["bounced"]
        queue.scheduler.suspend(NONE)
        await queue.settle()
        await queue.operations.delete(ALL)
        queue.hops.seen.clear()


async def test_a_crash_in_between_forgets_no_mail(tmp_path: Path) -> None:
    """Mail was put aside, its sender's suspension removed from the store, and nobody was told before the process died."""
    queue = World(tmp_path / "queue.db")
    await queue.start()
    stop(queue, Stops.FROM, "@example.org")
    message = await queue.put()
    await queue.settle()
    assert await queue.store.aside_destinations("", 10) == ("example.com",)
    after = await queue.crash(tmp_path / "after.db")
    await after.start()
    await after.settle()
    assert after.hops.delivered == [(message.id, "bob@example.com")]
    await after.close()


async def test_the_store_keeps_them(tmp_path: Path) -> None:
    async with world(tmp_path / "queue.db") as queue:
        kept = SqliteSuspensions(queue.store)
        first = await kept.add(Suspension(Stops.TO, "*.a.example", "why", "uid 0", START, START + HOUR))
        second = await kept.add(Suspension(Stops.FROM, "<>", "", "ops", START))
        assert first is not None
        assert second is not None
    async with world(tmp_path / "queue.db") as queue:
        kept = SqliteSuspensions(queue.store)
        assert await kept.load() == (first, second)
        again = await kept.add(Suspension(Stops.TO, "*.a.example", "anew", "uid 1", START))
        assert again is not None
        assert again.id > second.id
        assert await kept.load() == (second, again)
        assert await kept.remove((again.id, 99)) == (again,)
        assert await kept.load() == (second,)


async def test_there_is_an_end_to_them(queue: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relay.queue.suspended.MOST", 1)
    kept = SqliteSuspensions(queue.store)
    assert await kept.add(Suspension(Stops.TO, "a.example", "", "", START)) is not None
    assert await kept.add(Suspension(Stops.TO, "b.example", "", "", START)) is None
    assert await kept.add(Suspension(Stops.TO, "a.example", "", "", START)) is not None


async def test_mail_behind_a_suspended_sender_is_not_stopped(queue: World) -> None:
    """All that a refill reads is put aside, at a destination that was down, where one message at a time is tried."""
    queue.hops.says[""] = [DOWN]
    bad = [await queue.put(sender="bad@example.org") for _ in range(60)]
    good = [await queue.put(sender="good@example.org") for _ in range(5)]
    await queue.settle()
    stop(queue, Stops.FROM, "bad@example.org")
    queue.hops.says.clear()
    for _ in range(10):
        await queue.pass_(HOUR)
    delivered = {name for name, _to in queue.hops.delivered}
    assert {each.id for each in good} <= delivered
    assert delivered.isdisjoint(each.id for each in bad)


async def test_more_suspended_destinations_than_are_remembered(queue: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relay.queue.feeder._DOMAINS", 5)
    stop(queue, Stops.TO, "*")
    put = [await queue.put(f"bob@d{number}.example") for number in range(20)]
    await queue.pass_(HOUR)
    assert queue.hops.seen == []
    queue.scheduler.suspend(NONE)
    for _ in range(3):
        await queue.pass_(HOUR)
    assert {name for name, _to in queue.hops.delivered} == {each.id for each in put}


@pytest.mark.parametrize(("stops", "what"), KINDS)
async def test_a_retry_says_what_stays_suspended(queue: World, stops: Stops, what: str) -> None:
    queue.connectors["b.example"] = "other"
    queue.hops.says[""] = [LATER]
    await queue.put("x@b.example", sender="carol@b.example")
    message = await queue.put()
    await queue.settle()
    stop(queue, stops, what)
    listed = len(queue.hops.seen)
    done = await queue.operations.retry(ALL)
    await queue.settle()
    every = what == "*"
    assert done["changed"] == (0 if every else 1)
    assert done["after"] == ({"suspended": 2} if every else {"waiting": 1, "suspended": 1})
    assert len(queue.hops.seen) == listed + (0 if every else 1)
    await queue.operations.hold(ALL)
    done = await queue.operations.release(Selection(ids=(message.id,)))
    assert (done["changed"], done["after"]) == (1, {"suspended": 1})


async def test_what_is_sent_another_way_is_suspended_by_that(queue: World) -> None:
    """By the connector that it goes by now, not by its own."""
    way = "example.com>connector backup"
    queue.connectors[way] = "backup"
    queue.hops.says[""] = [LATER]
    message = await queue.put()
    await queue.settle()
    stop(queue, Stops.CONNECTOR, "backup")
    await queue.operations.reroute(ALL, "connector backup")
    await queue.settle()
    assert await queue.states(message) == ["suspended"]
    assert (await queue.operations.retry(ALL))["after"] == {"suspended": 1}
    await queue.operations.reroute(ALL, "")
    await queue.settle()
    assert await queue.states(message) == ["waiting"]
    assert all(each == {} for each in queue.hops.vias)


async def test_rerouted_mail_of_a_suspended_sender_grows_old(queue: World) -> None:
    """By the terms of the way that it would go."""
    way = "example.com>connector backup"
    queue.lanes[way] = Lane(
        "backup", "backup", 20, 0.0, Retry(expire=timedelta(hours=4), delay_warning=timedelta(hours=1))
    )
    queue.hops.says[""] = [LATER]
    message = await queue.put()
    await queue.settle()
    stop(queue, Stops.FROM, "alice@example.org")
    await queue.operations.reroute(ALL, "connector backup")
    tried = len(queue.hops.seen)
    await queue.pass_(2 * HOUR)
    assert await queue.states(message) == ["suspended"]
    assert queue.reporter.told == [(message.id, Fate.DELAYED, 0)]
    await queue.pass_(3 * HOUR)
    assert await queue.states(message) == ["bounced"]
    assert [name for name, _to in queue.hops.seen[tried:]].count(message.id) == 0


@pytest.mark.parametrize(("stops", "what"), [(Stops.TO, "*"), (Stops.FROM, "@example.org")])
async def test_however_many_destinations_are_suspended_each_grows_old(
    queue: World, monkeypatch: pytest.MonkeyPatch, stops: Stops, what: str
) -> None:
    """No more than some are looked at in a minute: the others have their turn in the next."""
    monkeypatch.setattr("relay.queue.feeder._LOOKS", 3)
    queue.retry = Retry(expire=timedelta(hours=4))
    stop(queue, stops, what)
    put = [await queue.put(f"bob@d{number}.example") for number in range(10)]
    await queue.settle()
    await queue.operations.reroute(Selection(domain="d1.example"), "host other.example:25")
    await queue.pass_(4 * HOUR + 5 * MINUTE)
    bounced = {name for name, fate, _index in queue.reporter.told if fate is Fate.FAILED}
    assert bounced == {each.id for each in put}


@pytest.mark.parametrize(("stops", "what"), KINDS)
async def test_a_timer_that_rings_before_its_time_sorts_nothing_anew(queue: World, stops: Stops, what: str) -> None:
    """As the loop's do every minute: mail that waits would never be looked through for its age, and all that was put aside be read again."""
    queue.timers.longest = MINUTE
    queue.retry = Retry(expire=HOUR)
    stop(queue, stops, what, 10 * HOUR)
    message = await queue.put()
    await queue.settle()
    resumed = 0
    resume_aside = queue.store.resume_aside

    async def count(now: datetime) -> bool:
        nonlocal resumed
        resumed += 1
        return await resume_aside(now)

    queue.store.resume_aside = count  # type: ignore[method-assign]
    await queue.pass_(HOUR + 3 * MINUTE)
    assert await queue.states(message) == ["bounced"]
    assert resumed == 0
    await queue.pass_(9 * HOUR)
    assert [name for name, _to in queue.hops.seen if name == message.id] == []
    last = await queue.put()
    await queue.settle()
    assert await queue.states(last) == ["delivered"]
