"""Mail that is taken up while it is on its way to the disk: the hop gets its end when it is there, and nothing where it is not."""

import asyncio
import errno
import threading
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from relay.mail.attempt import Attempt, Delivery
from relay.mail.envelope import Message
from relay.mail.events import AttemptMade, MessageAccepted, RecipientEnded, Unexpected
from relay.policy.route import Lane
from relay.policy.suspension import Stops, Suspension, Suspensions
from relay.queue.aside import Aside
from relay.queue.lanes import Allowance, LaneState
from relay.queue.reader import Coming
from relay.queue.scheduler import Limits
from relay.queue.store import Entry, StoreUnavailable
from tests.unit.queue.world import DOWN, LATER, NO, Hears, SlowDisk, World, seen, until, world

BROKEN = OSError(errno.EIO, "Input/output error")


def nothing_in_hand(queue: World) -> bool:
    scheduler = queue.scheduler
    lanes = scheduler._lanes.values()
    windows = scheduler._windows
    return (
        not len(scheduler.claims)
        and (windows.candidates, windows.memory) == (0, 0)
        and not scheduler._workers
        and not any(lane.running for lane in lanes)
    )


async def test_a_delivery_begins_while_the_disk_is_at_work_and_ends_behind_it(queue: World, disk: SlowDisk) -> None:
    await queue.settle()
    disk.free.clear()
    putting = asyncio.create_task(queue.put())
    await until(lambda: queue.hops.running == 1 and not queue.hops.waiting)
    assert queue.hops.delivered == []
    queue.scheduler.look_again(["example.com"])
    await until(lambda: queue.scheduler.is_quiet)
    assert (len(queue.hops.seen), putting.done(), queue.events) == (1, False, [])
    disk.free.set()
    message = await putting
    await queue.settle()
    assert queue.hops.delivered == [(message.id, "bob@example.com")]
    assert await queue.states(message) == ["delivered"]
    assert [type(each) for each in queue.events] == [MessageAccepted, AttemptMade, RecipientEnded]
    assert nothing_in_hand(queue)


async def test_the_loop_waits_for_the_sync_to_begin_where_one_message_is_all_that_arrives(
    queue: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[str] = []

    def noting(name: str) -> Callable[..., None]:
        real = getattr(Aside, name)

        def note(aside: Aside, *work: Any) -> None:
            given.append(name)
            real(aside, *work)

        return note

    await queue.settle()
    for name in ("do", "begin"):
        monkeypatch.setattr(Aside, name, noting(name))
    await queue.put()
    assert given == ["begin"]
    await queue.settle()
    given.clear()
    await queue.store.work(lambda _db: None)
    assert given == ["do"], "nobody's delivery waits for it"
    given.clear()
    other = queue.intake.begin()
    await queue.put()
    assert given == ["do"]
    other.abort()


@pytest.mark.parametrize("errors", [(), (BROKEN,)], ids=["kept", "refused"])
async def test_a_disk_that_is_done_at_once_is_not_heard_of_first(
    queue: World, disk: SlowDisk, monkeypatch: pytest.MonkeyPatch, errors: tuple[OSError, ...]
) -> None:
    """Else what is refused, or delivered, already would be taken up once more."""

    def at_once(aside: Aside, work: Callable[[], Any], then: Callable[[Any, Exception | None], None]) -> None:
        try:
            aside._loop.call_soon(then, work(), None)
        except OSError as error:
            aside._loop.call_soon(then, None, error)

    await queue.settle()
    first = await queue.put()
    await queue.settle()
    disk.errors += errors
    monkeypatch.setattr(Aside, "begin", at_once)
    heard: list[str] = []
    message = replace(first, id=queue.store.new_id())
    with suppress(StoreUnavailable):
        await queue.store.put(Entry(message, (b"x",)), Hears(heard))
    assert heard == ["written", "refused" if errors else "stored"]
    monkeypatch.undo()


async def test_what_the_disk_does_not_take_nobody_gets(queue: World, disk: SlowDisk) -> None:
    await queue.settle()
    disk.errors.append(BROKEN)
    with pytest.raises(StoreUnavailable, match="Input/output error"):
        await queue.put()
    await until(lambda: not queue.store.trouble)
    await queue.settle()
    assert (len(queue.hops.seen), queue.hops.delivered, await seen(queue)) == (1, [], 0)
    assert not [each for each in queue.events if isinstance(each, MessageAccepted | AttemptMade | Unexpected)]
    assert nothing_in_hand(queue)
    again = await queue.put()
    await queue.settle()
    assert queue.hops.delivered == [(again.id, "bob@example.com")]


async def test_what_was_read_before_it_was_withdrawn_nobody_gets(
    queue: World, disk: SlowDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue.intake.ahead = None  # as under load
    await queue.settle()
    loader, go_on, found = queue.store._loader, threading.Event(), list[int]()
    read = loader.due

    def due(*given: Any) -> Any:
        result = read(*given)
        found.append(len(result[0]))
        go_on.wait(10)
        return result

    monkeypatch.setattr(loader, "due", due)
    disk.free.clear()
    disk.errors.append(BROKEN)
    putting = asyncio.create_task(queue.put())
    await until(lambda: disk.waiting == 1)
    queue.scheduler.look_again(["example.com"])
    await until(lambda: found == [1])
    disk.free.set()
    with pytest.raises(StoreUnavailable):
        await putting
    await until(lambda: not queue.store.trouble and not queue.store._coming)
    go_on.set()
    await queue.settle()
    assert (queue.hops.delivered, await seen(queue)) == ([], 0)


Delivers = Callable[[Delivery], Awaitable[Sequence[Attempt]]]


def answers(queue: World, outcome: Any) -> Delivers:
    """A hop that answers before it has heard anything of the message."""

    async def deliver(delivery: Delivery) -> Sequence[Attempt]:
        queue.hops.seen.append((delivery.message.id, ()))
        if isinstance(outcome, Exception):
            raise outcome
        return [queue.hops.attempt(delivery.message, dict.fromkeys(delivery.indexes, outcome))]

    return deliver


@pytest.mark.parametrize("outcome", [NO, LATER, DOWN, RuntimeError("a bug")], ids=["5xx", "4xx", "down", "bug"])
async def test_no_outcome_is_recorded_of_what_is_not_kept(queue: World, disk: SlowDisk, outcome: Any) -> None:
    """Least of all a bounce: the client has the message still, and sends it again."""
    told: list[Any] = []
    queue.scheduler.recorder._tried = lambda *each: told.append(each)
    queue.scheduler._deliver = answers(queue, outcome)
    await queue.settle()
    disk.free.clear()
    disk.errors.append(BROKEN)
    putting = asyncio.create_task(queue.put())
    await until(lambda: len(queue.hops.seen) == 1)
    assert not queue.of(AttemptMade)
    disk.free.set()
    with pytest.raises(StoreUnavailable):
        await putting
    await until(lambda: not queue.store.trouble)
    await queue.settle()
    assert (queue.reporter.told, told, queue.of(AttemptMade), await seen(queue)) == ([], [], [], 0)
    assert nothing_in_hand(queue)


async def test_a_refusal_that_came_before_the_disk_is_recorded_behind_it(queue: World, disk: SlowDisk) -> None:
    queue.scheduler._deliver = answers(queue, NO)
    await queue.settle()
    disk.free.clear()
    putting = asyncio.create_task(queue.put("bob@example.com", sender="alice@example.org"))
    await until(lambda: len(queue.hops.seen) == 1)
    queue.scheduler._deliver = queue.hops
    disk.free.set()
    message = await putting
    await queue.settle()
    assert await queue.states(message) == ["bounced"]
    assert [type(each) for each in queue.events[:2]] == [MessageAccepted, AttemptMade]
    assert [to for _message, to in queue.hops.delivered] == ["alice@example.org"]


async def test_whoever_made_the_attempts_is_told_when_they_are_recorded(queue: World) -> None:
    """And may fail at it: its attempts are recorded all the same."""
    told: list[Any] = []

    def tried(message: Message, attempts: Sequence[Attempt]) -> None:
        told.append((message.id, len(attempts), [type(each) for each in queue.events]))
        raise RuntimeError("a bug")

    queue.scheduler.recorder._tried = tried
    message = await queue.put()
    await queue.settle()
    assert told == [(message.id, 1, [MessageAccepted, AttemptMade])]
    assert await queue.states(message) == ["delivered"]
    assert len(queue.of(Unexpected)) == 1
    assert nothing_in_hand(queue)


async def test_a_relay_that_stops_meanwhile_delivers_it_after_its_next_start(tmp_path: Path, disk: SlowDisk) -> None:
    queue = World(tmp_path / "stopped.db")
    await queue.start()
    await queue.settle()
    disk.free.clear()
    putting = asyncio.create_task(queue.put())
    await until(lambda: queue.hops.running == 1 and not queue.hops.waiting)
    await queue.scheduler.stop(0)
    disk.free.set()
    message = await putting
    await queue.store.close()
    assert queue.hops.delivered == []
    async with world(queue.path) as after:
        after.clock.now = queue.clock.now
        await after.settle()
        assert after.hops.delivered == [(message.id, "bob@example.com")]


Arrange = Callable[[World], None]


def _busy(queue: World) -> None:
    queue.concurrency = 0


def _rated(queue: World) -> None:
    queue.lanes["a.example"] = Lane("a.example", "default", 20, 5.0, queue.retry)


def _suspended(queue: World) -> None:
    held = Suspension(Stops.TO, "other.example", "", "uid 0", queue.clock.now)
    queue.scheduler.suspend(Suspensions((held,)))


def _down(queue: World) -> None:
    for _ in range(5):
        queue.scheduler._lane("a.example").learn([DOWN], 0)


def _backlogged(queue: World) -> None:
    queue.scheduler._lane("a.example").backlog["a.example"] = 0


def _crowded(queue: World) -> None:
    queue.scheduler._windows._most = 0


def _no_memory(queue: World) -> None:
    queue.scheduler._windows._most_memory = 1


def _too_many(queue: World) -> None:
    queue.scheduler._limits = Limits(deliveries=0)


def _starved(queue: World) -> None:
    queue.scheduler._starved[queue.scheduler._lane("b.example")] = None


def _stopping(queue: World) -> None:
    queue.scheduler._open = False


def _outcomes_outstanding(queue: World) -> None:
    queue.scheduler.recorder._outstanding = 10**9


class _Others:
    """Another process takes the last place as soon as it was seen to be free `times` times. `wanted`: it leaves the next one to us."""

    def __init__(self, times: int) -> None:
        self.times = times
        self.wanted = False

    def may_start(self, _running: int, _limit: int) -> bool:
        self.times -= 1
        self.wanted = self.times < 0
        return not self.wanted

    def forget(self) -> None:
        self.wanted = False


def _a_moment_late(queue: World) -> None:
    queue.scheduler._lane("a.example")._allowance = cast(Allowance, _Others(1))


def _broken_pump(queue: World) -> None:
    def pump(_lane: LaneState) -> None:
        raise LookupError("a bug")

    cast(Any, queue.scheduler)._pump = pump


def _bug(queue: World) -> None:
    def lane_of(_domain: str) -> Lane:
        raise LookupError("a bug")

    queue.scheduler._lane_of = lane_of


NOT_IDLE: list[Arrange] = [
    _busy, _rated, _suspended, _down, _backlogged, _crowded, _no_memory, _too_many, _starved, _stopping, _outcomes_outstanding, _a_moment_late,
    _broken_pump, _bug,
]  # fmt: skip


@pytest.mark.parametrize("arrange", NOT_IDLE, ids=lambda each: each.__name__.strip("_"))
async def test_what_could_not_begin_at_once_is_left_to_its_commit(queue: World, arrange: Arrange) -> None:
    message = await queue.put("x@a.example")
    await queue.settle()
    coming = Coming((b"x",))
    assert queue.scheduler.ahead(message, coming)
    coming.tell(kept=False)
    await queue.settle()
    assert nothing_in_hand(queue)
    arrange(queue)
    assert not queue.scheduler.ahead(message, Coming((b"x",)))
    assert nothing_in_hand(queue)
    assert bool(queue.of(Unexpected)) == (arrange in (_bug, _broken_pump))
    queue.scheduler.recorder._outstanding = 0


async def test_no_place_is_kept_from_others_for_what_may_be_refused(queue: World) -> None:
    message = await queue.put("x@a.example")
    await queue.settle()
    others = _Others(0)
    queue.scheduler._lane("a.example")._allowance = cast(Allowance, others)
    assert not queue.scheduler.ahead(message, Coming((b"x",)))
    assert not others.wanted


async def test_a_message_for_several_lanes_is_left_to_its_commit(queue: World, disk: SlowDisk) -> None:
    await queue.settle()
    disk.free.clear()
    putting = asyncio.create_task(queue.put("x@a.example", "x@b.example"))
    await until(lambda: disk.waiting == 1)
    assert queue.hops.seen == []
    disk.free.set()
    await putting
    await queue.settle()
    assert len(queue.hops.delivered) == 2
