"""A REQUIRETLS message at one address (RFC 8689 section 4.2.1): what is said there, and what becomes of it."""

import ipaddress
import time
from datetime import UTC, datetime

import pytest

from relay.config.values import HostPort
from relay.mail.outcome import Bounced, Deferred, Delivered
from relay.mail.plan import Encryption, Level, Pkix, Plaintext, RequireTls, TlsPlan
from relay.mail.tls import TlsFailure
from relay.outbound.attempt import Attempts, Job, Tried
from relay.outbound.connection import Connection
from relay.outbound.handshake import TlsClient
from relay.outbound.pool import Pool, PoolLimits
from relay.outbound.target import Target
from relay.policy.requiretls import kept_nowhere
from relay.tls.trust import TrustStores
from tests.hostile import EXTENSIONS, Behaviour, HostileServer, Pki, Step
from tests.unit.outbound.builders import HOST, PATIENT, Body, message

OFFERING = (*EXTENSIONS, "REQUIRETLS")
CHUNKING = (*OFFERING, "CHUNKING")
LOOSE = TlsPlan(Level.OPPORTUNISTIC, Plaintext.IF_TLS_FAILS)


def now() -> datetime:
    return datetime.now(UTC)


def asking(pki: Pki, vouched: str = "dnssec") -> TlsPlan:
    """What `require_tls` makes of an opportunistic plan."""
    check = Pkix("requiretls", str(pki.ca), (HOST,))
    return LOOSE.adding({Encryption("requiretls"), RequireTls("requiretls", vouched), check})


async def attempt(port: int, plan: TlsPlan, *, requiretls: bool = True, times: int = 1) -> Tried:
    """The last of so many messages to one address."""
    pool: Pool[Connection] = Pool(PoolLimits(), time.monotonic)
    rules = object()
    attempts = Attempts(pool, TlsClient(lambda _name: None, TrustStores(), now), PATIENT, now, lambda: rules)
    target = Target(HostPort(HOST, port), ipaddress.ip_address("127.0.0.1"), plan, "relay.example.com")
    job = Job(message("bob@b.example", requiretls=requiretls), Body(), "c", rules, 100)
    try:
        for _ in range(times):
            tried = await attempts.at(job, target, [0])
    finally:
        await pool.close()
    return tried


@pytest.mark.parametrize("extensions", [OFFERING, OFFERING[1:], CHUNKING], ids=["pipelining", "one by one", "bdat"])
async def test_where_it_is_offered_inside_tls_by_the_right_host_it_is_asked_for(
    pki: Pki, extensions: tuple[str, ...]
) -> None:
    async with HostileServer(Behaviour(tls=pki.good, extensions_tls=extensions)) as server:
        tried = await attempt(server.port, asking(pki), times=3)
        assert isinstance(tried.attempts[-1].outcomes[0][1], Delivered)
        assert len(server.sessions) == 1
        assert [taken.mail.split()[-1] for taken in server.taken] == [b"REQUIRETLS"] * 3
        assert all(b"BODY" not in taken.mail and b"SIZE=" in taken.mail for taken in server.taken)


@pytest.mark.parametrize(
    ("behaviour", "failure"),
    [
        # not offered, or only where it means nothing
        ("not offered", TlsFailure.REQUIRETLS_NOT_SUPPORTED),
        ("offered in clear only", TlsFailure.REQUIRETLS_NOT_SUPPORTED),
        ("no STARTTLS", TlsFailure.REQUIRETLS_NOT_SUPPORTED),
        # the certificate is the first thing that is wrong, whatever the host offers
        ("wrong name", TlsFailure.CERTIFICATE_HOST_MISMATCH),
        ("wrong CA", TlsFailure.CERTIFICATE_NOT_TRUSTED),
        ("expired", TlsFailure.CERTIFICATE_EXPIRED),
    ],
)
async def test_where_it_cannot_be_kept_nothing_is_said_and_the_message_has_no_way(
    pki: Pki, behaviour: str, failure: TlsFailure
) -> None:
    behaviours = {
        "not offered": Behaviour(tls=pki.good),
        "offered in clear only": Behaviour(tls=pki.good, extensions=OFFERING),
        "no STARTTLS": Behaviour(extensions=OFFERING),
        "wrong name": Behaviour(tls=pki.wrong_name, extensions_tls=OFFERING),
        "wrong CA": Behaviour(tls=pki.wrong_ca),
        "expired": Behaviour(tls=pki.expired, extensions_tls=OFFERING),
    }
    async with HostileServer(behaviours[behaviour]) as server:
        tried = await attempt(server.port, asking(pki))
        ((_index, outcome),) = tried.attempts[0].outcomes
        assert isinstance(outcome, Deferred)
        assert (outcome.status, outcome.failure) == ("4.7.30", failure)
        assert outcome.text.endswith("(asked by requiretls)")
        bounced = kept_nowhere([(each.hop, said) for each in tried.attempts for _index, said in each.outcomes])
        assert isinstance(bounced, Bounced)
        assert (bounced.status, bounced.failure) == ("5.7.30", failure)
        assert not tried.said_mail
        for words in (server.clear, server.inside):
            assert b"MAIL" not in words
            assert b"anna" not in words


async def test_where_nobody_vouches_for_the_host_its_offer_is_worth_nothing(pki: Pki) -> None:
    async with HostileServer(Behaviour(tls=pki.good, extensions_tls=OFFERING)) as server:
        tried = await attempt(server.port, asking(pki, vouched=""))
        ((_index, outcome),) = tried.attempts[0].outcomes
        assert (outcome.status, "nobody vouches" in outcome.text) == ("4.7.30", True)
        assert not server.taken


@pytest.mark.parametrize("reaction", [b"454 4.7.0 not now\r\n", b"554 5.7.0 never\r\n"])
async def test_broken_tls_is_waited_out_and_never_gone_around(pki: Pki, reaction: bytes) -> None:
    """Somebody on the way can break TLS. That must bounce no mail, and send none in clear, though the plan would let other mail go."""
    behaviour = Behaviour(tls=pki.good, extensions=OFFERING, reactions={Step.STARTTLS: reaction})
    async with HostileServer(behaviour) as server:
        tried = await attempt(server.port, asking(pki))
        ((_index, outcome),) = tried.attempts[0].outcomes
        assert (outcome.status, getattr(outcome, "failure", None)) == ("4.7.5", TlsFailure.HANDSHAKE_FAILED)
        assert kept_nowhere([(tried.attempts[0].hop, outcome)]) is None
        assert len(tried.attempts) == 1
        assert b"MAIL" not in server.clear


async def test_a_message_that_does_not_ask_for_it_never_gets_it(pki: Pki) -> None:
    async with HostileServer(Behaviour(tls=pki.good, extensions_tls=OFFERING)) as server:
        tried = await attempt(server.port, LOOSE, requiretls=False)
        assert isinstance(tried.attempts[0].outcomes[0][1], Delivered)
        assert b"REQUIRETLS" not in server.inside


@pytest.mark.parametrize(
    ("extensions", "delivered"), [(EXTENSIONS, False), (OFFERING, True)], ids=["not offered", "offered"]
)
async def test_a_plan_that_forgot_to_ask_still_sends_nothing_without_it(
    pki: Pki, extensions: tuple[str, ...], delivered: bool
) -> None:
    async with HostileServer(Behaviour(tls=pki.good, extensions_tls=extensions)) as server:
        ((_index, outcome),) = (await attempt(server.port, LOOSE)).attempts[0].outcomes
        assert isinstance(outcome, Delivered) is delivered
        assert delivered or (isinstance(outcome, Bounced) and outcome.status == "5.7.30")
        assert bool(server.taken) is delivered
    async with HostileServer(Behaviour(extensions=OFFERING)) as clear:
        ((_index, outcome),) = (await attempt(clear.port, LOOSE)).attempts[0].outcomes
        assert (type(outcome), outcome.status) == (Bounced, "5.7.30")
        assert b"MAIL" not in clear.clear
