"""Connections that carry more than one message: when, and above all when not."""

import asyncio
import ipaddress
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from relay.config.values import HostPort
from relay.mail.outcome import Bounced, Deferred, Delivered
from relay.mail.tls import TlsFailure
from relay.outbound import attempt
from relay.outbound.client import Timeouts, Transaction
from relay.outbound.connection import Approved, Connection, open_connection, open_in_clear
from relay.outbound.deliver import OutboundSettings
from relay.outbound.handshake import TlsClient
from relay.outbound.pool import PoolLimits
from relay.outbound.target import Target
from relay.outbound.wire import Wire
from relay.policy.plan import choose_plan
from relay.tls.trust import TrustStores
from tests.hostile import EXTENSIONS, Behaviour, HostileServer, Pki, Step, Then
from tests.unit.outbound.builders import (
    HEADER,
    HOST,
    PATIENT,
    TEXT,
    Body,
    World,
    delivery,
    results,
    smart_host,
    utc,
    with_limits,
    world,
)
from tests.unit.policy.builders import book

OK = b"250 2.1.0 ok\r\n"
BYE = b"421 4.4.2 idle for too long\r\n"


async def deliver(mail: World, times: int = 1, **values: Any) -> None:
    for _ in range(times):
        assert isinstance(await mail.outcome("bob@b.example", **values), Delivered)


async def test_one_connection_for_many_messages_and_quit_at_the_end(pki: Pki) -> None:
    async with HostileServer(Behaviour(tls=pki.good)) as server:
        async with world(server.port, tls="domain", ca=str(pki.ca)) as mail:
            await deliver(mail, 5)
        assert len(server.sessions) == 1
        assert len(server.taken) == 5
        assert server.inside.endswith(b"QUIT\r\n")


async def test_messages_per_connection() -> None:
    async with HostileServer() as server, world(server.port, limits={"messages_per_connection": 2}) as mail:
        await deliver(mail, 5)
        assert len(server.sessions) == 3


async def test_idle_for_too_long() -> None:
    async with HostileServer() as server, world(server.port, settings=with_limits(idle=0.02)) as mail:
        await deliver(mail)
        await server.sessions[0].closed
        await deliver(mail)
        assert len(server.sessions) == 2
        assert bytes(server.sessions[0].clear).endswith(b"QUIT\r\n")


@pytest.mark.parametrize("end", [Then.CLOSE, BYE])
async def test_a_stale_connection_is_replaced_without_counting(end: Any) -> None:
    stale = Behaviour({Step.MAIL: (OK, end)})
    async with HostileServer(stale, Behaviour()) as server, world(server.port) as mail:
        await deliver(mail)
        attempts = await mail.deliver("bob@b.example")
        assert [type(outcome) for each in attempts for _, outcome in each.outcomes] == [Delivered]
        assert len(server.taken) == 2
        assert len(server.sessions) == 2


async def test_a_stale_connection_is_replaced_once_only() -> None:
    stale = Behaviour({Step.MAIL: (OK, Then.CLOSE)})
    async with HostileServer(stale, Behaviour({Step.MAIL: Then.CLOSE})) as server, world(server.port) as mail:
        await deliver(mail)
        (attempt,) = await mail.deliver("bob@b.example")
        assert isinstance(attempt.outcomes[0][1], Deferred)
        assert len(server.sessions) == 2


async def test_a_new_connection_that_dies_is_not_tried_again() -> None:
    async with HostileServer(Behaviour({Step.MAIL: Then.CLOSE})) as server, world(server.port) as mail:
        assert isinstance(await mail.outcome("bob@b.example"), Deferred)
        assert len(server.sessions) == 1


async def test_a_reused_connection_that_dies_after_the_dot_is_not_tried_again() -> None:
    """The hop may have the message: a second copy is for the queue to risk, later, not for us now."""
    behaviour = Behaviour({Step.FINAL: (b"250 2.0.0 ok\r\n", Then.CLOSE)})
    async with HostileServer(behaviour, Behaviour()) as server, world(server.port) as mail:
        await deliver(mail)
        outcome = await mail.outcome("bob@b.example")
        assert (type(outcome), outcome.status) == (Deferred, "4.4.2")
        assert len(server.sessions) == 1


@pytest.mark.parametrize("said", [BYE, b"250 what\r\n", b"x"])
async def test_a_hop_that_speaks_while_idle_is_not_used_again(said: bytes) -> None:
    async with HostileServer() as server, world(server.port) as mail:
        await deliver(mail)
        server.sessions[0]._write(said)
        await server.sessions[0].closed
        await deliver(mail)
        assert len(server.sessions) == 2


async def test_a_reload_holds_at_once() -> None:
    async with HostileServer() as server, world(server.port) as mail:
        await deliver(mail)
        mail.book = book(connectors=[smart_host(server.port, tls="encryption")])
        outcome = await mail.outcome("bob@b.example")
        assert (outcome.status, len(server.taken)) == ("4.7.4", 1)
        assert bytes(server.sessions[0].clear).endswith(b"QUIT\r\n")


async def test_a_reload_holds_for_a_delivery_that_is_under_way() -> None:
    """A hop that takes its time over our EHLO must not get the message by rules that are gone when it answers."""
    slow = Behaviour({Step.EHLO: Then.SILENCE})
    async with HostileServer(slow, Behaviour()) as server, world(server.port) as mail:
        under_way = asyncio.create_task(mail.deliver("bob@b.example"))
        await server.heard.wait()
        mail.book = book(connectors=[smart_host(server.port, tls="encryption")])
        server.sessions[0]._write(b"250 hostile.test\r\n")
        attempts = await under_way
        assert [outcome.status for each in attempts for _, outcome in each.outcomes] == ["4.3.5", "4.7.4"]
        assert b"MAIL" not in server.clear


async def test_a_reload_during_the_login_holds_too(pki: Pki) -> None:
    auth = {"auth": {"user": "u", "password": "p"}}
    slow = Behaviour({Step.AUTH: Then.SILENCE}, tls=pki.good, extensions_tls=("AUTH PLAIN",))
    async with (
        HostileServer(slow, Behaviour(tls=pki.good)) as server,
        world(server.port, tls="encryption", route=auth) as mail,
    ):
        under_way = asyncio.create_task(mail.deliver("bob@b.example"))
        while b"AUTH" not in server.inside:
            server.heard.clear()
            await server.heard.wait()
        mail.book = book(connectors=[smart_host(server.port, tls="domain", ca=str(pki.ca), names=["other.test"])])
        server.sessions[0]._write(b"235 2.7.0 in\r\n")
        attempts = await under_way
        assert [outcome.status for each in attempts for _, outcome in each.outcomes] == ["4.3.5", "4.7.5"]
        assert b"MAIL" not in server.inside


async def test_a_reload_between_two_hops_holds_for_the_second() -> None:
    async with (
        HostileServer(Behaviour({Step.MAIL: Then.SILENCE})) as first,
        HostileServer() as second,
        world(first.port, second.port) as mail,
    ):
        under_way = asyncio.create_task(mail.deliver("bob@b.example"))
        while b"MAIL" not in first.clear:
            first.heard.clear()
            await first.heard.wait()
        mail.book = book(connectors=[smart_host(second.port, tls="encryption")])
        first.sessions[0]._write(b"451 4.3.0 later\r\n" * 3)
        attempts = await under_way
        assert [outcome.status for each in attempts for _, outcome in each.outcomes] == ["4.3.0", "4.3.5", "4.7.4"]
        assert b"MAIL" not in second.clear


async def test_an_exception_ends_for_connections_too() -> None:
    today = datetime.now(UTC).date()
    exceptions = [{"recipient_domain": "b.example", "allow": "plaintext", "until": today.isoformat(), "reason": "x"}]
    async with HostileServer() as server, world(server.port, tls="encryption", exceptions=exceptions) as mail:
        await deliver(mail)
        mail.clock = lambda: utc() + timedelta(days=1)
        outcome = await mail.outcome("bob@b.example")
        assert isinstance(outcome, Deferred)
        assert outcome.failure is TlsFailure.STARTTLS_NOT_SUPPORTED
        assert server.clear.count(b"MAIL") == 1


async def test_a_certificate_ends_for_connections_too(pki: Pki) -> None:
    async with (
        HostileServer(Behaviour(tls=pki.good)) as server,
        world(server.port, tls="domain", ca=str(pki.ca)) as mail,
    ):
        await deliver(mail)
        mail.clock = lambda: utc() + timedelta(days=31)
        outcome = await mail.outcome("bob@b.example")
        assert isinstance(outcome, Deferred)
        assert outcome.failure is TlsFailure.CERTIFICATE_EXPIRED
        assert len(server.taken) == 1


async def test_different_plans_do_not_share(pki: Pki) -> None:
    connectors = [
        smart_host(0, tls="encryption") | {"match": {"recipient_domains": ["b.example"]}},
        smart_host(0, tls="domain", ca=str(pki.ca)) | {"name": "d", "match": {"recipient_domains": ["d.example"]}},
    ]
    async with HostileServer(Behaviour(tls=pki.good)) as server, world(server.port) as mail:
        for each in connectors:
            each["route"] = {"smart_hosts": [f"{HOST}:{server.port}"]}
        mail.book = book(connectors=connectors)
        await mail.deliver("bob@b.example", "dora@d.example")
        await mail.deliver("bob@b.example", "dora@d.example")
        assert (len(server.sessions), len(server.taken)) == (2, 4)


async def test_several_addresses_prefer_the_one_that_is_connected() -> None:
    async with (
        HostileServer() as one,
        HostileServer(host="127.0.0.2", port=one.port) as two,
        world(one.port) as mail,
    ):
        mail.resolver.hosts[HOST] = ["127.0.0.1", "127.0.0.2"]
        await deliver(mail, 20)
        assert len(one.sessions) + len(two.sessions) == 1


CHUNKING = (*EXTENSIONS, "CHUNKING")
BODIES = [TEXT, b"Subject: x\r\n\r\n.\r\n..\r\nno end of line", b"\r\n"]


def chunking(pki: Pki, **reactions: Any) -> Behaviour:
    return Behaviour({Step(name): each for name, each in reactions.items()}, tls=pki.good, extensions_tls=CHUNKING)


@pytest.mark.parametrize("content", BODIES)
async def test_to_a_proved_hop_a_small_message_goes_in_one_flight(pki: Pki, content: bytes) -> None:
    async with HostileServer(chunking(pki)) as server, world(server.port, tls="domain", ca=str(pki.ca)) as mail:
        await deliver(mail, 2, content=content)
        assert [taken.content for taken in server.taken] == [HEADER + content] * 2
        assert b"DATA" not in server.inside


@pytest.mark.parametrize("level", ["opportunistic", "encryption"])
async def test_to_any_other_hop_it_does_not(pki: Pki, level: str) -> None:
    async with HostileServer(chunking(pki)) as server, world(server.port, tls=level) as mail:
        await deliver(mail)
        assert b"BDAT" not in server.inside


async def test_a_large_message_goes_by_data(pki: Pki) -> None:
    content = b"Subject: x\r\n\r\n" + b"line of text\r\n" * 10_000
    async with HostileServer(chunking(pki)) as server, world(server.port, tls="domain", ca=str(pki.ca)) as mail:
        await deliver(mail, content=content)
        assert b"BDAT" not in server.inside
        assert server.taken[0].content == HEADER + content


@pytest.mark.parametrize(
    ("reactions", "kind", "status"),
    [
        ({"BDAT": b"451 4.3.0 later\r\n"}, Deferred, "4.3.0"),
        ({"BDAT": b"554 5.6.0 no\r\n"}, Bounced, "5.6.0"),
        ({"BDAT": Then.CLOSE}, Deferred, "4.4.2"),
        ({"RCPT": b"550 5.1.1 who\r\n"}, Bounced, "5.1.1"),
        ({"MAIL": b"550 5.1.8 who\r\n", "RCPT": b"503 5.5.1 MAIL first\r\n"}, Bounced, "5.1.8"),
        ({"MAIL": Then.CLOSE}, Deferred, "4.4.2"),
    ],
)
async def test_what_can_happen_to_one_flight(pki: Pki, reactions: dict[str, Any], kind: type, status: str) -> None:
    sound = chunking(pki)
    once = {step: (each, b"250 2.0.0 ok\r\n") for step, each in reactions.items()}
    async with (
        HostileServer(chunking(pki, **once), sound) as server,
        world(server.port, tls="domain", ca=str(pki.ca)) as mail,
    ):
        outcome = await mail.outcome("bob@b.example")
        assert (type(outcome), outcome.status) == (kind, status)
        assert not server.taken
        await deliver(mail)
        assert [taken.content for taken in server.taken] == [HEADER + TEXT]
        if Then.CLOSE not in reactions.values():
            assert len(server.sessions) == 1
            assert server.inside.count(b"RSET\r\n") == 1


async def test_a_hop_that_offers_chunking_and_does_not_know_bdat_gets_data(pki: Pki) -> None:
    behaviour = chunking(pki, BDAT=b"502 5.5.1 what is BDAT\r\n")
    async with HostileServer(behaviour) as server, world(server.port, tls="domain", ca=str(pki.ca)) as mail:
        await deliver(mail, 2)
        assert [taken.content for taken in server.taken] == [HEADER + TEXT] * 2
        assert server.inside.count(b"BDAT") == 1


async def test_content_at_once_to_a_connection_that_dies_is_not_sent_twice(pki: Pki) -> None:
    behaviour = chunking(pki, MAIL=(OK, Then.CLOSE))
    async with (
        HostileServer(behaviour, chunking(pki)) as server,
        world(server.port, tls="domain", ca=str(pki.ca)) as mail,
    ):
        await deliver(mail)
        assert isinstance(await mail.outcome("bob@b.example"), Deferred)
        assert len(server.sessions) == 1


class Unsure:
    """Bytes of a message that may not be ours to send yet. `sent` is what had left us when all but their end was read."""

    def __init__(self, pieces: int, wire: list[bytes]) -> None:
        self.sent = b""
        self._pieces, self._wire = pieces, wire

    async def chunks(self) -> AsyncIterator[bytes]:
        for number in range(self._pieces):
            yield b"piece %d\r\n" % number
        self.sent = b"".join(self._wire)


@pytest.mark.parametrize("pieces", [1, 3])
@pytest.mark.parametrize("by", ["DATA", "BDAT"])
async def test_nothing_ends_a_message_before_its_bytes_have_ended(
    pki: Pki, monkeypatch: pytest.MonkeyPatch, by: str, pieces: int
) -> None:
    """Nor is its last piece sent: a hop that takes what was cut off gets no whole message."""
    wire, send = list[bytes](), Wire.send

    def recorded(self: Wire, data: bytes, replies: int = 0) -> None:
        wire.append(data)
        send(self, data, replies)

    monkeypatch.setattr(Wire, "send", recorded)
    behaviour = replace(chunking(pki), extensions_tls=CHUNKING if by == "BDAT" else EXTENSIONS)
    async with HostileServer(behaviour) as server, world(server.port, tls="domain", ca=str(pki.ca)) as mail:
        body, given = Unsure(pieces, wire), delivery(content=b"piece 0\r\n" * pieces)
        outcome = results(await mail.outbound.deliver(replace(given, body=body)))[0]
        assert isinstance(outcome, Delivered)
        assert (b"DATA\r\n" in body.sent) == (by == "DATA")
        assert (b"piece 0" in body.sent) == (by == "DATA" and pieces > 1)
        assert b"piece %d" % (pieces - 1) not in body.sent
        assert (server.taken[0].content.count(b"piece"), by.encode() in server.inside) == (pieces, True)


class Late:
    """A message's bytes, whose end comes when `meanwhile` has happened; at once when they are read again."""

    def __init__(self, meanwhile: Callable[[], Awaitable[object]]) -> None:
        self._meanwhile: Callable[[], Awaitable[object]] | None = meanwhile

    async def chunks(self) -> AsyncIterator[bytes]:
        yield TEXT
        meanwhile, self._meanwhile = self._meanwhile, None
        if meanwhile is not None:
            await meanwhile()


async def test_a_reload_before_the_end_of_a_message_holds_too(pki: Pki) -> None:
    """As long as nothing was said of it: by BDAT all is said at once, behind the disk."""
    async with HostileServer(chunking(pki)) as server, world(server.port, tls="domain", ca=str(pki.ca)) as mail:
        await deliver(mail)
        strict = smart_host(server.port, tls="domain", ca=str(pki.ca), names=["other.test"])

        async def reload() -> None:
            mail.book = book(connectors=[strict])

        attempts = await mail.outbound.deliver(replace(delivery(), body=Late(reload)))
        assert [outcome.status for each in attempts for _, outcome in each.outcomes] == ["4.3.5", "4.7.5"]
        assert len(server.taken) == 1


async def test_what_ends_before_the_end_of_a_message_is_not_used(pki: Pki) -> None:
    async with HostileServer(chunking(pki)) as server, world(server.port, tls="domain", ca=str(pki.ca)) as mail:
        await deliver(mail)

        async def a_month() -> None:
            mail.clock = lambda: utc() + timedelta(days=31)

        outcome = results(await mail.outbound.deliver(replace(delivery(), body=Late(a_month))))[0]
        assert isinstance(outcome, Deferred)
        assert outcome.failure is TlsFailure.CERTIFICATE_EXPIRED
        assert len(server.taken) == 1


async def test_a_connection_that_ends_before_the_message_does_is_replaced(pki: Pki) -> None:
    async with HostileServer(chunking(pki)) as server, world(server.port, tls="domain", ca=str(pki.ca)) as mail:
        await deliver(mail)

        async def lost() -> None:
            server.sessions[0].cut()
            await server.sessions[0].closed
            await connection.gone()

        connection = next(iter(mail.outbound._pool._shelf._all)).connection
        outcome = results(await mail.outbound.deliver(replace(delivery(), body=Late(lost))))[0]
        assert isinstance(outcome, Delivered)
        assert (len(server.taken), len(server.sessions)) == (2, 2)


async def test_to_a_connection_that_waited_too_long_a_message_does_not_go_at_once(
    pki: Pki, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with HostileServer(chunking(pki)) as server, world(server.port, tls="domain", ca=str(pki.ca)) as mail:

        async def long() -> None:
            monkeypatch.setattr(attempt, "_STILL_WARM", 0.0)

        assert isinstance(results(await mail.outbound.deliver(replace(delivery(), body=Late(long))))[0], Delivered)
        assert (b"BDAT" in server.inside, len(server.taken)) == (False, 1)


@pytest.mark.parametrize(
    ("said", "status"), [(b"451 4.4.2 timeout\r\n", "4.4.2"), (b"250 2.0.0 ok\r\n", "4.5.0"), (b"", "4.4.2")]
)
async def test_a_hop_that_gives_up_waiting_for_the_end_is_told_no_more(
    monkeypatch: pytest.MonkeyPatch, said: bytes, status: str
) -> None:
    """It takes commands again, and would take the message for some."""
    wires, send = list[Wire](), Wire.send

    def noted(self: Wire, data: bytes, replies: int = 0) -> None:
        wires.append(self)
        send(self, data, replies)

    monkeypatch.setattr(Wire, "send", noted)
    async with HostileServer() as server, world(server.port) as mail:

        async def given_up() -> None:
            if said:
                server.sessions[0]._write(said)
            else:
                server.sessions[0].cut()
            while not wires[0].has_spoken:  # noqa: ASYNC110 - it tells nobody
                await asyncio.sleep(0)

        outcome = results(await mail.outbound.deliver(replace(delivery(), body=Late(given_up))))[0]
        assert (type(outcome), outcome.status) == (Deferred, status)
        await server.sessions[0].closed
        assert b"Subject" not in server.clear


# What the types promise.


async def opened(server: HostileServer, pki: Pki, **keys: Any) -> Connection:
    rules = book(connectors=[smart_host(server.port, **keys)])
    plan = choose_plan(rules, rules.outbound_for("b.example"), "b.example", HOST, utc())
    target = Target(HostPort(HOST, server.port), ipaddress.ip_address("127.0.0.1"), plan, "relay.example.com")
    tls = TlsClient(lambda _name: None, TrustStores(), utc)
    connection = await open_connection(target, tls.context(plan), tls, PATIENT)
    assert isinstance(connection, Connection)
    return connection


def transaction() -> Transaction:
    return Transaction(b"MAIL FROM:<a@a.example>\r\n", (b"RCPT TO:<b@b.example>\r\n",), Body().chunks)


async def test_one_verdict_is_for_one_transaction(pki: Pki) -> None:
    async with HostileServer(Behaviour(tls=pki.good)) as server:
        connection = await opened(server, pki, tls="encryption")
        assert not hasattr(connection, "transact")
        approved = connection.judge(utc())
        assert isinstance(approved, Approved)
        await approved.transact(transaction())
        with pytest.raises(RuntimeError, match="one verdict"):
            await approved.transact(transaction())
        assert len(server.taken) == 1
        connection.cut()
        await connection.gone()


async def test_no_command_holds_a_control_character(pki: Pki) -> None:
    async with HostileServer(Behaviour(tls=pki.good)) as server:
        connection = await opened(server, pki)
        with pytest.raises(ValueError, match="control"):
            await connection._client.execute_command(b"NOOP\r\nMAIL FROM:<>")
        assert b"NOOP" not in server.inside
        connection.cut()


async def test_no_transaction_before_the_login(pki: Pki) -> None:
    async with HostileServer(Behaviour(tls=pki.good, extensions_tls=("AUTH PLAIN",))) as server:
        connection = await opened(server, pki)
        keys = smart_host(server.port, route={"auth": {"user": "u", "password": "p"}})
        auth = book(connectors=[keys]).outbound_for("b.example").route.auth
        connection.target = replace(connection.target, auth=auth)
        approved = connection.judge(utc())
        assert isinstance(approved, Approved)
        with pytest.raises(RuntimeError, match="AUTH first"):
            await approved.transact(transaction())
        assert await approved.log_in() is None
        assert (await approved.transact(transaction())).usable
        connection.cut()


async def test_a_judgement_after_the_end_of_what_made_it_good_fails(pki: Pki) -> None:
    async with HostileServer(Behaviour(tls=pki.good)) as server:
        connection = await opened(server, pki, tls="certificate", ca=str(pki.ca))
        assert isinstance(connection.judge(utc()), Approved)
        assert not isinstance(connection.judge(utc() + timedelta(days=31)), Approved)
        connection.cut()


async def test_clear_text_has_one_gate(pki: Pki) -> None:
    async with HostileServer(Behaviour(tls=pki.good)) as server:
        connection = await opened(server, pki)
        with pytest.raises(ValueError, match="does not allow"):
            await open_in_clear(connection.target, PATIENT)
        connection.cut()


def test_defaults_are_those_of_the_rfc() -> None:
    """RFC 5321 section 4.5.3.2."""
    times = Timeouts()
    assert (times.greeting, times.command, times.data, times.block, times.final) == (300, 300, 120, 180, 600)
    assert OutboundSettings().pool == PoolLimits(idle=30, age=600, total=500)
