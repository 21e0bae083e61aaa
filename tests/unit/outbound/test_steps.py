"""A hop that misbehaves at each step: what becomes of the message, and what is never sent."""

import asyncio

import pytest

from relay.mail.outcome import Bounced, Deferred, Delivered
from relay.outbound.deliver import OutboundSettings
from tests.hostile import EXTENSIONS, Behaviour, Flood, HostileServer, Pki, Reaction, Step, Then
from tests.unit.outbound.builders import HEADER, IMPATIENT, PATIENT, TEXT, Body, delivery, results, world

D4, D5 = b"451 4.3.1 not now\r\n", b"550 5.7.1 never\r\n"
CLOSE, SILENCE = Then.CLOSE, Then.SILENCE
MORE, LINE = Flood(b"250-more\r\n" * 50), Flood(b"2" * 500)
STEPS: list[tuple[Step, Reaction, str, type, str]] = [
    (Step.GREETING, D4, "4.3.1", Deferred, "the greeting: 451 4.3.1 not now"),
    (Step.GREETING, D5, "4.7.1", Deferred, "the greeting: 550 5.7.1 never"),
    (Step.GREETING, b"554 no service\r\n", "4.0.0", Deferred, "the greeting: 554 5.0.0 no service"),
    (Step.GREETING, CLOSE, "4.4.2", Deferred, "after the greeting: the connection was lost"),
    (Step.GREETING, SILENCE, "4.4.2", Deferred, "after the greeting: no answer in time"),
    (Step.GREETING, MORE, "4.5.0", Deferred, "after the greeting: the hop broke the protocol"),
    (Step.GREETING, LINE, "4.5.0", Deferred, "after the greeting: the hop broke the protocol"),
    (Step.GREETING, b"SSH-2.0-OpenSSH_9.2\r\n", "4.5.0", Deferred, "not an SMTP reply"),
    (Step.GREETING, b"220 hi\r\n250 early\r\n", "4.5.0", Deferred, "without being asked"),
    (Step.EHLO, D4, "4.3.1", Deferred, "EHLO: 451 4.3.1 not now"),
    (Step.EHLO, CLOSE, "4.4.2", Deferred, "after EHLO: the connection was lost"),
    (Step.EHLO, SILENCE, "4.4.2", Deferred, "after EHLO: no answer in time"),
    (Step.EHLO, MORE, "4.5.0", Deferred, "a reply without end"),
    (Step.EHLO, LINE, "4.5.0", Deferred, "a reply line without end"),
    (Step.EHLO, D5, "2.0.0", Delivered, "taken"),  # HELO follows
    (Step.MAIL, D4, "4.3.1", Deferred, "not now"),
    (Step.MAIL, D5, "5.7.1", Bounced, "never"),
    (Step.MAIL, CLOSE, "4.4.2", Deferred, "after MAIL: the connection was lost"),
    (Step.MAIL, SILENCE, "4.4.2", Deferred, "after MAIL: no answer in time"),
    (Step.MAIL, b"354 go\r\n", "4.5.0", Deferred, "it said 354 where 250 was due"),
    (Step.MAIL, MORE, "4.5.0", Deferred, "the hop broke the protocol"),
    (Step.MAIL, b"421 4.3.2 shutting down\r\n", "4.3.2", Deferred, "shutting down"),
    (Step.RCPT, D4, "4.3.1", Deferred, "not now"),
    (Step.RCPT, D5, "5.7.1", Bounced, "never"),
    (Step.RCPT, b"452 4.5.3 too many\r\n", "4.5.3", Deferred, "too many"),  # even the first one
    (Step.RCPT, CLOSE, "4.4.2", Deferred, "after RCPT: the connection was lost"),
    (Step.RCPT, SILENCE, "4.4.2", Deferred, "after RCPT: no answer in time"),
    (Step.DATA, D4, "4.3.1", Deferred, "not now"),
    (Step.DATA, D5, "5.7.1", Bounced, "never"),
    (Step.DATA, b"250 what\r\n", "4.5.0", Deferred, "it said 250 where 354 was due"),
    (Step.DATA, CLOSE, "4.4.2", Deferred, "after the message: the connection was lost"),
    (Step.DATA, SILENCE, "4.4.2", Deferred, "after the message: no answer in time"),
    (Step.FINAL, D4, "4.3.1", Deferred, "not now"),
    (Step.FINAL, D5, "5.7.1", Bounced, "never"),
    (Step.FINAL, b"550-5.6.0 line one\r\n550 5.6.0 line two\r\n", "5.6.0", Bounced, "line one line two"),
    (Step.FINAL, b"554\r\n", "5.0.0", Bounced, ""),
    (Step.FINAL, CLOSE, "4.4.2", Deferred, "after the message: the connection was lost"),
    (Step.FINAL, SILENCE, "4.4.2", Deferred, "after the message: no answer in time"),
    (Step.FINAL, MORE, "4.5.0", Deferred, "a reply without end"),
    (Step.FINAL, b"354 more\r\n", "4.5.0", Deferred, "it said 354 where 250 was due"),
    (Step.FINAL, b"250 2.0.0 taken\r\n550 and then not\r\n", "2.0.0", Delivered, "taken"),
    (Step.FINAL, b"250 2.0.0 taken\r\nrubbish", "2.0.0", Delivered, "taken"),
    (Step.QUIT, SILENCE, "2.0.0", Delivered, "taken"),
    (Step.QUIT, MORE, "2.0.0", Delivered, "taken"),
]


@pytest.mark.parametrize("extensions", [EXTENSIONS, EXTENSIONS[1:]], ids=["pipelining", "one by one"])
@pytest.mark.parametrize(("step", "reaction", "status", "kind", "text"), STEPS, ids=lambda value: str(value)[:24])
async def test_each_step(
    extensions: tuple[str, ...], step: Step, reaction: Reaction, status: str, kind: type, text: str
) -> None:
    settings = IMPATIENT if reaction is SILENCE else OutboundSettings(timeouts=PATIENT)
    async with HostileServer(Behaviour({step: reaction}, extensions=extensions)) as server:
        async with world(server.port, settings=settings) as mail:
            outcome = await mail.outcome("bob@b.example")
        assert (type(outcome), outcome.status) == (kind, status), outcome
        assert text in outcome.text
        assert [taken.content for taken in server.taken] in ([HEADER + TEXT], []), "whole or not at all"
        if step in (Step.MAIL, Step.RCPT, Step.DATA):
            assert b"Subject" not in server.clear, "no content without a recipient and a 354"


@pytest.mark.parametrize("step", [Step.GREETING, Step.EHLO, Step.MAIL, Step.RCPT, Step.DATA, Step.FINAL])
async def test_replies_byte_by_byte(step: Step) -> None:
    async with HostileServer(Behaviour({step: (D4, D5)}, drip=True)) as server, world(server.port) as mail:
        outcome = await mail.outcome("bob@b.example")
        assert isinstance(outcome, Deferred)
        assert outcome.status == "4.3.1"


async def test_a_proxy_that_breaks_pipelining_costs_a_deferral_not_a_message() -> None:
    async with HostileServer(Behaviour(forgets=True)) as server, world(server.port, settings=IMPATIENT) as mail:
        outcome = await mail.outcome("bob@b.example")
        assert isinstance(outcome, Deferred)
        assert not server.taken


async def test_no_recipient_left_and_354_all_the_same() -> None:
    """RFC 2920 section 3.1: the hop gets an empty message, and the connection stays good."""
    behaviour = Behaviour(recipients={"bob": b"550 5.1.1 who\r\n"})
    async with HostileServer(behaviour) as server, world(server.port) as mail:
        assert isinstance(await mail.outcome("bob@b.example"), Bounced)
        assert isinstance(await mail.outcome("carl@b.example"), Delivered)
        assert len(server.sessions) == 1
        assert server.clear.count(b"Subject") == 1


async def test_a_refused_transaction_is_reset_before_the_next_one() -> None:
    behaviour = Behaviour({Step.DATA: (b"451 4.3.0 later\r\n", b"354 go\r\n")})
    for extensions in (EXTENSIONS, EXTENSIONS[1:]):
        changed = Behaviour(behaviour.reactions, extensions=extensions)
        async with HostileServer(changed) as server, world(server.port) as mail:
            assert isinstance(await mail.outcome("bob@b.example"), Deferred)
            assert isinstance(await mail.outcome("carl@b.example"), Delivered)
            assert len(server.sessions) == 1
            assert server.clear.count(b"RSET\r\n") == 1


async def test_an_answer_in_the_middle_of_the_message_counts_and_ends_the_connection() -> None:
    block = (b"x" * 126 + b"\r\n") * 2048  # 256 KiB
    for reaction, status in ((b"552 5.3.4 too big\r\n", "5.3.4"), (b"250 2.0.0 enough\r\n", "4.5.0"), (CLOSE, "4.4.2")):
        async with HostileServer(Behaviour({Step.BODY: reaction})) as server, world(server.port) as mail:
            given = delivery(content=block * 8)
            given = type(given)(given.message, given.indexes, Body([block] * 8))
            outcome = results(await mail.outbound.deliver(given))[0]
            assert outcome.status == status, outcome
            assert not server.taken


async def test_a_hop_that_stops_reading_is_given_up() -> None:
    """Flow control: what the hop does not read is not piled up in memory, and the limit for a block holds."""
    block = (b"x" * 126 + b"\r\n") * 2048
    async with HostileServer() as server, world(server.port, settings=IMPATIENT) as mail:
        reads = 0

        class Endless:
            async def chunks(self):  # type: ignore[no-untyped-def] # an async generator of bytes
                nonlocal reads
                for _ in range(4000):  # 1 GiB
                    reads += 1
                    if reads == 2:
                        server.sessions[0]._transport.pause_reading()  # type: ignore[union-attr] # connected
                    yield block

        given = delivery(content=block)
        outcome = results(await mail.outbound.deliver(type(given)(given.message, given.indexes, Endless())))[0]
        assert (type(outcome), outcome.status) == (Deferred, "4.4.2")
        assert "no answer in time" in outcome.text
        assert reads < 100


async def test_a_hop_that_takes_each_block_at_the_last_moment_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relay.outbound.client._SLOWEST", 1e9)
    block = (b"x" * 126 + b"\r\n") * 2048
    async with HostileServer() as server, world(server.port, settings=IMPATIENT) as mail:
        reads = 0

        class Long:
            async def chunks(self):  # type: ignore[no-untyped-def] # an async generator of bytes
                nonlocal reads
                loop, transport = asyncio.get_running_loop(), server.sessions[0]._transport
                assert transport is not None
                for _ in range(400):
                    reads += 1
                    transport.pause_reading()
                    loop.call_later(0.05, transport.resume_reading)
                    yield block

        given = delivery(content=block)
        outcome = results(await mail.outbound.deliver(type(given)(given.message, given.indexes, Long())))[0]
        assert (type(outcome), outcome.status) == (Deferred, "4.4.2")
        assert 1 < reads < 100


async def test_the_message_being_unreadable_cuts_the_connection() -> None:
    class Gone:
        async def chunks(self):  # type: ignore[no-untyped-def] # an async generator of bytes
            yield b"Subject: x\r\n"
            raise RuntimeError("the store is gone")

    async with HostileServer() as server, world(server.port) as mail:
        given = delivery()
        with pytest.raises(RuntimeError, match="store"):
            await mail.outbound.deliver(type(given)(given.message, given.indexes, Gone()))
        await server.sessions[0].closed
        assert not server.taken


async def test_nobody_listens() -> None:
    async with HostileServer() as server:
        port = server.port
    outcome = await world(port).outcome("bob@b.example")
    assert (type(outcome), outcome.status) == (Deferred, "4.4.1")
    assert f"cannot connect to 127.0.0.1:{port}" in outcome.text


async def test_a_source_address_that_is_not_ours() -> None:
    async with HostileServer() as server:
        outcome = await world(server.port, source="192.0.2.77").outcome("bob@b.example")
        assert (type(outcome), outcome.status) == (Deferred, "4.4.1")


async def test_helo_name_and_source_address() -> None:
    async with (
        HostileServer() as server,
        world(server.port, helo="out.example.com", source="127.0.0.1") as mail,
    ):
        assert isinstance(await mail.outcome("bob@b.example"), Delivered)
        assert server.clear.startswith(b"EHLO out.example.com\r\n")


AUTH = {"user": "us", "password": "s3cret"}
PLAIN = ("AUTH PLAIN LOGIN", *EXTENSIONS)


@pytest.mark.parametrize(
    ("offer", "said", "status", "text"),
    [
        ("AUTH PLAIN LOGIN", b"AUTH PLAIN AHVzAHMzY3JldA==\r\n", "2.0.0", ""),
        ("AUTH=LOGIN", b"AUTH LOGIN dXM=\r\nczNjcmV0\r\n", "2.0.0", ""),
        ("AUTH CRAM-MD5", b"", "4.7.0", "neither AUTH PLAIN nor AUTH LOGIN"),
    ],
)
async def test_auth(pki: Pki, offer: str, said: bytes, status: str, text: str) -> None:
    reactions: dict[Step, Reaction] = {Step.AUTH: b"334 more\r\n"} if "LOGIN" in said.decode() else {}
    behaviour = Behaviour(reactions, tls=pki.good, extensions_tls=(offer, *EXTENSIONS))
    async with HostileServer(behaviour) as server, world(server.port, route={"auth": AUTH}) as mail:
        outcome = await mail.outcome("bob@b.example")
        assert (outcome.status, text in outcome.text) == (status, True), outcome
        assert said in server.inside
        if status == "2.0.0":
            assert isinstance(await mail.outcome("bob@b.example"), Delivered)
            assert server.inside.count(b"AUTH") == 1, "once a connection"


@pytest.mark.parametrize(
    ("reaction", "status"),
    [(b"535 5.7.8 bad password s3cret\r\n", "4.7.8"), (b"454 4.7.0 later\r\n", "4.7.8"), (CLOSE, "4.4.2")],
)
async def test_a_login_that_fails_defers_and_tells_nothing(pki: Pki, reaction: Reaction, status: str) -> None:
    behaviour = Behaviour({Step.AUTH: reaction}, tls=pki.good, extensions_tls=PLAIN)
    async with HostileServer(behaviour) as server, world(server.port, route={"auth": AUTH}) as mail:
        outcome = await mail.outcome("bob@b.example")
        assert (type(outcome), outcome.status) == (Deferred, status)
        assert "s3cret" not in outcome.text
        assert b"MAIL" not in server.inside


async def test_a_password_never_goes_out_in_clear() -> None:
    async with (
        HostileServer(Behaviour(extensions=PLAIN)) as server,
        world(server.port, route={"auth": AUTH}) as mail,
    ):
        outcome = await mail.outcome("bob@b.example")
        assert (type(outcome), outcome.status) == (Deferred, "4.7.11")
        assert b"AUTH" not in server.clear
        assert b"MAIL" not in server.clear
