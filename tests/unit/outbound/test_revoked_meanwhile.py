"""A certificate that is revoked while a connection is kept, and what is resumed after that."""

import asyncio
import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import trustme

from relay.mail.address import parse_mailbox
from relay.mail.attempt import Attempt
from relay.mail.outcome import Deferred, Delivered
from relay.mail.revocation import CertificateStatus, State, Statuses
from relay.mail.tls import TlsFailure
from tests.hostile import Behaviour, HostileServer, Pki
from tests.unit.outbound.builders import world

ONE_EACH = {"messages_per_connection": 1}


@dataclass
class Checks:
    """What is found out, and what is at hand later."""

    state: State = State.GOOD
    asked: int = 0
    news: int = 0
    looking: asyncio.Event = field(default_factory=asyncio.Event)
    gate: asyncio.Event | None = None

    def _all(self, path: Sequence[bytes]) -> Statuses:
        return tuple(CertificateStatus("CN=b", "01", self.state) for _ in path[1:])

    def held(self, _path: Sequence[bytes]) -> Statuses | None:
        return None

    async def check(self, path: Sequence[bytes], _staple: bytes = b"") -> Statuses:
        self.asked += 1
        return self._all(path)

    async def again(self, path: Sequence[bytes], _before: Statuses) -> Statuses:
        self.news += 1
        self.looking.set()
        if self.gate is not None:
            await self.gate.wait()
        return self._all(path)


def terms(pki: Pki, checks: Checks, **more: Any) -> dict[str, Any]:
    return {"tls": "certificate", "ca": str(pki.ca), "revocation": "prefer", "revocations": checks, **more}


def said(attempt: Attempt) -> list[State]:
    assert attempt.evidence is not None
    (statuses,) = attempt.evidence.revocation.values()
    return [each.state for each in statuses]


async def test_a_kept_connection_is_looked_at_before_each_message(pki: Pki) -> None:
    checks = Checks()
    async with HostileServer(Behaviour(tls=pki.good)) as server:
        async with world(server.port, **terms(pki, checks)) as mail:
            for _ in range(3):
                assert isinstance(await mail.outcome("bob@b.example"), Delivered)
            assert (len(server.sessions), checks.asked, checks.news) == (1, 1, 2)
            checks.state = State.REVOKED
            (attempt,) = await mail.deliver("bob@b.example")
        assert len(server.sessions) == 3, (
            "a resumed one, and a whole handshake: the hop may have another certificate by now"
        )
        assert all(b"MAIL" not in each.inside for each in server.sessions[1:])
        assert len(server.taken) == 3
    outcome = attempt.outcomes[0][1]
    assert isinstance(outcome, Deferred)
    assert outcome.failure is TlsFailure.CERTIFICATE_REVOKED
    assert set(said(attempt)) == {State.REVOKED}


async def test_a_callout_looks_too(pki: Pki) -> None:
    checks = Checks()
    async with HostileServer(Behaviour(tls=pki.good)) as server, world(server.port, **terms(pki, checks)) as mail:
        assert isinstance(await mail.outcome("bob@b.example"), Delivered)
        checks.state = State.REVOKED
        answer = await mail.outbound.ask(parse_mailbox("bob@b.example"))
    assert not answer.reached
    assert "revoked" in answer.text


async def test_what_the_news_say_is_in_the_evidence(pki: Pki) -> None:
    checks = Checks(State.UNKNOWN)
    async with HostileServer(Behaviour(tls=pki.good)) as server, world(server.port, **terms(pki, checks)) as mail:
        (first,) = await mail.deliver("bob@b.example")
        checks.state = State.GOOD
        (second,) = await mail.deliver("bob@b.example")
        assert len(server.sessions) == 1
    assert (set(said(first)), set(said(second))) == ({State.UNKNOWN}, {State.GOOD})


async def test_without_revocation_nobody_looks(pki: Pki) -> None:
    checks = Checks()
    keys = terms(pki, checks, revocation="off")
    async with HostileServer(Behaviour(tls=pki.good)) as server, world(server.port, **keys) as mail:
        for _ in range(2):
            assert isinstance(await mail.outcome("bob@b.example"), Delivered)
    assert (checks.asked, checks.news) == (0, 0)


async def test_a_delivery_that_is_cut_short_meanwhile_leaves_no_connection(pki: Pki) -> None:
    checks = Checks()
    async with HostileServer(Behaviour(tls=pki.good)) as server, world(server.port, **terms(pki, checks)) as mail:
        await mail.deliver("bob@b.example")
        checks.gate = asyncio.Event()
        task = asyncio.ensure_future(mail.deliver("bob@b.example"))
        await checks.looking.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        async with asyncio.timeout(10):
            await asyncio.shield(server.sessions[0].closed)


@pytest.mark.parametrize("state", [State.REVOKED, State.UNKNOWN])
async def test_a_session_with_a_certificate_that_is_not_good_is_not_resumed(pki: Pki, state: State) -> None:
    """Threat: the partner has a new certificate at last, and we go on seeing the old one in sessions that we resume."""
    checks = Checks(state)
    keys = terms(pki, checks, revocation="require")
    async with HostileServer(Behaviour(tls=pki.good)) as server, world(server.port, **keys) as mail:
        assert isinstance(await mail.outcome("bob@b.example"), Deferred)
        checks.state = State.GOOD
        (attempt,) = await mail.deliver("bob@b.example")
    assert attempt.evidence is not None
    assert not attempt.evidence.resumed
    assert isinstance(attempt.outcomes[0][1], Delivered)


async def test_nor_is_one_whose_certificate_fails_the_plan(pki: Pki) -> None:
    keys: dict[str, Any] = {"tls": "domain", "ca": str(pki.ca), "names": ["other.example"], "limits": ONE_EACH}
    async with HostileServer(Behaviour(tls=pki.good)) as server, world(server.port, **keys) as mail:
        attempts = [(await mail.deliver("bob@b.example"))[0] for _ in range(2)]
    for each in attempts:
        assert each.evidence is not None
        assert not each.evidence.resumed
        assert isinstance(each.outcomes[0][1], Deferred)


@dataclass
class OldIsRevoked(Checks):
    """`revoked`: leaves, DER."""

    revoked: set[bytes] = field(default_factory=set)

    def _all(self, path: Sequence[bytes]) -> Statuses:
        state = State.REVOKED if path[0] in self.revoked else State.GOOD
        return tuple(CertificateStatus("CN=b", "01", state) for _ in path[1:])


async def test_a_hop_that_has_been_renewed_gets_its_mail_though_the_session_remembers_the_old_certificate(
    tmp_path: Path,
) -> None:
    """A server goes on resuming after its certificate was exchanged: the first try must already see the new one."""
    authority, checks = trustme.CA(), OldIsRevoked()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    old, new = authority.issue_cert("b.example"), authority.issue_cert("b.example")
    old.configure_cert(context)
    keys: dict[str, Any] = {
        "tls": "certificate",
        "ca": str(tmp_path / "ca.pem"),
        "revocation": "require",
        "revocations": checks,
        "limits": ONE_EACH,
    }
    async with HostileServer(Behaviour(tls=context)) as server, world(server.port, **keys) as mail:
        assert isinstance(await mail.outcome("bob@b.example"), Delivered)
        new.configure_cert(context)
        (resumed,) = await mail.deliver("bob@b.example")
        assert resumed.evidence is not None
        assert resumed.evidence.resumed, "else this tries nothing"
        checks.revoked.add(ssl.PEM_cert_to_DER_cert(old.cert_chain_pems[0].bytes().decode()))
        (attempt,) = await mail.deliver("bob@b.example")
        assert len(server.sessions) == 4
    assert isinstance(attempt.outcomes[0][1], Delivered)
    assert attempt.evidence is not None
    assert not attempt.evidence.resumed
