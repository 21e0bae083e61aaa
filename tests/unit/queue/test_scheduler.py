"""The scheduler with hops and a clock of the test's own."""

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest

from relay.config.models import Retry
from relay.mail.attempt import MessageBytes
from relay.mail.envelope import Message, Notify
from relay.mail.events import AttemptMade, MessageAccepted, RecipientEnded, ReportHeld, ReportQueued, Unexpected
from relay.mail.outcome import Bounced, Deferred, Delivered
from relay.mail.tls import TlsFailure
from relay.policy.route import Lane
from relay.queue.intake import Intake
from relay.queue.operations import Selection
from relay.queue.reports import Fate
from relay.queue.scheduler import Limits
from relay.queue.store import BodyMissing, Order, TraceQuery
from tests.unit.queue.world import DOWN, LATER, NO, OK, START, World, world

MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)


async def test_a_message_is_delivered_at_once_and_its_bytes_are_dropped(queue: World) -> None:
    message = await queue.put()
    await queue.settle()
    assert queue.hops.delivered == [(message.id, "bob@example.com")]
    assert queue.hops.bodies[message.id] == b"Subject: x\r\n\r\nhello\r\n"
    assert await queue.states(message) == ["delivered"]
    assert [type(each) for each in queue.events] == [MessageAccepted, AttemptMade, RecipientEnded]
    assert queue.of(RecipientEnded)[0] == RecipientEnded(message.id, "bob@example.com", "delivered", "2.0.0")
    assert (await queue.operations.statistics())["messages"] == 0
    with pytest.raises(BodyMissing):
        _ = [chunk async for chunk in queue.store.body(message).chunks()]
    assert not queue.reporter.told


async def test_mail_that_a_read_shows_before_its_commit_is_told_goes_out_once(queue: World) -> None:
    """The writer's thread commits, a reader's thread reads that, and the loop hears of the read first."""
    told: list[tuple[Message, MessageBytes | None]] = []
    queue.intake = Intake(queue.store, emit=queue.events.append, accepted=lambda *about: told.append(about))
    await queue.settle()
    await queue.put("bob@a.example", "eve@a.example", "carl@b.example")
    queue.hops.gate.clear()
    queue.scheduler.look_again(["a.example"])
    await queue.settle()
    assert [to for _, to in queue.hops.seen] == [("bob@a.example", "eve@a.example")]
    for message, body in told:
        queue.scheduler.submit(message, body)
    await queue.settle()
    assert [to for _, to in queue.hops.seen] == [("bob@a.example", "eve@a.example"), ("carl@b.example",)]
    queue.hops.gate.set()
    await queue.settle()
    assert queue.scheduler.recorder.is_quiet
    assert (len(queue.scheduler.claims), queue.scheduler._windows.candidates, queue.scheduler._windows.memory) == (
        0,
        0,
        0,
    )


async def test_retries_follow_the_policy_and_read_the_bytes_back(queue: World) -> None:
    queue.hops.says[""] = [LATER, LATER, OK]
    message = await queue.put(body=b"x" * 600_000)
    await queue.settle()
    assert len(queue.hops.seen) == 1
    await queue.pass_(MINUTE - timedelta(milliseconds=1))
    assert len(queue.hops.seen) == 1
    await queue.pass_(timedelta(milliseconds=1))
    assert len(queue.hops.seen) == 2
    await queue.pass_(2 * MINUTE)
    assert queue.hops.delivered == [(message.id, "bob@example.com")]
    assert queue.hops.bodies[message.id] == b"x" * 600_000
    (trace,) = await queue.operations.trace(TraceQuery(id=message.id))
    assert [each["outcomes"][0]["state"] for each in trace["attempts"]] == ["deferred", "deferred", "delivered"]


async def test_one_delivery_for_each_lane(queue: World) -> None:
    shared = Lane("connector inner", "inner", 5, 0.0, queue.retry)
    queue.lanes = {"a.example": shared, "b.example": shared}
    message = await queue.put("x@a.example", "y@c.example", "z@b.example")
    await queue.settle()
    assert sorted(queue.hops.seen) == [(message.id, ("x@a.example", "z@b.example")), (message.id, ("y@c.example",))]


async def test_outcomes_count_by_recipient(queue: World) -> None:
    queue.hops.says = {"no@example.com": [NO], "later@example.com": [LATER, OK]}
    message = await queue.put("yes@example.com", "no@example.com", "later@example.com")
    await queue.settle()
    assert await queue.states(message) == ["delivered", "bounced", "waiting"]
    assert queue.reporter.told == [(message.id, Fate.FAILED, 1)]
    await queue.pass_(MINUTE)
    assert queue.hops.seen[-1] == (message.id, ("later@example.com",))
    assert await queue.states(message) == ["delivered", "bounced", "delivered"]


async def test_a_bounce_is_stored_with_the_outcome_and_delivered_itself(queue: World) -> None:
    queue.hops.says["bob@example.com"] = [NO]
    message = await queue.put()
    await queue.settle()
    (queued,) = queue.of(ReportQueued)
    assert (queued.about, queued.kind, queued.recipient) == (message.id, "failure", "bob@example.com")
    assert (queued.message, "alice@example.org") in queue.hops.delivered
    assert queue.hops.bodies[queued.message].startswith(b"Subject: report\r\n\r\nSubject: x")
    (ended,) = queue.reporter.ended
    assert (ended.outcome, ended.last, ended.hop, ended.attempts) == (NO, NO, "mx.example:25", 1)
    assert ended.until == START + queue.retry.expire


async def test_a_report_that_cannot_be_delivered_is_held(queue: World) -> None:
    queue.hops.says = {"bob@example.com": [NO], "alice@example.org": [NO]}
    await queue.put()
    await queue.settle()
    (queued,) = queue.of(ReportQueued)
    assert queue.of(ReportHeld) == [ReportHeld(queued.message, "5.1.1")]
    assert await queue.states(queued.message) == ["held"]
    assert len(queue.reporter.told) == 1
    assert [each.message for each in queue.of(RecipientEnded)] != [queued.message]


async def test_somebody_elses_bounce_ends_without_a_report(queue: World) -> None:
    queue.hops.says[""] = [NO]
    message = await queue.put(sender="")
    await queue.settle()
    assert await queue.states(message) == ["bounced"]
    assert queue.reporter.told == [(message.id, Fate.FAILED, 0)]
    assert not queue.of(ReportQueued)


@pytest.mark.parametrize(
    ("said", "status", "failure"),
    [
        (LATER, "5.4.7", None),
        (DOWN, "5.4.7", None),
        (
            Deferred(451, "4.7.4", "no TLS", TlsFailure.STARTTLS_NOT_SUPPORTED),
            "5.7.4",
            TlsFailure.STARTTLS_NOT_SUPPORTED,
        ),
        (
            Deferred(451, "4.7.5", "wrong name", TlsFailure.CERTIFICATE_HOST_MISMATCH),
            "5.7.5",
            TlsFailure.CERTIFICATE_HOST_MISMATCH,
        ),
        (Deferred(451, "4.7.1", "greylisted"), "5.4.7", None),
    ],
)
async def test_what_waits_too_long_is_given_up_with_its_last_reason(
    queue: World, said: Deferred, status: str, failure: TlsFailure | None
) -> None:
    queue.hops.says["bob@example.com"] = [said]
    queue.retry = Retry(initial=HOUR, maximum=12 * HOUR, expire=2 * DAY, delay_warning=timedelta(0))
    message = await queue.put()
    await queue.pass_(2 * DAY - timedelta(seconds=1))
    assert await queue.states(message) == ["waiting"]
    assert not queue.reporter.told
    await queue.pass_(timedelta(seconds=1))
    assert await queue.states(message) == ["bounced"]
    (ended,) = queue.reporter.ended
    assert isinstance(ended.outcome, Bounced)
    assert (ended.fate, ended.outcome.status, ended.outcome.failure, ended.last) == (Fate.FAILED, status, failure, said)
    assert "within 2 days" in ended.outcome.text
    assert said.text in ended.outcome.text


async def test_the_sender_hears_of_a_delay_once(queue: World) -> None:
    queue.hops.says["bob@example.com"] = [LATER]
    message = await queue.put()
    await queue.pass_(timedelta(hours=3, minutes=59))
    assert not queue.reporter.told
    await queue.pass_(20 * HOUR)
    assert queue.reporter.told == [(message.id, Fate.DELAYED, 0)]
    assert [each.kind for each in queue.of(ReportQueued)] == ["delay"]
    assert queue.reporter.ended[0].outcome == LATER


async def test_success_is_told_of_where_it_was_asked_for(queue: World) -> None:
    message = await queue.put(notify=frozenset({Notify.SUCCESS}))
    await queue.settle()
    assert queue.reporter.told == [(message.id, Fate.DELIVERED, 0)]


async def test_a_report_that_fails_to_be_written_loses_nothing(queue: World) -> None:
    queue.reporter.error = RuntimeError("no template")
    queue.hops.says = {"no@example.com": [NO], "later@example.com": [LATER]}
    message = await queue.put(
        "yes@example.com", "no@example.com", "later@example.com", notify=frozenset({Notify.SUCCESS})
    )
    await queue.settle()
    assert await queue.states(message) == ["delivered", "held", "waiting"]
    assert "no template" in queue.of(Unexpected)[0].trace
    await queue.pass_(5 * HOUR)
    assert len(queue.of(Unexpected)) > 1  # the delay, tried again with each attempt
    queue.reporter.error = None
    await queue.pass_(HOUR)
    assert queue.reporter.told == [(message.id, Fate.DELAYED, 2)]


async def test_a_delivery_that_raises_defers(queue: World) -> None:
    queue.hops.says[""] = [RuntimeError("bug"), OK]
    message = await queue.put()
    await queue.settle()
    assert await queue.states(message) == ["waiting"]
    (unexpected,) = queue.of(Unexpected)
    assert "RuntimeError: bug" in unexpected.trace
    found = await queue.operations.show(message.id)
    assert found is not None
    last = found["recipients"][0]["last"]
    assert (last["code"], last["status"], last["hop"]) == (451, "4.3.0", "")
    assert unexpected.id in last["text"]
    assert "bug" not in last["text"]
    await queue.pass_(MINUTE)
    assert await queue.states(message) == ["delivered"]


async def test_a_delivery_that_lets_out_a_cancellation_defers(queue: World) -> None:
    queue.hops.says[""] = [asyncio.CancelledError(), OK]  # type: ignore[list-item]  # not an Exception, which is the point
    message = await queue.put()
    await queue.settle()
    assert await queue.states(message) == ["waiting"]
    assert "CancelledError" in queue.of(Unexpected)[0].trace
    await queue.pass_(MINUTE)
    assert await queue.states(message) == ["delivered"]


async def test_a_recipient_without_an_outcome_is_deferred(queue: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        queue.hops, "attempt", lambda message, _outcomes: type(queue.hops).attempt(queue.hops, message, {0: OK})
    )
    message = await queue.put("a@example.com", "b@example.com")
    await queue.settle()
    assert await queue.states(message) == ["delivered", "waiting"]
    assert len(queue.of(Unexpected)) == 1


async def test_one_dead_destination_delays_no_other(queue: World) -> None:
    queue.concurrency = 2
    queue.hops.gate.clear()
    for _ in range(10):
        await queue.put("x@dead.example")
    await queue.settle()
    assert queue.hops.running == 2
    await queue.put("y@alive.example")
    await queue.settle()
    assert queue.hops.running == 3
    assert queue.hops.seen[-1][1] == ("y@alive.example",)
    queue.hops.gate.set()
    await queue.settle()
    assert len(queue.hops.delivered) == 11
    assert queue.hops.most == 3


async def test_more_than_a_window_waits_in_the_store_and_comes_in_order(queue: World) -> None:
    queue.concurrency = 1
    queue.hops.gate.clear()
    ids = [(await queue.put(f"u{i}@example.com")).id for i in range(60)]
    await queue.settle()
    assert len(queue.scheduler.claims) < 30
    queue.hops.gate.set()
    await queue.settle()
    assert sorted(each for each, _to in queue.hops.delivered) == ids
    first = [each for each, _to in queue.hops.delivered][:16]
    assert first == ids[:16]


async def test_all_destinations_together_have_a_limit_and_take_turns(tmp_path: Path) -> None:
    made = World(tmp_path / "queue.db")
    made.limits = Limits(deliveries=2)
    await made.start()
    made.hops.gate.clear()
    for domain in ("a", "a", "a", "b", "c"):
        await made.put(f"x@{domain}.example")
    await made.settle()
    assert made.hops.running == 2
    made.hops.gate.set()
    await made.settle()
    assert made.hops.most == 2
    assert [to[0] for _id, to in made.hops.seen][2:4] == ["x@a.example", "x@b.example"] or len(made.hops.delivered) == 5
    assert len(made.hops.delivered) == 5
    await made.close()


async def test_destinations_that_never_answer_leave_room_for_the_others(tmp_path: Path) -> None:
    made = World(tmp_path / "queue.db")
    made.limits = Limits(deliveries=64)
    await made.start()
    made.hops.says["alive.example"] = [OK]
    for number in range(10):
        await made.put(f"u{number}@alive.example")
    await made.settle()
    made.hops.gate.clear()
    for number in range(200):
        await made.put(f"u{number}@d{number % 40}.example")
    await made.settle()
    assert made.hops.running == 40  # one for each: they have not shown that they answer
    for number in range(50):
        await made.put(f"u{number}@alive.example")
    await made.settle()
    assert made.hops.running == 41  # there is room, though not for more than one while half of all is taken
    made.hops.gate.set()
    await made.settle()
    assert len({each for each, _to in made.hops.delivered}) == 260
    await made.close()


async def test_one_destination_that_answers_has_all_its_places(tmp_path: Path) -> None:
    made = World(tmp_path / "queue.db")
    made.limits, made.concurrency = Limits(deliveries=64), 20
    await made.start()
    await made.put()
    await made.settle()
    made.hops.gate.clear()
    for _ in range(50):
        await made.put()
    await made.settle()
    assert made.hops.running == 20
    made.hops.gate.set()
    await made.settle()
    assert len(made.hops.delivered) == 51
    await made.close()


async def test_memory_for_bodies_is_bounded(tmp_path: Path) -> None:
    made = World(tmp_path / "queue.db")
    made.limits = Limits(memory=100_000, candidates=8)
    made.concurrency = 1
    await made.start()
    made.hops.gate.clear()
    ids = [(await made.put(f"x@d{i % 4}.example", body=b"%04d" % i * 10_000)).id for i in range(20)]
    await made.settle()
    assert made.scheduler._windows.memory <= 100_000
    assert made.scheduler._windows.candidates <= 8
    made.hops.gate.set()
    await made.settle()
    assert sorted(made.hops.bodies) == ids
    assert all(made.hops.bodies[each] == b"%04d" % i * 10_000 for i, each in enumerate(ids))
    assert (made.scheduler._windows.memory, made.scheduler._windows.candidates, len(made.scheduler.claims)) == (0, 0, 0)
    await made.close()


async def test_a_crowd_of_destinations_is_served_in_turn_within_the_memory(tmp_path: Path) -> None:
    made = World(tmp_path / "queue.db")
    await made.open()
    ids = {(await made.put(f"u@d{i % 50}.example")).id for i in range(300)}
    await made.close()
    after = World(tmp_path / "queue.db")
    after.limits = Limits(candidates=5, deliveries=3)
    after.hops.gate.clear()
    await after.start()
    await after.settle()
    assert after.hops.running == 3
    after.hops.gate.set()
    await after.settle()
    assert {each for each, _to in after.hops.delivered} == ids
    assert after.hops.most == 3
    await after.close()


async def test_a_rate_is_kept(queue: World) -> None:
    queue.rate = 2.0
    for _ in range(6):
        await queue.put()
    await queue.settle()
    assert len(queue.hops.delivered) == 2  # one second's worth at once
    await queue.pass_(timedelta(milliseconds=499))
    assert len(queue.hops.delivered) == 2
    await queue.pass_(timedelta(milliseconds=2))
    assert len(queue.hops.delivered) == 3
    await queue.pass_(timedelta(seconds=2))
    assert len(queue.hops.delivered) == 6


async def test_a_destination_that_is_down_is_probed_not_hammered(queue: World) -> None:
    queue.hops.says["dead.example"] = [DOWN]
    queue.concurrency = 1
    for i in range(40):
        await queue.put(f"u{i}@dead.example")
    await queue.settle()
    assert len(queue.hops.seen) == 5
    assert len(queue.scheduler.claims) == 0
    await queue.put("late@dead.example")
    await queue.settle()
    assert len(queue.hops.seen) == 5  # fresh mail waits as well
    await queue.pass_(MINUTE)
    assert len(queue.hops.seen) == 6
    await queue.pass_(2 * MINUTE)
    assert len(queue.hops.seen) == 7
    queue.hops.says["dead.example"] = [OK]
    await queue.pass_(4 * MINUTE)
    assert len(queue.hops.delivered) >= 41 - 7  # the probe got through, and all that waited followed at once
    await queue.pass_(HOUR)
    assert len(queue.hops.delivered) == 41


async def test_failures_about_messages_close_no_lane(queue: World) -> None:
    queue.hops.says["example.com"] = [LATER]
    for _ in range(30):
        await queue.put()
    await queue.settle()
    assert len(queue.hops.seen) == 30


async def test_mail_behind_a_dead_destination_grows_old_too(queue: World) -> None:
    queue.hops.says = {"dead.example": [DOWN], "example.org": [OK]}
    queue.retry = Retry(initial=HOUR, maximum=DAY, expire=2 * DAY, delay_warning=6 * HOUR)
    queue.concurrency = 1
    ids = [(await queue.put(f"u{i}@dead.example")).id for i in range(30)]
    await queue.pass_(7 * HOUR)
    assert {each for each, fate, _i in queue.reporter.told if fate is Fate.DELAYED} == set(ids)
    assert len(queue.reporter.told) == 30
    await queue.pass_(2 * DAY)
    failed = [each for each, fate, _i in queue.reporter.told if fate is Fate.FAILED]
    assert sorted(failed) == ids
    assert {await _state(queue, each) for each in ids} == {"bounced"}
    assert len(queue.hops.seen) < 30 + 30 + 30  # attempts are few: mostly reports to example.org
    assert all(each.outcome.status == "5.4.7" for each in queue.reporter.ended if each.fate is Fate.FAILED)


async def _state(queue: World, message: str) -> str:
    return (await queue.states(message))[0]


async def test_a_new_configuration_moves_what_waits(queue: World) -> None:
    queue.hops.says["example.com"] = [DOWN]
    queue.concurrency = 1
    for i in range(10):
        await queue.put(f"u{i}@example.com")
    await queue.settle()
    assert len(queue.hops.seen) == 5
    queue.hops.says["example.com"] = [OK]
    queue.lanes["example.com"] = Lane("connector new", "new", 3, 0.0, queue.retry)
    queue.hops.gate.clear()
    queue.scheduler.reconfigured()
    await queue.settle()
    assert queue.hops.running == 3
    queue.hops.gate.set()
    await queue.settle()
    assert len(queue.hops.delivered) == 5


async def test_a_new_configuration_moves_a_window(queue: World) -> None:
    queue.concurrency = 1
    queue.hops.gate.clear()
    for i in range(10):
        await queue.put(f"u{i}@example.com")
    await queue.settle()
    queue.lanes["example.com"] = Lane("connector new", "new", 4, 0.0, queue.retry)
    queue.scheduler.reconfigured()
    await queue.settle()
    assert queue.hops.running == 1 + 4
    queue.hops.gate.set()
    await queue.settle()
    assert len(queue.hops.delivered) == 10
    assert len({each for each, _to in queue.hops.delivered}) == 10


async def test_stop_lets_attempts_end_and_leaves_the_rest(tmp_path: Path) -> None:
    made = World(tmp_path / "queue.db")
    made.concurrency = 1
    await made.start()
    made.hops.gate.clear()
    first, second = await made.put("a@example.com"), await made.put("b@example.com")
    await made.settle()
    stopping = asyncio.create_task(made.scheduler.stop(grace=30))
    await asyncio.sleep(0)
    made.hops.gate.set()
    await stopping
    third = await made.put("c@example.com")  # the listener may be a little slower to stop
    assert await made.states(first) == ["delivered"]
    assert await made.states(second) == ["waiting"]
    await made.store.close()
    async with world(tmp_path / "queue.db") as after:
        await after.settle()
        assert {each for each, _to in after.hops.delivered} == {second.id, third.id}


async def test_stop_cancels_what_takes_too_long(tmp_path: Path) -> None:
    made = World(tmp_path / "queue.db")
    await made.start()
    made.hops.gate.clear()
    message = await made.put()
    await made.settle()
    await made.close(grace=0.01)
    assert not made.hops.delivered
    async with world(tmp_path / "queue.db") as after:
        await after.settle()
        assert after.hops.delivered == [(message.id, "bob@example.com")]


async def test_a_start_takes_up_what_was_left_large_or_small(tmp_path: Path) -> None:
    made = World(tmp_path / "queue.db")
    await made.open()
    ids = {(await made.put(f"u{i}@d{i % 3}.example")).id for i in range(50)}
    large = await made.put("big@example.com", body=b"0123456789" * 100_000)
    await made.close()
    async with world(tmp_path / "queue.db") as after:
        await after.settle()
        assert {each for each, _to in after.hops.delivered} == ids | {large.id}
        assert after.hops.bodies[large.id] == b"0123456789" * 100_000


@pytest.mark.parametrize("domains", [1, 40])
async def test_a_backlog_is_worked_off_at_full_width(tmp_path: Path, domains: int) -> None:
    made = World(tmp_path / "queue.db")
    await made.open()
    ids = {(await made.put(f"u@d{i % domains}.example")).id for i in range(400)}
    await made.close()
    async with world(tmp_path / "queue.db") as after:
        await after.settle()
        assert {each for each, _to in after.hops.delivered} == ids
        assert len(after.hops.delivered) == 400
        assert 10 <= after.hops.most <= 20 * domains


async def test_a_read_brings_small_bodies_along_and_passes_over_what_is_in_hand(tmp_path: Path) -> None:
    async with world(tmp_path / "queue.db") as made:
        made.hops.gate.clear()
        first = await made.put(body=b"first\r\n")
        await made.settle()  # under way
        small = await made.put(body=b"small\r\n")
        large = await made.put(body=b"0123456789" * 100_000)
        taken = frozenset({(first.id, 0)})
        due = await made.store.due("example.com", START + MINUTE, 10, taken)
        found = {each.message.id: each for each in due.found}
        assert found.keys() == {small.id, large.id}
        assert {each.in_memory for each in due.found if each.message.id == small.id} == {True}
        assert not found[large.id].in_memory
        for each, content in ((small, b"small\r\n"), (large, b"0123456789" * 100_000)):
            assert b"".join([chunk async for chunk in found[each.id].body.chunks()]) == content
        made.hops.gate.set()
        await made.settle()


async def test_bodies_that_a_read_brings_along_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relay.queue.loading._BODIES", 25)
    async with world(tmp_path / "queue.db") as made:
        made.hops.gate.clear()
        for _ in range(4):
            await made.put(body=b"10 bytes\r\n")
        due = await made.store.due("example.com", START + MINUTE, 10)
        assert [each.in_memory for each in due.found] == [True, True, False, False]
        made.hops.gate.set()
        await made.settle()


async def test_a_clock_that_is_set_back_loses_nothing(queue: World) -> None:
    queue.hops.says[""] = [LATER, OK]
    message = await queue.put()
    await queue.settle()
    queue.clock.now += 2 * DAY
    other = await queue.put("c@other.example")
    await queue.settle()
    queue.clock.now = START
    await queue.pass_(timedelta(days=2, minutes=5))
    assert {each for each, _to in queue.hops.delivered} == {message.id, other.id}


async def test_lanes_that_nothing_waits_for_are_forgotten(queue: World) -> None:
    for i in range(20):
        await queue.put(f"x@d{i}.example")
    await queue.settle()
    assert len(queue.scheduler._lanes) == 20
    await queue.pass_(2 * MINUTE)
    assert not queue.scheduler._lanes


async def test_a_message_that_cannot_be_taken_up_stays_in_the_store(tmp_path: Path) -> None:
    made = World(tmp_path / "queue.db")
    await made.start()

    def broken(_domain: str) -> Lane:
        raise RuntimeError("no book")

    made.scheduler._lane_of = broken
    message = await made.put()
    await made.settle()
    assert "no book" in made.of(Unexpected)[0].trace
    assert not made.hops.seen
    await made.close()
    async with world(tmp_path / "queue.db") as after:
        await after.settle()
        assert after.hops.delivered == [(message.id, "bob@example.com")]


async def test_orders_apply_to_the_states_they_can() -> None:
    assert {order: sorted(order.applies_to) for order in Order} == {
        Order.RETRY: ["waiting"],
        Order.HOLD: ["waiting"],
        Order.RELEASE: ["held"],
        Order.BOUNCE: ["held", "waiting"],
        Order.DELETE: ["held", "waiting"],
        Order.REROUTE: ["held", "waiting"],
    }


async def test_delivered_says_more_than_its_state(queue: World) -> None:
    queue.hops.says[""] = [Delivered(250, "2.1.5", "taken", dsn=True)]
    await queue.put(notify=frozenset({Notify.SUCCESS}))
    await queue.settle()
    outcome = queue.reporter.ended[0].outcome
    assert isinstance(outcome, Delivered)
    assert outcome.dsn


async def test_destinations_that_wait_for_room_do_not_wait_behind_those_that_need_none_any_more(tmp_path: Path) -> None:
    queue = World(tmp_path / "queue.db")
    queue.limits = Limits(candidates=2)
    queue.concurrency = 1
    await queue.start()
    queue.hops.gate.clear()
    for _ in range(3):
        await queue.put("x@a.example")  # one is under way, two fill the room
    waiting = [await queue.put(f"x@{name}.example") for name in "bcdef"]
    await queue.settle()
    for name in "bc":
        await queue.operations.hold(Selection(everything=True, domain=f"{name}.example"))
    queue.hops.gate.set()
    await queue.settle()
    assert [await queue.states(each) for each in waiting] == [["held"]] * 2 + [["delivered"]] * 3
    await queue.close()
