"""Mail in clear through a real socket: what is taken, what is refused, and what becomes of a message when things go wrong."""

import asyncio
import functools
import smtplib
import socket
from collections.abc import Callable
from email.message import EmailMessage
from pathlib import Path
from unittest.mock import Mock

import aiosmtplib
import pytest

from relay.inbound import dialog, port
from relay.inbound.services import TimeLimits
from relay.inbound.session import Session
from relay.mail.address import NULL, Address
from relay.mail.envelope import Body, Notify, Recipient, Ret
from relay.mail.events import CommandRefused, SessionClosed, SessionOpened, Unexpected
from relay.mail.reply import Reply
from relay.smtp.events import Said
from relay.smtp.session import ServerSession, SessionSettings
from tests.unit.inbound.world import CLEAR, HOSTNAME, PATIENT, StoreError, Wire, on_both_loops, relay

BODY = b"Message-ID: <1@contoso.com>\r\nFrom: ann@contoso.com\r\nSubject: x\r\n\r\nhello\r\n"


@on_both_loops
async def test_a_message(tmp_path: Path) -> None:
    async with relay(tmp_path, CLEAR) as world:
        async with await world.connect() as wire:
            await wire.ehlo()
            text = await wire.message(BODY)
            await wire.say("QUIT", 221)
            assert await wire.rest() == b""
        [taken] = world.intake.taken
        assert text == f"2.0.0 queued as {world.intake.begun[0].id}"
        assert taken.body == BODY
        assert taken.message_id == "<1@contoso.com>"
        assert not taken.eight_bit
        assert taken.envelope.sender == Address("ann", "contoso.com")
        assert taken.envelope.recipients == (Recipient(Address("bob", "example.com")),)
        accepted = taken.accepted
        listener = world.listeners.bound[0].listener.name
        assert (accepted.client, accepted.helo, accepted.listener) == ("127.0.0.1", "client.example", listener)
        assert (accepted.protocol, accepted.connector, accepted.auth, accepted.tls) == ("ESMTP", "", "", None)
        assert not accepted.may_relay
        lines = taken.header.decode().split("\r\n\t")
        assert lines[0] == "Received: from client.example ([127.0.0.1])"
        assert lines[1] == f"by {HOSTNAME} with ESMTP id {world.intake.begun[0].id}"
        assert lines[2] == "for <bob@example.com>;"
        closed = await world.event(SessionClosed)
        assert (closed.reason, closed.tls, closed.client) == ("quit", "", "127.0.0.1")
        assert 0 <= closed.seconds < 10
        assert len(world.of(SessionOpened)) == 1


async def test_smtplib(tmp_path: Path) -> None:
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = "ann@contoso.com", "bob@example.com", "x"
    message.set_content("one\n.two\n..three\n" * 20_000)

    def send(port: int) -> None:
        with smtplib.SMTP("127.0.0.1", port, local_hostname="client.example") as client:
            assert client.send_message(message) == {}

    async with relay(tmp_path, CLEAR) as world:
        await asyncio.to_thread(send, world.port)
        body = world.intake.taken[0].body
        assert body.count(b"\r\n.two\r\n..three\r\n") == 20_000


async def test_aiosmtplib(tmp_path: Path) -> None:
    async with relay(tmp_path, CLEAR) as world:
        client = aiosmtplib.SMTP(
            hostname="127.0.0.1", port=world.port, start_tls=False, local_hostname="client.example"
        )
        async with client:
            for number in range(3):
                errors, _text = await client.sendmail(
                    "ann@contoso.com", ["bob@example.com"], b"Subject: %d\r\n\r\nx" % number
                )
                assert errors == {}
        assert [taken.body[:10] for taken in world.intake.taken] == [b"Subject: 0", b"Subject: 1", b"Subject: 2"]


@on_both_loops
async def test_everything_in_one_packet(tmp_path: Path) -> None:
    """Two messages with BDAT and QUIT, without waiting for a single reply."""
    async with relay(tmp_path, CLEAR) as world, await world.connect() as wire:
        transaction = [b"MAIL FROM:<a@contoso.com>\r\nRCPT TO:<bob@example.com>\r\nBDAT 9 LAST\r\n", b"\r\nhello\r\n"]
        wire.send("EHLO client.example", *transaction, *transaction, "QUIT")
        await wire.expect(250, 250, 250, 250, 250, 250, 250, 221)
        assert await wire.rest() == b""
        assert [taken.body for taken in world.intake.taken] == [b"\r\nhello\r\n", b"\r\nhello\r\n"]


async def test_parameters_reach_the_envelope(tmp_path: Path) -> None:
    async with relay(tmp_path, CLEAR) as world, await world.connect() as wire:
        await wire.ehlo()
        await wire.say("MAIL FROM:<é@contoso.com> SMTPUTF8 BODY=8BITMIME RET=HDRS ENVID=x+2B", 250)
        await wire.say("RCPT TO:<bob@example.com> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;b@x.example", 250)
        await wire.say("RCPT TO:<Postmaster>", 250)
        await wire.say("DATA", 354)
        await wire.say("Subject: é\r\n\r\n.", 250)
        [taken] = world.intake.taken
        envelope = taken.envelope
        assert (envelope.smtputf8, envelope.body, envelope.ret, envelope.envid) == (
            True,
            Body.EIGHT_BIT,
            Ret.HEADERS,
            "x+2B",
        )
        assert envelope.recipients == (
            Recipient(Address("bob", "example.com"), frozenset({Notify.SUCCESS, Notify.FAILURE}), "rfc822;b@x.example"),
            Recipient(Address("postmaster", "example.com")),
        )
        assert taken.accepted.protocol == "UTF8SMTP"
        assert taken.eight_bit
        assert b"with UTF8SMTP id" in taken.header
        assert b"for <" not in taken.header


async def test_helo(tmp_path: Path) -> None:
    async with relay(tmp_path, CLEAR) as world, await world.connect() as wire:
        await wire.say("HELO [192.0.2.9]", 250)
        await wire.message()
        [taken] = world.intake.taken
        assert taken.accepted.protocol == "SMTP"
        assert taken.header.startswith(b"Received: from [192.0.2.9] ([127.0.0.1])\r\n")


@pytest.mark.parametrize(
    ("recipient", "code", "text"),
    [
        ("eve@elsewhere.example", 550, "5.7.1 relaying denied"),
        ("nobody@example.com", 550, "5.1.1 no such recipient here"),
        ("x%y@example.com", 550, "5.1.3 "),
        ("BOB@EXAMPLE.COM", 250, "2.1.5 "),
        ("postmaster@example.com", 250, "2.1.5 "),
    ],
)
async def test_recipients(tmp_path: Path, recipient: str, code: int, text: str) -> None:
    (tmp_path / "list").write_text("bob\n")
    accept = {"domains": ["example.com"], "recipients": {"example.com": "file:list"}}
    async with relay(tmp_path, CLEAR | {"accept": accept}) as world, await world.connect() as wire:
        await wire.ehlo()
        await wire.say("MAIL FROM:<ann@contoso.com>", 250)
        assert (await wire.say(f"RCPT TO:<{recipient}>", code)).startswith(text)
        refused = world.of(CommandRefused)
        if code == 550:
            [event] = refused
            assert (event.command, event.sender, event.recipient) == ("RCPT", "ann@contoso.com", recipient)
            assert event.reply.code == 550
            assert event.client == "127.0.0.1"
        else:
            assert refused == []


async def test_networks_may_relay(tmp_path: Path) -> None:
    data = CLEAR | {"accept": {"domains": ["example.com"], "networks": ["127.0.0.0/8"]}}
    async with relay(tmp_path, data) as world, await world.connect() as wire:
        await wire.ehlo()
        await wire.message(recipient="eve@elsewhere.example")
        assert world.intake.taken[0].accepted.may_relay


async def test_what_the_machine_refuses_is_told(tmp_path: Path) -> None:
    async with relay(tmp_path, CLEAR) as world, await world.connect() as wire:
        await wire.say("MAIL FROM:<ann@contoso.com>", 503)
        await wire.say("NONSENSE", 500)
        await wire.say("QUIT", 221)
        await world.event(SessionClosed)
        assert [(event.command, event.reply.code) for event in world.of(CommandRefused)] == [("MAIL", 503), ("", 500)]


async def test_a_new_rule_book_holds_at_the_next_mail(tmp_path: Path) -> None:
    async with relay(tmp_path, CLEAR) as world, await world.connect() as wire:
        await wire.ehlo()
        await wire.say("MAIL FROM:<ann@contoso.com>", 250)
        world.configure(CLEAR | {"accept": {"domains": ["example.org"]}})
        await wire.say("RCPT TO:<bob@example.com>", 250)
        await wire.say("RSET", 250)
        await wire.say("MAIL FROM:<ann@contoso.com>", 250)
        await wire.say("RCPT TO:<bob@example.com>", 550)
        await wire.say("RCPT TO:<bob@example.org>", 250)


# The content ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("hops", "code"), [(99, 250), (100, 554)])
async def test_loops_end(tmp_path: Path, hops: int, code: int) -> None:
    async with relay(tmp_path, CLEAR) as world, await world.connect() as wire:
        await wire.ehlo()
        await wire.mail()
        text = await wire.say(b"Received: from x\r\n\tby y\r\n" * hops + b"\r\nhello\r\n.\r\n", code)
        if code == 554:
            assert text.startswith("5.4.6 ")
            assert world.intake.taken == []
            assert world.intake.begun[0].aborted
            [event] = world.of(CommandRefused)
            assert (event.command, event.sender, event.reply.status) == ("DATA", "ann@contoso.com", "5.4.6")
        await wire.message()


async def test_a_header_without_end(tmp_path: Path) -> None:
    async with relay(tmp_path, CLEAR) as world, await world.connect() as wire:
        await wire.ehlo()
        await wire.mail()
        line = b"X-Filler: " + b"x" * 900 + b"\r\n"
        text = await wire.say(line * (3 * 2**20 // len(line)) + b"\r\n.\r\n", 552)
        assert text.startswith("5.3.4 ")
        assert world.intake.taken == []
        await wire.message()


async def test_smuggling_gets_nowhere(tmp_path: Path) -> None:
    async with relay(tmp_path, CLEAR) as world, await world.connect() as wire:
        await wire.ehlo()
        await wire.mail()
        text = await wire.say(b"Subject: x\r\n\r\nhello\n.\r\nMAIL FROM:<x@y.example>\r\n.\r\n", 550)
        assert text.startswith("5.6.11 ")
        assert world.intake.taken == []
        assert world.intake.begun[0].aborted
        await wire.message()


async def test_bare_lf_of_old_devices_is_normalised(tmp_path: Path) -> None:
    data = CLEAR | {"bare_lf": {"normalise": ["127.0.0.0/8"]}}
    async with relay(tmp_path, data) as world, await world.connect() as wire:
        await wire.ehlo()
        await wire.mail()
        await wire.say(b"Subject: x\n\nhello\n\r\n.\r\n", 250)
        assert world.intake.taken[0].body.startswith(b"Subject: x\r\n\r\nhello\r\n")


# What goes wrong -----------------------------------------------------------------------------------------------------


@on_both_loops
async def test_lost_in_the_middle_of_a_message(tmp_path: Path) -> None:
    async with relay(tmp_path, CLEAR) as world:
        async with await world.connect() as wire:
            await wire.ehlo()
            await wire.mail()
            wire.send("Subject: x", "")
        closed = await world.event(SessionClosed)
        assert closed.reason == "lost"
        assert world.intake.begun[0].aborted
        assert world.intake.taken == []


@on_both_loops
async def test_lost_right_after_the_final_dot(tmp_path: Path) -> None:
    """The client can not know: the message is kept (at least once), and nothing complains."""
    async with relay(tmp_path, CLEAR) as world:
        world.intake.go.clear()
        async with await world.connect() as wire:
            await wire.ehlo()
            await wire.mail()
            wire.send(BODY, ".")
            await world.intake.committing.wait()
            wire.reset()
        assert (await world.event(SessionClosed)).reason == "lost"
        assert not world.intake.begun[0].aborted
        world.intake.go.set()
        await world.intake.begun[0].ended.wait()
        assert [taken.body for taken in world.intake.taken] == [BODY]


@on_both_loops
async def test_closed_right_after_the_final_dot(tmp_path: Path) -> None:
    async with relay(tmp_path, CLEAR) as world:
        world.intake.go.clear()
        async with await world.connect() as wire:
            await wire.ehlo()
            await wire.mail()
            wire.send(BODY, ".", "QUIT")
            await world.intake.committing.wait()
        world.intake.go.set()
        await world.event(SessionClosed)
        assert [taken.body for taken in world.intake.taken] == [BODY]


@on_both_loops
async def test_a_client_that_closes_its_side_hears_the_reply(tmp_path: Path) -> None:
    async with relay(tmp_path, CLEAR) as world, await world.connect() as wire:
        world.intake.go.clear()
        wire.send("HELO x", "MAIL FROM:<ann@contoso.com>", "RCPT TO:<bob@example.com>", "DATA")
        await wire.expect(250, 250, 250, 354)
        wire.send(BODY, ".")
        wire.writer.write_eof()
        await world.intake.committing.wait()
        world.intake.go.set()
        await wire.expect(250)
        assert await wire.rest() == b""
        assert len(world.intake.taken) == 1


async def test_a_client_that_closes_its_side_between_commands(tmp_path: Path) -> None:
    async with relay(tmp_path, CLEAR) as world, await world.connect() as wire:
        wire.send("NOOP")
        wire.writer.write_eof()
        await wire.expect(250)
        assert await wire.rest() == b""
        assert (await world.event(SessionClosed)).reason == "lost"


async def test_rset_throws_the_transaction_away(tmp_path: Path) -> None:
    async with relay(tmp_path, CLEAR) as world, await world.connect() as wire:
        await wire.ehlo()
        await wire.say("MAIL FROM:<ann@contoso.com>", 250)
        await wire.say("RCPT TO:<bob@example.com>", 250)
        wire.send("BDAT 5", b"Subje")
        await wire.expect(250)
        await wire.say("RSET", 250)
        assert world.intake.begun[0].aborted
        await wire.message()
        assert len(world.intake.taken) == 1


@pytest.mark.parametrize("step", ["begin", "drain", "commit"])
async def test_no_room_in_the_store(tmp_path: Path, step: str) -> None:
    async with relay(tmp_path, CLEAR) as world, await world.connect() as wire:
        world.intake.errors[step] = StoreError()
        world.intake.full = step == "drain"
        await wire.ehlo()
        wire.send("MAIL FROM:<ann@contoso.com>", "RCPT TO:<bob@example.com>", "DATA")
        await wire.expect(250, 250)
        if step != "begin":
            await wire.expect(354)
            wire.send(BODY, ".")
        assert await wire.expect(452) == "4.3.1 no room for mail now"
        assert world.intake.taken == []
        assert world.of(Unexpected) == []
        [event] = world.of(CommandRefused)
        assert (event.command, event.reply.code, event.sender) == ("DATA", 452, "ann@contoso.com")
        world.intake.errors.clear()
        world.intake.full = False
        await wire.message(BODY)
        assert len(world.intake.taken) == 1


@pytest.mark.parametrize("step", ["begin", "write", "drain", "commit"])
async def test_a_bug_is_451_with_an_id_and_no_word_of_it(tmp_path: Path, step: str) -> None:
    async with relay(tmp_path, CLEAR) as world, await world.connect() as wire:
        world.intake.errors[step] = ValueError("secret detail")
        world.intake.full = step == "drain"
        await wire.ehlo()
        wire.send("MAIL FROM:<ann@contoso.com>", "RCPT TO:<bob@example.com>", "DATA")
        await wire.expect(250, 250)
        if step != "begin":
            await wire.expect(354)
            wire.send(BODY, ".")
        text = await wire.expect(451)
        [event] = world.of(Unexpected)
        assert text.startswith("4.3.0 ")
        assert event.id in text
        assert "secret" not in text
        assert "secret detail" in event.trace
        assert event.where == "inbound DATA"
        assert world.intake.taken == []
        world.intake.errors.clear()
        world.intake.full = False
        await wire.message(BODY)
        assert len(world.intake.taken) == 1


async def test_a_bug_at_mail(tmp_path: Path) -> None:
    async with relay(tmp_path, CLEAR) as world, await world.connect() as wire:
        await wire.ehlo()
        book, world.book = world.book, None  # type: ignore[assignment]  # stands for a bug in a decision
        assert "object" not in await wire.say("MAIL FROM:<ann@contoso.com>", 451)
        world.book = book
        await wire.message()
        assert len(world.of(Unexpected)) == 1


async def test_a_bug_outside_of_a_command_ends_the_session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with relay(tmp_path, CLEAR) as world, await world.connect() as wire:
        monkeypatch.setitem(dialog._HANDLERS, Said, lambda self, event: 1 / 0)
        wire.send("NONSENSE")
        await wire.expect(500)
        await wire.expect(421)
        assert await wire.rest() == b""
        assert (await world.event(SessionClosed)).reason == "unexpected error"
        assert len(world.of(Unexpected)) >= 1


async def test_a_machine_that_is_broken_altogether_ends_the_session(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with relay(tmp_path, CLEAR) as world, await world.connect() as wire:
        monkeypatch.setattr("relay.smtp.session.ServerSession.next_event", lambda self: 1 / 0)
        wire.send("NOOP")
        await wire.rest()
        assert (await world.event(SessionClosed)).reason == "unexpected error"


# Back-pressure -------------------------------------------------------------------------------------------------------


@on_both_loops
async def test_a_store_that_is_behind_stops_the_client(tmp_path: Path) -> None:
    async with relay(tmp_path, CLEAR) as world, await world.connect(limit=2**16) as wire:
        world.intake.full = True
        world.intake.room.clear()
        await wire.ehlo()
        await wire.mail()
        line = b"x" * 998 + b"\r\n"
        total = 40 * 2**20
        sending = asyncio.create_task(send_all(wire, b"\r\n" + line * (total // len(line)) + b".\r\n"))
        await world_is_still(world.intake.begun[0].pieces)
        held = sum(map(len, world.intake.begun[0].pieces))
        assert 0 < held < total / 4
        world.intake.full = False
        world.intake.room.set()
        await sending
        await wire.expect(250)
        assert len(world.intake.taken[0].body) == total // len(line) * len(line) + 2


async def send_all(wire: Wire, data: bytes) -> None:
    for start in range(0, len(data), 2**18):
        wire.writer.write(data[start : start + 2**18])
        await wire.writer.drain()


async def world_is_still(pieces: list[bytes]) -> None:
    """Until nothing more arrives for many turns of the loop: there is no event for something that does not happen."""
    seen, turns = -1, 0
    async with asyncio.timeout(10):
        while turns < 20:
            await asyncio.sleep(0.005)
            turns = turns + 1 if pieces and len(pieces) == seen else 0
            seen = len(pieces)


# Time limits ---------------------------------------------------------------------------------------------------------

QUICK = CLEAR | {"limits": {"command_timeout": "150ms", "data_timeout": "200ms"}}


@on_both_loops
async def test_a_silent_client(tmp_path: Path) -> None:
    async with relay(tmp_path, QUICK) as world, await world.connect() as wire:
        assert (await wire.expect(421)).startswith("4.4.2 ")
        assert await wire.rest() == b""
        assert (await world.event(SessionClosed)).reason == "timeout"


async def drip(wire: Wire, data: bytes) -> None:
    """An octet now and then, for as long as the connection lasts."""
    try:
        for octet in data:
            wire.writer.write(bytes([octet]))
            await wire.writer.drain()
            await asyncio.sleep(0.01)
    except ConnectionError:
        pass


async def test_a_byte_now_and_then_extends_no_command(tmp_path: Path) -> None:
    async with relay(tmp_path, QUICK) as world, await world.connect() as wire:
        dripping = asyncio.create_task(drip(wire, b"NOOP " + b"x" * 1000))
        await wire.expect(421)
        assert 0.15 <= (await world.event(SessionClosed)).seconds < 3
        await dripping


async def test_replies_do_extend(tmp_path: Path) -> None:
    async with relay(tmp_path, QUICK) as world, await world.connect() as wire:
        for _ in range(25):
            await wire.say("NOOP", 250)
            await asyncio.sleep(0.01)
        await wire.say("QUIT", 221)
        assert (await world.event(SessionClosed)).reason == "quit"


async def test_a_byte_now_and_then_extends_no_message(tmp_path: Path) -> None:
    async with relay(tmp_path, QUICK) as world, await world.connect() as wire:
        await wire.ehlo()
        await wire.mail()
        dripping = asyncio.create_task(drip(wire, b"Subject: x\r\n" * 100))
        await wire.expect(421)
        assert (await world.event(SessionClosed)).reason == "timeout"
        assert world.intake.begun[0].aborted
        await dripping


async def test_bdat_chunks_share_one_time_limit(tmp_path: Path) -> None:
    async with relay(tmp_path, QUICK) as world, await world.connect() as wire:
        await wire.ehlo()
        await wire.say("MAIL FROM:<ann@contoso.com>", 250)
        await wire.say("RCPT TO:<bob@example.com>", 250)
        chunks, code = 0, 250
        while code == 250:
            wire.send("BDAT 3", b"abc")
            code, _text = await wire.reply()
            chunks += 1
            await asyncio.sleep(0.01)
        assert code == 421
        assert 1 < chunks < 100
        assert (await world.event(SessionClosed)).reason == "timeout"
        assert world.intake.begun[0].aborted


async def test_our_own_slowness_is_nobody_elses_fault(tmp_path: Path) -> None:
    async with relay(tmp_path, QUICK) as world, await world.connect() as wire:
        world.intake.go.clear()
        await wire.ehlo()
        await wire.mail()
        wire.send(BODY, ".")
        await world.intake.committing.wait()
        await asyncio.sleep(0.4)  # longer than either limit
        world.intake.go.set()
        await wire.expect(250)


@on_both_loops
async def test_a_client_that_never_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The machine's own limit for idle commands would end it first.
    monkeypatch.setattr(port, "SessionSettings", functools.partial(SessionSettings, idle_commands=10**9))
    loop = asyncio.get_running_loop()

    async def flood(client: socket.socket) -> None:
        try:
            while True:
                await loop.sock_sendall(client, b"EHLO client.example\r\n" * 200)
        except ConnectionError:
            pass

    async with relay(tmp_path, CLEAR, times=TimeLimits(unread=0.2, linger=0.1, tick=0.01)) as world:
        with socket.socket() as client:
            client.setblocking(False)
            await loop.sock_connect(client, ("127.0.0.1", world.port))
            flooding = asyncio.create_task(flood(client))
            assert (await world.event(SessionClosed)).reason == "our replies were not read"
            await flooding


@on_both_loops
async def test_a_client_that_reads_late_gets_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(port, "SessionSettings", functools.partial(SessionSettings, idle_commands=10**9))
    paused, resumed = asyncio.Event(), asyncio.Event()

    def told(event: asyncio.Event, original: Callable[[Session], None]) -> Callable[[Session], None]:
        def tell(self: Session) -> None:
            original(self)
            event.set()

        return tell

    monkeypatch.setattr(Session, "pause_writing", told(paused, Session.pause_writing))
    monkeypatch.setattr(Session, "resume_writing", told(resumed, Session.resume_writing))
    loop = asyncio.get_running_loop()
    count = 60_000
    async with relay(tmp_path, CLEAR) as world:
        with socket.socket() as client:
            client.setblocking(False)
            await loop.sock_connect(client, ("127.0.0.1", world.port))
            sending = asyncio.create_task(loop.sock_sendall(client, b"EHLO client.example\r\n" * count + b"QUIT\r\n"))
            await asyncio.wait_for(paused.wait(), 20)
            received = bytearray()
            while data := await loop.sock_recv(client, 2**20):
                received += data
            await sending
        assert resumed.is_set()
        assert received.count(b"250 ENHANCEDSTATUSCODES\r\n") == count
        assert received.endswith(b"221 2.0.0 closing connection\r\n")


async def test_a_bug_behind_an_answer_that_took_its_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with relay(tmp_path, CLEAR) as world, await world.connect() as wire:
        world.intake.go.clear()
        await wire.ehlo()
        await wire.mail()
        wire.send(BODY, ".")
        await world.intake.committing.wait()
        monkeypatch.setattr(ServerSession, "take_output", lambda self: 1 / 0)
        world.intake.go.set()
        assert await wire.rest() == b""
        assert (await world.event(SessionClosed)).reason == "unexpected error"
        assert len(world.intake.taken) == 1


async def test_a_bug_while_an_answer_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answer, calls = ServerSession.answer, []

    def broken_once(self: ServerSession, reply: Reply) -> None:
        calls.append(reply)
        if len(calls) == 1:
            raise ValueError("secret detail")
        answer(self, reply)

    async with relay(tmp_path, CLEAR) as world, await world.connect() as wire:
        await wire.ehlo()
        await wire.mail()
        monkeypatch.setattr(ServerSession, "answer", broken_once)
        wire.send(BODY, ".")
        assert "secret" not in await wire.expect(451)  # stored all the same, and not known to the client: at least once
        assert len(world.of(Unexpected)) == len(world.intake.taken) == 1


async def test_the_time_for_a_message_ends_while_the_store_is_behind(tmp_path: Path) -> None:
    async with relay(tmp_path, QUICK) as world, await world.connect() as wire:
        await wire.ehlo()
        await wire.mail()
        world.intake.full = True
        world.intake.room.clear()
        wire.send(b"Subject: x\r\n\r\n" + b"x\r\n" * 50_000)
        await wire.expect(421)
        wire.send(b"y" * 100_000)
        assert await wire.rest() == b""
        world.intake.room.set()
        assert (await world.event(SessionClosed)).reason == "timeout"
        assert world.intake.begun[0].aborted


def test_a_connection_that_is_gone_before_it_is_looked_at() -> None:
    transport = Mock(**{"get_extra_info.return_value": None})
    with asyncio.Runner() as runner:
        runner.run(gone_already(transport))
    transport.abort.assert_called_once()
    transport.write.assert_not_called()


async def gone_already(transport: Mock) -> None:
    floor = port.Floor(Mock(processes=1), PATIENT)
    session = Session(Mock(floor=floor))
    session.connection_made(transport)
    session.connection_lost(None)
    assert floor.connections.total == 0


def test_a_peer_that_resets_while_we_say_our_last_word() -> None:
    transport = Mock(
        **{"get_extra_info.return_value": ("192.0.2.1", 4711), "write_eof.side_effect": OSError(107, "gone")}
    )
    transport.is_closing.return_value = False

    async def last_word() -> None:
        floor = port.Floor(Mock(processes=1), PATIENT)
        session = Session(Mock(floor=floor))
        session._transport = transport
        session._let_go()
        floor.deadlines.close()

    with asyncio.Runner() as runner:
        runner.run(last_word())
    transport.abort.assert_called_once()


async def test_our_last_reply_arrives_although_more_was_sent(tmp_path: Path) -> None:
    """Closing with input unread would make the kernel reset the connection, and the reply with it."""
    async with relay(tmp_path, CLEAR, times=PATIENT) as world, await world.connect() as wire:
        wire.send(*["NONSENSE"] * 20_000)
        codes = [(await wire.reply())[0] for _ in range(20)]
        while codes[-1] == 500:
            codes.append((await wire.reply())[0])
        assert codes[-1] == 421
        assert (await world.event(SessionClosed)).reason


async def test_null_sender_in_clear(tmp_path: Path) -> None:
    async with relay(tmp_path, CLEAR) as world, await world.connect() as wire:
        await wire.ehlo()
        await wire.message(sender="")
        assert world.intake.taken[0].envelope.sender == NULL
