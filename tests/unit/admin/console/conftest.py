"""A console over a relay that tells of everything, and somebody who is signed in as admin."""

import pytest

from tests.unit.admin.console.answers import ANSWERS, hostile_message, told_trace
from tests.unit.admin.console.fake import HOSTILE, Browser, World
from tests.unit.admin.fake import LAST


@pytest.fixture
def world() -> World:
    made = World(ANSWERS)
    made.relay.queue = [hostile_message()]
    made.relay.traces = [told_trace()]
    made.relay.queued_for = [
        {
            "domain": "contoso.com",
            "connector": "contoso-out",
            "waiting": 1,
            "held": 0,
            "oldest": "2026-11-27T07:00:00.000Z",
            "next_attempt": None,
            "last": {**LAST, "text": HOSTILE},
        }
    ]
    return made


@pytest.fixture
async def browser(world: World) -> Browser:
    made = world.browser()
    assert (await made.sign_in()).status_code == 303
    return made
