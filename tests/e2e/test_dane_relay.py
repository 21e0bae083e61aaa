"""A whole relay with a validating resolver: what it does with partners' TLSA records, and what it says about it."""

from pathlib import Path

import pytest

from relay.app import Relay
from relay.mail.events import AttemptMade, DaneUnusable, DaneUsable, TlsWithheld
from relay.mail.outcome import Deferred, Delivered
from relay.mail.tls import TlsFailure
from relay.outbound.deliver import OutboundSettings
from relay.testing.pair import submit
from tests.dnssec import Bench
from tests.e2e import dane
from tests.e2e.heard import Heard
from tests.hostile import HostileServer

pytestmark = pytest.mark.peers

FILE = """\
hostname: relay.test
postmaster: postmaster@relay.test
listeners: [{{address: "127.0.0.1:0", starttls: off}}]
queue: sqlite:queue.db
accept: {{networks: [127.0.0.0/8]}}
dns: {{resolver: "{resolver}", validating: {validating}, self_test: {{signed: test, broken: {broken}}}}}
defaults: {{outbound: {{route: {{private: allow}}}}}}
"""


def relay(folder: Path, dns: Bench, heard: Heard, *, validating: str = "true", broken: str = "bogus.test") -> Relay:
    file = folder / "connectors.yaml"
    file.write_text(FILE.format(resolver=dns.resolver, validating=validating, broken=broken))
    return Relay(file, observers=[heard], delivery=OutboundSettings(port=dane.PORT))


def server(folder: Path, name: str) -> HostileServer:
    return HostileServer(dane.Contexts(folder).behaviour(name), host=dane.address(name), port=dane.PORT)


async def send(sender: Relay, name: str) -> None:
    await submit(sender.address(), "alice@relay.test", [f"bob@{dane.domain(name)}"], b"Subject: hi\r\n\r\nhello\r\n")


async def test_without_a_connector_tlsa_records_hold(dnssec: Bench, tmp_path: Path) -> None:
    heard = Heard()
    async with (
        server(tmp_path, "ee") as good,
        server(tmp_path, "ee-wrong") as bad,
        relay(tmp_path, dnssec, heard) as one,
    ):
        await heard.wait(DaneUsable)
        await send(one, "ee")
        (made,) = await heard.wait(AttemptMade)
        assert isinstance(made.attempt.outcomes[0][1], Delivered)
        assert made.attempt.plan is not None
        assert [each.domain for each in made.attempt.plan.published] == ["mx.ee.secure.test"]
        assert len(good.taken) == 1

        await send(one, "ee-wrong")
        (told,) = await heard.wait(TlsWithheld)
        assert told.failure is TlsFailure.TLSA_INVALID
        assert "does not match" in told.remedy
        outcome = (await heard.wait(AttemptMade, 2))[1].attempt.outcomes[0][1]
        assert isinstance(outcome, Deferred)
        assert "which would be 3 1 1 " in outcome.text, "what they would have to publish"
        assert not bad.taken
        assert not heard.of(DaneUnusable)


async def test_a_resolver_that_shows_nothing_leaves_dane_off_and_says_so(dnssec: Bench, tmp_path: Path) -> None:
    heard = Heard()
    dns = relay(tmp_path, dnssec, heard, broken="insecure.test")
    async with server(tmp_path, "ee-wrong") as hop, dns as one:
        (trouble,) = await heard.wait(DaneUnusable)
        assert "does not hold to DNSSEC" in trouble.trouble
        await send(one, "ee-wrong")
        await heard.wait(AttemptMade)
        assert len(hop.taken) == 1
        assert b"ironpost_dane_trouble 1.0" in one.metrics.render(None)


async def test_a_reload_puts_dane_to_use(dnssec: Bench, tmp_path: Path) -> None:
    heard = Heard()
    async with server(tmp_path, "ee-wrong") as hop, relay(tmp_path, dnssec, heard, validating="false") as one:
        await send(one, "ee-wrong")
        await heard.wait(AttemptMade)
        assert len(hop.taken) == 1
        file = tmp_path / "connectors.yaml"
        file.write_text(file.read_text().replace("validating: false", "validating: true"))
        answer = await one.operator.reload(dry_run=False)
        assert answer.taken
        assert not answer.weaker
        await heard.wait(DaneUsable)
        await send(one, "ee-wrong")
        (told,) = await heard.wait(TlsWithheld)
        assert told.failure is TlsFailure.TLSA_INVALID
        assert len(hop.taken) == 1
