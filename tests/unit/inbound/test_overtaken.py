"""Rules that come into force between MAIL and the end of the message hold for it too."""

from pathlib import Path
from typing import Any

import pytest

from relay.mail.events import CommandRefused
from tests.unit.inbound.world import CLEAR, relay

RELAYING = CLEAR | {"accept": {"domains": ["example.com"], "networks": ["127.0.0.0/8"]}}
TLS_ONLY = {
    "name": "contoso-in",
    "direction": "inbound",
    "match": {"sender_domains": ["contoso.com"]},
    "require": {"tls": True},
}
BY_HEADER = TLS_ONLY | {"match": {"sender_domains": ["fabrikam.com"], "header_from": True}}


@pytest.mark.parametrize(
    ("after", "recipient", "code", "text"),
    [
        (RELAYING | {"limits": {"recipients": 200}}, "eve@elsewhere.example", 250, "2.0.0 queued as"),
        (RELAYING | {"connectors": [TLS_ONLY]}, "bob@example.com", 530, "5.7.10 connector contoso-in requires TLS"),
        (RELAYING | {"connectors": [BY_HEADER]}, "bob@example.com", 530, "5.7.10 connector contoso-in requires TLS"),
        (CLEAR | {"accept": {"domains": ["example.org"]}}, "bob@example.com", 451, "4.3.2 the rules changed"),
        (CLEAR, "eve@elsewhere.example", 451, "4.3.2 the rules changed"),
    ],
)
async def test_the_end_of_a_message_is_judged_by_what_is_in_force_then(
    tmp_path: Path, after: dict[str, Any], recipient: str, code: int, text: str
) -> None:
    async with relay(tmp_path, RELAYING) as world, await world.connect() as wire:
        await wire.ehlo()
        await wire.mail(recipient=recipient)
        world.configure(after)
        assert (await wire.say(b"From: a@fabrikam.com\r\n\r\nhello\r\n.\r\n", code)).startswith(text)
        assert len(world.intake.taken) == (code == 250)
        assert [each.command for each in world.of(CommandRefused)] == ["DATA"] * (code != 250)
        assert world.intake.begun[0].aborted is (code != 250)
