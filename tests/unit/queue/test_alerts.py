"""What alerts ask of the queue: the oldest mail that waits, who waits because of TLS, and one document that is kept."""

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from relay.mail.envelope import LOCAL
from relay.mail.outcome import Deferred
from relay.mail.tls import TlsFailure
from relay.queue.alerts import SqliteAlerts
from relay.queue.operations import Selection
from relay.queue.sqlite import SqliteStore
from tests.unit.queue.world import DOWN, OK, START, Clock, world

UNSAFE = Deferred(451, "4.7.5", "the certificate is for another", TlsFailure.CERTIFICATE_HOST_MISMATCH)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    made = await SqliteStore.open(tmp_path / "queue.db", emit=lambda _event: None, clock=Clock(), free_space=0)
    yield made
    await made.close()


async def test_the_document(store: SqliteStore) -> None:
    alerts = SqliteAlerts(store)
    assert await alerts.load() == ""
    await alerts.save("one")
    await alerts.save("two")
    assert await alerts.load() == "two"


async def test_an_empty_queue(store: SqliteStore) -> None:
    alerts = SqliteAlerts(store)
    assert await alerts.oldest() is None
    assert not await alerts.withheld(["b.example"])
    assert await alerts.state("0" * 20) == ""
    assert await alerts.state("no id") == ""


async def test_the_oldest_that_waits_is_not_one_that_is_held(tmp_path: Path) -> None:
    async with world(tmp_path / "queue.db") as queue:
        queue.hops.says[""] = [DOWN]
        alerts = SqliteAlerts(queue.store)
        first = await queue.put("bob@b.example")
        queue.clock.now += timedelta(hours=1)
        second = await queue.put("bob@c.example")
        await queue.settle()
        found = await alerts.oldest()
        assert found is not None
        assert (found[0], found[2]) == (first.id, "b.example")
        assert abs(found[1] - START) < timedelta(seconds=1)
        await queue.operations.hold(Selection(ids=(first.id,)))
        await queue.settle()
        held = await alerts.oldest()
        assert held is not None
        assert held[0] == second.id


async def test_a_report_that_nobody_takes_makes_no_queue_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stranger has a bounce sent to his own server, which takes none: the alarm is not his to ring."""
    async with world(tmp_path / "queue.db") as queue:
        queue.hops.says[""] = [DOWN]
        alerts = SqliteAlerts(queue.store)
        for _number in range(3):
            await queue.put("mallory@evil.example", sender="", protocol=LOCAL)
        await queue.settle()
        assert await alerts.oldest() is None
        theirs = await queue.put("bob@b.example", sender="")  # a bounce of others, for one of ours
        await queue.put("alice@b.example")
        await queue.settle()
        found = await alerts.oldest()
        assert found is not None
        assert found[0] == theirs.id
        # Very many reports before all else: that is worth a look, and how far is looked is bounded.
        monkeypatch.setattr("relay.queue.alerts._LOOKED_AT", 2)
        many = await alerts.oldest()
        assert many is not None
        assert many[2] == "evil.example"


async def test_who_waits_because_of_tls(tmp_path: Path) -> None:
    async with world(tmp_path / "queue.db") as queue:
        queue.hops.says["b.example"] = [UNSAFE, UNSAFE, DOWN, OK]
        queue.hops.says["c.example"] = [DOWN]
        alerts = SqliteAlerts(queue.store)
        message = await queue.put("bob@b.example")
        await queue.put("bob@c.example")
        await queue.settle()
        assert await alerts.withheld(["c.example", "b.example"])
        assert not await alerts.withheld(["c.example"])
        assert set(await alerts.domains()) == {"b.example", "c.example"}
        states = []
        for minutes in (1, 2, 4):
            await queue.pass_(timedelta(minutes=minutes))
            await queue.settle()
            states.append((await alerts.withheld(["b.example"]), await alerts.state(message.id)))
        # While the hop is down nobody knows whether it is safe again: the message still waits.
        assert states == [(True, "waiting"), (False, "waiting"), (False, "delivered")]
