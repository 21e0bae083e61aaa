"""What an attempt says of its session for TLS reports: one for each new connection, as far as TLS came, and none for a kept one."""

from typing import Any

import pytest

from relay.mail.attempt import Session, SessionEnd
from relay.mail.outcome import Deferred, Delivered
from relay.mail.plan import Encryption, PolicyApplied
from relay.mail.published import PolicyKind
from relay.mail.tls import TlsFailure
from relay.outbound.attempt import Job
from relay.policy.published import Published, Says
from tests.hostile import Behaviour, Handshake, HostileServer, Pki, Step, Then
from tests.unit.outbound.builders import Body, message, results, utc, world


async def sessions(behaviour: Behaviour, **keys: Any) -> list[Session | None]:
    async with HostileServer(behaviour) as server, world(server.port, **keys) as made:
        return [each.session for each in await made.deliver()]


async def test_one_session_for_each_new_connection(pki: Pki) -> None:
    async with HostileServer(Behaviour(tls=pki.good)) as server, world(server.port) as made:
        first, second = await made.deliver(), await made.deliver()
    assert [each.session for each in first] == [Session(SessionEnd.SECURED, "127.0.0.1")]
    assert first[0].evidence is not None
    assert [each.session for each in second] == [None]  # the same connection
    assert isinstance(results(second)[0], Delivered)


@pytest.mark.parametrize("level", ["opportunistic", "encryption"])
async def test_a_host_without_starttls(level: str) -> None:
    assert await sessions(Behaviour(), tls=level) == [Session(SessionEnd.NOT_OFFERED, "127.0.0.1")]


async def test_a_verdict_that_fails_is_a_session_all_the_same(pki: Pki) -> None:
    async with (
        HostileServer(Behaviour(tls=pki.self_signed)) as server,
        world(server.port, tls="certificate", ca=str(pki.ca)) as made,
    ):
        (attempt,) = await made.deliver()
    assert attempt.session == Session(SessionEnd.SECURED, "127.0.0.1")
    assert attempt.evidence is not None
    assert isinstance(results([attempt])[0], Deferred)


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [
        (Behaviour(reactions={Step.STARTTLS: b"454 4.7.0 not now\r\n"}), "STARTTLS was offered and refused: 454 not now"),
        (Behaviour(handshake=Handshake.GARBAGE), "the TLS handshake failed: "),
        (Behaviour(reactions={Step.STARTTLS: Then.CLOSE}), "after STARTTLS: the connection was lost"),
    ],
    ids=["454", "garbage", "closes"],
)  # fmt: skip
async def test_starttls_that_breaks(behaviour: Behaviour, reason: str, pki: Pki) -> None:
    offering = Behaviour(behaviour.reactions, pki.good, behaviour.handshake)
    (session,) = await sessions(offering)
    assert session is not None
    assert (session.end, session.source) == (SessionEnd.BROKEN, "127.0.0.1")
    assert session.reason.startswith(reason)


async def test_clear_text_after_broken_tls_is_no_second_session(pki: Pki) -> None:
    broken = Behaviour(tls=pki.good, handshake=Handshake.GARBAGE)
    first, second = await sessions(broken, plaintext="if-tls-fails")
    assert first is not None
    assert first.end is SessionEnd.BROKEN
    assert second is None


async def test_a_failure_inside_tls_leaves_the_handshake_as_good_as_it_was(pki: Pki) -> None:
    (session,) = await sessions(Behaviour(tls=pki.good, reactions={Step.EHLO_TLS: b"550 5.7.1 go away\r\n"}))
    assert session == Session(SessionEnd.SECURED, "127.0.0.1")


@pytest.mark.parametrize("reaction", [b"554 5.7.1 no\r\n", b"421 4.3.2 later\r\n", Then.CLOSE])
async def test_without_a_greeting_there_was_no_session(reaction: bytes | Then, pki: Pki) -> None:
    assert await sessions(Behaviour(tls=pki.good, reactions={Step.GREETING: reaction})) == [None]


async def test_nobody_there_is_no_session() -> None:
    async with HostileServer(Behaviour()) as server:
        port = server.port
    async with world(port) as made:
        (attempt,) = await made.deliver()
    assert attempt.session is None


def test_a_host_that_policy_keeps_mail_from() -> None:
    applied = PolicyApplied(PolicyKind.TLSA, "mx.b.example", demands=frozenset({Encryption("dane")}))
    why = Deferred(451, "4.7.5", "the TLSA look-up failed", TlsFailure.DNSSEC_INVALID)
    job = Job(message("bob@b.example", "eve@b.example"), Body(), "c", None, 1)
    attempt = job.withheld(utc(), "mx.b.example:25", why, (1, 0), Published(dane=Says(applied=applied, withheld=why)))
    assert attempt.outcomes == ((0, why), (1, why))
    assert (attempt.hop, attempt.address, attempt.plan) == ("mx.b.example:25", "", None)
    assert attempt.session == Session(
        SessionEnd.WITHHELD,
        reason="the TLSA look-up failed",
        failure=TlsFailure.DNSSEC_INVALID,
        published=(applied,),
    )
