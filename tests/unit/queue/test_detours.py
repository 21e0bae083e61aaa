"""Mail that an operator sends another way, as the queue keeps and feeds it."""

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from relay.config.models import Retry
from relay.policy.route import Lane
from relay.policy.suspension import Stops, Suspension, Suspensions
from relay.queue.operations import Selection
from relay.queue.reports import Fate
from relay.queue.store import Row, State, TracePurge, TraceQuery
from tests.unit.queue.world import DOWN, LATER, World, world

MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
ALL = Selection(everything=True)
HOST = "host detour.example:25"
VIA = f"example.com>{HOST}"


@pytest.fixture
async def queue(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path / "queue.db") as made:
        yield made


async def test_waiting_mail_goes_there_at_once(queue: World) -> None:
    """Its own destination is down, and stays closed."""
    queue.hops.says[""] = [DOWN]
    messages = [await queue.put() for _ in range(30)]
    await queue.settle()
    seen = len(queue.hops.seen)
    queue.hops.says.clear()
    done = await queue.operations.reroute(Selection(domain="example.com"), HOST)
    await queue.settle()
    assert (done["changed"], done["running"], done["unknown"]) == (30, 0, [])
    assert (done["before"], done["after"]) == ({"waiting": 30}, {"rerouted": 30})
    assert len(queue.hops.seen) - seen == 30
    assert all(each == {0: VIA} for each in queue.hops.vias[seen:])
    assert {name for name, _to in queue.hops.delivered} == {each.id for each in messages}
    await queue.put()
    await queue.operations.retry(ALL)
    await queue.settle()
    assert queue.hops.vias[-1] == {}, "new mail goes its own way"


async def test_it_is_kept_and_shown_and_taken_back(tmp_path: Path) -> None:
    queue = World(tmp_path / "queue.db")
    await queue.start()
    queue.hops.says[""] = [LATER]
    message = await queue.put("bob@example.com", "eve@other.example")
    await queue.settle()
    await queue.operations.reroute(Selection(domain="example.com"), "connector backup")
    await queue.settle()
    shown = await queue.operations.show(message.id)
    assert shown is not None
    assert [each.get("via") for each in shown["recipients"]] == [
        {"connector": "backup", "host": None, "weaker": False},
        None,
    ]
    (trace,) = await queue.operations.trace(TraceQuery(id=message.id))
    assert trace["recipients"][0]["via"]["connector"] == "backup"
    after = await queue.crash(tmp_path / "after.db")
    await after.start()
    await after.pass_(HOUR)
    assert {0: "example.com>connector backup"} in after.hops.vias
    assert {} in after.hops.vias
    after.hops.vias.clear()
    after.hops.says.clear()
    assert (await after.operations.reroute(ALL, ""))["changed"] == 2
    await after.settle()
    assert all(each == {} for each in after.hops.vias)
    assert await after.states(message) == ["delivered", "delivered"]
    await after.close()


async def test_two_ways_for_one_domain(queue: World) -> None:
    queue.hops.says[""] = [LATER]
    first, second = await queue.put(), await queue.put()
    await queue.settle()
    await queue.operations.reroute(Selection(ids=(first.id,)), HOST)
    await queue.settle()
    queue.hops.vias.clear()
    queue.hops.seen.clear()
    await queue.pass_(HOUR)
    ways = {(name, via.get(0, "")) for (name, _to), via in zip(queue.hops.seen, queue.hops.vias, strict=True)}
    assert ways == {(first.id, VIA), (second.id, "")}


async def test_one_under_way_goes_there_next(queue: World) -> None:
    queue.hops.says[""] = [LATER]
    queue.hops.gate.clear()
    await queue.put()
    await queue.operations.list(ALL)
    done = await queue.operations.reroute(ALL, HOST)
    assert (done["changed"], done["running"], done["unknown"]) == (0, 1, [])
    assert (done["before"], done["after"]) == ({"waiting": 1}, {"delivering": 1})
    queue.hops.gate.set()
    await queue.settle()
    assert queue.hops.vias == [{}, {0: VIA}]


async def test_held_mail_goes_there_when_it_is_released(queue: World) -> None:
    queue.hops.gate.clear()
    message = await queue.put()
    await queue.operations.hold(ALL)
    queue.hops.says[""] = [LATER]
    queue.hops.gate.set()
    await queue.settle()
    assert await queue.states(message) == ["held"]
    await queue.operations.reroute(ALL, HOST)
    await queue.settle()
    assert await queue.states(message) == ["held"]
    assert len(queue.hops.seen) == 1
    await queue.operations.release(ALL)
    await queue.settle()
    assert queue.hops.vias[-1] == {0: VIA}


async def test_it_grows_old_there_too(queue: World) -> None:
    queue.retry = Retry(expire=timedelta(hours=4), delay_warning=timedelta(hours=1))
    queue.lanes[VIA] = Lane("detour", "default", 1, 0.0, queue.retry)
    queue.hops.says[""] = [DOWN]
    messages = [await queue.put() for _ in range(8)]
    await queue.settle()
    await queue.operations.reroute(ALL, HOST)
    await queue.pass_(5 * HOUR)
    told = {(name, fate) for name, fate, _index in queue.reporter.told}
    for each in messages:
        assert {(each.id, Fate.DELAYED), (each.id, Fate.FAILED)} <= told
        assert await queue.states(each) == ["bounced"]


async def test_a_bounce_says_why(queue: World) -> None:
    queue.hops.says[""] = [LATER]
    message = await queue.put()
    await queue.settle()
    await queue.operations.bounce(ALL, "the partner has closed")
    await queue.settle()
    text = "the administrator of this relay gave up on this message: the partner has closed"
    assert queue.reporter.ended[0].outcome.text == text
    (trace,) = await queue.operations.trace(TraceQuery(id=message.id))
    assert trace["recipients"][0]["last"]["text"] == text


async def test_a_bounce_of_one_under_way_says_why(queue: World) -> None:
    queue.hops.says[""] = [LATER]
    queue.hops.gate.clear()
    await queue.put()
    assert (await queue.operations.bounce(ALL, "closed"))["running"] == 1
    queue.hops.gate.set()
    await queue.settle()
    assert queue.reporter.ended[0].outcome.text.endswith(": closed")


@pytest.mark.parametrize(
    ("purge", "left"),
    [
        (TracePurge(recipient="bob@example.com"), {"eve", "live"}),
        (TracePurge(recipient="BOB@example.com"), {"eve", "live"}),
        (TracePurge(recipient="@example.com"), {"live"}),
        (TracePurge(sender="alice@example.org"), {"live"}),
        (TracePurge(sender="@example.org", recipient="eve@example.com"), {"bob", "live"}),
        (TracePurge(recipient="nobody@example.com"), {"bob", "eve", "live"}),
    ],
)
async def test_traces_are_forgotten_and_live_mail_never(queue: World, purge: TracePurge, left: set[str]) -> None:
    queue.hops.says["later.example"] = [LATER]
    made = {
        "bob": await queue.put("bob@example.com"),
        "eve": await queue.put("eve@example.com"),
        "live": await queue.put("bob@later.example", "bob@example.com"),
    }
    await queue.settle()
    forgotten = await queue.store.purge_traces(purge)
    assert forgotten == 3 - len(left)
    found = {name for name, each in made.items() if await queue.operations.trace(TraceQuery(id=each.id))}
    assert found == left
    assert await queue.states(made["live"]) == ["waiting", "delivered"]
    assert await queue.store.purge_traces(TracePurge(id=made["live"].id)) == 0


async def test_many_traces_go_in_steps(queue: World) -> None:
    for _ in range(120):
        await queue.put()
    await queue.settle()
    queue.clock.now += HOUR
    assert await queue.store.purge_traces(TracePurge(before=queue.clock.now - 2 * HOUR)) == 0
    assert await queue.store.purge_traces(TracePurge(before=queue.clock.now)) == 120
    counted = await queue.store.ask(lambda db: db.execute("SELECT count(*) FROM fact").fetchone()[0])
    assert counted == 0, "what the traces named is forgotten too"


def test_an_empty_purge_is_an_error() -> None:
    with pytest.raises(ValueError, match="which traces"):
        TracePurge()


def test_where_a_row_goes() -> None:
    row = Row("m", 0, "bob@example.com", "example.com", State.WAITING)
    assert row.destination == "example.com"
    assert Row("m", 0, "bob@example.com", "example.com", State.WAITING, via=VIA).destination == VIA


async def test_more_detours_than_a_page_of_anything(tmp_path: Path) -> None:
    """Each message has a way of its own; all of them are found after a restart, and what is suspended among them grows old."""
    queue = World(tmp_path / "queue.db")
    queue.hops.says[""] = [LATER]
    await queue.start()
    put = [await queue.put(sender="bad@example.org" if number % 2 else "good@example.org") for number in range(1100)]
    await queue.settle()
    await queue.store.work(
        lambda db: db.execute("UPDATE recipient SET via = domain || '>host h' || n || '.example:25' WHERE state = 0")
    )
    after = await queue.crash(tmp_path / "after.db")
    after.retry = Retry(expire=timedelta(hours=8))
    after.hops.says.clear()
    after.clock.now += HOUR
    await after.open()
    held = Suspension(Stops.FROM, "bad@example.org", "", "uid 0", after.clock.now)
    after.scheduler.suspend(Suspensions((held,)))
    await after.scheduler.start()
    await after.settle()
    assert {name for name, _to in after.hops.delivered} == {each.id for each in put[::2]}
    assert len({tuple(each.values()) for each in after.hops.vias}) == 550
    after.clock.now += 8 * HOUR
    await after.pass_(3 * MINUTE)
    bounced = {name for name, fate, _index in after.reporter.told if fate is Fate.FAILED}
    assert bounced == {each.id for each in put[1::2]}
    await after.close()
