"""`on_5xx: hold`: what a hop refuses of a stranger's mail stays with the postmaster, who bounces, releases or deletes it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from relay.config.connectors import On5xx
from relay.mail.events import RecipientEnded, RefusalHeld
from relay.mail.outcome import Bounced, Outcome
from relay.queue.operations import Selection
from relay.queue.reports import Fate
from tests.unit.queue.world import LATER, NO, World

REFUSED = Bounced(554, "5.7.1", "not in this house", by_hop=True)


def holding(queue: World, on_5xx: On5xx = On5xx.HOLD) -> None:
    queue.lanes["example.com"] = replace(queue.lane_of("example.com"), on_5xx=on_5xx)


@pytest.mark.parametrize(
    ("on_5xx", "outcome", "facts", "state"),
    [
        (On5xx.HOLD, REFUSED, {}, "held"),
        (On5xx.HOLD, REFUSED, {"sender": ""}, "held"),
        (On5xx.HOLD, REFUSED, {"may_relay": True}, "bounced"),
        (On5xx.HOLD, NO, {}, "bounced"),
        (On5xx.HOLD, LATER, {}, "waiting"),
        (On5xx.BOUNCE, REFUSED, {}, "bounced"),
    ],
)
async def test_what_becomes_of_it(
    queue: World, on_5xx: On5xx, outcome: Outcome, facts: dict[str, Any], state: str
) -> None:
    holding(queue, on_5xx)
    queue.hops.says["example.com"] = [outcome]
    message = await queue.put(**facts)
    await queue.settle()
    assert await queue.states(message) == [state]
    assert [fate for _message, fate, _index in queue.reporter.told] == ([Fate.FAILED] if state == "bounced" else [])
    told = [(each.recipient, each.hop, each.code, each.status, each.text) for each in queue.of(RefusalHeld)]
    assert told == (
        [("bob@example.com", "mx.example:25", 554, "5.7.1", "not in this house")] if state == "held" else []
    )


async def test_only_the_recipients_that_were_refused(queue: World) -> None:
    holding(queue)
    queue.hops.says["eve@example.com"] = [REFUSED]
    message = await queue.put("bob@example.com", "eve@example.com")
    await queue.settle()
    assert await queue.states(message) == ["delivered", "held"]


async def test_it_is_shown_with_the_hop_s_words_and_can_be_released_or_bounced(queue: World) -> None:
    holding(queue)
    queue.hops.says["example.com"] = [REFUSED]
    message = await queue.put()
    await queue.settle()
    shown = await queue.operations.show(message.id)
    assert shown is not None
    (recipient,) = shown["recipients"]
    assert (recipient["state"], recipient["last"]["text"]) == ("held", "not in this house")
    await queue.operations.release(Selection(ids=(message.id,)))
    await queue.settle()
    assert await queue.states(message) == ["held"]
    assert len(queue.hops.seen) == 2
    await queue.operations.bounce(Selection(ids=(message.id,)))
    await queue.settle()
    assert await queue.states(message) == ["bounced"]
    assert [fate for _message, fate, _index in queue.reporter.told] == [Fate.FAILED]


async def test_an_operator_who_gave_up_during_the_attempt_gets_a_bounce(queue: World) -> None:
    holding(queue)
    queue.hops.says["example.com"] = [REFUSED]
    queue.hops.gate.clear()
    message = await queue.put()
    await queue.settle()
    await queue.operations.bounce(Selection(ids=(message.id,)))
    queue.hops.gate.set()
    await queue.settle()
    assert await queue.states(message) == ["bounced"]
    assert [each.state for each in queue.of(RecipientEnded) if each.message == message.id] == ["bounced"]


async def test_it_is_held_after_a_restart_and_who_the_client_was_is_known(tmp_path: Path) -> None:
    queue = World(tmp_path / "queue.db")
    await queue.start()
    holding(queue)
    queue.hops.says["example.com"] = [REFUSED]
    message = await queue.put(client_port=40025, server="198.51.100.1:25")
    await queue.settle()
    after = await queue.crash(tmp_path / "after.db")
    await after.start()
    try:
        await after.settle()
        assert await after.states(message) == ["held"]
        assert not after.hops.seen
        (loaded,) = await after.store.load([message.id])
        accepted = loaded.message.accepted
        assert (accepted.client_port, accepted.server) == (40025, "198.51.100.1:25")
    finally:
        await after.close()
