"""A whole relay and partners with MTA-STS policies, fetched over real HTTPS: what becomes of mail by MX, without a connector."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from relay.app import Relay
from relay.config.models import PrivateAddresses
from relay.dns.stsfetch import FetchSettings
from relay.mail.events import AttemptMade, StsFetchFailed, TlsWithheld
from relay.mail.outcome import Deferred, Delivered, Outcome
from relay.mail.tls import TlsFailure
from relay.outbound.deliver import OutboundSettings
from relay.testing import Pki as PolicyPki
from relay.testing.pair import submit
from tests.e2e.heard import Heard
from tests.fakes import FakeResolver
from tests.hostile import Behaviour, HostileServer, Pki
from tests.policyhost import PolicyHost, answer, policy

MX = "mx.hostile.test"
FILE = """\
hostname: relay.test
postmaster: postmaster@relay.test
listeners: [{{address: "127.0.0.1:0", starttls: off}}]
queue: sqlite:queue.db
accept: {{networks: [127.0.0.0/8]}}
defaults: {{outbound: {{route: {{private: allow}}, mta_sts: {use}}}}}
"""


@dataclass
class World:
    """One relay, one policy host for b.example, and DNS that can change."""

    relay: Relay
    host: PolicyHost
    dns: FakeResolver
    heard: Heard
    sent: int = 0

    async def send(self) -> Outcome:
        """What became of a message, at the hop that was tried last."""
        before = len(self.heard.of(AttemptMade))
        await submit(self.relay.address(), "alice@relay.test", ["bob@b.example"], b"Subject: hi\r\n\r\nhello\r\n")
        made = await self.heard.wait(AttemptMade, before + 1)
        return made[-1].attempt.outcomes[0][1]


@asynccontextmanager
async def world(folder: Path, server: HostileServer, reply: bytes, *, use: str = "auto") -> AsyncIterator[World]:
    file, heard = folder / "connectors.yaml", Heard()
    file.write_text(FILE.format(use=use))
    dns = FakeResolver(
        mx_records={"b.example": [(10, MX)]},
        hosts={MX: ["127.0.0.1"], "mta-sts.b.example": ["127.0.0.1"]},
        texts={"_mta-sts.b.example": ["v=STSv1; id=1;"]},
    )
    async with PolicyHost(folder / "web/mta-sts.b.example.pem", answer(reply)) as host:
        fetching = FetchSettings(host.port, 30, PrivateAddresses.ALLOW)
        delivery = OutboundSettings(port=server.port)
        async with Relay(file, observers=[heard], resolver=dns, policy_hosts=fetching, delivery=delivery) as relay:
            yield World(relay, host, dns, heard)


@pytest.fixture
def pki(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pki:
    """MTA-STS believes the system's CAs only: here those are two, of the mail servers and of the policy host."""
    made = Pki(tmp_path / "mail")
    web = PolicyPki(tmp_path / "web")
    web.issue(tmp_path / "web", "mta-sts.b.example")
    bundle = tmp_path / "system.pem"
    bundle.write_bytes(made.ca.read_bytes() + web.ca.read_bytes())
    monkeypatch.setenv("SSL_CERT_FILE", str(bundle))
    return made


async def test_an_enforced_policy_is_kept_and_stands_in_the_trace(pki: Pki, tmp_path: Path) -> None:
    async with HostileServer(Behaviour(tls=pki.good)) as server:
        async with world(tmp_path, server, policy("enforce", MX)) as partner:
            assert isinstance(await partner.send(), Delivered)
            (made,) = partner.heard.of(AttemptMade)
            assert made.attempt.plan is not None
            assert {each.source for each in made.attempt.plan.demands} >= {"mta-sts"}
            assert partner.host.names == ["mta-sts.b.example"]
        assert len(server.taken) == 1


@pytest.mark.parametrize(
    ("certificate", "failure"),
    [
        ("wrong_name", TlsFailure.CERTIFICATE_HOST_MISMATCH),
        ("wrong_ca", TlsFailure.CERTIFICATE_NOT_TRUSTED),
        ("expired", TlsFailure.CERTIFICATE_EXPIRED),
    ],
)
async def test_a_host_that_cannot_prove_its_name_gets_nothing(
    pki: Pki, tmp_path: Path, certificate: str, failure: TlsFailure
) -> None:
    async with HostileServer(Behaviour(tls=getattr(pki, certificate))) as server:
        async with world(tmp_path, server, policy("enforce", MX)) as partner:
            outcome = await partner.send()
            assert isinstance(outcome, Deferred)
            assert outcome.failure is failure
            (told,) = await partner.heard.wait(TlsWithheld)
            assert told.failure is failure
        assert b"MAIL" not in server.clear + server.inside


async def test_stripping_starttls_gets_nothing(pki: Pki, tmp_path: Path) -> None:
    async with HostileServer() as server:
        async with world(tmp_path, server, policy("enforce", MX)) as partner:
            outcome = await partner.send()
        assert isinstance(outcome, Deferred)
        assert outcome.failure is TlsFailure.STARTTLS_NOT_SUPPORTED
        assert b"MAIL" not in server.clear


async def test_a_forged_mx_is_not_even_connected_to(pki: Pki, tmp_path: Path) -> None:
    async with HostileServer(Behaviour(tls=pki.good)) as server:
        async with world(tmp_path, server, policy("enforce", "mx.b.example")) as partner:
            assert isinstance(await partner.send(), Deferred)
        assert not server.sessions


@pytest.mark.parametrize("mode", ["testing", "none"])
async def test_what_is_not_enforced_changes_no_delivery(pki: Pki, tmp_path: Path, mode: str) -> None:
    async with HostileServer(Behaviour(tls=pki.wrong_ca)) as server:
        async with world(tmp_path, server, policy(mode, MX)) as partner:
            assert isinstance(await partner.send(), Delivered)
        assert len(server.taken) == 1


async def test_required_and_not_to_be_had_waits(pki: Pki, tmp_path: Path) -> None:
    async with HostileServer(Behaviour(tls=pki.good)) as server:
        async with world(tmp_path, server, b"no policy at all", use="require") as partner:
            outcome = await partner.send()
            assert isinstance(outcome, Deferred)
            assert outcome.failure is TlsFailure.STS_POLICY_INVALID
            await partner.heard.wait(StsFetchFailed)
        assert not server.sessions


async def test_a_new_policy_that_lets_the_mail_go_is_taken_at_once(pki: Pki, tmp_path: Path) -> None:
    """RFC 8461 section 5.1: the old one is in force for a day, and the mail does not wait for that."""
    async with HostileServer(Behaviour(tls=pki.good)) as server:
        async with world(tmp_path, server, policy("enforce", "old.b.example")) as partner:
            assert isinstance(await partner.send(), Deferred)
            partner.host.reply = answer(policy("enforce", MX))
            partner.dns.texts["_mta-sts.b.example"] = ["v=STSv1; id=2;"]
            await partner.send()
            made = await partner.heard.wait(AttemptMade, 3)
            assert [type(each.attempt.outcomes[0][1]) for each in made] == [Deferred, Deferred, Delivered]
        assert len(server.taken) == 1
