"""A relay whose partner breaks TLS: one alert by mail and one by webhook, not two; all clear once it is mended; a restart tells nothing."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from relay.mail.events import (
    AlertCleared,
    AlertNotSent,
    AlertRaised,
    AlertSent,
    AttemptMade,
    RecipientEnded,
    TlsWithheld,
)
from relay.testing.pair import submit
from relay.testing.pki import Pki
from tests.e2e.alerting import SECRET, World, alerting, parsed, partner, send
from tests.e2e.heard import Heard
from tests.e2e.process import RelayProcess, crowd


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with alerting(tmp_path) as made:
        yield made


async def attempts_after(heard: Heard, count: int) -> None:
    """So many more attempts have failed."""
    await heard.wait(AttemptMade, len(heard.of(AttemptMade)) + count)


async def test_one_alert_and_its_end(world: World) -> None:
    async with partner(world, safe=False), world.relay() as relay:
        await send(relay)
        await send(relay, "carol@b.test")
        (post,) = await world.hook.wait(1)
        (mail,) = await world.admin.wait(1)
        assert post.is_signed(SECRET)
        assert not post.is_signed("another secret, as long as it")
        assert post.target == "/alerts?team=mail"
        assert (post.alert["version"], post.alert["kind"], post.alert["state"]) == (1, "partner-unsafe", "raised")
        assert (post.alert["severity"], post.alert["subject"]) == ("critical", "connector partner")
        assert "starttls-not-supported" in post.alert["detail"]
        assert "exceptions" in post.alert["remedy"]
        assert post.alert["text"].startswith("[relay.test] critical: connector partner cannot be reached safely")
        message = parsed(mail.content)
        assert (mail.sender, mail.recipients) == ("postmaster@relay.test", ("admin@ops.test",))
        assert message["Auto-Submitted"] == "auto-generated"
        assert message["Subject"] == "[relay.test] critical: connector partner cannot be reached safely"
        assert "starttls-not-supported" in message.get_content()
        for told in (post.body, mail.content):
            assert b"the content is secret" not in told
            assert b"bob@" not in told
        # It goes on failing, for both messages: nothing more is told.
        await world.heard.wait(TlsWithheld, 2)
        await attempts_after(world.heard, 8)
        shown = await relay.operator.alerts()
        assert [each["kind"] for each in shown["alerts"]] == ["partner-unsafe"]
        assert shown["waiting"] == {}
        assert len(world.heard.of(AlertRaised)) == len(world.hook.posts) == len(world.admin.messages) == 1

    # A restart in between tells nothing again.
    async with partner(world, safe=False), world.relay() as relay:
        await world.heard.wait(TlsWithheld, 4)
        await attempts_after(world.heard, 8)
        assert [each["kind"] for each in (await relay.operator.alerts())["alerts"]] == ["partner-unsafe"]
        assert len(world.heard.of(AlertRaised)) == len(world.hook.posts) == len(world.admin.messages) == 1

    async with partner(world, safe=True) as mended, world.relay() as relay:
        await mended.wait(2)
        posts = await world.hook.wait(2)
        mails = await world.admin.wait(2)
        assert (posts[1].alert["state"], posts[1].alert["severity"]) == ("cleared", "info")
        assert "reached safely again" in posts[1].alert["detail"]
        assert posts[1].is_signed(SECRET)
        assert posts[1].alert["since"] == posts[0].alert["since"]
        assert parsed(mails[1].content)["Subject"] == "[relay.test] over: connector partner cannot be reached safely"
        assert (await relay.operator.alerts())["alerts"] == []
    assert len(world.heard.of(AlertCleared)) == 1
    assert len(world.hook.posts) == len(world.admin.messages) == 2


async def test_an_all_clear_does_not_claim_more_than_is_known(world: World) -> None:
    async with partner(world, safe=False), world.relay() as relay:
        await send(relay)
        await world.hook.wait(1)
        from relay.admin.queue import Action, Selection

        await relay.operator.act(Action.DELETE, Selection(everything=True, domain="b.test"))
        posts = await world.hook.wait(2)
    assert posts[1].alert["state"] == "cleared"
    assert "an operator deleted it" in posts[1].alert["detail"]


async def test_what_is_soon_over_is_not_told_where_the_file_says_so(world: World) -> None:
    patient = {**world.config()["alerts"], "withheld_after": "1h"}
    async with world.relay(alerts=patient) as relay:
        async with partner(world, safe=False):
            await send(relay)
            await world.heard.wait(TlsWithheld)
            await attempts_after(world.heard, 4)
        async with partner(world, safe=True) as mended:
            await mended.wait(1)
            await world.heard.wait(RecipientEnded)
            async with asyncio.timeout(10):
                while (await relay.operator.alerts())["alerts"]:  # noqa: ASYNC110
                    await asyncio.sleep(0.05)  # what operators see has no event
    assert not world.hook.posts
    assert not world.admin.messages


@pytest.mark.parametrize(
    ("status", "location", "endless", "reason"),
    [
        (503, "", b"", "answered 503"),
        (307, "https://127.0.0.1:1/", b"", "answered 307"),
        (200, "", b"X-More: and more\r\n", "too long"),
    ],
)
async def test_a_receiver_that_fails_is_tried_again(
    status: int, location: str, endless: bytes, reason: str, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relay.report.alerts.kept._FIRST_WAIT", timedelta(seconds=0.3))
    world.hook.status, world.hook.location, world.hook.endless = status, location, endless
    async with partner(world, safe=False), world.relay() as relay:
        await send(relay)
        await world.hook.wait(2)
        (failed,) = world.heard.of(AlertNotSent)
        assert (failed.way, failed.tries, failed.given_up) == ("webhook", 1, False)
        assert reason in failed.reason
        await world.admin.wait(1)  # the mail does not wait for it
        world.hook.status, world.hook.location, world.hook.endless = 204, "", b""
        async with asyncio.timeout(20):
            while not [each for each in world.heard.of(AlertSent) if each.way == "webhook"]:
                await world.heard.wait(AlertSent, len(world.heard.of(AlertSent)) + 1)
    assert len({each.fields["ironpost-alert"] for each in world.hook.posts}) == 1
    assert all(each.is_signed(SECRET) for each in world.hook.posts)


async def test_a_receiver_that_never_answers(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    from relay.report.post import Patience

    monkeypatch.setattr("relay.app.alerts.PATIENCE", Patience(0.5, 0.5))
    world.hook.stalls = True
    async with partner(world, safe=False), world.relay() as relay:
        await send(relay)
        (failed,) = await world.heard.wait(AlertNotSent)
        assert "no answer in time" in failed.reason
        assert (await relay.operator.alerts())["waiting"] == {"webhook": 1}
    # It is kept over the restart, and goes out once the receiver is well.
    world.hook.stalls = False
    seen = len(world.hook.posts)
    monkeypatch.setattr("relay.app.alerts._LONGEST", 0.5)
    async with world.relay():
        posts = await world.hook.wait(seen + 1, seconds=40)
    assert len({each.fields["ironpost-alert"] for each in posts}) == 1


async def test_a_private_address_only_where_it_is_allowed(world: World) -> None:
    refused = world.config()["alerts"]
    refused["webhook"]["private"] = "refuse"
    async with world.relay(alerts=refused) as relay:
        answer = await relay.operator.test_alerts(["webhook"])
    assert "has no public address" in answer["webhook"]["error"]
    assert not world.hook.posts


async def test_a_receiver_that_is_not_trusted(world: World, tmp_path: Path) -> None:
    async with world.relay(trust=str(Pki(tmp_path / "other").ca)) as relay:
        answer = await relay.operator.test_alerts([])
    assert "certificate verify failed" in answer["webhook"]["error"]
    assert answer["mail"]["error"] is None
    assert not world.hook.posts


async def test_a_test_alert(world: World) -> None:
    async with world.relay() as relay:
        answer = await relay.operator.test_alerts([])
        (mail,) = await world.admin.wait(1)
        (post,) = await world.hook.wait(1)
        assert (await relay.operator.alerts())["alerts"] == []
    assert answer["webhook"] == {"error": None, "message": None}
    assert post.alert["kind"] == "test"
    assert parsed(mail.content)["Subject"] == "[relay.test] this is a test"


async def test_workers_tell_it_once(world: World) -> None:
    """Whichever worker meets it, the first one tells; and when that one is killed, its successor tells nothing again."""
    import os
    import signal

    file = world.write(workers=3)
    async with partner(world, safe=False), RelayProcess(file) as relay:
        await relay.all_listen(3)
        address = relay.address
        async with crowd(address):
            for number in range(12):
                await submit(address, "alice@a.test", [f"bob{number}@b.test"], b"Subject: x\r\n\r\nx\r\n")
        await world.hook.wait(1)
        await world.admin.wait(1)
        told = {line["worker"] for line in relay.lines if line.get("event") == "tls-withheld"}
        raised = [line for line in relay.lines if line.get("event") == "alert-raised"]
        assert [line["worker"] for line in raised] == [0]
        assert told, "no worker met it"
        seen = len(relay.lines)
        os.kill(relay.workers[0], signal.SIGKILL)
        await relay.line(lambda line: line.get("event") == "tls-withheld" and line["worker"] == 0, after=seen)
        failing = len(relay.lines)
        await relay.line(lambda line: line.get("event") == "attempt-made", after=failing)
        await relay.line(lambda line: line.get("event") == "attempt-made" and line["worker"] == 0, after=failing + 4)
        assert len(world.hook.posts) == len(world.admin.messages) == 1
    assert [line for line in relay.lines if line.get("event") == "alert-raised"] == raised
