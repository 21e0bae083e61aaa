"""Memory that transactions of all sessions take together: who is asked to come later, and that all of it is given back."""

from pathlib import Path

from relay.inbound.room import Room
from relay.mail.events import SessionClosed
from tests.unit.inbound.world import CLEAR, StoreError, World, relay

HEADER = b"X-Filler: " + b"x" * 900 + b"\r\n"


def short(world: World, *, most: int = 0, share: int = 3000) -> Room:
    room = world.listeners._floor.room = Room(most, share)
    return room


async def test_whoever_names_many_recipients_is_asked_to_come_later(tmp_path: Path) -> None:
    async with relay(tmp_path, CLEAR) as world, await world.connect() as wire:
        short(world)
        await wire.ehlo()
        await wire.say("MAIL FROM:<ann@contoso.com>", 250)
        codes = [(await wire.reply_to(f"RCPT TO:<u{number}@example.com>"))[0] for number in range(10)]
        assert codes == [250] * 5 + [452] * 5
        await wire.say("DATA", 354)
        await wire.say(b"\r\n.\r\n", 250)
        assert len(world.intake.taken[0].envelope.recipients) == 5


async def test_whoever_sends_a_long_header_is_asked_to_come_later(tmp_path: Path) -> None:
    async with relay(tmp_path, CLEAR) as world, await world.connect() as wire:
        room = short(world)
        await wire.ehlo()
        await wire.mail()
        wire.send(HEADER * 200)
        assert (await wire.say(b"\r\nhello\r\n.\r\n", 452)).startswith("4.3.1 too much mail is under way")
        assert (world.intake.taken, world.intake.begun[0].aborted, room.taken) == ([], True, 0)
        await wire.message()


async def test_the_header_counts_beside_the_recipients(tmp_path: Path) -> None:
    async with relay(tmp_path, CLEAR) as world, await world.connect() as wire:
        short(world)
        await wire.ehlo()
        wire.send("MAIL FROM:<ann@contoso.com>", *[f"RCPT TO:<u{number}@example.com>" for number in range(4)], "DATA")
        await wire.expect(250, 250, 250, 250, 250, 354)
        wire.send(HEADER * 2)
        await wire.say(b"\r\nhello\r\n.\r\n", 452)


async def test_ordinary_mail_gets_through_however_short_room_is(tmp_path: Path) -> None:
    async with relay(tmp_path, CLEAR) as world, await world.connect() as greedy, await world.connect() as wire:
        short(world, most=10_000)
        await greedy.ehlo()
        await greedy.say("MAIL FROM:<ann@contoso.com>", 250)
        while (await greedy.reply_to("RCPT TO:<bob@example.com>"))[0] == 250:
            pass
        await wire.ehlo()
        await wire.message()


async def test_all_of_it_is_given_back(tmp_path: Path) -> None:
    async with relay(tmp_path, CLEAR) as world:
        room = short(world, most=2**20)
        async with await world.connect() as wire:
            await wire.ehlo()
            await wire.message()
            await wire.mail()
            await wire.say(b"Received: x\r\n" * 100 + b"\r\n.\r\n", 554)
            await wire.mail()
            await wire.say(b"bare\nLF\r\n.\r\n", 550)
            await wire.say("MAIL FROM:<ann@contoso.com>", 250)
            await wire.say("RCPT TO:<bob@example.com>", 250)
            assert room.taken > 0
            await wire.say("RSET", 250)
            assert room.taken == 0
            world.intake.errors["commit"] = StoreError()
            await wire.mail()
            await wire.say(b"\r\n.\r\n", 452)
            assert room.taken == 0
            await wire.mail()
            wire.send(HEADER)
        await world.event(SessionClosed)
        assert room.taken == 0
