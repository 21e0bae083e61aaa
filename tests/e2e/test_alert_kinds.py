"""Each kind of alert as it comes about in a relay that runs: told once by webhook and by mail, not again after a restart, and its end."""

import os
import signal
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dns.rcode
import pytest

from relay.admin.queue import Action, Selection
from relay.config.models import PrivateAddresses
from relay.dns.stsfetch import FetchSettings
from relay.mail.events import AlertCleared, AlertRaised, AttemptMade, StsFetchFailed, StsPolicyFetched
from relay.testing.pair import submit
from relay.testing.pki import Pki
from tests.e2e.alerting import SECRET, World, alerting, parsed, partner, send
from tests.e2e.process import RelayProcess
from tests.policyhost import PolicyHost, answer, policy
from tests.unit.dns.server import DnsServer, Zone
from tests.unit.tls.pki import DAY, NOW, Wish, self_signed

TOLD = {
    "partner-unsafe": ("connector partner", "connector partner cannot be reached safely"),
    "exception-ends": ("old.test", "the exception for old.test ends in 2 days"),
    "certificate": ("relay.test", "our certificate relay.test ends in 5 days"),
    "queue-old": ("queue", "mail has been waiting for"),
    "dane-off": ("dane", "DANE is turned off by the resolver"),
    "mta-sts-stale": ("c.example", "the MTA-STS policy of c.example cannot be renewed"),
}
BOTH = len(TOLD)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with alerting(tmp_path) as made:
        yield made


def own_certificate(world: World, days: int) -> None:
    folder = world.folder / "certs"
    folder.mkdir(parents=True, exist_ok=True)
    names = ("relay.test",)
    self_signed(Wish("relay.test", names, after=NOW + days * DAY + timedelta(hours=1))).write(folder, "relay.test")


def surroundings(world: World, resolver: object, **more: Any) -> dict[str, Any]:
    return {
        "listeners": [{"address": "127.0.0.1:0"}],
        "certificates": "certs/",
        "dns": {
            "resolver": str(resolver),
            "validating": True,
            "self_test": {"signed": "signed.test", "broken": "broken.test"},
        },
        "defaults": {"outbound": {"route": {"private": "allow"}}},
        "alerts": {**world.config()["alerts"], "queue_age": "1s"},
        **more,
    }


async def test_told_not_again_and_over(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    web = Pki(tmp_path / "web")
    monkeypatch.setenv("SSL_CERT_FILE", str(web.ca))  # whom MTA-STS believes
    zone = Zone(
        {
            "signed.test DNSKEY": (1, ("256 3 13 aGVsbG8=",)),
            "broken.test A": (1, ("192.0.2.1",)),
            "c.example MX": (0, ("10 mx.c.example.",)),
            "mx.c.example A": (0, ("127.0.0.1",)),
            "mta-sts.c.example A": (0, ("127.0.0.1",)),
            "_mta-sts.c.example TXT": (0, ('"v=STSv1; id=1;"',)),
        }
    )
    ending = {
        "recipient_domain": "old.test",
        "allow": "plaintext",
        "until": str((datetime.now(UTC) + timedelta(days=2)).date()),
        "reason": "x",
    }
    host = PolicyHost(web.issue(tmp_path / "web", "mta-sts.c.example"), answer(policy("enforce", "mx.c.example")))
    async with DnsServer(zone) as names, host, partner(world, safe=False):
        given = {"policy_hosts": FetchSettings(host.port, 5, PrivateAddresses.ALLOW)}
        well = {"dns": {"resolver": str(names.address)}, "defaults": {"outbound": {"route": {"private": "allow"}}}}
        async with world.relay(given, **well) as relay:
            await send(relay, "bob@c.example")
            await world.heard.wait(StsPolicyFetched)

        own_certificate(world, 5)
        host.reply = answer(b"gone", status="404 Not Found")
        zone.records["_mta-sts.c.example TXT"] = (0, ('"v=STSv1; id=2;"',))
        about = surroundings(world, names.address, exceptions=[ending])
        async with world.relay(given, **about) as relay:
            await send(relay, "carol@c.example")
            await world.heard.wait(StsFetchFailed)
            await send(relay)
            posts = await world.hook.wait(BOTH)
            mails = await world.admin.wait(BOTH)
        alerts = {each.alert["kind"]: each.alert for each in posts}
        assert alerts.keys() == TOLD.keys()
        for kind, (subject, title) in TOLD.items():
            assert alerts[kind]["state"] == "raised"
            assert alerts[kind]["subject"] == subject
            assert title in alerts[kind]["title"]
            assert alerts[kind]["remedy"]
        assert all(each.is_signed(SECRET) for each in posts)
        subjects = [str(parsed(each.content)["Subject"]) for each in mails]
        assert sorted(subjects) == sorted(
            f"[relay.test] {each['severity']}: {each['title']}" for each in alerts.values()
        )

        # Nothing of it again after a restart.
        looks = len(world.heard.of(AttemptMade))
        async with world.relay(given, **about) as relay:
            await world.heard.wait(AttemptMade, looks + 4)
            assert {each["kind"] for each in (await relay.operator.alerts())["alerts"]} == TOLD.keys()
        assert len(world.heard.of(AlertRaised)) == len(world.hook.posts) == BOTH

        # All is mended: each has its end, and one only.
        own_certificate(world, 90)
        zone.secure |= {"signed.test"}
        zone.codes["broken.test A"] = dns.rcode.SERVFAIL
        host.reply = answer(policy("enforce", "mx.c.example"))
        zone.records["_mta-sts.c.example TXT"] = (0, ('"v=STSv1; id=3;"',))
        async with world.relay(given, **surroundings(world, names.address)) as relay:
            await relay.operator.act(Action.DELETE, Selection(everything=True))
            await send(relay, "dora@c.example")
            await world.hook.wait(2 * BOTH - 1)
            await relay.operator.act(Action.DELETE, Selection(everything=True))
            await world.hook.wait(2 * BOTH)
            assert (await relay.operator.alerts())["alerts"] == []
    over = [each.alert for each in world.hook.posts[BOTH:]]
    assert sorted(each["kind"] for each in over) == sorted(TOLD)
    assert {each["state"] for each in over} == {"cleared"}
    assert len(world.heard.of(AlertCleared)) == BOTH


async def test_workers_that_die_and_a_disk_without_room(world: World) -> None:
    """What no mail can tell: the webhook does."""
    file = world.write(workers=2, limits={"free_space": "1MiB"})
    async with partner(world, safe=True), RelayProcess(file) as relay:
        await relay.all_listen(2)
        for _death in range(3):
            seen = len(relay.lines)
            os.kill(relay.workers[1], signal.SIGKILL)
            await relay.line(
                lambda line: line.get("event") == "listener-ready" and line.get("worker") == 1, after=seen, seconds=60
            )
        (post,) = await world.hook.wait(1, seconds=60)
        assert (post.alert["kind"], post.alert["severity"]) == ("worker-dies", "critical")
        assert post.is_signed(SECRET)
        await submit(relay.address, "alice@a.test", ["bob@b.test"], b"Subject: x\r\n\r\nmail goes on\r\n")
    file = world.write(limits={"free_space": "1000000GiB"})
    async with RelayProcess(file):
        posts = await world.hook.wait(2, seconds=60)
    assert (posts[1].alert["kind"], posts[1].alert["severity"]) == ("store-trouble", "critical")
    assert [each.alert["kind"] for each in posts] == ["worker-dies", "store-trouble"]
