"""Asking whether a recipient exists: over a delivery's connection, judged like it, and never with a message."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from relay.mail.address import parse_mailbox
from relay.policy.callout import Answer, Known
from tests.hostile import EXTENSIONS, Behaviour, HostileServer, Pki, Step, Then
from tests.unit.outbound.builders import HOST, IMPATIENT, World, smart_host, world
from tests.unit.policy.builders import book

BOB = parse_mailbox("bob@b.example")


def front(port: int, pki: Pki, *more: int, **keys: Any) -> World:
    return world(port, *more, tls="domain", ca=str(pki.ca), **keys)


async def ask(behaviour: Behaviour, pki: Pki, **keys: Any) -> tuple[Answer, HostileServer]:
    async with HostileServer(behaviour) as server, front(server.port, pki, **keys) as mail:
        answer = await mail.outbound.ask(BOB)
    return answer, server


def inner(pki: Pki, reactions: Any = None, **values: Any) -> Behaviour:
    return Behaviour(reactions or {}, tls=pki.good, **values)


async def test_what_is_said_and_in_which_order(pki: Pki) -> None:
    answer, server = await ask(inner(pki), pki)
    assert answer.known is Known.EXISTS
    assert b"MAIL" not in server.clear
    assert bytes(server.inside) == (
        b"EHLO relay.example.com\r\nMAIL FROM:<>\r\nRCPT TO:<bob@b.example>\r\nRSET\r\nQUIT\r\n"
    )


@pytest.mark.parametrize(
    ("rcpt", "known", "reached"),
    [
        (b"250 2.1.5 ok\r\n", Known.EXISTS, True),
        (b"550 5.1.1 no such user\r\n", Known.MISSING, True),
        (b"450 4.2.0 greylisted\r\n", Known.UNKNOWN, True),
        (b"421 4.3.2 bye\r\n", Known.UNKNOWN, False),
        (b"354 go\r\n", Known.UNKNOWN, False),
        (b"nonsense\r\n", Known.UNKNOWN, False),
        (Then.CLOSE, Known.UNKNOWN, False),
        (b"554 5.7.1 relay access denied\r\n", Known.UNKNOWN, False),
    ],
)
async def test_what_comes_of_the_answer(pki: Pki, rcpt: Any, known: Known, reached: bool) -> None:
    answer, server = await ask(inner(pki, {Step.RCPT: rcpt}), pki)
    assert (answer.known, answer.reached) == (known, reached)
    assert b"DATA" not in server.inside
    assert b"BDAT" not in server.inside


async def test_a_refusal_that_spares_postmaster_is_about_the_recipient(pki: Pki) -> None:
    behaviour = inner(pki, recipients={"bob@": b"554 5.7.1 not for you\r\n"})
    answer, server = await ask(behaviour, pki)
    assert answer.known is Known.MISSING
    assert b"RCPT TO:<postmaster@b.example>" in server.inside


@pytest.mark.parametrize(
    ("behaviour", "text"),
    [
        ({"tls": "wrong_name"}, "is not for"),
        ({"tls": None}, "does not offer STARTTLS"),
        ({"reactions": {Step.STARTTLS: b"454 4.7.0 no\r\n"}}, "STARTTLS was offered and refused"),
        ({"reactions": {Step.GREETING: b"554 5.3.2 closed\r\n"}}, "greeting"),
        ({"reactions": {Step.MAIL: b"550 5.7.1 no bounces\r\n"}}, "MAIL FROM:<>: 550"),
    ],
)
async def test_no_question_reaches_a_host_that_no_delivery_would(
    pki: Pki, behaviour: dict[str, Any], text: str
) -> None:
    made = inner(pki)
    tls = behaviour.get("tls", "good")
    made = replace(made, tls=getattr(pki, tls) if tls else None, reactions=behaviour.get("reactions", {}))
    answer, server = await ask(made, pki)
    assert (answer.known, answer.reached) == (Known.UNKNOWN, False)
    assert text in answer.text or tls == "wrong_name"
    assert b"RCPT" not in server.clear + server.inside


async def test_the_next_host_is_asked(pki: Pki) -> None:
    async with (
        HostileServer(Behaviour({Step.GREETING: Then.CLOSE})) as bad,
        HostileServer(inner(pki)) as good,
        front(bad.port, pki, good.port) as mail,
    ):
        assert (await mail.outbound.ask(BOB)).known is Known.EXISTS


async def test_nobody_to_ask(pki: Pki) -> None:
    async with World(book(connectors=[smart_host(25)])) as mail:
        mail.resolver.failing.add(HOST)
        assert await mail.outbound.ask(BOB) == Answer(
            Known.UNKNOWN, f"the look-up of {HOST} failed: SERVFAIL", reached=False
        )


async def test_questions_and_deliveries_share_connections_while_the_answer_is_yes(pki: Pki) -> None:
    async with HostileServer(inner(pki)) as server, front(server.port, pki) as mail:
        for _ in range(3):
            assert (await mail.outbound.ask(BOB)).known is Known.EXISTS
            await mail.deliver("bob@b.example")
        assert len(server.sessions) == 1
        assert len(server.taken) == 3


async def test_a_connection_that_heard_no_is_not_used_again(pki: Pki) -> None:
    """Servers count refusals and then hang up."""
    async with (
        HostileServer(inner(pki, recipients={"bob@": b"550 5.1.1 no\r\n"})) as server,
        front(server.port, pki) as mail,
    ):
        assert (await mail.outbound.ask(BOB)).known is Known.MISSING
        await mail.deliver("carol@b.example")
        assert len(server.sessions) == 2
        assert bytes(server.sessions[0].inside).endswith(b"RSET\r\nQUIT\r\n")


async def test_a_kept_connection_that_is_dead_is_replaced(pki: Pki) -> None:
    dead = inner(pki, {Step.MAIL: (b"250 2.1.0 ok\r\n", Then.CLOSE)})
    async with HostileServer(dead, inner(pki)) as server, front(server.port, pki) as mail:
        await mail.deliver("bob@b.example")
        assert (await mail.outbound.ask(BOB)).known is Known.EXISTS
        assert len(server.sessions) == 2


async def test_we_ask_in_our_own_name(pki: Pki) -> None:
    offer = (*EXTENSIONS, "XCLIENT ADDR HELO")
    async with HostileServer(inner(pki, extensions_tls=offer)) as server:
        async with front(server.port, pki, forward_client="xclient") as mail:
            await mail.deliver("bob@b.example")
            assert (await mail.outbound.ask(BOB)).known is Known.EXISTS
        assert [b"XCLIENT" in bytes(each.inside) for each in server.sessions] == [True, False]


@pytest.mark.parametrize("step", [Step.GREETING, Step.EHLO, Step.STARTTLS, Step.MAIL, Step.RCPT, Step.RSET])
async def test_a_question_that_is_given_up_leaves_no_connection(pki: Pki, step: Step) -> None:
    async with HostileServer(inner(pki, {step: Then.SILENCE})) as server, front(server.port, pki) as mail:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await mail.outbound.ask(BOB)
        await asyncio.wait_for(server.sessions[0].closed, 5)


async def test_a_silent_host(pki: Pki) -> None:
    answer, _server = await ask(inner(pki, {Step.RCPT: Then.SILENCE}), pki, settings=IMPATIENT)
    assert (answer.known, answer.reached) == (Known.UNKNOWN, False)


async def test_a_reload_meanwhile(pki: Pki) -> None:
    async with HostileServer(inner(pki)) as server, front(server.port, pki) as mail:
        asked = asyncio.ensure_future(mail.outbound.ask(BOB))
        await server.connected.wait()
        mail.book = book(connectors=[smart_host(server.port)])
        answer = await asked
    assert (answer.known, answer.reached) == (Known.UNKNOWN, False)
    assert b"RCPT" not in server.inside + server.clear


@pytest.mark.parametrize(("offer", "known"), [(EXTENSIONS, Known.EXISTS), (("PIPELINING",), Known.MISSING)])
async def test_an_address_that_needs_smtputf8(pki: Pki, offer: tuple[str, ...], known: Known) -> None:
    async with HostileServer(inner(pki, extensions_tls=offer)) as server, front(server.port, pki) as mail:
        assert (await mail.outbound.ask(parse_mailbox("jürgen@b.example"))).known is known
    assert (b"MAIL FROM:<> SMTPUTF8\r\n" in server.inside) is (known is Known.EXISTS)


async def test_in_clear_where_the_connector_allows_that() -> None:
    behaviour = Behaviour({Step.STARTTLS: b"454 4.7.0 no\r\n"}, extensions=(*EXTENSIONS, "STARTTLS"))
    async with HostileServer(behaviour) as server, world(server.port, plaintext="if-tls-fails") as mail:
        assert (await mail.outbound.ask(BOB)).known is Known.EXISTS
