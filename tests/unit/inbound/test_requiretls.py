"""What a message asks of TLS further on (RFC 8689): REQUIRETLS of MAIL, and a header that counts only where the admin lets it."""

import base64
from pathlib import Path
from typing import Any

import pytest
from argon2 import PasswordHasher

from relay.mail.events import CommandRefused
from tests.unit.inbound.world import Pki, Wire, World, on_both_loops, relay

CHEAP = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
LOGIN = "AUTH PLAIN " + base64.b64encode(b"\0app\0geheim").decode()
NO = b"TLS-Required: No\r\nSubject: x\r\n\r\nhello\r\n"


@pytest.fixture(autouse=True)
def passwords(tmp_path: Path) -> None:
    (tmp_path / "passwords").write_text(f"app:{CHEAP.hash('geheim')}:*\n")


def submission(**more: Any) -> dict[str, Any]:
    listeners = [{"address": "127.0.0.1:0", "kind": "submission"}]
    return {"listeners": listeners, "submission": {"passwords": "passwords"}} | more


async def secured(world: World, pki: Pki) -> Wire:
    wire = await world.connect()
    await wire.ehlo()
    await wire.starttls(pki.client_context())
    await wire.ehlo()
    return wire


@on_both_loops
async def test_requiretls_goes_into_the_envelope(tmp_path: Path, pki: Pki) -> None:
    async with relay(tmp_path, {}, certificates=pki.certificates) as world, await world.connect() as wire:
        assert "REQUIRETLS" not in (await wire.ehlo()).split("\n")
        await wire.say("MAIL FROM:<ann@contoso.com> REQUIRETLS", 530)
        refused = await world.event(CommandRefused)
        assert (refused.command, refused.reply.status) == ("MAIL", "5.7.10")
        await wire.starttls(pki.client_context())
        assert "REQUIRETLS" in (await wire.ehlo()).split("\n")
        for parameter in (" REQUIRETLS", "", " requiretls SIZE=10"):
            wire.send(f"MAIL FROM:<ann@contoso.com>{parameter}", "RCPT TO:<bob@example.com>", "DATA")
            await wire.expect(250, 250, 354)
            await wire.say(b"Subject: x\r\n\r\nhello\r\n.\r\n", 250)
        assert [each.envelope.requiretls for each in world.intake.taken] == [True, False, True]


@pytest.mark.parametrize(
    ("setting", "parameter", "content", "optional"),
    [
        ("honour", "", NO, True),
        ("ignore", "", NO, False),
        ("honour", " REQUIRETLS", NO, False),
        ("honour", "", b"TLS-Required: No\r\n" + NO, False),
        ("honour", "", b"TLS-Required: Yes\r\n\r\nhello\r\n", False),
        ("honour", "", b"Subject: x\r\n\r\nTLS-Required: No\r\n", False),
    ],
)
async def test_a_header_of_a_user(
    tmp_path: Path, pki: Pki, setting: str, parameter: str, content: bytes, optional: bool
) -> None:
    data = submission(tls_required_no=setting)
    async with relay(tmp_path, data, certificates=pki.certificates) as world:
        async with await secured(world, pki) as wire:
            await wire.say(LOGIN, 235)
            wire.send(f"MAIL FROM:<ann@contoso.com>{parameter}", "RCPT TO:<bob@elsewhere.example>", "DATA")
            await wire.expect(250, 250, 354)
            await wire.say(content + b".\r\n", 250)
        [taken] = world.intake.taken
        assert (taken.envelope.tls_optional, taken.envelope.requiretls) == (optional, bool(parameter))
        assert taken.body == content, "the field stays where it is (RFC 8689 section 4.1)"


async def test_a_header_of_somebody_who_did_not_log_in(tmp_path: Path, pki: Pki) -> None:
    """Not even of a client that may relay: it is known by its address only."""
    accept = {"networks": ["127.0.0.0/8"]}
    data = {"tls_required_no": "honour", "accept": accept}
    async with relay(tmp_path, data, certificates=pki.certificates) as world:
        async with await secured(world, pki) as wire:
            await wire.message(NO, recipient="bob@elsewhere.example")
        [taken] = world.intake.taken
        assert taken.accepted.may_relay
        assert not taken.envelope.tls_optional


async def test_the_header_is_ignored_by_default(tmp_path: Path, pki: Pki) -> None:
    async with relay(tmp_path, submission(), certificates=pki.certificates) as world:
        async with await secured(world, pki) as wire:
            await wire.say(LOGIN, 235)
            await wire.message(NO, recipient="bob@elsewhere.example")
        assert not world.intake.taken[0].envelope.tls_optional
