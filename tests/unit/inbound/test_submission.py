"""Submission: who logs in, as whom each user may send, and what guessing costs."""

import asyncio
import base64
import os
import smtplib
from pathlib import Path
from typing import Any

import aiosmtplib
import pytest
from argon2 import PasswordHasher

from relay.inbound.auth import Authenticator
from relay.mail.events import CommandRefused, LoginFailed, SessionClosed, Unexpected
from tests.unit.inbound.world import HOSTNAME, Pki, Wire, World, on_both_loops, relay

CHEAP = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
BOB = f"bob:{CHEAP.hash('geheim')}:bob@example.com,@lists.example.com\n"
ANY = f"app:{CHEAP.hash('geheim')}:*\n"


@pytest.fixture(autouse=True)
def passwords(tmp_path: Path) -> Path:
    path = tmp_path / "passwords"
    path.write_text(BOB + ANY)
    return path


def data(kind: str = "submission", **more: Any) -> dict[str, Any]:
    listeners = [{"address": "127.0.0.1:0", "kind": kind}]
    return {"listeners": listeners, "submission": {"passwords": "passwords"}} | more


def plain(user: str, password: str) -> str:
    return "AUTH PLAIN " + base64.b64encode(f"\0{user}\0{password}".encode()).decode()


async def secured(world: World, pki: Pki) -> Wire:
    wire = await world.connect()
    await wire.ehlo()
    await wire.starttls(pki.client_context())
    await wire.ehlo()
    return wire


@on_both_loops
async def test_a_user_sends(tmp_path: Path, pki: Pki) -> None:
    async with relay(tmp_path, data(), certificates=pki.certificates) as world:
        async with await secured(world, pki) as wire:
            await wire.say(plain("bob", "geheim"), 235)
            await wire.message(sender="bob@example.com", recipient="eve@elsewhere.example")
        [taken] = world.intake.taken
        accepted = taken.accepted
        assert (accepted.auth, accepted.protocol, accepted.may_relay) == ("bob", "ESMTPSA", True)
        assert b"with ESMTPSA id" in taken.header
        assert b"bob" not in taken.header  # who logged in stays between us


async def test_a_reload_in_the_middle_of_a_message_takes_nothing_from_a_user(tmp_path: Path, pki: Pki) -> None:
    async with relay(tmp_path, data(), certificates=pki.certificates) as world, await secured(world, pki) as wire:
        await wire.say(plain("bob", "geheim"), 235)
        await wire.mail(sender="bob@example.com", recipient="eve@elsewhere.example")
        match = {"sender_domains": ["example.com"], "header_from": True}
        partner = {"name": "p", "direction": "inbound", "match": match, "require": {"networks": ["192.0.2.0/24"]}}
        world.configure(data(connectors=[partner]))
        await wire.say(b"From: bob@example.com\r\n\r\nhello\r\n.\r\n", 250)


@pytest.mark.parametrize(
    ("sender", "code"),
    [
        ("bob@example.com", 250),
        ("BOB@example.com", 250),
        ("any@lists.example.com", 250),
        ("", 250),  # a read receipt (RFC 8098 section 3)
        ("ann@example.com", 553),
        ("bob@sub.lists.example.com", 553),
    ],
)
async def test_as_whom_a_user_may_send(tmp_path: Path, pki: Pki, sender: str, code: int) -> None:
    async with relay(tmp_path, data(), certificates=pki.certificates) as world, await secured(world, pki) as wire:
        await wire.say(plain("bob", "geheim"), 235)
        text = await wire.say(f"MAIL FROM:<{sender}>", code)
        if code == 553:
            assert text == f"5.7.1 bob may not send as <{sender}>"
            [event] = world.of(CommandRefused)
            assert (event.command, event.sender, event.reply.code) == ("MAIL", sender, 553)


async def test_smtplib_and_aiosmtplib(tmp_path: Path, pki: Pki) -> None:
    def send(port: int) -> None:
        with smtplib.SMTP("127.0.0.1", port, local_hostname="client.example") as client:
            client._host = HOSTNAME  # type: ignore[attr-defined]  # the name that smtplib compares the certificate with
            client.starttls(context=pki.client_context())
            client.login("app", "geheim")
            client.sendmail("ann@anything.example", "eve@elsewhere.example", b"Subject: x\r\n\r\nhello\r\n")

    async with relay(tmp_path, data(), certificates=pki.certificates) as world:
        await asyncio.to_thread(send, world.port)
    async with relay(tmp_path, data("submissions"), certificates=pki.certificates) as world:
        context = pki.client_context()
        context.check_hostname = False
        client = aiosmtplib.SMTP(hostname="127.0.0.1", port=world.port, use_tls=True, tls_context=context)
        async with client:
            await client.login("app", "geheim")
            await client.sendmail("ann@anything.example", ["eve@elsewhere.example"], b"Subject: x\r\n\r\nhello\r\n")
        assert world.intake.taken[0].accepted.auth == "app"


async def test_auth_always(tmp_path: Path, pki: Pki) -> None:
    """Whatever `networks` says (RFC 6409 section 4.3), and never in clear."""
    accept = {"domains": ["example.com"], "networks": ["127.0.0.0/8"]}
    async with relay(tmp_path, data(accept=accept), certificates=pki.certificates) as world:
        async with await world.connect() as wire:
            assert "AUTH" not in await wire.ehlo()
            assert (await wire.reply_to(plain("bob", "geheim")))[0] in (530, 538)
            await wire.say("MAIL FROM:<bob@example.com>", 530)
        async with await secured(world, pki) as wire:
            await wire.say("MAIL FROM:<bob@example.com>", 530)
            await wire.say("MAIL FROM:<>", 530)


async def test_connectors_about_partners_do_not_apply(tmp_path: Path, pki: Pki) -> None:
    connector = {
        "name": "contoso-in",
        "direction": "inbound",
        "match": {"sender_domains": ["contoso.com"], "header_from": True},
        "require": {"networks": ["192.0.2.0/24"]},
    }
    async with relay(tmp_path, data(connectors=[connector]), certificates=pki.certificates) as world:
        async with await secured(world, pki) as wire:
            await wire.say(plain("app", "geheim"), 235)
            await wire.message(b"Subject: no From at all\r\n\r\n", sender="ann@contoso.com")
        assert world.intake.taken[0].accepted.connector == ""


async def test_recipients_are_checked_for_users_too(tmp_path: Path, pki: Pki) -> None:
    (tmp_path / "list").write_text("bob\n")
    accept = {"domains": ["example.com"], "recipients": {"example.com": "file:list"}}
    async with (
        relay(tmp_path, data(accept=accept), certificates=pki.certificates) as world,
        await secured(world, pki) as wire,
    ):
        await wire.say(plain("app", "geheim"), 235)
        await wire.say("MAIL FROM:<ann@anything.example>", 250)
        await wire.say("RCPT TO:<nobody@example.com>", 550)
        await wire.say("RCPT TO:<eve@elsewhere.example>", 250)


# Guessing ------------------------------------------------------------------------------------------------------------


@on_both_loops
async def test_guessing_is_told_and_ends(tmp_path: Path, pki: Pki) -> None:
    async with relay(tmp_path, data(), certificates=pki.certificates) as world:
        async with await secured(world, pki) as wire:
            for number in range(5):
                assert (await wire.say(plain("bob", f"guess {number}"), 535)).startswith("5.7.8 ")
            assert (await wire.say(plain("bob", "geheim"), 454)).startswith("4.7.0 ")
        async with await secured(world, pki) as wire:
            await wire.say(plain("app", "geheim"), 454)
        failed = world.of(LoginFailed)
        assert [(event.user, event.client) for event in failed] == [("bob", "127.0.0.1")] * 5
        assert "guess" not in repr(world.events)
        assert "geheim" not in repr(world.events)
        assert [event.command for event in world.of(CommandRefused)] == ["AUTH"] * 7


async def test_an_unknown_user_hears_the_same(tmp_path: Path, pki: Pki) -> None:
    async with relay(tmp_path, data(), certificates=pki.certificates) as world, await secured(world, pki) as wire:
        known = await wire.say(plain("bob", "x"), 535)
        assert await wire.say(plain("nobody", "x"), 535) == known


async def test_a_bug_in_a_login(tmp_path: Path, pki: Pki, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(self: Authenticator, user: str, password: str, client: object) -> None:
        raise ValueError(f"{user} {password}"[:0] + "secret detail")

    async with relay(tmp_path, data(), certificates=pki.certificates) as world, await secured(world, pki) as wire:
        monkeypatch.setattr(Authenticator, "login", broken)
        assert "secret" not in await wire.say(plain("bob", "geheim"), 451)
        [event] = world.of(Unexpected)
        assert "secret detail" in event.trace
        assert "geheim" not in event.trace
        monkeypatch.undo()
        await wire.say(plain("bob", "geheim"), 235)


async def test_lost_while_logging_in(tmp_path: Path, pki: Pki) -> None:
    async with relay(tmp_path, data(), certificates=pki.certificates) as world:
        wire = await secured(world, pki)
        wire.send(plain("bob", "geheim"))
        await wire.writer.drain()
        wire.reset()
        await world.event(SessionClosed)
        await wire.close()
        assert world.of(Unexpected) == []


# The file changes ----------------------------------------------------------------------------------------------------


def rewrite(path: Path, text: str) -> None:
    path.write_text(text)
    status = path.stat()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1_000_000))


@pytest.mark.parametrize(
    "text", ["", ANY, f"bob:{CHEAP.hash('new')}:bob@example.com\n"], ids=["empty", "gone", "changed"]
)
async def test_an_account_that_is_gone_is_gone_at_once(tmp_path: Path, pki: Pki, passwords: Path, text: str) -> None:
    async with relay(tmp_path, data(), certificates=pki.certificates) as world, await secured(world, pki) as wire:
        await wire.say(plain("bob", "geheim"), 235)
        await wire.message(sender="bob@example.com")
        rewrite(passwords, text)
        assert (await wire.say("MAIL FROM:<bob@example.com>", 421)).startswith("4.7.0 the account has changed")
        assert await wire.rest() == b""


async def test_fewer_senders_hold_at_once(tmp_path: Path, pki: Pki, passwords: Path) -> None:
    async with relay(tmp_path, data(), certificates=pki.certificates) as world, await secured(world, pki) as wire:
        await wire.say(plain("bob", "geheim"), 235)
        rewrite(passwords, BOB.replace("bob@example.com", "robert@example.com"))
        await wire.say("MAIL FROM:<bob@example.com>", 553)
        await wire.say("MAIL FROM:<robert@example.com>", 250)


async def test_another_password_file_after_a_reload(tmp_path: Path, pki: Pki) -> None:
    (tmp_path / "others").write_text(f"eve:{CHEAP.hash('neu')}:*\n")
    async with relay(tmp_path, data(), certificates=pki.certificates) as world:
        async with await secured(world, pki) as wire:
            await wire.say(plain("bob", "geheim"), 235)
            world.configure(data(submission={"passwords": "others"}))
            await world.listeners.reload()
            await wire.say("MAIL FROM:<bob@example.com>", 421)
        async with await secured(world, pki) as wire:
            await wire.say(plain("eve", "neu"), 235)


async def test_submission_taken_out_of_the_configuration(tmp_path: Path, pki: Pki) -> None:
    """Open sessions of a listener that is gone cannot log in any more."""
    async with relay(tmp_path, data(), certificates=pki.certificates) as world:
        one, two = await secured(world, pki), await secured(world, pki)
        await two.say(plain("bob", "geheim"), 235)
        world.configure({})
        await world.listeners.reload()
        await one.say(plain("bob", "geheim"), 454)
        await two.say("MAIL FROM:<bob@example.com>", 530)
        await one.close()
        await two.close()
