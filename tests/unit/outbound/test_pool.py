"""What is used again and what is closed. Decisions first, without any I/O."""

import asyncio
import ipaddress
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import pytest

from relay.config.files import Secret
from relay.config.models import RouteAuth
from relay.config.values import HostPort
from relay.mail.plan import Encryption, Level, Plaintext, TlsPlan
from relay.outbound.pool import Fitness, Kept, Moment, Pool, PoolLimits, Shelf, Wish, fitness
from relay.outbound.target import Target

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
BOOK, OTHER_BOOK = object(), object()
CONTEXT, OTHER_CONTEXT = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
PLAN = TlsPlan(Level.ENCRYPTION, Plaintext.NEVER, frozenset({Encryption("connector c")}))
TARGET = Target(HostPort("mx.test", 25), ipaddress.ip_address("192.0.2.1"), PLAN, "relay.example.com")
LIMITS = PoolLimits(idle=30, age=600, total=3)
WISH = Wish(TARGET, 10, CONTEXT)


@dataclass(eq=False)
class Fake:
    target: Target = TARGET
    context: ssl.SSLContext | None = CONTEXT
    transactions: int = 1
    reusable: bool = True
    is_sound: bool = True
    is_gone: bool = False
    until: datetime | None = None
    said: list[str] = field(default_factory=list)
    lost: Callable[[], None] = print
    stays: bool = False

    def holds_at(self, now: datetime) -> bool:
        return self.until is None or now < self.until

    def when_lost(self, call: Callable[[], None]) -> None:
        self.lost = call

    def leave(self) -> None:
        self.said.append("QUIT")
        if not self.stays:
            self.end()

    def cut(self) -> None:
        self.said.append("cut")
        self.end()

    def end(self) -> None:
        self.is_gone, self.is_sound = True, False
        self.lost()

    async def gone(self) -> None:
        while not self.is_gone:  # noqa: ASYNC110 - a fake has no event
            await asyncio.sleep(0.001)


def kept(fake: Fake | None = None, *, since: float = 100, opened: float = 100) -> Kept[Fake]:
    return Kept(fake or Fake(), BOOK, opened, since)


def at(tick: float = 100, generation: object = BOOK) -> Moment:
    return Moment(NOW, tick, generation)


@pytest.mark.parametrize(
    ("fake", "moment", "wish", "expected"),
    [
        ({}, at(), WISH, Fitness.FIT),
        ({}, at(129.9), WISH, Fitness.FIT),
        ({}, at(130), WISH, Fitness.IDLE),
        ({"is_sound": False}, at(), WISH, Fitness.LOST),
        ({"reusable": False}, at(), WISH, Fitness.LOST),
        ({}, at(generation=OTHER_BOOK), WISH, Fitness.RELOADED),
        ({"context": OTHER_CONTEXT}, at(), WISH, Fitness.RENEWED),
        ({"context": None}, at(), WISH, Fitness.FIT),
        ({"until": NOW}, at(), WISH, Fitness.ENDED),
        ({"until": datetime(2026, 11, 22, 12, 0, 1, tzinfo=UTC)}, at(), WISH, Fitness.FIT),
        ({"transactions": 9}, at(), WISH, Fitness.FIT),
        ({"transactions": 10}, at(), WISH, Fitness.SPENT),
        ({"transactions": 1}, at(), replace(WISH, messages=1), Fitness.SPENT),
    ],
)
def test_fitness(fake: dict[str, Any], moment: Moment, wish: Wish, expected: Fitness) -> None:
    assert fitness(kept(Fake(**fake)), wish, moment, LIMITS) is expected


def test_a_connection_that_is_too_old() -> None:
    assert fitness(kept(since=690, opened=100), WISH, at(700), LIMITS) is Fitness.OLD


@pytest.mark.parametrize(
    "other",
    [
        {"hop": HostPort("mx.test", 26)},
        {"hop": HostPort("other.test", 25)},  # another SNI
        {"address": ipaddress.ip_address("192.0.2.2")},
        {"plan": replace(PLAN, client_certificate="ours")},
        {"plan": replace(PLAN, demands=frozenset())},
        {"plan": replace(PLAN, until=NOW)},
        {"helo": "other.example.com"},
        {"source": "192.0.2.9"},
        {"auth": RouteAuth(user="us", password=Secret("x"))},
    ],
    ids=str,
)
def test_only_an_equal_target_will_do(other: dict[str, Any]) -> None:
    shelf: Shelf[Fake] = Shelf(LIMITS)
    shelf.put(kept())
    assert shelf.take(replace(WISH, target=replace(TARGET, **other)), at()) == (None, [])
    again = replace(TARGET, plan=replace(PLAN))
    assert shelf.take(replace(WISH, target=again), at())[0] is not None


def test_targets_differ_by_password_and_print_none() -> None:
    one, other = (
        replace(TARGET, auth=RouteAuth(user="us", password=Secret(each))) for each in ("a-secret", "b-secret")
    )
    assert one != other
    assert one == replace(TARGET, auth=RouteAuth(user="us", password=Secret("a-secret")))
    assert "secret" not in repr(one)


def test_the_last_used_is_the_first_taken_and_the_unfit_come_off() -> None:
    shelf: Shelf[Fake] = Shelf(LIMITS)
    old, dead, new = kept(since=90), kept(Fake(is_sound=False), since=99), kept(since=100)
    for each in (old, new, dead):
        shelf.put(each)
    assert shelf.take(WISH, at()) == (new, [dead])
    assert shelf.take(WISH, at()) == (old, [])
    assert shelf.take(WISH, at()) == (None, [])
    assert not shelf.has(TARGET)
    assert not shelf.has_hop(TARGET.hop)


def test_the_longest_idle_makes_room() -> None:
    shelf: Shelf[Fake] = Shelf(LIMITS)
    those = [kept(since=tick) for tick in (1, 2, 3, 4)]
    assert [shelf.put(each) for each in those] == [[], [], [], [those[0]]]
    assert len(shelf) == 3


def test_expired() -> None:
    shelf: Shelf[Fake] = Shelf(LIMITS)
    those = [kept(since=tick) for tick in (1, 2, 3)]
    for each in those:
        shelf.put(each)
    assert shelf.expired(32.5) == those[:2]
    assert shelf.expired(32.5) == []
    assert shelf.everything() == those[2:]


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def pool(**limits: Any) -> tuple[Pool[Fake], Clock]:
    clock = Clock()
    return Pool(replace(LIMITS, **limits), clock), clock


async def test_put_and_take() -> None:
    made, _ = pool()
    assert made.take(WISH, at()) is None
    one = kept()
    made.put(one)
    assert made.is_warm(TARGET.hop)
    assert made.has(TARGET)
    assert made.take(WISH, at()) is one
    one.connection.end()  # in use: the pool has no part in it
    made.put(one)
    assert len(made) == 0
    await made.close()


async def test_a_reload_closes_everything_at_once() -> None:
    made, _ = pool()
    made.take(WISH, at())
    here, elsewhere = kept(), kept(Fake(target=replace(TARGET, helo="x")))
    made.put(here)
    made.put(elsewhere)
    assert made.take(WISH, at(generation=OTHER_BOOK)) is None
    assert (here.connection.said, elsewhere.connection.said) == (["QUIT"], ["QUIT"])
    made.put(kept(late := Fake()))  # made under the old configuration, and done only now
    assert late.said == ["QUIT"]
    await made.close()


async def test_a_connection_that_the_hop_closes_is_forgotten() -> None:
    made, _ = pool()
    made.take(WISH, at())
    one = kept()
    made.put(one)
    one.connection.end()
    assert len(made) == 0
    one.connection.lost()
    await made.close()


async def test_idle_connections_are_swept() -> None:
    made, clock = pool(idle=0.02)
    made.take(WISH, at())
    one, other = kept(), kept(Fake(stays=True))
    made.put(one)
    clock.now += 0.01
    made.put(other)
    clock.now += 0.015
    await asyncio.wait_for(one.connection.gone(), 5)
    assert len(made) == 1
    clock.now += 1
    while not other.connection.said:  # noqa: ASYNC110 - a fake has no event
        await asyncio.sleep(0.001)
    assert other.connection.said == ["QUIT"]
    other.connection.end()
    await made.close()


async def test_closing_waits_for_quit_and_cuts_who_stays() -> None:
    made, _ = pool()
    made.take(WISH, at())
    polite, stubborn = kept(), kept(Fake(stays=True))
    made.put(polite)
    made.put(stubborn)
    await made.close(grace=0.02)
    assert (polite.connection.said, stubborn.connection.said) == (["QUIT"], ["QUIT", "cut"])
    assert len(made) == 0
