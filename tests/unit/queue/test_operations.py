"""What operators see and order, also against deliveries under way."""

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from relay.mail.events import RecipientEnded, ReportQueued
from relay.mail.outcome import Bounced
from relay.queue.operations import Selection
from relay.queue.reports import Fate
from relay.queue.store import LIVE, State, TraceQuery
from tests.unit.queue.world import DOWN, LATER, NO, OK, START, World, evidence, world

MINUTE = timedelta(minutes=1)
ALL = Selection(everything=True)


def ids(found: dict[str, Any]) -> list[str]:
    return [each["id"] for each in found["messages"]]


async def test_a_message_as_it_is_shown(queue: World) -> None:
    queue.connectors["example.com"] = "partner"
    queue.hops.says[""] = [LATER]
    message = await queue.put(message_id="<m@x>")
    await queue.settle()
    assert await queue.operations.show(message.id) == {
        "id": message.id,
        "message_id": "<m@x>",
        "sender": "alice@example.org",
        "size": message.size,
        "accepted_at": "2026-11-22T12:00:00.000Z",
        "requiretls": False,
        "tls_optional": False,
        "recipients": [
            {
                "address": "bob@example.com",
                "state": "waiting",
                "connector": "partner",
                "attempts": 1,
                "next_attempt": "2026-11-22T12:01:00.000Z",
                "last": {
                    "at": "2026-11-22T12:00:00.000Z",
                    "hop": "mx.example:25",
                    "state": "deferred",
                    "code": 451,
                    "status": "4.2.1",
                    "text": "mailbox busy",
                    "failure": None,
                },
            }
        ],
    }
    assert await queue.operations.show("0" * 20) is None
    assert await queue.operations.show("no id") is None


async def test_lists_come_in_pages_and_filtered(queue: World) -> None:
    queue.connectors = {"a.example": "partner", "b.example": "partner"}
    queue.hops.says = {"": [LATER], "gone.example": [OK]}
    made = [await queue.put(f"u@{'abc'[i % 3]}.example") for i in range(9)]
    await queue.put("u@gone.example")
    await queue.settle()
    listed = queue.operations.list
    first = await listed(ALL, limit=4)
    assert ids(first) == [each.id for each in made[:4]]
    second = await listed(ALL, after=first["next"], limit=4)
    third = await listed(ALL, after=second["next"], limit=4)
    assert ids(first) + ids(second) + ids(third) == [each.id for each in made]
    assert third["next"] is None
    assert ids(await listed(Selection(domain="b.example"))) == [each.id for each in made[1::3]]
    assert ids(await listed(Selection(everything=True, connector="partner"))) == [
        each.id for i, each in enumerate(made) if i % 3 < 2
    ]
    assert ids(await listed(Selection(connector="partner", domain="c.example"))) == []
    assert ids(await listed(Selection(ids=(made[3].id, "?")))) == [made[3].id]
    assert ids(await listed(Selection())) == []
    delivered = Selection(everything=True, states=frozenset({State.DELIVERED}))
    assert len(ids(await listed(delivered))) == 1
    assert len(ids(await listed(Selection(domain="gone.example", states=frozenset(State))))) == 1
    with pytest.raises(ValueError, match="not a message id"):
        await listed(ALL, after="nonsense")


async def test_what_is_being_delivered_is_shown_so(queue: World) -> None:
    queue.concurrency = 1
    queue.hops.gate.clear()
    first, second = await queue.put("a@example.com"), await queue.put("b@example.com")
    await queue.settle()
    assert await queue.states(first) == ["delivering"]
    assert await queue.states(second) == ["waiting"]
    one = Selection(everything=True, states=frozenset({State.DELIVERING}))
    assert ids(await queue.operations.list(one)) == [first.id]
    assert ids(await queue.operations.list(Selection(ids=(second.id,), states=frozenset({State.DELIVERING})))) == []
    assert ids(await queue.operations.list(Selection(everything=True, states=frozenset({State.WAITING})))) == [
        second.id
    ]
    figures = await queue.operations.statistics()
    assert (figures["waiting"], figures["delivering"], figures["held"], figures["messages"]) == (1, 1, 0, 2)
    assert figures["oldest"] == 0.0
    assert figures["bytes"] > 0
    assert figures["free"] == queue.room
    queue.clock.now += MINUTE
    assert (await queue.operations.statistics())["oldest"] == 60.0
    queue.hops.gate.set()
    await queue.settle()
    assert ids(await queue.operations.list(one)) == []


async def test_retry_now(queue: World) -> None:
    queue.hops.says["example.com"] = [LATER, OK]
    message = await queue.put()
    await queue.settle()
    assert await queue.operations.retry(Selection(ids=(message.id, "0" * 20))) == {
        "changed": 1,
        "running": 0,
        "unknown": ["0" * 20],
        "before": {"waiting": 1},
        "after": {"waiting": 1},
    }
    await queue.settle()
    assert await queue.states(message) == ["delivered"]


async def test_retry_now_tries_a_destination_that_was_down(queue: World) -> None:
    queue.hops.says["example.com"] = [DOWN]
    queue.concurrency = 1
    for _ in range(10):
        await queue.put()
    await queue.settle()
    assert len(queue.hops.seen) == 5
    queue.hops.says["example.com"] = [OK]
    assert (await queue.operations.retry(Selection(domain="example.com")))["changed"] == 10
    await queue.settle()
    assert len(queue.hops.delivered) == 10


async def test_hold_and_release(queue: World) -> None:
    queue.hops.says["example.com"] = [LATER]
    kept, other = await queue.put(), await queue.put("x@other.example")
    await queue.settle()
    assert (await queue.operations.hold(ALL))["changed"] == 1
    await queue.pass_(timedelta(days=30))
    assert await queue.states(kept) == ["held"]
    assert await queue.states(other) == ["delivered"]
    assert (await queue.operations.hold(ALL))["changed"] == 0
    assert (await queue.operations.retry(ALL))["changed"] == 0
    assert ids(await queue.operations.list(Selection(domain="example.com"))) == [kept.id]
    queue.hops.says["example.com"] = [OK]
    assert (await queue.operations.release(ALL))["changed"] == 1
    await queue.settle()
    assert await queue.states(kept) == ["delivered"]


async def test_a_bounce_by_order_tells_the_sender(queue: World) -> None:
    queue.hops.says["example.com"] = [LATER]
    message = await queue.put("a@example.com", "b@example.com")
    await queue.settle()
    assert (await queue.operations.bounce(Selection(ids=(message.id,))))["changed"] == 2
    await queue.settle()
    assert await queue.states(message) == ["bounced", "bounced"]
    assert queue.reporter.told == [(message.id, Fate.FAILED, 0), (message.id, Fate.FAILED, 1)]
    assert len(queue.of(ReportQueued)) == 2
    ended = queue.reporter.ended[0]
    assert isinstance(ended.outcome, Bounced)
    assert (ended.outcome.status, ended.last, ended.attempts, ended.hop) == ("5.0.0", LATER, 1, "mx.example:25")


async def test_a_deletion_tells_nobody_and_frees_the_bytes(queue: World) -> None:
    queue.hops.says["example.com"] = [LATER]
    small, large = await queue.put(), await queue.put(body=b"x" * 900_000)
    await queue.settle()
    assert (await queue.operations.delete(ALL))["changed"] == 2
    await queue.settle()
    await queue.store.tidy()
    assert await queue.states(small) == await queue.states(large) == ["deleted"]
    assert not queue.reporter.told
    assert [each.state for each in queue.of(RecipientEnded)] == ["deleted", "deleted"]
    assert await queue.store.ask(lambda db: db.execute("SELECT count(*) FROM chunk").fetchone()[0]) == 0
    assert len(queue.hops.seen) == 2


async def test_held_mail_can_be_bounced_or_deleted(queue: World) -> None:
    queue.hops.says["example.com"] = [LATER]
    made = [await queue.put() for _ in range(2)]
    await queue.settle()
    await queue.operations.hold(ALL)
    assert (await queue.operations.bounce(Selection(ids=(made[0].id,))))["changed"] == 1
    assert (await queue.operations.delete(ALL))["changed"] == 1
    assert [await queue.states(each) for each in made] == [["bounced"], ["deleted"]]


@pytest.mark.parametrize(
    ("order", "said", "state"),
    [
        ("hold", LATER, "held"),
        ("hold", OK, "delivered"),
        ("hold", NO, "bounced"),
        ("delete", LATER, "deleted"),
        ("delete", NO, "deleted"),
        ("delete", OK, "delivered"),
        ("bounce", LATER, "bounced"),
        ("bounce", NO, "bounced"),
        ("bounce", OK, "delivered"),
        ("retry", LATER, "waiting"),
    ],
)
async def test_an_order_waits_for_the_attempt_under_way(queue: World, order: str, said: Any, state: str) -> None:
    queue.hops.says["example.com"] = [said]
    queue.hops.gate.clear()
    message = await queue.put()
    await queue.settle()
    done = await getattr(queue.operations, order)(ALL)
    assert (done["changed"], done["running"], done["unknown"]) == (0, 0 if order == "retry" else 1, [])
    assert await queue.states(message) == ["delivering"]
    queue.hops.gate.set()
    await queue.settle()
    assert await queue.states(message) == [state]
    assert bool(queue.reporter.told) == (state == "bounced")


async def test_an_order_takes_what_waits_for_its_turn(queue: World) -> None:
    queue.concurrency = 1
    queue.hops.gate.clear()
    made = [await queue.put("a@example.com", "b@example.com") for _ in range(40)]
    await queue.settle()
    done = await queue.operations.delete(ALL)
    assert (done["changed"], done["running"]) == (78, 2)
    queue.hops.gate.set()
    await queue.settle()
    assert {each for each, _to in queue.hops.delivered} == {made[0].id}
    assert await queue.states(made[5]) == ["deleted", "deleted"]
    assert (queue.scheduler._windows.candidates, queue.scheduler._windows.memory, len(queue.scheduler.claims)) == (
        0,
        0,
        0,
    )


async def test_an_order_for_one_recipient_of_a_waiting_message_leaves_the_others(queue: World) -> None:
    queue.concurrency = 1
    queue.lanes = {"x.example": queue.lane_of("shared"), "y.example": queue.lane_of("shared")}
    queue.hops.gate.clear()
    await queue.put("first@x.example")
    second = await queue.put("u@x.example", "v@y.example")
    await queue.settle()
    assert (await queue.operations.delete(Selection(domain="y.example")))["changed"] == 1
    queue.hops.gate.set()
    await queue.settle()
    assert await queue.states(second) == ["delivered", "deleted"]
    assert (second.id, "v@y.example") not in queue.hops.delivered


async def test_an_order_waits_for_an_outcome_that_is_being_written(
    queue: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: asyncio.Queue[Any] = asyncio.Queue()
    record = queue.store.record
    monkeypatch.setattr(queue.store, "record", lambda *about: held.put_nowait(about))
    queue.hops.says["example.com"] = [LATER]
    message = await queue.put()
    written = await held.get()
    ordering = asyncio.create_task(queue.operations.hold(ALL))
    await queue.store.barrier()
    await asyncio.sleep(0)
    assert not ordering.done()
    monkeypatch.undo()
    record(*written)
    assert (await ordering)["changed"] == 1
    assert await queue.states(message) == ["held"]


async def test_orders_page_through_a_large_queue(queue: World) -> None:
    queue.hops.says["example.com"] = [LATER]
    await asyncio.gather(*(queue.put() for _ in range(450)))
    await queue.settle()
    assert (await queue.operations.hold(ALL))["changed"] == 450
    assert (await queue.operations.statistics())["held"] in (0, 450)  # counted anew after five seconds
    queue.clock.now += timedelta(seconds=6)
    assert (await queue.operations.statistics())["held"] == 450


async def test_a_trace_tells_it_all(queue: World) -> None:
    queue.hops.says["b@example.com"] = [LATER, OK]
    queue.hops.evidence = evidence()
    message = await queue.put("a@example.com", "b@example.com", message_id="<m@x>", tls=evidence())
    await queue.pass_(MINUTE)
    (trace,) = await queue.operations.trace(TraceQuery(id=message.id))
    assert trace["message_id"] == "<m@x>"
    assert trace["accepted"]["tls"]["chain"][0]["names"] == ["mx.example", "192.0.2.1"]
    assert trace["accepted"]["at"] == "2026-11-22T12:00:00.000Z"
    assert [each["state"] for each in trace["recipients"]] == ["delivered", "delivered"]
    first, second = trace["attempts"]
    assert [(each["recipient"], each["state"]) for each in first["outcomes"]] == [
        ("a@example.com", "delivered"),
        ("b@example.com", "deferred"),
    ]
    assert second["outcomes"][0]["recipient"] == "b@example.com"
    assert (first["at"], second["at"]) == ("2026-11-22T12:00:00.000Z", "2026-11-22T12:01:00.000Z")
    assert (first["hop"], first["address"], first["connector"], first["seconds"]) == (
        "mx.example:25",
        "192.0.2.1",
        "partner",
        0.25,
    )
    assert first["plan"]["demands"] == [{"demand": "encryption", "source": "connector partner"}]
    assert first["evidence"]["version"] == "TLSv1.3"


async def test_traces_are_found_by_what_is_known(queue: World) -> None:
    first = await queue.put("Bob@example.com", message_id="<one@x>")
    queue.clock.now += MINUTE
    second = await queue.put("carol@example.net", sender="Dave@example.org", message_id="two@x")
    third = await queue.put("bob@example.net", sender="")
    await queue.settle()

    async def found(**query: Any) -> list[str]:
        return [each["id"] for each in await queue.operations.trace(TraceQuery(**query))]

    assert await found() == [third.id, second.id, first.id]
    assert await found(limit=1) == [third.id]
    assert await found(recipient="bob@EXAMPLE.com") == [first.id]
    assert await found(recipient="@example.net") == [third.id, second.id]
    assert await found(recipient="<carol@example.net>") == [second.id]
    assert await found(sender="dave@example.org") == [second.id]
    assert await found(sender="@example.org") == [second.id, first.id]
    assert await found(sender="<>") == [third.id]
    assert await found(message_id="one@x") == await found(message_id="<one@x>") == [first.id]
    assert await found(message_id="<two@x>") == [second.id]
    assert await found(since=START + timedelta(seconds=30)) == [third.id, second.id]
    assert await found(id=first.id, recipient="nobody@example.com") == []
    assert await found(id="nonsense") == []


async def test_orders_hold_over_a_restart(tmp_path: Path) -> None:
    async with world(tmp_path / "queue.db") as made:
        made.hops.says["example.com"] = [LATER]
        message = await made.put()
        await made.settle()
        await made.operations.hold(ALL)
    async with world(tmp_path / "queue.db") as after:
        await after.pass_(timedelta(days=1))
        assert not after.hops.seen
        assert await after.states(message) == ["held"]
        assert (await after.operations.statistics())["held"] == 1


def test_a_selection_means_what_is_still_queued() -> None:
    assert Selection().states == LIVE
