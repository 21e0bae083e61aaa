"""Policies over time: found, refreshed, replaced, and never forgotten before their end. Clock, DNS, web and store belong to the test."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.dns import sts as module
from relay.dns.sts import Clocks, StsPolicies
from relay.mail.events import Event, StsFetchFailed, StsPolicyChanged, StsPolicyFetched, Unexpected
from relay.mail.published import StsFetched, StsFound, StsKept, StsMode, StsTrouble, StsUnknown
from relay.mail.tls import TlsFailure
from relay.policy.mtasts import in_force
from relay.policy.stsfile import StsSyntaxError, read_policy
from tests.fakes import FakeResolver
from tests.policyhost import policy

E = TypeVar("E", bound=Event)

DOMAIN, RECORD = "b.example", "_mta-sts.b.example"
START = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
WEEK = 7 * 86400
ENFORCE, TESTING, NONE = (
    policy("enforce", "mx.b.example", max_age=WEEK),
    policy("testing", "mx.b.example", max_age=WEEK),
    policy("none", max_age=WEEK),
)
BLOCKED = StsTrouble(TlsFailure.STS_POLICY_FETCH_ERROR, "mta-sts.b.example did not give its policy in 60 seconds")


@dataclass
class Time:
    """Wall clock and monotonic clock; `back` sets the wall clock alone."""

    passed: timedelta = timedelta(0)
    set_by: timedelta = timedelta(0)

    def now(self) -> datetime:
        return START + self.passed + self.set_by

    def monotonic(self) -> float:
        return self.passed.total_seconds()


@dataclass
class Web:
    """Policy hosts. `files`: by domain; what is an exception is raised. `gate`: fetches wait at a closed one. `asked` are the domains.

    `given`: what came back, and when.
    """

    time: Time
    files: dict[str, bytes | StsTrouble | Exception] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    running: int = 0
    most: int = 0
    given: list[tuple[datetime, bytes | StsTrouble]] = field(default_factory=list)

    async def __call__(self, domain: str) -> bytes | StsTrouble:
        self.asked.append(domain)
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            file = self.files.get(domain, BLOCKED)
            await self.gate.wait()
        finally:
            self.running -= 1
        if isinstance(file, Exception):
            raise file
        self.given.append((self.time.now(), file))
        return file


@dataclass
class Keeper:
    """A store in memory. `trouble`: it cannot be read."""

    kept: dict[str, StsKept] = field(default_factory=dict)
    trouble: str = ""
    loads: int = 0

    async def load_sts(self, domain: str) -> StsKept | StsUnknown | None:
        self.loads += 1
        return StsUnknown(self.trouble) if self.trouble else self.kept.get(domain)

    def save_sts(self, kept: StsKept) -> None:
        self.kept[kept.domain] = kept

    async def due_sts(self, now: datetime, used: datetime, limit: int) -> tuple[str, ...]:
        due = [e for e in self.kept.values() if e.refresh <= now <= e.fetched.ends and e.used >= used]
        return tuple(each.domain for each in sorted(due, key=lambda each: each.refresh)[:limit])

    async def drop_sts(self, ended: datetime) -> None:
        self.kept = {domain: each for domain, each in self.kept.items() if each.fetched.ends >= ended}


class Chance(random.Random):
    def random(self) -> float:
        return 0.0


@dataclass
class World:
    time: Time = field(default_factory=Time)
    resolver: FakeResolver = field(default_factory=FakeResolver)
    keeper: Keeper = field(default_factory=Keeper)
    events: list[Event] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.web = Web(self.time)
        self.web.gate.set()
        self.start()

    def start(self) -> None:
        clocks = Clocks(self.time.now, self.time.monotonic)
        self.policies = StsPolicies(
            self.resolver, self.web, self.keeper, clocks=clocks, chance=Chance(), emit=self.events.append
        )

    async def restart(self) -> None:
        await self.policies.close()
        self.start()

    def publish(self, record_id: str, file: bytes | StsTrouble | Exception, domain: str = DOMAIN) -> None:
        self.resolver.failing.discard(f"_mta-sts.{domain}")
        self.resolver.texts[f"_mta-sts.{domain}"] = [f"v=STSv1; id={record_id};"]
        self.web.files[domain] = file

    def block(self, record: str = "gone") -> None:
        """Somebody keeps DNS and HTTPS of the domain from us."""
        self.web.files[DOMAIN] = BLOCKED
        if record == "servfail":
            self.resolver.failing.add(RECORD)
        else:
            self.resolver.texts[RECORD] = {"gone": [], "bad": ["v=STSv1; id=-;"], "other": ["v=STSv1; id=forged;"]}[
                record
            ]

    async def get(self, domain: str = DOMAIN) -> StsFound:
        found = await self.policies.get(domain)
        assert isinstance(found, StsFound)
        return found

    async def mode(self) -> str:
        """What is in force now."""
        fetched = (await self.get()).fetched
        return "-" if fetched is None else fetched.policy.mode.value

    async def settle(self) -> None:
        """Until the tasks in the background wait for the test, or have ended."""
        for _ in range(20):
            await asyncio.sleep(0)

    async def pass_(self, span: timedelta, step: timedelta = 10 * MINUTE, *, mail: bool = False) -> None:
        end = self.time.passed + span
        while self.time.passed < end:
            self.time.passed = min(self.time.passed + step, end)
            await self.policies.look()
            await self.settle()
            if mail:
                await self.get()
                await self.settle()

    def of(self, kind: type[E]) -> list[E]:
        return [event for event in self.events if isinstance(event, kind)]


@pytest.fixture
async def world() -> AsyncIterator[World]:
    made = World()
    yield made
    made.web.gate.set()
    await made.policies.close()


# What is found


async def test_a_policy_is_fetched_at_first_sight_and_then_held(world: World) -> None:
    world.publish("1", ENFORCE)
    assert world.policies.held(DOMAIN) is None
    found = await world.get()
    assert found == StsFound(StsFetched(read_policy(ENFORCE, "1"), START))
    assert world.policies.held(DOMAIN) is found
    assert await world.get() is found
    world.time.passed += MINUTE - timedelta(seconds=1)
    assert world.policies.held(DOMAIN) is found
    assert (world.web.asked, world.resolver.asked[f"txt {RECORD}"]) == ([DOMAIN], 1)
    assert world.events == [StsPolicyFetched(DOMAIN, StsMode.ENFORCE, "1", WEEK)]


async def test_the_record_is_looked_at_again_each_minute_and_the_answer_stays_the_same_object(world: World) -> None:
    world.publish("1", ENFORCE)
    found = await world.get()
    for minutes in range(1, 5):
        world.time.passed += MINUTE
        assert world.policies.held(DOMAIN) is None
        assert await world.get() is found
        assert world.resolver.asked[f"txt {RECORD}"] == minutes + 1
    assert world.web.asked == [DOMAIN]


async def test_a_domain_that_publishes_nothing(world: World) -> None:
    assert await world.get() == StsFound()
    assert world.policies.held(DOMAIN) == StsFound()
    assert (world.web.asked, world.events, world.keeper.kept) == ([], [], {})


async def test_a_policy_that_cannot_be_had(world: World) -> None:
    """RFC 8461 section 3.3: as though there were none; but its owner hears of it, and it is tried again."""
    world.publish("1", BLOCKED)
    found = await world.get()
    assert found == StsFound(None, BLOCKED)
    assert world.events == [StsFetchFailed(DOMAIN, BLOCKED.failure, BLOCKED.text, "")]
    world.time.passed += 4 * MINUTE
    assert await world.get() is found
    await world.settle()
    assert world.web.asked == [DOMAIN], "a failure is not repeated within five minutes"
    world.publish("1", ENFORCE)
    world.web.gate.clear()
    world.time.passed += MINUTE
    assert await world.get() is found, "nobody waits for a repeat of what failed before"
    world.web.gate.set()
    await world.settle()
    assert await world.mode() == "enforce"


@pytest.mark.parametrize(
    ("file", "failure", "text"),
    [
        (b"<html>", TlsFailure.STS_POLICY_INVALID, "mta-sts.b.example: '<html>' in the policy is not key: value"),
        (StsTrouble(TlsFailure.STS_WEBPKI_INVALID, "expired"), TlsFailure.STS_WEBPKI_INVALID, "expired"),
    ],
    ids=["invalid", "webpki"],
)
async def test_what_failed_is_told_apart(
    world: World, file: bytes | StsTrouble, failure: TlsFailure, text: str
) -> None:
    world.publish("1", file)
    assert (await world.get()).trouble == StsTrouble(failure, text)


async def test_a_record_that_does_not_count(world: World) -> None:
    world.block("bad")
    trouble = (await world.get()).trouble
    assert trouble is not None
    assert (trouble.failure, trouble.announced) == (TlsFailure.STS_POLICY_INVALID, True)
    assert trouble.text.startswith(f"{RECORD}: ")
    world.resolver.failing.add(RECORD)
    world.time.passed += MINUTE
    trouble = (await world.get()).trouble
    assert trouble == StsTrouble(
        TlsFailure.STS_POLICY_FETCH_ERROR, f"the look-up of {RECORD} failed: SERVFAIL", announced=False
    )
    world.resolver.failing.clear()
    world.resolver.texts.clear()
    world.time.passed += MINUTE
    assert await world.get() == StsFound()
    assert not world.web.asked


# A new version


async def test_a_new_id_is_fetched_at_once_and_waited_for(world: World) -> None:
    world.publish("1", ENFORCE)
    await world.get()
    other = policy("enforce", "new.b.example", max_age=WEEK)
    world.publish("2", other)
    world.time.passed += MINUTE
    assert (await world.get()).fetched == StsFetched(read_policy(other, "2"), START + MINUTE)
    assert world.of(StsPolicyChanged) == [
        StsPolicyChanged(DOMAIN, StsMode.ENFORCE, StsMode.ENFORCE, ("new.b.example",))
    ]


async def test_a_new_id_of_the_same_policy_changes_nothing_that_is_told(world: World) -> None:
    world.publish("1", ENFORCE)
    await world.get()
    world.publish("2", ENFORCE)
    world.time.passed += MINUTE
    await world.get()
    assert len(world.of(StsPolicyFetched)) == 2
    assert not world.of(StsPolicyChanged)


@pytest.mark.parametrize("weaker", [TESTING, NONE], ids=["testing", "none"])
async def test_a_policy_weakens_only_by_one_that_was_fetched(world: World, weaker: bytes) -> None:
    world.publish("1", ENFORCE)
    await world.get()
    world.publish("2", BLOCKED)
    world.time.passed += MINUTE
    found = await world.get()
    assert (await world.mode(), found.trouble) == ("enforce", BLOCKED)
    assert world.of(StsFetchFailed) == [StsFetchFailed(DOMAIN, BLOCKED.failure, BLOCKED.text, "enforce")]
    world.publish("2", weaker)
    world.time.passed += 5 * MINUTE
    await world.get()
    await world.settle()
    assert await world.mode() == read_policy(weaker, "2").mode
    assert (await world.get()).trouble is None


async def test_forged_ids_hold_no_mail_up_while_a_policy_is_in_force(world: World) -> None:
    world.publish("1", ENFORCE)
    await world.get()
    for number in range(3):
        world.publish(f"forged{number}", BLOCKED)
        world.time.passed += MINUTE
        if number:
            world.web.gate.clear()
        assert await world.mode() == "enforce"
    assert world.web.running == 2


async def test_what_a_slower_and_older_fetch_brings_is_not_taken(world: World) -> None:
    world.publish("1", NONE)
    world.web.gate.clear()
    first = asyncio.create_task(world.get())
    await world.settle()
    slow, world.web.gate = world.web.gate, asyncio.Event()
    world.time.passed += MINUTE
    world.publish("2", ENFORCE)
    world.web.gate.set()
    assert isinstance(await world.policies.recheck(DOMAIN), StsFound)
    slow.set()
    await first
    assert await world.mode() == "enforce"
    assert world.keeper.kept[DOMAIN].fetched.policy.id == "2"


# Never forgotten


@pytest.mark.parametrize("record", ["gone", "bad", "servfail", "other"])
@pytest.mark.parametrize("restart", [False, True], ids=["", "restarted"])
@pytest.mark.parametrize("mail", [False, True], ids=["quiet", "busy"])
async def test_a_policy_in_force_outlives_all_that_can_be_blocked(
    world: World, record: str, restart: bool, mail: bool
) -> None:
    world.publish("1", ENFORCE)
    await world.get()
    world.block(record)
    for _ in range(6):
        await world.pass_(DAY, HOUR, mail=mail)
        if restart:
            await world.restart()
        assert await world.mode() == "enforce"
    world.time.passed = timedelta(seconds=WEEK)
    assert await world.mode() == "enforce"
    world.time.passed += timedelta(seconds=1)
    assert world.policies.held(DOMAIN) is None
    assert await world.mode() == "-"
    failures = world.of(StsFetchFailed)
    assert {each.held for each in failures[:-1]} == {"enforce"}, "the admin was told long before it ended"
    assert len(failures) > 24


async def test_a_refresh_that_is_blocked_in_dns_alone_is_made_all_the_same(world: World) -> None:
    """No answer is no word about the record; the policy host is asked for the version that is known."""
    world.publish("1", ENFORCE)
    await world.get()
    world.resolver.failing.add(RECORD)
    await world.pass_(30 * DAY, HOUR, mail=True)
    assert await world.mode() == "enforce"
    assert len(world.web.asked) > 25
    world.time.passed += MINUTE
    trouble = (await world.get()).trouble
    assert trouble is not None
    assert "SERVFAIL" in trouble.text


async def test_a_record_that_is_taken_away_ends_the_refresh_not_the_policy(world: World) -> None:
    """RFC 8461 section 3.1: without a record nothing is fetched. The admin hears why."""
    world.publish("1", ENFORCE)
    await world.get()
    world.resolver.texts.clear()
    await world.pass_(2 * DAY, HOUR, mail=True)
    found = await world.get()
    assert found.trouble is not None
    assert found.trouble.text == f"{RECORD} has no record any more, so the policy is not fetched"
    assert (await world.mode(), world.web.asked) == ("enforce", [DOMAIN])
    assert {each.held for each in world.of(StsFetchFailed)} == {"enforce"}
    world.publish("1", ENFORCE)
    await world.pass_(2 * HOUR, HOUR, mail=True)
    assert (await world.get()).trouble is None


async def test_after_a_restart_the_policy_is_there_before_anything_is_asked(world: World) -> None:
    world.publish("1", ENFORCE)
    await world.get()
    world.block()
    await world.restart()
    assert await world.mode() == "enforce"
    assert world.web.asked == [DOMAIN]


async def test_what_cannot_be_read_is_unknown_and_not_nothing(world: World) -> None:
    world.publish("1", ENFORCE)
    await world.get()
    await world.restart()
    world.keeper.trouble = "disk I/O error"
    assert await world.policies.get(DOMAIN) == StsUnknown("disk I/O error")
    assert await world.policies.recheck(DOMAIN) == StsUnknown("disk I/O error")
    assert world.policies.held(DOMAIN) is None
    world.keeper.trouble = ""
    assert await world.mode() == "enforce"


async def test_a_clock_that_went_back_ends_nothing_and_stops_nothing(world: World) -> None:
    world.time.set_by = 1000 * DAY
    world.publish("1", ENFORCE)
    await world.get()
    world.time.set_by = timedelta(0)
    world.time.passed += MINUTE
    assert await world.mode() == "enforce"
    await world.settle()
    assert world.keeper.kept[DOMAIN].fetched.at == START + MINUTE, "fetched anew, by the clock as it is"


async def test_a_clock_that_was_ahead_for_a_while_forgets_nothing(world: World) -> None:
    world.publish("1", ENFORCE)
    await world.get()
    world.resolver.failing.add(RECORD)
    world.time.passed += MINUTE
    world.time.set_by = 10 * DAY
    assert await world.mode() == "-", "by that clock it has ended"
    world.time.passed += MINUTE
    world.time.set_by = timedelta(0)
    assert await world.mode() == "enforce"
    await world.pass_(DAY, HOUR)
    assert world.keeper.kept[DOMAIN].fetched.policy.id == "1"
    assert await world.mode() == "enforce"


OUTSIDE = st.sampled_from(["publish", "gone", "bad", "servfail", "other", "restart"])
FILES = st.sampled_from(
    [
        ENFORCE,
        NONE,
        TESTING,
        policy("enforce", "mx.b.example", max_age=3600),
        policy("enforce", "mx.b.example", max_age=0),
        b"nonsense",
        BLOCKED,
    ]
)
STEPS = st.lists(st.tuples(OUTSIDE, FILES, st.integers(1, 3), st.integers(0, 3 * 1440)), max_size=25)


def expected(world: World) -> StsFetched | None:
    """By what the policy host has given, and by that alone."""
    for at, file in reversed(world.web.given):
        with contextlib.suppress(StsSyntaxError):
            if isinstance(file, bytes):
                latest = StsFetched(read_policy(file, "any"), at)
                return latest if world.time.now() <= latest.ends else None
    return None


@given(STEPS)
async def test_what_counts_is_the_last_policy_that_was_fetched_until_it_ends(
    steps: list[tuple[str, bytes | StsTrouble, int, int]],
) -> None:
    """Whatever DNS and HTTPS say and fail to say, in whatever order, over restarts."""
    world = World()
    for outside, file, record_id, minutes in steps:
        match outside:
            case "publish":
                world.publish(str(record_id), file)
            case "restart":
                await world.restart()
            case _:
                world.block(outside)
        await world.pass_(minutes * MINUTE, timedelta(hours=7))
        await world.get()
        await world.settle()
        fetched = (await world.get()).fetched
        if fetched is not None:
            fetched = replace(fetched, policy=replace(fetched.policy, id="any"))
        assert fetched == expected(world)
    await world.policies.close()


# Refreshed


async def test_a_policy_is_fetched_anew_each_day_and_nobody_waits(world: World) -> None:
    world.publish("1", ENFORCE)
    await world.get()
    world.time.passed += DAY
    world.web.gate.clear()
    before = await world.get()
    assert before.fetched is not None
    assert before.fetched.at == START
    await world.settle()
    assert world.web.running == 1
    world.web.gate.set()
    await world.settle()
    after = (await world.get()).fetched
    assert after is not None
    assert after.at == START + DAY
    assert len(world.of(StsPolicyFetched)) == 2


async def test_a_policy_is_fetched_anew_without_mail_too(world: World) -> None:
    world.publish("1", ENFORCE)
    await world.get()
    await world.restart()
    await world.pass_(20 * DAY, HOUR)
    assert len(world.web.asked) == 21
    assert world.keeper.kept[DOMAIN].fetched.at == START + 20 * DAY
    assert world.policies.held(DOMAIN) is None
    assert await world.mode() == "enforce"


async def test_what_no_mail_has_asked_for_in_a_month_ends_by_itself(world: World) -> None:
    world.publish("1", ENFORCE)
    await world.get()
    await world.pass_(31 * DAY, HOUR)
    asked = len(world.web.asked)
    assert DOMAIN in world.keeper.kept
    await world.pass_(15 * DAY, HOUR)
    assert len(world.web.asked) == asked
    assert not world.keeper.kept


async def test_mail_keeps_a_policy_from_falling_out_of_use(world: World) -> None:
    world.publish("1", ENFORCE)
    for _ in range(4):
        await world.get()
        await world.pass_(20 * DAY, 6 * HOUR)
    assert world.keeper.kept[DOMAIN].fetched.at > world.time.now() - 2 * DAY


async def test_the_store_is_asked_once_a_minute(world: World) -> None:
    rounds: list[datetime] = []
    world.keeper.due_sts = lambda now, used, limit: _noted(rounds, now)  # type: ignore[method-assign]
    for _ in range(100):
        world.time.passed += timedelta(seconds=2)
        await world.policies.look()
    assert len(rounds) == 4


async def _noted(rounds: list[datetime], now: datetime) -> tuple[str, ...]:
    rounds.append(now)
    return ()


async def test_a_round_that_finds_the_store_unreadable_is_no_bug(world: World) -> None:
    world.publish("1", ENFORCE)
    await world.get()
    await world.restart()
    world.keeper.trouble = "disk I/O error"
    await world.pass_(DAY)
    assert not world.of(Unexpected)


async def test_failures_to_refresh_back_off(world: World) -> None:
    world.publish("1", ENFORCE)
    await world.get()
    world.publish("1", BLOCKED)
    await world.pass_(DAY + 4 * HOUR, MINUTE)
    assert len(world.web.asked) - 1 == 7, "after a day, then 5, 10, 20, 40, 60 and 60 minutes later"


async def test_a_policy_of_no_duration_is_not_fetched_at_each_message(world: World) -> None:
    world.publish("1", policy("enforce", "mx.b.example", max_age=0))
    for _ in range(600):
        await world.get()
        world.time.passed += timedelta(seconds=1)
    assert len(world.web.asked) == 10


@pytest.mark.parametrize("max_age", [0, 1, 30, 59, 60, 61, 90, 119, 120])
async def test_a_policy_of_short_duration_leaves_no_gap(world: World, max_age: int) -> None:
    """It was in force for `max_age` and then not fetched before the minute was over: mail between went without it."""
    world.publish("1", policy("enforce", "mx.b.example", max_age=max_age))
    for _ in range(400):
        found = await world.get()
        assert isinstance(found, StsFound)
        assert in_force(found, world.time.now()) is not None
        world.time.passed += timedelta(seconds=1)
    assert len(world.web.asked) <= 7


# Asked anew before a failure is final


async def test_a_recheck_fetches_anew(world: World) -> None:
    world.publish("1", ENFORCE)
    before = await world.get()
    world.publish("1", policy("enforce", "new.b.example"))
    world.time.passed += 5 * MINUTE
    after = await world.policies.recheck(DOMAIN)
    assert isinstance(after, StsFound)
    assert after.fetched is not None
    assert after.fetched.policy.mx == ("new.b.example",)
    assert world.policies.held(DOMAIN) is after
    assert after is not before


async def test_many_rechecks_are_one(world: World) -> None:
    world.publish("1", ENFORCE)
    await world.get()
    world.time.passed += 5 * MINUTE
    answers = await asyncio.gather(*(world.policies.recheck(DOMAIN) for _ in range(50)))
    world.time.passed += 4 * MINUTE
    assert await world.policies.recheck(DOMAIN) == answers[0]
    assert len(world.web.asked) == 2


async def test_a_recheck_knows_a_new_id_at_once(world: World) -> None:
    world.publish("1", ENFORCE)
    await world.get()
    world.publish("2", TESTING)
    await world.policies.recheck(DOMAIN)
    assert await world.mode() == "testing"


@pytest.mark.parametrize(("record", "fetches"), [("gone", 1), ("bad", 1), ("servfail", 2)])
async def test_a_recheck_while_it_is_blocked_forgets_nothing(world: World, record: str, fetches: int) -> None:
    world.publish("1", ENFORCE)
    await world.get()
    world.block(record)
    world.time.passed += 5 * MINUTE
    await world.policies.recheck(DOMAIN)
    assert (await world.mode(), len(world.web.asked)) == ("enforce", fetches)


async def test_a_recheck_of_a_domain_that_publishes_nothing(world: World) -> None:
    assert await world.policies.recheck(DOMAIN) == StsFound()
    assert not world.web.asked


# Many


async def test_askers_of_one_domain_share_one_fetch_and_one_who_gives_up_ends_it_for_nobody(world: World) -> None:
    world.publish("1", ENFORCE)
    world.web.gate.clear()
    waiting = [asyncio.create_task(world.get()) for _ in range(20)]
    await world.settle()
    waiting[0].cancel()
    await world.settle()
    world.web.gate.set()
    found = await asyncio.gather(*waiting[1:])
    assert world.web.asked == [DOMAIN]
    assert all(each is found[0] for each in found)


async def test_fetches_at_the_same_time_are_bounded(world: World) -> None:
    domains = [f"d{number}.example" for number in range(100)]
    for domain in domains:
        world.publish("1", ENFORCE, domain)
    world.web.gate.clear()
    waiting = [asyncio.create_task(world.get(domain)) for domain in domains]
    await world.settle()
    assert world.web.running == module._FETCHES
    world.web.gate.set()
    assert all(each.fetched is not None for each in await asyncio.gather(*waiting))
    assert world.web.most == module._FETCHES


async def test_memory_is_bounded_and_what_falls_out_of_it_is_in_the_store(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_SIZE", 50)
    await world.restart()
    large = policy("enforce", *(f"mx{number}.b.example" for number in range(200)))  # more than 10 KiB
    for number in range(20):
        world.publish("1", large, f"large{number}.example")
        await world.get(f"large{number}.example")
    assert 1 <= len(world.policies._states) <= 5
    for number in range(200):
        await world.get(f"small{number}.example")
    assert len(world.policies._states) == 50
    fetched, loaded = len(world.web.asked), world.keeper.loads
    assert (await world.get("large0.example")).fetched is not None
    assert (len(world.web.asked), world.keeper.loads) == (fetched, loaded + 1)


async def test_a_bug_in_the_background_is_told(world: World) -> None:
    world.publish("1", ENFORCE)
    await world.get()
    world.publish("1", RuntimeError("a bug"))
    world.time.passed += DAY
    assert await world.mode() == "enforce"
    await world.settle()
    (told,) = world.of(Unexpected)
    assert told.where == "mta-sts"
    assert "a bug" in told.trace


async def test_closing_ends_what_is_under_way(world: World) -> None:
    world.publish("1", ENFORCE)
    await world.get()
    world.publish("2", ENFORCE)
    world.web.gate.clear()
    world.time.passed += DAY
    waiting = asyncio.create_task(world.get())
    await world.policies.look()
    await world.settle()
    assert world.web.running == 1
    await world.policies.close()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert world.web.running == 0
    assert not world.of(Unexpected)
