"""A new connection to a hop of a moment ago resumes the session, and is judged by today's rules all the same."""

from datetime import timedelta
from typing import Any

from relay.mail.outcome import Deferred, Delivered
from relay.mail.tls import TlsFailure
from tests.hostile import Behaviour, HostileServer, Pki
from tests.unit.outbound.builders import smart_host, utc, world
from tests.unit.policy.builders import OTHER_PIN, book

ONE_EACH = {"messages_per_connection": 1}


async def test_the_second_connection_resumes_and_has_its_evidence(pki: Pki) -> None:
    async with HostileServer(Behaviour(tls=pki.good)) as server:
        async with world(server.port, tls="domain", ca=str(pki.ca), limits=ONE_EACH) as mail:
            attempts = [(await mail.deliver("bob@b.example"))[0] for _ in range(3)]
        assert len(server.sessions) == 3
    evidence = [each.evidence for each in attempts if each.evidence is not None]
    assert [each.resumed for each in evidence] == [False, True, True]
    assert len({each.chain for each in evidence}) == 1
    assert all(isinstance(each.outcomes[0][1], Delivered) for each in attempts)


async def test_another_plan_is_another_session(pki: Pki) -> None:
    async with (
        HostileServer(Behaviour(tls=pki.good)) as server,
        world(server.port, tls="encryption", limits=ONE_EACH) as mail,
    ):
        await mail.deliver("bob@b.example")
        mail.book = book(connectors=[smart_host(server.port, tls="encryption", pins=[OTHER_PIN], limits=ONE_EACH)])
        (attempt,) = await mail.deliver("bob@b.example")
    assert attempt.evidence is not None
    assert not attempt.evidence.resumed
    outcome = attempt.outcomes[0][1]
    assert isinstance(outcome, Deferred)
    assert outcome.failure is TlsFailure.PIN_MISMATCH


async def test_a_ca_that_is_trusted_no_more_is_not_trusted_in_a_resumed_session(pki: Pki) -> None:
    trusted = pki.ca.with_name("trusted.pem")
    trusted.write_bytes(pki.ca.read_bytes())
    later = timedelta(0)
    async with HostileServer(Behaviour(tls=pki.good)) as server:
        mail = world(server.port, clock=lambda: utc() + later, tls="domain", ca=str(trusted), limits=ONE_EACH)
        async with mail:
            assert isinstance(await mail.outcome("bob@b.example"), Delivered)
            trusted.unlink()
            later = timedelta(seconds=5)  # files are looked at once a second
            (attempt,) = await mail.deliver("bob@b.example")
        assert len(server.sessions) == 3, "what fails in a resumed session is looked at in a whole handshake"
    assert attempt.evidence is not None
    assert not attempt.evidence.resumed
    assert isinstance(attempt.outcomes[0][1], Deferred)


async def test_what_is_not_known_to_be_good_is_not_resumed(pki: Pki) -> None:
    """A resumed session brings no staple: the next handshake is a whole one, and may bring one."""
    terms: dict[str, Any] = {"tls": "certificate", "ca": str(pki.ca), "limits": ONE_EACH, "revocation": "prefer"}
    async with HostileServer(Behaviour(tls=pki.good)) as server, world(server.port, **terms) as mail:
        attempts = [(await mail.deliver("bob@b.example"))[0] for _ in range(2)]
    for each in attempts:
        assert isinstance(each.outcomes[0][1], Delivered)
        assert each.evidence is not None
        assert not each.evidence.resumed
        (statuses,) = each.evidence.revocation.values()
        assert [status.why for status in statuses] == ["nobody here checks"]


async def test_what_is_required_and_not_known_gets_no_mail(pki: Pki) -> None:
    terms: dict[str, Any] = {"tls": "certificate", "ca": str(pki.ca), "revocation": "require"}
    async with HostileServer(Behaviour(tls=pki.good)) as server, world(server.port, **terms) as mail:
        outcome = await mail.outcome("bob@b.example")
        assert not server.inside or b"MAIL" not in server.inside
    assert isinstance(outcome, Deferred)
    assert (outcome.status, outcome.failure) == ("4.7.5", TlsFailure.REVOCATION_UNAVAILABLE)
