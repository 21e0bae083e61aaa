"""The hostile server x every level: what becomes of the mail, and that no byte of it was in clear where the plan forbids it."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
import uvloop

from relay.mail.events import TlsWithheld
from relay.mail.outcome import Deferred, Delivered
from relay.mail.tls import TlsFailure
from relay.outbound.deliver import OutboundSettings
from tests.hostile import Behaviour, Handshake, HostileServer, Pki, Step, Then
from tests.unit.outbound.builders import HEADER, HOST, IMPATIENT, TEXT, results, world

LEVELS: dict[str, Callable[[Pki], dict[str, Any]]] = {
    "opportunistic": lambda _pki: {},
    "if-tls-fails": lambda _pki: {"plaintext": "if-tls-fails"},
    "never": lambda _pki: {"plaintext": "never"},
    "encryption": lambda _pki: {"tls": "encryption"},
    "certificate": lambda pki: {"tls": "certificate", "ca": str(pki.ca)},
    "domain": lambda pki: {"tls": "domain", "ca": str(pki.ca)},
    "tls-1.3": lambda _pki: {"tls": "encryption", "tls_version": "TLSv1.3"},
    "excepted": lambda pki: {"tls": "domain", "ca": str(pki.ca)},
    "half-excepted": lambda pki: {"tls": "domain", "ca": str(pki.ca)},
}
NEXT_YEAR = f"{datetime.now(UTC).year + 1}-06-30"
EXCEPTIONS = {
    "excepted": [{"recipient_domain": "b.example", "allow": "plaintext", "until": NEXT_YEAR, "reason": "x"}],
    "half-excepted": [{"recipient_domain": "b.example", "allow": "encryption", "until": NEXT_YEAR, "reason": "x"}],
}
BEHAVIOURS: dict[str, Callable[[Pki], Behaviour]] = {
    "good": lambda pki: Behaviour(tls=pki.good),
    "drip": lambda pki: Behaviour(tls=pki.good, drip=True),
    "tls-1.2": lambda pki: Behaviour(tls=pki.tls12),
    "no-starttls": lambda _pki: Behaviour(),
    "no-ehlo": lambda pki: Behaviour(tls=pki.good, reactions={Step.EHLO: b"502 5.5.1 no EHLO\r\n"}),
    "454": lambda pki: Behaviour(tls=pki.good, reactions={Step.STARTTLS: b"454 4.7.0 not now\r\n"}),
    "554": lambda pki: Behaviour(tls=pki.good, reactions={Step.STARTTLS: b"554 5.7.0 never\r\n"}),
    "hangs-up": lambda pki: Behaviour(tls=pki.good, reactions={Step.STARTTLS: Then.CLOSE}),
    "says-nothing": lambda pki: Behaviour(tls=pki.good, reactions={Step.STARTTLS: Then.SILENCE}),
    "no-reply": lambda pki: Behaviour(tls=pki.good, reactions={Step.STARTTLS: b"what?\r\n"}),
    "garbage": lambda pki: Behaviour(tls=pki.good, handshake=Handshake.GARBAGE),
    "closes": lambda pki: Behaviour(tls=pki.good, handshake=Handshake.CLOSE),
    "silent": lambda pki: Behaviour(tls=pki.good, handshake=Handshake.SILENCE),
    "injects-reply": lambda pki: Behaviour(tls=pki.good, handshake=Handshake.INJECTED_REPLY),
    "injects-bytes": lambda pki: Behaviour(tls=pki.good, handshake=Handshake.INJECTED_BYTES),
    "expired": lambda pki: Behaviour(tls=pki.expired),
    "self-signed": lambda pki: Behaviour(tls=pki.self_signed),
    "wrong-name": lambda pki: Behaviour(tls=pki.wrong_name),
    "wrong-ca": lambda pki: Behaviour(tls=pki.wrong_ca),
    "tls-1.0": lambda pki: Behaviour(tls=pki.old),
    "wants-ours": lambda pki: Behaviour(tls=pki.asks_certificate),
    "ends-in-tls": lambda pki: Behaviour(tls=pki.good, reactions={Step.EHLO_TLS: Then.CLOSE}),
    "550-in-tls": lambda pki: Behaviour(tls=pki.good, reactions={Step.EHLO_TLS: b"550 5.7.1 go away\r\n"}),
    "starttls-again": lambda pki: Behaviour(tls=pki.good, extensions_tls=("STARTTLS", "PIPELINING")),
    "less-in-tls": lambda pki: Behaviour(tls=pki.good, extensions_tls=()),
}

# tls: delivered inside TLS; clear: delivered in clear; else why it waits (defer: not because of TLS).
HEAD = "                 opportunistic if-tls-fails never      encryption certificate domain     tls-1.3    excepted   half-excepted"
TABLE = """
good             tls           tls          tls        tls        tls         tls        tls        tls        tls
drip             tls           tls          tls        tls        tls         tls        tls        tls        tls
tls-1.2          tls           tls          tls        tls        tls         tls        too-low    tls        tls
no-starttls      clear         clear        not        not        not         not        not        clear      not
no-ehlo          clear         clear        defer      defer      defer       defer      defer      clear      defer
454              broken        clear        broken     broken     broken      broken     broken     clear      broken
554              broken        clear        broken     broken     broken      broken     broken     clear      broken
hangs-up         broken        clear        broken     broken     broken      broken     broken     clear      broken
says-nothing     broken        clear        broken     broken     broken      broken     broken     clear      broken
no-reply         broken        clear        broken     broken     broken      broken     broken     clear      broken
garbage          broken        clear        broken     broken     broken      broken     broken     clear      broken
closes           broken        clear        broken     broken     broken      broken     broken     clear      broken
silent           broken        clear        broken     broken     broken      broken     broken     clear      broken
injects-reply    broken        clear        broken     broken     broken      broken     broken     clear      broken
injects-bytes    broken        clear        broken     broken     broken      broken     broken     clear      broken
expired          tls           tls          tls        tls        expired     expired    tls        tls        tls
self-signed      tls           tls          tls        tls        untrusted   untrusted  tls        tls        tls
wrong-name       tls           tls          tls        tls        tls         name       tls        tls        tls
wrong-ca         tls           tls          tls        tls        untrusted   untrusted  tls        tls        tls
tls-1.0          broken        clear        broken     broken     broken      broken     broken     clear      broken
wants-ours       broken        clear        broken     broken     broken      broken     broken     clear      broken
ends-in-tls      defer         defer        defer      defer      defer       defer      defer      defer      defer
550-in-tls       defer         defer        defer      defer      defer       defer      defer      defer      defer
starttls-again   tls           tls          tls        tls        tls         tls        tls        tls        tls
less-in-tls      tls           tls          tls        tls        tls         tls        tls        tls        tls
"""
SILENT = ("says-nothing", "silent")
FAILURES = {
    "not": ("4.7.4", TlsFailure.STARTTLS_NOT_SUPPORTED),
    "broken": ("4.7.5", TlsFailure.HANDSHAKE_FAILED),
    "expired": ("4.7.5", TlsFailure.CERTIFICATE_EXPIRED),
    "untrusted": ("4.7.5", TlsFailure.CERTIFICATE_NOT_TRUSTED),
    "name": ("4.7.5", TlsFailure.CERTIFICATE_HOST_MISMATCH),
    "too-low": ("4.7.5", TlsFailure.TLS_VERSION_TOO_LOW),
}
ROWS = [line.split() for line in TABLE.strip().splitlines()]
CASES = [(row[0], level, row[place]) for row in ROWS for place, level in enumerate(HEAD.split(), 1)]


def test_the_table_is_whole() -> None:
    assert [row[0] for row in ROWS] == list(BEHAVIOURS)
    assert HEAD.split() == list(LEVELS)
    assert {len(row) for row in ROWS} == {len(LEVELS) + 1}


@pytest.mark.parametrize(("behaviour", "level", "expected"), CASES, ids=lambda value: str(value))
async def test_outcome_and_wire(pki: Pki, behaviour: str, level: str, expected: str) -> None:
    await check(pki, behaviour, level, expected)


async def check(pki: Pki, behaviour: str, level: str, expected: str) -> None:
    settings = IMPATIENT if behaviour in SILENT else OutboundSettings()
    exceptions = EXCEPTIONS.get(level, ())
    async with HostileServer(BEHAVIOURS[behaviour](pki)) as server:
        async with world(server.port, exceptions=exceptions, settings=settings, **LEVELS[level](pki)) as mail:
            attempts = await mail.deliver("bob@b.example")
        outcome, last = results(attempts)[0], attempts[-1]
        if expected in ("tls", "clear"):
            assert isinstance(outcome, Delivered)
            assert [taken.content for taken in server.taken] == [HEADER + TEXT]
            assert (last.evidence is None) is (expected == "clear")
        else:
            status, failure = FAILURES.get(expected, (outcome.status, None))
            assert isinstance(outcome, Deferred)
            assert (outcome.status, outcome.failure) == (status, failure), outcome
            assert not server.taken
        withheld = [event for event in mail.events if isinstance(event, TlsWithheld)]
        assert [event.failure for event in withheld] == ([FAILURES[expected][1]] if expected in FAILURES else [])
        assert all(HOST in event.hop and event.recipient.rpartition("@")[2] in event.remedy for event in withheld)
        if expected != "clear":
            for word in (b"MAIL", b"RCPT", b"anna", b"bob@", b"Subject", b"AUTH"):
                assert word not in server.clear
        if expected == "tls":
            assert server.inside.count(b"MAIL FROM") == 1
            assert server.clear.splitlines()[-1].startswith(b"STARTTLS")


def test_the_same_under_uvloop(pki: Pki) -> None:
    """Every behaviour once more, at three levels: event loops differ most where connections break."""
    levels = ("if-tls-fails", "domain", "excepted")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        for behaviour, level, expected in CASES:
            if level in levels:
                runner.run(check(pki, behaviour, level, expected))


async def test_clear_text_after_broken_tls_is_a_new_connection_and_both_are_recorded(pki: Pki) -> None:
    async with HostileServer(BEHAVIOURS["454"](pki)) as server, world(server.port, plaintext="if-tls-fails") as mail:
        first, second = await mail.deliver("bob@b.example")
        assert isinstance(first.outcomes[0][1], Deferred)
        assert isinstance(second.outcomes[0][1], Delivered)
        assert len(server.sessions) == 2
        assert b"MAIL" not in server.sessions[0].clear
        # The next message tries TLS first again.
        await mail.deliver("bob@b.example")
        assert server.clear.count(b"STARTTLS") == 2


async def test_clear_text_after_broken_tls_may_fail_too(pki: Pki) -> None:
    later = Behaviour({Step.GREETING: b"421 4.3.2 busy\r\n"})
    async with (
        HostileServer(BEHAVIOURS["454"](pki), later) as server,
        world(server.port, plaintext="if-tls-fails") as mail,
    ):
        attempts = await mail.deliver("bob@b.example")
        assert [each.outcomes[0][1].status for each in attempts] == ["4.7.5", "4.3.2"]
        assert b"MAIL" not in server.clear


async def test_what_was_said_in_clear_is_not_believed_inside_tls(pki: Pki) -> None:
    """The clear EHLO offers everything, the one inside TLS only SIZE: no pipelining, no 8BITMIME, and the size limit holds."""
    behaviour = Behaviour(tls=pki.good, extensions_tls=("SIZE 10",))
    async with HostileServer(behaviour) as server, world(server.port) as mail:
        outcome = await mail.outcome("bob@b.example")
        assert outcome.status == "5.3.4"
        assert b"MAIL" not in server.inside


async def test_evidence_of_a_failed_verdict_is_recorded(pki: Pki) -> None:
    async with (
        HostileServer(Behaviour(tls=pki.wrong_name)) as server,
        world(server.port, tls="domain", ca=str(pki.ca)) as mail,
    ):
        (attempt,) = await mail.deliver("bob@b.example")
        assert attempt.evidence is not None
        assert attempt.evidence.leaf is not None
        assert attempt.evidence.leaf.dns_names == ("elsewhere.test",)
        assert attempt.evidence.sni == HOST
        assert attempt.plan is not None
        assert attempt.plan.level == "domain"


async def test_a_client_certificate_that_is_not_there_stops_the_delivery(pki: Pki) -> None:
    async with HostileServer(Behaviour(tls=pki.good)) as server:
        mail = world(server.port, client_certificate="ours")
        outcome = await mail.outcome("bob@b.example")
        assert (outcome.status, "ours" in outcome.text) == ("4.3.5", True)
        assert not server.sessions


async def test_withheld_mail_is_told_of_once(pki: Pki) -> None:
    async with HostileServer(Behaviour()) as server, world(server.port, tls="encryption") as mail:
        for _ in range(3):
            await mail.deliver("bob@b.example")
        assert len(mail.events) == 1
