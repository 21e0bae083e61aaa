"""Ends of certificates announced in a running relay: over days, a renewal, a restart and a store that is gone for a while."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from relay.app.expiry import ROUND, ExpiryWatch
from relay.config.models import Config
from relay.mail.events import CertificateEnding, Event, PartnerCertificateEnding
from relay.mail.seen import Dated, Said, SeenCertificate
from relay.queue.store import StoreUnavailable
from relay.tls.keyring import Keyring
from tests.unit.policy.test_expiry import CONFIG, seen
from tests.unit.tls.pki import DAY, NOW, Wish, root

CA = root()


class Keeper:
    """As relay.queue.seen.SqliteSeen, in memory."""

    def __init__(self) -> None:
        self.given: dict[tuple[str, str], Said] = {}
        self.partners: list[SeenCertificate] = []
        self.trouble = False
        self.forgotten: list[datetime] = []

    def _check(self) -> None:
        if self.trouble:
            raise StoreUnavailable("gone")

    async def all(self) -> Sequence[SeenCertificate]:
        self._check()
        return self.partners

    async def said(self) -> Sequence[Said]:
        self._check()
        return list(self.given.values())

    async def say(self, said: Sequence[Said]) -> None:
        self._check()
        self.given |= {(each.owner, each.sha256): each for each in said}

    async def forget(self, before: datetime) -> None:
        self._check()
        self.forgotten.append(before)


class World:
    def __init__(self, folder: Path, days: float, chain_days: float = 1000) -> None:
        self.folder, self.now, self.keeper = folder, NOW, Keeper()
        self.config: Config = CONFIG
        self.events: list[Event] = []
        self.renew(days, chain_days)
        self.keyring = Keyring(folder, hostname="relay.test", clock=lambda: self.now)
        self.start()

    def renew(self, days: float, chain_days: float = 1000) -> None:
        middle = CA.issue(Wish("middle", ca=True, after=self.now + chain_days * DAY))
        middle.issue(Wish("leaf", names=["relay.test"], after=self.now + days * DAY)).write(self.folder, "relay")

    def start(self) -> None:
        self.watch = ExpiryWatch(
            self.keyring,
            self.keeper,  # type: ignore[arg-type]
            config=lambda: self.config,
            emit=self.events.append,
            clock=lambda: self.now,
        )

    async def days(self, number: int) -> list[int]:
        """Looks every hour for so many days; the thresholds that were announced of ours."""
        before = len(self.events)
        for _hour in range(number * 24):
            self.now += timedelta(hours=1)
            await self.watch.look()
        return [each.threshold for each in self.events[before:] if isinstance(each, CertificateEnding)]


async def test_from_forty_days_to_the_end(tmp_path: Path) -> None:
    world = World(tmp_path, days=40)
    assert await world.days(50) == [30, 14, 7, 3, 1, 0]
    last = world.events[-1]
    assert isinstance(last, CertificateEnding)
    assert (last.name, last.days) == ("relay", -1)


async def test_a_renewal_begins_anew_and_at_once(tmp_path: Path) -> None:
    world = World(tmp_path, days=10)
    assert await world.days(1) == [14]
    world.renew(days=5)
    world.keyring.reload()
    world.now += timedelta(seconds=1)  # much sooner than a round
    await world.watch.look()
    last = world.events[-1]
    assert isinstance(last, CertificateEnding)
    assert last.threshold == 7


async def test_an_intermediate_that_ends_first_is_what_counts(tmp_path: Path) -> None:
    world = World(tmp_path, days=300, chain_days=6)
    assert await world.days(1) == [7]
    (event,) = world.events
    assert isinstance(event, CertificateEnding)
    assert (event.name, event.subject) == ("relay", "CN=middle")


async def test_a_restart_says_nothing_twice(tmp_path: Path) -> None:
    world = World(tmp_path, days=10)
    assert await world.days(1) == [14]
    world.start()
    assert await world.days(5) == [7]


async def test_a_store_that_is_gone_keeps_nothing_back_and_is_told_later(tmp_path: Path) -> None:
    world = World(tmp_path, days=10)
    world.keeper.trouble = True
    assert await world.days(1) == [14]
    assert await world.days(1) == []
    assert not world.keeper.given
    world.keeper.trouble = False
    assert await world.days(1) == [7]
    (said,) = world.keeper.given.values()
    assert said.threshold == 7
    world.start()
    assert await world.days(1) == []


async def test_partners_by_their_connectors_and_the_configuration_in_force(tmp_path: Path) -> None:
    world = World(tmp_path, days=300)
    world.keeper.partners = [
        replace(seen(connector, 0), leaf=Dated("CN=p", connector, NOW + 5 * DAY), last=NOW)
        for connector in ("named", "easy")
    ]
    await world.days(1)
    (event,) = world.events
    assert isinstance(event, PartnerCertificateEnding)
    assert (event.connector, event.threshold) == ("named", 7)
    assert world.watch.partner_days() == {"named": pytest.approx(4.0)}
    world.config = Config(hostname="relay.test", postmaster="p@relay.test", listeners=[{"address": "127.0.0.1:0"}])
    assert world.watch.partner_days() == {}


async def test_the_store_is_read_once_a_round(tmp_path: Path) -> None:
    world = World(tmp_path, days=300)
    await world.watch.look()
    world.keeper.partners = [seen("named", 5)]
    await world.watch.look()
    assert not world.watch.partners
    world.now += ROUND
    await world.watch.look()
    assert world.watch.partners
    assert len(world.keeper.forgotten) == 1
