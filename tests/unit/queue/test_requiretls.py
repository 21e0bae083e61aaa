"""What a message asks of TLS stays with it in the queue, is shown, and makes no bounce vanish (RFC 8689)."""

import sqlite3
from datetime import timedelta
from pathlib import Path

import pytest

from relay.mail.events import RecipientEnded, ReportHeld
from relay.mail.outcome import Bounced, Deferred, Outcome
from relay.mail.tls import TlsFailure
from relay.queue.store import TraceQuery
from tests.unit.queue.world import DOWN, NO, World

UNSUPPORTED = TlsFailure.REQUIRETLS_NOT_SUPPORTED
NOT_KEPT = Bounced(550, "5.7.30", "REQUIRETLS cannot be kept", UNSUPPORTED)
NOT_YET = Deferred(451, "4.7.30", "the hop does not offer REQUIRETLS", UNSUPPORTED)


@pytest.mark.parametrize(("requiretls", "tls_optional"), [(True, False), (False, True), (False, False)])
async def test_it_is_kept_over_a_crash_and_shown(tmp_path: Path, requiretls: bool, tls_optional: bool) -> None:
    queue = World(tmp_path / "queue.db")
    await queue.start()
    queue.hops.says[""] = [DOWN]
    message = await queue.put(requiretls=requiretls, tls_optional=tls_optional)
    await queue.settle()
    after = await queue.crash(tmp_path / "after.db")
    await after.start()
    try:
        (loaded,) = await after.store.load([message.id])
        envelope = loaded.message.envelope
        assert (envelope.requiretls, envelope.tls_optional) == (requiretls, tls_optional)
        shown = await after.operations.show(message.id)
        (trace,) = await after.store.traces(TraceQuery(id=message.id))
        for found in (shown, trace):
            assert found is not None
            assert (found["requiretls"], found["tls_optional"]) == (requiretls, tls_optional)
    finally:
        await after.close()


async def test_a_queue_of_a_version_that_knew_neither(tmp_path: Path) -> None:
    queue = World(tmp_path / "queue.db")
    await queue.start()
    queue.hops.says[""] = [DOWN]
    message = await queue.put(requiretls=True)
    await queue.settle()
    after = await queue.crash(tmp_path / "after.db")
    with sqlite3.connect(after.path) as db:
        db.execute("UPDATE message SET about = json_remove(about, '$.envelope.requiretls', '$.envelope.tls_optional')")
    db.close()
    await after.start()
    try:
        (loaded,) = await after.store.load([message.id])
        assert (loaded.message.envelope.requiretls, loaded.message.envelope.tls_optional) == (False, False)
        shown = await after.operations.show(message.id)
        assert shown is not None
        assert (shown["requiretls"], shown["tls_optional"]) == (False, False)
    finally:
        await after.close()


@pytest.mark.parametrize(
    ("sender", "protocol", "requiretls", "outcome", "state"),
    [
        # a bounce that only REQUIRETLS keeps from going on is for the postmaster
        ("", "ESMTPS", True, NOT_KEPT, "held"),
        ("", "local", True, NOT_KEPT, "held"),
        # one that was refused for another reason is as any other
        ("", "ESMTPS", True, NO, "bounced"),
        ("", "ESMTPS", False, NO, "bounced"),
        ("", "local", False, NO, "held"),
        # a sender who can be told is told
        ("alice@example.org", "ESMTPS", True, NOT_KEPT, "bounced"),
    ],
)
async def test_requiretls_makes_no_bounce_vanish(
    queue: World, sender: str, protocol: str, requiretls: bool, outcome: Outcome, state: str
) -> None:
    queue.hops.says["example.com"] = [outcome]
    message = await queue.put(sender=sender, protocol=protocol, requiretls=requiretls)
    await queue.settle()
    assert await queue.states(message) == [state]
    assert [each.message for each in queue.of(ReportHeld)] == ([message.id] if state == "held" else [])


async def test_what_never_could_be_kept_is_bounced_as_that_at_the_end(queue: World) -> None:
    queue.hops.says["example.com"] = [NOT_YET]
    message = await queue.put(requiretls=True)
    await queue.pass_(timedelta(days=6))
    assert await queue.states(message) == ["bounced"]
    assert [(each.state, each.status) for each in queue.of(RecipientEnded) if each.message == message.id] == [
        ("bounced", "5.7.30")
    ]
    failed = next(each.outcome for each in queue.reporter.ended if isinstance(each.outcome, Bounced))
    assert failed.failure is UNSUPPORTED
