"""How a changed file comes into force, or does not: every way through `Configuration`, with the rest of the relay a fake."""

import os
from pathlib import Path

import pytest

from relay.app.configuration import Configuration, NotAppliedError
from relay.app.place import InForce
from relay.config.load import load_with_places
from relay.config.models import Config
from relay.mail.events import ConfigurationSettled, ConfigurationTaken, ConfigurationWaiting, Event

LEVELS = """\
hostname: relay.example.com
postmaster: postmaster@example.com
listeners: [{{address: "127.0.0.1:0", starttls: off}}]
connectors:
  - {{name: out, direction: outbound, match: {{recipient_domains: [contoso.com]}}, tls: {level}}}
"""


class World:
    """A file, the configuration made from it, and the events. `refusal`: why the rest of the relay cannot take a new one."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.events: list[Event] = []
        self.refusal = ""
        self._saved = 0
        self.save(LEVELS.format(level="encryption"))
        self.configuration = Configuration(file, InForce.of(load_with_places(file)), self.events.append, self._apply)

    async def _apply(self, _old: Config, _new: Config) -> None:
        if self.refusal:
            raise NotAppliedError(self.refusal)

    def save(self, text: str) -> None:
        """With a date of its own, however fast one saves."""
        self.file.write_text(text)
        self._saved += 1
        os.utime(self.file, (1_000_000 + self._saved,) * 2)

    @property
    def level(self) -> str:
        (connector,) = self.configuration.book().config.outbound
        return connector.tls.value


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "connectors.yaml")


async def test_a_file_that_did_not_change_is_not_read(world: World) -> None:
    await world.configuration.look()
    assert world.events == []


async def test_what_weakens_nothing_is_taken_by_itself(world: World) -> None:
    world.save(LEVELS.format(level="certificate"))
    await world.configuration.look()
    assert world.level == "certificate"
    assert world.events == [ConfigurationTaken(str(world.file))]


async def test_what_weakens_something_waits_and_says_so_once(world: World) -> None:
    world.save(LEVELS.format(level="opportunistic"))
    await world.configuration.look()
    await world.configuration.look()
    world.save(LEVELS.format(level="opportunistic") + "# saved again\n")
    await world.configuration.look()
    assert world.level == "encryption"
    (waiting,) = world.events
    assert isinstance(waiting, ConfigurationWaiting)
    assert waiting.reasons[0] == "connector out: tls goes from encryption to opportunistic"
    assert world.configuration.waiting == waiting.reasons


async def test_a_change_taken_back_waits_no_more(world: World) -> None:
    world.save(LEVELS.format(level="opportunistic"))
    await world.configuration.look()
    world.save(LEVELS.format(level="encryption"))
    await world.configuration.look()
    assert world.configuration.waiting == ()
    assert world.events[1:] == [ConfigurationSettled(str(world.file))]


async def test_a_file_with_errors_changes_nothing_until_it_is_mended(world: World) -> None:
    world.save(LEVELS.format(level="certificate")[:-20])
    await world.configuration.look()
    assert world.level == "encryption"
    world.save(LEVELS.format(level="certificate"))
    await world.configuration.look()
    assert world.level == "certificate"
    assert [type(each) for each in world.events] == [ConfigurationWaiting, ConfigurationTaken]
    assert world.configuration.waiting == ()


async def test_a_reload_takes_it_whatever_it_weakens(world: World) -> None:
    world.save(LEVELS.format(level="opportunistic"))
    dry = await world.configuration.reload(dry_run=True)
    assert (dry.taken, dry.changed, world.level) == (True, True, "encryption")
    real = await world.configuration.reload(dry_run=False)
    assert (real.taken, real.weaker, world.level) == (True, dry.weaker, "opportunistic")
    assert world.events == [ConfigurationTaken(str(world.file), tuple(real.weaker))]


async def test_a_file_with_errors_has_no_diff_as_nobody_knows_where_its_secrets_are(world: World) -> None:
    route = "encryption, route: {smart_hosts: [mail.contoso.com], auth: {user: us, password: hunter2-and-more}}"
    good = LEVELS.format(level=route)
    for text in (good.replace("password", "pasword"), good + "nonsense: [\n", good + "pasword: hunter2\n"):
        world.save(text)
        for dry_run in (True, False):
            answer = await world.configuration.reload(dry_run=dry_run)
            assert answer.errors
            assert answer.diff == ""
    world.save(good)
    assert "password: ********(" in (await world.configuration.reload(dry_run=True)).diff


async def test_a_reload_of_a_file_with_errors_tells_them(world: World) -> None:
    world.save("nonsense")
    answer = await world.configuration.reload(dry_run=False)
    assert not answer.taken
    assert [type(each) for each in world.events] == [ConfigurationWaiting]
    assert await world.configuration.reload(dry_run=True) == answer
    assert len(world.events) == 1


@pytest.mark.parametrize("by_itself", [True, False])
async def test_what_the_rest_of_the_relay_cannot_take_is_not_in_force_and_the_log_says_why(
    world: World, by_itself: bool
) -> None:
    """After a SIGHUP nobody reads the answer, so the event has to say it."""
    world.refusal = "cannot listen on 192.0.2.1:25"
    world.save(LEVELS.format(level="certificate"))
    if by_itself:
        await world.configuration.look()
    else:
        answer = await world.configuration.reload(dry_run=False)
        assert (answer.taken, answer.errors) == (False, (world.refusal,))
    assert world.level == "encryption"
    assert world.events == [ConfigurationWaiting(str(world.file), (world.refusal,))]
