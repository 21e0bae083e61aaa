"""A configuration among workers: all of them have the same one in the end, whoever refuses, hangs or dies on the way."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from relay.app import colleagues
from relay.app.colleagues import FOLLOW, Colleagues
from relay.app.configuration import NotAppliedError
from relay.app.place import InForce, Place
from relay.app.relay import Relay
from relay.config.load import load_with_places
from relay.config.models import Config
from relay.queue.scheduler import Limits
from relay.testing import write_config
from relay.workers.frames import SUPERVISOR, Tell
from relay.workers.link import Link
from relay.workers.supervisor import COUNTS, KEEP, REPLACE
from relay.workers.table import Table
from tests.unit.workers.hub import Hub, hub

NEW, OLD = cast(Config, "new"), cast(Config, "old")  # they are handed on, never looked into
Follow = Callable[[Config], Awaitable[None]]


def in_force(config: Config) -> InForce:
    return InForce(config, frozenset())


class World:
    """Three workers, the first of which shares. `has`: the configuration of each slot. `follows`: what a slot does in place of following."""

    def __init__(self, made: Hub, links: list[Link]) -> None:
        self._hub = made
        self.leader = Colleagues(links[0])
        self.has = dict.fromkeys((1, 2), OLD)
        self.follows: dict[int, Follow] = {}
        for link in links[1:]:
            self._serve(link)

    def _serve(self, link: Link) -> None:
        async def follow(config: Config) -> None:
            if link.slot in self.follows:
                await self.follows.pop(link.slot)(config)
            else:
                self.has[link.slot] = config

        link.listen({FOLLOW: follow})

    async def share(self) -> None:
        await self.leader.share(in_force(NEW), in_force(OLD))

    async def succeed(self, slot: int) -> None:
        """The worker in that slot dies, and its successor begins with what is kept."""
        self._hub.gone(slot)
        self.has[slot] = self.kept
        self._serve(await self._hub.join(slot, 3))

    @property
    def kept(self) -> Config:
        kept = [each.argument.config for each in self._told(KEEP)]
        return kept[-1] if kept else OLD

    @property
    def replaced(self) -> set[int]:
        return {each.argument for each in self._told(REPLACE)}

    def _told(self, name: str) -> list[Tell]:
        told = (content for _sender, content in self._hub.heard)
        return [each for each in told if isinstance(each, Tell) and each.name == name]

    async def supervisor_has_heard(self) -> None:
        """What was told so far."""
        self.leader.tell_counts({})
        while not self._told(COUNTS):
            self._hub.told.clear()
            await self._hub.told.wait()


@asynccontextmanager
async def world() -> AsyncIterator[World]:
    async with hub(3) as (made, links):
        yield World(made, links)


async def refuse(_config: Config) -> None:
    raise NotAppliedError("cannot listen")


async def test_all_take_it() -> None:
    async with world() as made:
        await made.share()
        assert made.has == {1: NEW, 2: NEW}
        await made.supervisor_has_heard()
        assert (made.kept, made.replaced) == (NEW, set())


async def test_where_one_refuses_nobody_has_it() -> None:
    async with world() as made:
        made.follows[2] = refuse
        with pytest.raises(NotAppliedError, match="worker 2 cannot take it: cannot listen"):
            await made.share()
        assert made.has == {1: OLD, 2: OLD}
        await made.supervisor_has_heard()
        assert (made.kept, made.replaced) == (OLD, set())


async def test_where_one_refuses_the_successor_of_one_that_died_has_the_old_one_too() -> None:
    async with world() as made:
        succeeded = asyncio.Event()

        async def die(_config: Config) -> None:
            await asyncio.shield(asyncio.ensure_future(made.succeed(1)))
            succeeded.set()

        async def refuse_then(config: Config) -> None:
            await succeeded.wait()
            await refuse(config)

        made.follows = {1: die, 2: refuse_then}
        with pytest.raises(NotAppliedError):
            await made.share()
        assert made.has == {1: OLD, 2: OLD}


async def test_the_successor_of_one_that_died_has_the_new_one() -> None:
    """It may have begun before the supervisor knew of the new one, and after others had been asked."""
    async with world() as made:
        succeeded = asyncio.Event()

        async def die(_config: Config) -> None:
            await asyncio.shield(asyncio.ensure_future(made.succeed(1)))
            succeeded.set()

        async def take_then(config: Config) -> None:
            await succeeded.wait()
            made.has[2] = config

        made.follows = {1: die, 2: take_then}
        await made.share()
        assert made.has == {1: NEW, 2: NEW}
        await made.supervisor_has_heard()
        assert made.kept == NEW


async def test_one_that_cannot_go_back_is_replaced() -> None:
    async with world() as made:

        async def take_once(config: Config) -> None:
            made.has[1] = config
            made.follows[1] = refuse

        made.follows = {1: take_once, 2: refuse}
        with pytest.raises(NotAppliedError):
            await made.share()
        await made.supervisor_has_heard()
        assert (made.kept, made.replaced) == (OLD, {1})


async def test_one_that_does_not_answer_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody knows what it has in force, now or later."""
    monkeypatch.setattr(colleagues, "_FOLLOW", 0.05)
    async with world() as made:

        async def hang(_config: Config) -> None:
            made.follows[1] = hang
            await asyncio.Event().wait()

        made.follows[1] = hang
        await made.share()
        assert made.has[2] == NEW
        await made.supervisor_has_heard()
        assert (made.kept, made.replaced) == (NEW, {1})


# A relay that leads.


def config(folder: Path) -> Path:
    values = {
        "hostname": "relay.test",
        "postmaster": "postmaster@relay.test",
        "listeners": [{"address": "127.0.0.1:0", "starttls": "off"}],
        "queue": "sqlite:queue.db",
        "limits": {"free_space": "1MiB"},
    }
    return write_config(folder, values, {})


async def test_who_comes_after_a_leader_sees_to_it_that_all_have_the_same(tmp_path: Path) -> None:
    """The one before may have died while the others were following, and one of them had refused."""
    file = config(tmp_path)
    ours = InForce.of(load_with_places(file))
    async with hub(2) as (_hub, links):
        followed: asyncio.Future[Config] = asyncio.get_running_loop().create_future()

        async def follow(config: Config) -> None:
            if not followed.done():
                followed.set_result(config)

        links[1].listen({FOLLOW: follow})
        kept = InForce(ours.config, ours.files, is_older=True)
        table = Table(2)
        try:
            async with Relay(file, place=Place(0, 2, table, links[0]), in_force=kept):
                async with asyncio.timeout(20):
                    assert await followed == ours.config
        finally:
            table.close()


async def test_the_first_leader_says_what_successors_begin_with(tmp_path: Path) -> None:
    """One that comes after it must look at the file: it may have changed, and waited, before."""
    file = config(tmp_path)
    ours = InForce.of(load_with_places(file))
    async with hub(1) as (made, links):
        table = Table(1)
        try:
            async with Relay(file, place=Place(0, 1, table, links[0]), in_force=ours):
                links[0].tell(SUPERVISOR, "ready")
                async with asyncio.timeout(20):
                    while ("ready", None) not in _said(made):
                        made.told.clear()
                        await made.told.wait()
        finally:
            table.close()
        assert _said(made)[0] == (KEEP, InForce(ours.config, ours.files, is_older=True, text=ours.text))


async def test_what_a_relay_of_one_process_may_do_is_shared_out(tmp_path: Path) -> None:
    """`deliveries` are what bounds its open connections."""
    async with hub(1) as (_hub, links):
        table = Table(4)
        try:
            async with Relay(config(tmp_path), place=Place(0, 4, table, links[0])) as relay:
                assert relay._passage.scheduler._limits.deliveries == Limits().deliveries // 4
        finally:
            table.close()


def _said(made: Hub) -> list[tuple[str, Any]]:
    return [(content.name, content.argument) for _sender, content in made.heard]
