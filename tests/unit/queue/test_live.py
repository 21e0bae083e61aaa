"""What is known of connectors: who waits, and each one's newest use however long ago the others were."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

from relay.mail.attempt import Attempt
from relay.queue.live import live
from tests.unit.queue.world import LATER, NO, OK, World, evidence

HOUR = timedelta(hours=1)


async def test_each_connector_has_its_newest_use(queue: World) -> None:
    told = queue.hops.attempt

    def by_recipient(message: Any, outcomes: Any) -> Attempt:
        return replace(told(message, outcomes), connector=message.envelope.recipients[0].address.domain)

    queue.hops.attempt = by_recipient  # type: ignore[method-assign]
    queue.hops.evidence = evidence()
    queue.hops.says |= {"b@two.example": [LATER, OK], "n@three.example": [NO]}
    await queue.put("a@one.example")
    await queue.settle()
    await queue.pass_(HOUR)
    await queue.put("b@two.example")
    await queue.settle()
    found = await queue.store.ask(live)
    assert {name: each["state"] for name, each in found.attempted.items()} == {
        "one.example": "delivered",
        "two.example": "deferred",
    }
    assert found.attempted["one.example"]["at"] == "2026-11-22T12:00:00.000Z"
    assert found.attempted["one.example"]["evidence"]["version"] == "TLSv1.3"
    assert found.by_domain == {"two.example": (1, 0)}
    await queue.pass_(HOUR)
    await queue.put("n@three.example")
    await queue.settle()
    found = await queue.store.ask(live)
    assert [found.attempted[f"{each}.example"]["state"] for each in ("one", "two", "three")] == [
        "delivered",
        "delivered",
        "bounced",
    ]
    assert found.attempted["three.example"]["failure"] is None
