"""`forward_client`: a hop hears who the client is, after the verdict and before MAIL, or it gets no mail. No two clients share a
connection."""

import asyncio
import ipaddress
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from relay.dns.answers import NameAnswer
from relay.inbound.proxy import Proxied, Unknown, parse_header
from relay.mail.attempt import Attempt, Delivery
from relay.mail.envelope import LOCAL, Accepted
from relay.mail.outcome import Bounced, Deferred, Delivered
from relay.mail.tls import TlsFailure
from relay.outbound.clientname import reverse_name
from relay.policy.forward import TEMPUNAVAIL, UNAVAILABLE, ReverseName
from tests.fakes import FakeResolver
from tests.hostile import EXTENSIONS, Behaviour, HostileServer, Pki, Session, Step, Then
from tests.unit.outbound.builders import IMPATIENT, World, delivery, results, with_limits, world

OFFER = "XCLIENT NAME ADDR PROTO HELO REVERSE_NAME PORT LOGIN DESTADDR DESTPORT"
ONE, TWO = "192.0.2.1", "192.0.2.2"


def inner(pki: Pki, reactions: Any = None, offer: str = OFFER) -> Behaviour:
    return Behaviour(reactions or {}, tls=pki.good, extensions=EXTENSIONS, extensions_tls=(*EXTENSIONS, offer))


def front(port: int, pki: Pki, how: str = "xclient", **keys: Any) -> World:
    return world(port, tls="domain", ca=str(pki.ca), forward_client=how, **keys)


def of(client: str, protocol: str = "ESMTPS", **facts: Any) -> Delivery:
    made = delivery()
    accepted = Accepted(datetime.now(UTC), client, f"helo.{client}", "mx 0.0.0.0:25", protocol, **facts)
    return replace(made, message=replace(made.message, accepted=accepted))


async def send(mail: World, *deliveries: Delivery) -> list[Sequence[Attempt]]:
    return [await mail.outbound.deliver(each) for each in deliveries]


async def test_xclient_is_said_inside_tls_before_mail_and_then_ehlo_as_the_client(pki: Pki) -> None:
    async with HostileServer(inner(pki)) as server, front(server.port, pki) as mail:
        mail.resolver.reverse[ONE] = ["mail.one.example"]
        mail.resolver.hosts["mail.one.example"] = [ONE]
        ((attempt,),) = await send(mail, of(ONE, auth="joe", client_port=40025, server="198.51.100.1:25"))
    assert isinstance(attempt.outcomes[0][1], Delivered)
    assert b"XCLIENT" not in server.clear
    lines = bytes(server.inside).split(b"\r\n")
    assert lines[1:3] == [
        b"XCLIENT ADDR=192.0.2.1 PORT=40025 NAME=mail.one.example REVERSE_NAME=mail.one.example PROTO=ESMTP HELO=helo.192.0.2.1 "
        b"LOGIN=joe DESTADDR=198.51.100.1 DESTPORT=25",
        b"EHLO helo.192.0.2.1",
    ]
    assert lines[3].startswith(b"MAIL FROM:")


async def test_nothing_about_the_client_is_told_to_a_hop_with_the_wrong_certificate(pki: Pki) -> None:
    behaviour = replace(inner(pki), tls=pki.wrong_name)
    async with HostileServer(behaviour) as server, front(server.port, pki) as mail:
        ((attempt,),) = await send(mail, of(ONE))
    outcome = attempt.outcomes[0][1]
    assert isinstance(outcome, Deferred)
    assert outcome.failure is TlsFailure.CERTIFICATE_HOST_MISMATCH
    assert ONE.encode() not in server.clear + server.inside


@pytest.mark.parametrize(
    ("behaviour", "status", "text"),
    [
        ({"offer": "8BITMIME"}, "4.7.0", "does not offer us XCLIENT"),
        ({"offer": "XCLIENT NAME HELO"}, "4.7.0", "does not offer us XCLIENT with ADDR"),
        ({"reactions": {Step.XCLIENT: b"550 5.7.0 insufficient authorization\r\n"}}, "4.7.0", "XCLIENT: 550 5.7.0"),
        ({"reactions": {Step.XCLIENT: b"250 2.0.0 ok\r\n"}}, "4.0.0", "XCLIENT: 250"),
        ({"reactions": {Step.XCLIENT: Then.CLOSE}}, "4.4.2", "after XCLIENT"),
        ({"reactions": {Step.EHLO_TLS: (None, b"554 5.7.1 not you\r\n")}}, "4.7.1", "EHLO after XCLIENT: 554"),
    ],
)
async def test_a_hop_that_will_not_hear_of_the_client_gets_no_mail(
    pki: Pki, behaviour: dict[str, Any], status: str, text: str
) -> None:
    made = inner(pki, **behaviour)
    if isinstance(made.reactions.get(Step.EHLO_TLS), tuple):
        usual = "".join(f"250-{each}\r\n" for each in ("hostile.test", *EXTENSIONS)) + f"250 {OFFER}\r\n"
        refused = made.reactions[Step.EHLO_TLS]
        assert isinstance(refused, tuple)
        made = replace(made, reactions={Step.EHLO_TLS: (usual.encode(), refused[1])})
    async with HostileServer(made) as server, front(server.port, pki) as mail:
        ((attempt,),) = await send(mail, of(ONE))
    outcome = attempt.outcomes[0][1]
    assert isinstance(outcome, Deferred)
    assert text in outcome.text
    assert outcome.status == status
    assert b"MAIL FROM" not in server.clear + server.inside
    assert not server.taken


async def test_a_hop_that_stays_silent_after_xclient_is_left_in_time(pki: Pki) -> None:
    made = inner(pki, {Step.XCLIENT: Then.SILENCE})
    async with HostileServer(made) as server, front(server.port, pki, settings=IMPATIENT) as mail:
        ((attempt,),) = await send(mail, of(ONE))
        await server.sessions[0].closed
    assert isinstance(attempt.outcomes[0][1], Deferred)


async def test_messages_of_one_client_share_a_connection_and_introduce_it_once(pki: Pki) -> None:
    async with HostileServer(inner(pki)) as server, front(server.port, pki) as mail:
        await send(mail, *[of(ONE)] * 3)
        assert len(server.sessions) == 1
        await send(mail, of(TWO), of(ONE, client_port=1))
        assert len(server.sessions) == 3
        assert len(server.taken) == 5
    told = [bytes(each.inside).count(b"XCLIENT ADDR=") for each in server.sessions]
    assert told == [1, 1, 1]


async def test_a_client_s_connection_is_not_kept_for_long(pki: Pki) -> None:
    settings = with_limits(client_idle=0.02)
    async with HostileServer(inner(pki)) as server, front(server.port, pki, settings=settings) as mail:
        await send(mail, of(ONE))
        await asyncio.wait_for(server.sessions[0].closed, 5)
        assert bytes(server.sessions[0].inside).endswith(b"QUIT\r\n")
        await send(mail, of(ONE))
        assert len(server.sessions) == 2


async def test_few_clients_connections_are_kept(pki: Pki) -> None:
    """Each of them holds a process of the mail server inside."""
    settings = with_limits(client_idle=60.0, clients=2)
    async with HostileServer(inner(pki)) as server, front(server.port, pki, settings=settings) as mail:
        await send(mail, *(of(f"192.0.2.{last}") for last in range(1, 6)))
        await asyncio.wait_for(asyncio.gather(*(each.closed for each in server.sessions[:3])), 5)
        assert [each.closed.done() for each in server.sessions] == [True, True, True, False, False]


async def test_a_connection_that_the_hop_closed_is_forgotten(pki: Pki) -> None:
    settings = with_limits(client_idle=60.0)
    async with HostileServer(inner(pki)) as server, front(server.port, pki, settings=settings) as mail:
        await send(mail, of(ONE))
        server.sessions[0].cut()
        await server.sessions[0].closed
        await send(mail, of(ONE))
        assert len(server.taken) == 2


async def test_our_own_mail_is_sent_as_ourselves(pki: Pki) -> None:
    async with HostileServer(inner(pki)) as server, front(server.port, pki) as mail:
        await send(mail, of(ONE), of("", LOCAL))
        assert len(server.sessions) == 2
        assert b"XCLIENT" not in bytes(server.sessions[1].inside)
        assert bytes(server.sessions[1].inside).startswith(b"EHLO relay.example.com\r\n")


async def test_tls_sessions_are_resumed_whoever_the_client_is(pki: Pki) -> None:
    async with HostileServer(inner(pki)) as server, front(server.port, pki) as mail:
        first, second = await send(mail, of(ONE), of(TWO))
        assert len(server.sessions) == 2
    assert first[0].evidence is not None
    assert second[0].evidence is not None
    assert not first[0].evidence.resumed
    assert second[0].evidence.resumed


class ProxiedSession(Session):
    """Takes the PROXY header off its connection."""

    header: Proxied | Unknown | None = None
    early = b""

    def data_received(self, data: bytes) -> None:
        if self.header is not None:
            super().data_received(data)
            return
        self.early += data
        found = parse_header(self.early)
        if isinstance(found, Proxied | Unknown):
            self.header = found
            if rest := self.early[found.length :]:
                super().data_received(rest)


class ProxiedServer(HostileServer):
    def _session(self) -> Session:
        self.sessions.append(ProxiedSession(self.behaviours[0], self))
        return self.sessions[-1]


async def test_a_proxy_header_comes_before_all_else_and_ehlo_is_the_client_s(pki: Pki) -> None:
    async with ProxiedServer(Behaviour(tls=pki.good)) as server, front(server.port, pki, "proxy") as mail:
        found = await send(mail, of(ONE, client_port=40025), of("2001:db8::7"), of("unknown"), of("", LOCAL))
        assert all(isinstance(results(each)[0], Delivered) for each in found)
        headers = [each.header for each in server.sessions if isinstance(each, ProxiedSession)]
        said = [bytes(each.inside).split(b"\r\n")[0] for each in server.sessions]
    assert [getattr(each, "address", None) for each in headers] == [
        *(ipaddress.ip_address(each) for each in (ONE, "2001:db8::7", "0.0.0.0")),
        None,
    ]
    assert isinstance(headers[0], Proxied)
    assert headers[0].port == 40025
    assert said == [
        b"EHLO helo.192.0.2.1",
        b"EHLO helo.2001:db8::7",
        b"EHLO helo.unknown",
        b"EHLO relay.example.com",
    ]


async def test_off_nothing_is_told(pki: Pki) -> None:
    async with HostileServer(inner(pki)) as server, front(server.port, pki, "off") as mail:
        await send(mail, of(ONE), of(TWO))
        assert len(server.sessions) == 1
        assert not mail.resolver.asked[f"names {ONE}"]
    assert b"XCLIENT" not in server.inside


async def test_a_hop_s_5xx_is_known_from_our_own(pki: Pki) -> None:
    gone = Behaviour({Step.RCPT: b"550 5.1.1 no\r\n"}, tls=pki.good)
    async with HostileServer(gone) as server, front(server.port, pki, "off") as mail:
        outcome = await mail.outcome("bob@b.example")
    assert isinstance(outcome, Bounced)
    assert outcome.by_hop
    plain = Behaviour(tls=pki.good, extensions_tls=("PIPELINING",))
    async with HostileServer(plain) as server, front(server.port, pki, "off") as mail:
        outcome = await mail.outcome("bob@b.example", content="Subject: é\r\n\r\n".encode())
    assert isinstance(outcome, Bounced)
    assert not outcome.by_hop


A, B = ipaddress.ip_address("192.0.2.1"), ipaddress.ip_address("192.0.2.2")


@pytest.mark.parametrize(
    ("reverse", "hosts", "failing", "expected"),
    [
        (["a.example"], {"a.example": ["192.0.2.9", "192.0.2.1"]}, set(), ReverseName("a.example", "a.example")),
        (["x.example", "a.example"], {"a.example": ["192.0.2.1"]}, set(), ReverseName("a.example", "x.example")),
        (["a.example"], {"a.example": ["192.0.2.9"]}, set(), ReverseName(UNAVAILABLE, "a.example")),
        (["a.example"], {}, set(), ReverseName(UNAVAILABLE, "a.example")),
        (["a.example"], {}, {"a.example"}, ReverseName(TEMPUNAVAIL, "a.example")),
        ([], {}, set(), ReverseName(UNAVAILABLE, UNAVAILABLE)),
        ([], {}, {"192.0.2.1"}, ReverseName(TEMPUNAVAIL, TEMPUNAVAIL)),
        (
            [*(f"{n}.example" for n in range(5)), "a.example"],
            {"a.example": ["192.0.2.1"]},
            set(),
            ReverseName(UNAVAILABLE, "0.example"),
        ),
    ],
)
async def test_the_name_of_an_address(
    reverse: list[str], hosts: dict[str, list[str]], failing: set[str], expected: ReverseName
) -> None:
    resolver = FakeResolver(reverse={"192.0.2.1": reverse}, hosts=hosts, failing=failing)
    assert await reverse_name(resolver, A) == expected


async def test_a_name_that_does_not_come_in_time() -> None:
    class Slow(FakeResolver):
        async def names(self, _address: object) -> NameAnswer:
            await asyncio.Event().wait()
            raise AssertionError("unreachable")

    assert await reverse_name(Slow(), B, seconds=0.01) == ReverseName(TEMPUNAVAIL, TEMPUNAVAIL)
