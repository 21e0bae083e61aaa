"""Orders about mail that is being delivered just then: done once the attempt is over, and no crash, stop or adoption forgets one."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from relay.mail.envelope import Message
from relay.mail.outcome import Outcome
from relay.queue import orders
from relay.queue.operations import Selection
from relay.queue.share import Share
from relay.queue.store import Command, Order, StoreUnavailable
from tests.unit.queue.world import LATER, NO, World, world

ALL = Selection(everything=True)
HOST = "host detour.example:25"
VIA = f"example.com>{HOST}"


@pytest.fixture
async def queue(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path / "queue.db") as made:
        yield made


async def ordered(queue: World) -> int:
    found: int = await queue.store.ask(lambda db: db.execute("SELECT count(*) FROM ordered").fetchone()[0])
    return found


def tried(queue: World, message: Message) -> list[dict[int, str]]:
    """By which ways."""
    return [via for (name, _to), via in zip(queue.hops.seen, queue.hops.vias, strict=True) if name == message.id]


CASES = [
    (Command(Order.HOLD), ["held"], []),
    (Command(Order.BOUNCE, reason="closed"), ["bounced"], []),
    (Command(Order.DELETE), ["deleted"], []),
    (Command(Order.REROUTE, detour=HOST), ["delivered"], [{0: VIA}]),
]


async def give(queue: World, command: Command) -> dict[str, object]:
    match command.order:
        case Order.HOLD:
            return await queue.operations.hold(ALL)
        case Order.BOUNCE:
            return await queue.operations.bounce(ALL, command.reason)
        case Order.DELETE:
            return await queue.operations.delete(ALL)
        case _:
            return await queue.operations.reroute(ALL, command.detour)


@pytest.mark.parametrize(("command", "states", "vias"), CASES)
async def test_a_crash_forgets_none(
    tmp_path: Path, command: Command, states: list[str], vias: list[dict[int, str]]
) -> None:
    queue = World(tmp_path / "queue.db")
    await queue.start()
    queue.hops.gate.clear()
    message = await queue.put()
    done = await give(queue, command)
    assert (done["changed"], done["running"]) == (0, 1)
    after = await queue.crash(tmp_path / "after.db")
    await after.start()
    await after.settle()
    assert await after.states(message) == states
    assert tried(after, message) == vias, "nothing was tried before it was done"
    assert await ordered(after) == 0
    await after.close()


@pytest.mark.parametrize(("command", "states", "vias"), CASES)
async def test_a_stop_forgets_none(
    tmp_path: Path, command: Command, states: list[str], vias: list[dict[int, str]]
) -> None:
    """The attempt takes longer than the grace and is cut off."""
    queue = World(tmp_path / "queue.db")
    await queue.start()
    queue.hops.gate.clear()
    message = await queue.put()
    await give(queue, command)
    await queue.close(grace=0.01)
    after = World(tmp_path / "queue.db", queue.clock)
    await after.start()
    await after.settle()
    assert await after.states(message) == states
    assert tried(after, message) == vias
    assert await ordered(after) == 0
    await after.close()


@pytest.mark.parametrize(("command", "states", "vias"), CASES)
async def test_who_takes_the_mail_over_takes_the_order_over(
    tmp_path: Path, command: Command, states: list[str], vias: list[dict[int, str]]
) -> None:
    queue = World(tmp_path / "queue.db")
    await queue.start(share=Share(slot=1, count=2))
    queue.hops.gate.clear()
    message = await queue.put()
    await give(queue, command)
    after = await queue.crash(tmp_path / "after.db")
    await after.start(share=Share(slot=0, count=1))
    await after.settle()
    assert after.hops.seen == []
    await after.operations.adopt(1)
    await after.settle()
    assert await after.states(message) == states
    assert tried(after, message) == vias
    await after.close()


@pytest.mark.parametrize("outcome", [LATER, NO])
async def test_it_is_kept_no_longer_than_the_attempt(queue: World, outcome: Outcome) -> None:
    queue.hops.says[""] = [outcome]
    for command, _states, _vias in CASES:
        queue.hops.gate.clear()
        await queue.put()
        await give(queue, command)
        assert await ordered(queue) == 1
        queue.hops.gate.set()
        await queue.settle()
        assert await ordered(queue) == 0
        await queue.operations.delete(ALL)


async def test_a_hold_is_taken_back_by_a_release(queue: World) -> None:
    queue.hops.says[""] = [LATER]
    queue.hops.gate.clear()
    message = await queue.put()
    assert (await queue.operations.hold(ALL))["running"] == 1
    assert (await queue.operations.release(ALL))["changed"] == 1
    assert await ordered(queue) == 0
    assert (await queue.operations.release(ALL))["changed"] == 0
    queue.hops.gate.set()
    await queue.settle()
    assert await queue.states(message) == ["waiting"]


async def test_the_later_order_counts(tmp_path: Path) -> None:
    queue = World(tmp_path / "queue.db")
    await queue.start()
    queue.hops.gate.clear()
    message = await queue.put()
    await queue.operations.delete(ALL)
    await queue.operations.reroute(ALL, HOST)
    await queue.operations.hold(ALL)
    assert await ordered(queue) == 2, "where it goes, and what becomes of it"
    after = await queue.crash(tmp_path / "after.db")
    await after.start()
    await after.settle()
    assert await after.states(message) == ["held"]
    await after.operations.release(ALL)
    await after.settle()
    assert after.hops.vias == [{0: VIA}]
    await after.close()


async def test_one_that_was_delivered_before_the_crash_stays_so(tmp_path: Path) -> None:
    """The order was kept, the outcome too, and what says that the order is done was lost."""
    queue = World(tmp_path / "queue.db")
    await queue.start()
    message = await queue.put()
    await queue.settle()
    await queue.store.note_orders([(message.id, 0)], Command(Order.DELETE))
    after = await queue.crash(tmp_path / "after.db")
    await after.start()
    await after.settle()
    assert await after.states(message) == ["delivered"]
    assert await ordered(after) == 0
    await after.close()


async def test_an_order_that_cannot_be_kept_is_refused(queue: World, monkeypatch: pytest.MonkeyPatch) -> None:
    queue.hops.gate.clear()
    await queue.put()

    def full(*_arguments: object) -> None:
        raise StoreUnavailable("the disk is full")

    monkeypatch.setattr(queue.store, "note_orders", full)
    with pytest.raises(StoreUnavailable):
        await queue.operations.hold(ALL)


async def restart(queue: World) -> World:
    """Its attempts take longer than the grace and are cut off."""
    await queue.close(grace=0.01)
    after = World(queue.path, queue.clock)
    after.hops.says = queue.hops.says
    await after.start()
    await after.settle()
    return after


async def test_a_hold_that_was_taken_back_does_not_come_again_as_the_relay_stops(tmp_path: Path) -> None:
    queue = World(tmp_path / "queue.db")
    await queue.start()
    queue.hops.gate.clear()
    message = await queue.put()
    await queue.operations.hold(ALL)
    await queue.operations.release(ALL)
    after = await restart(queue)
    assert await after.states(message) == ["delivered"]
    await after.close()


async def test_the_later_order_counts_as_the_relay_stops(tmp_path: Path) -> None:
    queue = World(tmp_path / "queue.db")
    await queue.start()
    queue.hops.gate.clear()
    message = await queue.put()
    await queue.operations.delete(ALL)
    await queue.operations.reroute(ALL, HOST)
    await queue.operations.hold(ALL)
    await queue.operations.reroute(ALL, "")
    after = await restart(queue)
    assert await after.states(message) == ["held"]
    await after.operations.release(ALL)
    await after.settle()
    assert after.hops.vias == [{}]
    await after.close()


class Refusing:
    """The store refuses one call in these moments."""

    def __init__(self, queue: World, monkeypatch: pytest.MonkeyPatch, *calls: str) -> None:
        self.refused = 0
        for call in calls:
            monkeypatch.setattr(queue.store, call, self.refuse)

    def refuse(self, *_arguments: object) -> None:
        self.refused += 1
        raise StoreUnavailable("locked")


@pytest.mark.parametrize(
    ("first", "then", "states", "vias"),
    [
        (Command(Order.HOLD), Command(Order.RELEASE), ["delivered"], [{}]),
        (Command(Order.REROUTE, detour=HOST), Command(Order.REROUTE), ["delivered"], [{}]),
    ],
)
async def test_what_is_taken_back_later_does_not_come_again_with_a_crash(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    first: Command,
    then: Command,
    states: list[str],
    vias: list[object],
) -> None:
    """The order was carried out, and that it was could not be written."""
    queue = World(tmp_path / "queue.db")
    await queue.start()
    queue.hops.says[""] = [LATER]
    queue.hops.gate.clear()
    message = await queue.put()
    await give(queue, first)
    with monkeypatch.context() as patched:
        store = Refusing(queue, patched, "drop_orders")
        queue.hops.gate.set()
        await queue.settle()
    assert store.refused
    if then.order is Order.RELEASE:
        await queue.operations.release(ALL)
    else:
        await give(queue, then)
    await queue.settle()
    queue.hops.says.clear()
    after = await queue.crash(tmp_path / "after.db")
    await after.start()
    await after.operations.retry(ALL)
    await after.settle()
    assert await after.states(message) == states
    assert tried(after, message) == vias
    await after.close()


async def test_a_way_that_could_not_be_written_is_written_once_that_works(
    queue: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(orders, "_AGAIN", 0.01)
    queue.hops.says[""] = [LATER]
    queue.hops.gate.clear()
    message = await queue.put()
    await queue.operations.reroute(ALL, HOST)
    with monkeypatch.context() as patched:
        store = Refusing(queue, patched, "amend")
        queue.hops.gate.set()
        await queue.settle()
        assert store.refused
    await asyncio.sleep(0.05)
    await queue.settle()
    assert tried(queue, message)[1:] == [{0: VIA}]
    assert await ordered(queue) == 0


async def test_an_order_that_was_refused_is_not_carried_out(queue: World, monkeypatch: pytest.MonkeyPatch) -> None:
    queue.hops.says[""] = [LATER]
    queue.hops.gate.clear()
    message = await queue.put()
    await queue.operations.hold(ALL)
    with monkeypatch.context() as patched:
        Refusing(queue, patched, "note_orders")
        with pytest.raises(StoreUnavailable):
            await queue.operations.delete(ALL)
    queue.hops.gate.set()
    await queue.settle()
    assert await queue.states(message) == ["held"]
    assert await ordered(queue) == 0
