"""A REQUIRETLS message along the hosts of a destination (RFC 8689 section 4.2.1): only when all of them refuse does it bounce."""

import pytest

from relay.mail.outcome import Bounced, Deferred, Delivered
from relay.mail.plan import RequireTls
from relay.mail.tls import TlsFailure
from relay.outbound.deliver import OutboundSettings
from tests.fakes import FakeResolver
from tests.hostile import EXTENSIONS, Behaviour, HostileServer, Pki, Step
from tests.unit.outbound.builders import HOST, PATIENT, World, results, smart_host, world
from tests.unit.policy.builders import book

OFFERING = (*EXTENSIONS, "REQUIRETLS")


def offering(pki: Pki) -> Behaviour:
    return Behaviour(tls=pki.good, extensions_tls=OFFERING)


async def test_the_next_host_is_asked_and_has_it(pki: Pki) -> None:
    async with HostileServer(Behaviour(tls=pki.good)) as without, HostileServer(offering(pki)) as other:
        async with world(without.port, other.port, tls="certificate", ca=str(pki.ca)) as mail:
            attempts = await mail.deliver("bob@b.example", requiretls=True)
            assert [type(each.outcomes[0][1]) for each in attempts] == [Deferred, Delivered]
            assert attempts[-1].plan is not None
            assert RequireTls("requiretls", "connector c") in attempts[-1].plan.demands
            # Another message over the same host, without it: another connection, and no word of it.
            assert isinstance(await mail.outcome("bob@b.example"), Delivered)
        assert (len(without.taken), len(other.taken)) == (1, 1)
        assert b"REQUIRETLS" not in without.inside


@pytest.mark.parametrize("exception", [(), ("plaintext",), ("encryption",)])
async def test_where_no_host_has_it_the_message_bounces_at_once(pki: Pki, exception: tuple[str, ...]) -> None:
    allowed = [
        {"recipient_domain": "b.example", "allow": allow, "until": "2099-01-01", "reason": "x"} for allow in exception
    ]
    async with HostileServer(Behaviour(tls=pki.good)) as one, HostileServer(Behaviour()) as two:
        async with world(one.port, two.port, ca=str(pki.ca), tls="certificate", exceptions=allowed) as mail:
            outcome = await mail.outcome("bob@b.example", requiretls=True)
            assert isinstance(outcome, Bounced)
            assert (outcome.status, outcome.failure) == ("5.7.30", TlsFailure.REQUIRETLS_NOT_SUPPORTED)
            assert mail.events == [], "nothing waits"
        assert (len(one.sessions), len(two.sessions)) == (1, 1)
        for server in (one, two):
            assert b"MAIL" not in server.clear + server.inside


@pytest.mark.parametrize(
    "other",
    [Behaviour({Step.GREETING: b"421 4.3.2 busy\r\n"}), Behaviour({Step.EHLO: b"451 4.3.0 later\r\n"}), None],
    ids=["busy", "later", "not there"],
)
async def test_a_host_that_may_still_take_it_is_waited_for(pki: Pki, other: Behaviour | None) -> None:
    async with HostileServer(Behaviour(tls=pki.good)) as one, HostileServer(other or Behaviour()) as two:
        port = two.port
        if other is None:
            await two.__aexit__(None, None, None)
        async with world(one.port, port, tls="certificate", ca=str(pki.ca)) as mail:
            assert isinstance(await mail.outcome("bob@b.example", requiretls=True), Deferred)


async def test_the_other_addresses_of_a_host_that_refused_are_left_alone(pki: Pki) -> None:
    """A host with many addresses, or with one that this machine cannot reach, bounces as fast as any other."""
    async with HostileServer(Behaviour(tls=pki.good)) as server:
        rules = book(connectors=[smart_host(server.port, tls="certificate", ca=str(pki.ca))])
        resolver = FakeResolver(hosts={HOST: ["127.0.0.1", "127.0.0.2", "127.0.0.3"]})
        async with World(rules, resolver, settings=OutboundSettings(timeouts=PATIENT, addresses=3)) as mail:
            attempts = await mail.deliver("bob@b.example", requiretls=True)
        assert isinstance(results(attempts)[0], Bounced)
        assert sum(each.evidence is not None for each in attempts) == 1


async def test_by_mx_without_anything_published_nobody_vouches(pki: Pki) -> None:
    async with HostileServer(offering(pki)) as server:
        rules = book(defaults={"outbound": {"route": {"private": "allow"}}})
        records = {"b.example": [(10, HOST), (20, "gone.test")]}
        resolver = FakeResolver(mx_records=records, hosts={HOST: ["127.0.0.1"]})
        settings = OutboundSettings(timeouts=PATIENT, port=server.port)
        async with World(rules, resolver, settings=settings) as mail:
            attempts = await mail.deliver("bob@b.example", "ann@b.example", requiretls=True)
            for outcome in results(attempts).values():
                assert isinstance(outcome, Bounced)
                assert outcome.status == "5.7.30"
                assert "nobody vouches" in outcome.text
        assert b"MAIL" not in server.inside


async def test_what_a_hop_says_to_one_recipient_is_not_said_to_the_other(pki: Pki) -> None:
    """One recipient is deferred by a host that keeps REQUIRETLS; that is no refusal."""
    later = Behaviour(tls=pki.good, extensions_tls=OFFERING, recipients={"ann@": b"450 4.2.1 later\r\n"})
    async with (
        HostileServer(later) as one,
        HostileServer(Behaviour(tls=pki.good)) as two,
        world(one.port, two.port, tls="certificate", ca=str(pki.ca)) as mail,
    ):
        found = results(await mail.deliver("bob@b.example", "ann@b.example", requiretls=True))
    assert [type(found[index]) for index in (0, 1)] == [Delivered, Deferred]
