"""`accept.recipients: {DOMAIN: callout}`: what is kept, what is asked, and what a client hears while it waits."""

import asyncio
from collections import Counter
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from relay.config.models import Callout
from relay.inbound.callouts import NOBODY, CalloutLimits, Callouts
from relay.mail.address import Address, parse_mailbox
from relay.mail.events import CalloutTakesAll, CommandRefused, Event, RecipientAsked, SessionClosed
from relay.policy.callout import AGAIN, STALE, Answer, Known
from tests.unit.inbound.world import CLEAR, relay

CALLOUT = Callout()
BOB, EVE = parse_mailbox("bob@example.com"), parse_mailbox("eve@example.com")
DOWN = Answer(Known.UNKNOWN, "secret.internal:25: no answer", reached=False)


class Inside:
    """The mail server inside. `people` exist; `down` answers nobody; a cleared `go` holds answers back."""

    def __init__(self, *people: str) -> None:
        self.people = set(people)
        self.down = self.busy = self.takes_all = False
        self.nobody: list[Address] = []
        self.tested = asyncio.Event()
        self.asked: Counter[str] = Counter()
        self.open = self.most = 0
        self.go, self.arrived = asyncio.Event(), asyncio.Event()
        self.go.set()

    async def __call__(self, address: Address) -> Answer:
        if address.local.startswith(NOBODY):
            self.nobody.append(address)
            self.tested.set()
            return Answer(Known.EXISTS if self.takes_all else Known.MISSING)
        self.asked[str(address)] += 1
        self.open += 1
        self.most = max(self.most, self.open)
        self.arrived.set()
        try:
            await self.go.wait()
        finally:
            self.open -= 1
        if self.down:
            return DOWN
        if self.busy:
            return Answer(Known.UNKNOWN, "to RCPT: 450 4.2.0 greylisted")
        return Answer(Known.EXISTS if address.local in self.people else Known.MISSING, "550 5.1.1 secret.internal")


class Room:
    """Callouts with a clock of their own."""

    def __init__(self, inside: Inside, **limits: Any) -> None:
        self.now, self.configuration = 1000.0, object()
        self.events: list[Event] = []
        self.callouts = Callouts(
            inside, lambda: self.configuration, lambda: self.now, self.events.append, CalloutLimits(**limits)
        )

    async def known(self, address: Address = BOB, terms: Callout = CALLOUT) -> Known:
        return (await self.callouts.answer(address, terms)).known


async def test_answers_are_kept_for_their_time() -> None:
    inside = Inside("bob")
    room = Room(inside)
    for address, kept in ((BOB, CALLOUT.positive), (EVE, CALLOUT.negative)):
        assert room.callouts.held(address, CALLOUT) is None
        first = await room.known(address)
        room.now += kept.total_seconds() - 1
        held = room.callouts.held(address, CALLOUT)
        assert held is not None
        assert held.known is first
        assert await room.known(address) is first
        assert inside.asked[str(address)] == 1
        room.now += 2
        assert room.callouts.held(address, CALLOUT) is None
        assert await room.known(address) is first
        assert inside.asked[str(address)] == 2


async def test_one_question_however_many_wait() -> None:
    inside = Inside("bob")
    room = Room(inside)
    inside.go.clear()
    waiting = [asyncio.ensure_future(room.known()) for _ in range(50)]
    await inside.arrived.wait()
    inside.go.set()
    assert set(await asyncio.gather(*waiting)) == {Known.EXISTS}
    assert inside.asked == {"bob@example.com": 1}
    assert len(room.events) == 1


async def test_few_questions_at_a_time_and_not_too_many_behind_them() -> None:
    inside = Inside()
    room = Room(inside, at_once=3, waiting=5)
    inside.go.clear()
    waiting = [asyncio.ensure_future(room.known(Address(f"u{number}", "example.com"))) for number in range(20)]
    done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED, timeout=5)
    assert {each.result() for each in done} == {Known.UNKNOWN}
    inside.go.set()
    found = Counter(await asyncio.gather(*waiting))
    assert found == {Known.MISSING: 8, Known.UNKNOWN: 12}
    assert inside.most == 3


async def test_a_server_that_is_down_is_not_asked_again_at_once() -> None:
    inside = Inside("bob")
    room, inside.down = Room(inside), True
    assert await room.known() is Known.UNKNOWN
    assert await room.known(EVE) is Known.UNKNOWN
    assert inside.asked.total() == 1
    assert [type(each) for each in room.events] == [RecipientAsked]
    inside.down = False
    room.now += AGAIN.total_seconds() + 1
    assert await room.known() is Known.EXISTS


async def test_an_answer_that_only_concerns_one_recipient_stops_no_other_question() -> None:
    inside = Inside("bob")
    room, inside.busy = Room(inside), True
    assert await room.known() is Known.UNKNOWN
    inside.busy = False
    assert await room.known(EVE) is Known.MISSING
    assert await room.known() is Known.EXISTS


async def test_who_existed_lately_is_taken_while_nobody_can_be_asked() -> None:
    inside = Inside("bob")
    room = Room(inside)
    await room.known()
    await room.known(EVE)
    inside.down = True
    room.now += CALLOUT.positive.total_seconds() + 1
    assert await room.known() is Known.EXISTS
    assert await room.known(EVE) is Known.UNKNOWN
    room.now += STALE.total_seconds()
    assert await room.known() is Known.UNKNOWN


async def test_who_is_gone_is_not_taken_for_having_existed() -> None:
    inside = Inside("bob")
    room = Room(inside)
    await room.known()
    inside.people.clear()
    room.now += CALLOUT.positive.total_seconds() + 1
    assert await room.known() is Known.MISSING
    inside.down = True
    room.now += CALLOUT.negative.total_seconds() + 1
    assert await room.known() is Known.UNKNOWN


async def test_a_question_ends_in_time() -> None:
    inside = Inside("bob")
    room = Room(inside)
    inside.go.clear()
    answer = await room.callouts.answer(BOB, Callout(timeout=timedelta(milliseconds=20)))
    assert answer == Answer(Known.UNKNOWN, "no answer within 0.02 s", reached=False)
    assert inside.open == 0


async def test_another_configuration_begins_anew() -> None:
    inside = Inside("bob")
    room = Room(inside)
    await room.known()
    room.configuration = object()
    inside.people.clear()
    assert room.callouts.held(BOB, CALLOUT) is None
    assert await room.known() is Known.MISSING


async def test_what_is_kept_is_bounded() -> None:
    inside = Inside()
    room = Room(inside, entries=10)
    for number in range(30):
        await room.known(Address(f"u{number}", "example.com"))
    held = [room.callouts.held(Address(f"u{number}", "example.com"), CALLOUT) for number in range(30)]
    assert sum(each is not None for each in held) == 10


async def test_closing_ends_questions_of_an_older_configuration_too() -> None:
    inside = Inside()
    room = Room(inside)
    inside.go.clear()
    first = asyncio.ensure_future(room.known())
    await inside.arrived.wait()
    room.configuration = object()
    inside.arrived.clear()
    second = asyncio.ensure_future(room.known(EVE))
    await inside.arrived.wait()
    await room.callouts.close()
    assert all(
        isinstance(each, asyncio.CancelledError) for each in await asyncio.gather(first, second, return_exceptions=True)
    )
    assert inside.open == 0


@pytest.mark.parametrize("takes_all", [False, True])
async def test_a_server_that_takes_anybody_is_found_out_once(takes_all: bool) -> None:
    inside = Inside("bob", "eve")
    inside.takes_all = takes_all
    room = Room(inside)
    assert await room.known() is Known.EXISTS
    await asyncio.wait_for(inside.tested.wait(), 5)
    assert await room.known(EVE) is Known.EXISTS
    await asyncio.sleep(0)
    assert [each.domain for each in inside.nobody] == ["example.com"]
    told = [each.domain for each in room.events if isinstance(each, CalloutTakesAll)]
    assert told == (["example.com"] if takes_all else [])


# Through the wire.


def asking(networks: tuple[str, ...] = (), **terms: Any) -> dict[str, Any]:
    known = {"example.com": {"callout": terms} if terms else "callout"}
    return CLEAR | {"accept": {"domains": ["example.com"], "recipients": known, "networks": list(networks)}}


def rcpt(*people: str) -> list[str]:
    return [f"RCPT TO:<{each}@example.com>" for each in people]


async def test_pipelined_recipients_are_answered_in_their_order(tmp_path: Path) -> None:
    inside = Inside("bob", "carol")
    async with relay(tmp_path, asking(), ask=inside) as world, await world.connect() as wire:
        await wire.ehlo()
        wire.send("MAIL FROM:<ann@contoso.com>", *rcpt("bob", "eve", "carol", "eve", "bob", "postmaster"), "DATA")
        await wire.expect(250, 250, 550, 250, 550, 250, 250, 354)
        await wire.say(b"\r\nhello\r\n.\r\n", 250)
        await wire.say("QUIT", 221)
        (taken,) = world.intake.taken
        refused = world.of(CommandRefused)
    assert [each.address.local for each in taken.envelope.recipients] == ["bob", "carol", "bob", "postmaster"]
    assert inside.asked == {"bob@example.com": 1, "eve@example.com": 1, "carol@example.com": 1}
    assert [(str(each.reply), each.recipient) for each in refused] == [
        ("550 5.1.1 no such recipient here", "eve@example.com")
    ] * 2


async def test_commands_behind_a_question_wait_for_it(tmp_path: Path) -> None:
    inside = Inside("bob")
    async with relay(tmp_path, asking(), ask=inside) as world, await world.connect() as wire:
        await wire.ehlo()
        inside.go.clear()
        wire.send("MAIL FROM:<ann@contoso.com>", *rcpt("bob"), "RSET", "NOOP", "QUIT")
        await wire.expect(250)
        await inside.arrived.wait()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(wire.reader.readexactly(1), 0.05)
        inside.go.set()
        await wire.expect(250, 250, 250, 221)


@pytest.mark.parametrize(("on_failure", "code"), [("defer", 450), ("accept", 250)])
async def test_where_nobody_can_be_asked(tmp_path: Path, on_failure: str, code: int) -> None:
    inside = Inside()
    inside.down = True
    async with relay(tmp_path, asking(on_failure=on_failure), ask=inside) as world, await world.connect() as wire:
        await wire.ehlo()
        await wire.say("MAIL FROM:<ann@contoso.com>", 250)
        assert "secret" not in await wire.say(rcpt("bob")[0], code)
        (asked,) = world.of(RecipientAsked)
    assert (asked.recipient, asked.result) == ("bob@example.com", "unknown")


async def test_a_question_that_raises_is_our_bug_and_costs_one_command(tmp_path: Path) -> None:
    async def broken(_address: Address) -> Answer:
        raise LookupError("a bug")

    async with relay(tmp_path, asking(), ask=broken) as world, await world.connect() as wire:
        await wire.ehlo()
        await wire.say("MAIL FROM:<ann@contoso.com>", 250)
        assert (await wire.say(rcpt("bob")[0], 451)).startswith("4.3.0")
        await wire.say("RSET", 250)


async def test_who_guesses_hears_421_and_nobody_inside_is_asked_any_more(tmp_path: Path) -> None:
    inside = Inside("bob", "carol")
    async with relay(tmp_path, asking(), ask=inside) as world:
        async with await world.connect() as wire:
            await wire.ehlo()
            await wire.say("MAIL FROM:<ann@contoso.com>", 250)
            wire.send(*rcpt("carol", *(f"u{number}" for number in range(25))))
            await wire.expect(250, *[550] * 20)
            assert (await wire.expect(421)).startswith("4.7.0 too many unknown recipients")
            await wire.rest()
        async with await world.connect() as wire:
            await wire.ehlo()
            await wire.say("MAIL FROM:<ann@contoso.com>", 250)
            await wire.say(rcpt("carol")[0], 250)  # known to exist
            await wire.say(rcpt("bob")[0], 421)
    assert inside.asked.total() == 21


async def test_a_client_that_we_know_may_err(tmp_path: Path) -> None:
    inside = Inside()
    async with relay(tmp_path, asking(("127.0.0.0/8",)), ask=inside) as world, await world.connect() as wire:
        await wire.ehlo()
        await wire.say("MAIL FROM:<ann@contoso.com>", 250)
        wire.send(*rcpt(*(f"u{number}" for number in range(25))))
        await wire.expect(*[550] * 25)


async def test_a_client_that_leaves_meanwhile(tmp_path: Path) -> None:
    inside = Inside("bob")
    async with relay(tmp_path, asking(), ask=inside) as world:
        inside.go.clear()
        wire = await world.connect()
        await wire.ehlo()
        wire.send("MAIL FROM:<ann@contoso.com>", *rcpt("bob"))
        await inside.arrived.wait()
        wire.reset()
        await world.event(SessionClosed)
        inside.go.set()
        # The answer was found all the same, for the next one.
        await world.event(RecipientAsked)
        async with await world.connect() as other:
            await other.ehlo()
            await other.say("MAIL FROM:<ann@contoso.com>", 250)
            await other.say(rcpt("bob")[0], 250)
    assert inside.asked.total() == 1


async def test_waiting_for_an_answer_is_not_the_client_s_delay(tmp_path: Path) -> None:
    inside = Inside("bob")
    data = asking() | {"limits": {"command_timeout": "50ms"}}
    async with relay(tmp_path, data, ask=inside) as world, await world.connect() as wire:
        await wire.ehlo()
        inside.go.clear()
        wire.send("MAIL FROM:<ann@contoso.com>", *rcpt("bob"))
        await wire.expect(250)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(wire.reader.readexactly(1), 0.2)
        inside.go.set()
        await wire.expect(250)
        assert (await wire.expect(421)).startswith("4.4.2")  # from here on it is


async def test_the_end_of_the_relay_does_not_wait_for_answers(tmp_path: Path) -> None:
    inside = Inside()
    async with relay(tmp_path, asking(), ask=inside) as world:
        inside.go.clear()
        wire = await world.connect()
        await wire.ehlo()
        wire.send("MAIL FROM:<ann@contoso.com>", *rcpt("bob"))
        await wire.expect(250)
        await inside.arrived.wait()
        await asyncio.wait_for(world.listeners.close(grace=0.05), 5)
        await wire.expect(421)
        await wire.close()


@pytest.mark.parametrize(
    ("before", "after", "code"),
    [
        (asking(), asking(positive="2h"), 250),
        (CLEAR, asking(), 451),
        (asking(), CLEAR | {"accept": {"domains": ["example.org"]}}, 451),
    ],
)
async def test_a_reload_between_rcpt_and_the_end(
    tmp_path: Path, before: dict[str, Any], after: dict[str, Any], code: int
) -> None:
    inside = Inside("bob")
    async with relay(tmp_path, before, ask=inside) as world, await world.connect() as wire:
        await wire.ehlo()
        await wire.mail()
        world.configure(after)
        await wire.say(b"\r\nhello\r\n.\r\n", code)
