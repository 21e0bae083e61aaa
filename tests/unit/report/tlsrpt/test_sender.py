"""Reports on their way: who gets one, when, and what happens where it fails; with a queue and servers of the test's own."""

import asyncio
import email
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from relay.dns.answers import TxtAnswer
from relay.mail.events import Event, TlsReportSent
from relay.mail.tlsreport import Line, PostState
from relay.policy.rua import Https
from relay.report.post import Posted
from relay.report.tlsrpt.document import end_of
from relay.report.tlsrpt.mail import Key, Mail
from relay.report.tlsrpt.sender import GIVE_UP, LATEST, Sender, Setting, Ways, due_at
from tests.dkim import dkim_key
from tests.fakes import FakeResolver
from tests.unit.report.tlsrpt.builders import (
    CLEAR,
    DAY,
    NONE,
    NOW,
    REPORTER,
    Busy,
    Clock,
    MemoryLedger,
    waiting,
)

RECORD = "v=TLSRPTv1; rua="


@dataclass
class World:
    """`answers`: what HTTPS servers say, "" for well; `mails`: what was queued, by id; `became`: where these stand."""

    resolver: FakeResolver = field(default_factory=FakeResolver)
    ledger: MemoryLedger = field(default_factory=MemoryLedger)
    clock: Clock = field(default_factory=Clock)
    answers: dict[str, str] = field(default_factory=dict)
    mails: dict[str, Mail] = field(default_factory=dict)
    became: dict[str, str] = field(default_factory=dict)
    cancelled: list[str] = field(default_factory=list)
    posted: list[tuple[str, bytes]] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    setting: Setting | None = field(default_factory=lambda: Setting(REPORTER, None))
    on_txt: Callable[[], None] = lambda: None

    def __post_init__(self) -> None:
        self.sender = Sender(
            Ways(self.ledger, self._txt, self, self._post, lambda: self.setting, self.clock, self.events.append)
        )

    async def _txt(self, name: str) -> TxtAnswer:
        self.on_txt()
        await asyncio.sleep(0)
        return await self.resolver.txt(name)

    async def _post(self, destination: Https, packed: bytes) -> Posted:
        self.posted.append((destination.uri, packed))
        return Posted(self.answers.get(destination.uri, ""))

    async def put(self, mail: Mail) -> str:
        if self.answers.get("queue"):
            raise Busy
        name = f"M{len(self.mails)}"
        self.mails[name], self.became[name] = mail, "waiting"
        return name

    async def states(self, ids: Sequence[str]) -> Mapping[str, str]:
        return {each: self.became[each] for each in ids if each in self.became}

    async def cancel(self, ids: Sequence[str]) -> None:
        self.cancelled.extend(ids)

    def wants(self, domain: str, rua: str, *, day: date = DAY, sessions: int = 1) -> None:
        self.resolver.texts[f"_smtp._tls.{domain}"] = [RECORD + rua]
        self.ledger.numbers[Line(day, domain, replace(NONE, domain=domain))] = sessions

    def states_of(self, domain: str = "b.example") -> dict[str, PostState]:
        return {each.to: each.state for each in self.ledger.posted.values() if each.domain == domain}

    @property
    def told(self) -> list[TlsReportSent]:
        return [each for each in self.events if isinstance(each, TlsReportSent)]


async def test_a_report_to_every_address_of_the_record() -> None:
    world = World()
    world.wants("b.example", "mailto:r@b.example,https://b.example/r")
    await world.sender.tick()
    assert world.states_of() == {"mailto:r@b.example": PostState.QUEUED, "https://b.example/r": PostState.SENT}
    (mail,) = world.mails.values()
    assert str(mail.envelope.recipients[0].address) == "r@b.example"
    (posted,) = world.posted
    assert email.message_from_bytes(mail.content).get_payload()[1].get_payload(decode=True) == posted[1]  # type: ignore[index,union-attr]
    assert [(each.to, each.state, each.tries) for each in world.told] == [("https://b.example/r", PostState.SENT, 1)]
    world.became["M0"] = "delivered"
    world.clock.wait(minutes=6)
    await world.sender.tick()
    assert world.states_of() == {"mailto:r@b.example": PostState.SENT, "https://b.example/r": PostState.SENT}
    await world.sender.tick()
    assert (len(world.mails), len(world.posted), len(world.told)) == (1, 1, 2)


async def test_a_report_is_signed_where_there_is_a_key() -> None:
    world = World(setting=Setting(REPORTER, Key("example.com", "s", lambda: dkim_key().pem)))
    world.wants("b.example", "mailto:r@b.example")
    await world.sender.tick()
    assert world.mails["M0"].content.startswith(b"DKIM-Signature: v=1; a=rsa-sha256;")


async def test_nothing_goes_out_while_sending_is_off() -> None:
    world = World(setting=None)
    world.wants("b.example", "mailto:r@b.example")
    await world.sender.tick()
    await world.sender.tick(at_once=True)
    assert not world.ledger.posted
    assert await world.sender.begin(DAY, "b.example", end_of(DAY)) == []
    world.setting = Setting(REPORTER, None)
    await world.sender.tick()
    world.setting = None  # turned off with a report under way: it waits
    world.ledger.posted[DAY, "b.example", "mailto:r@b.example"] = waiting()
    await world.sender.tick()
    assert len(world.mails) == 1


async def test_who_asks_for_none_gets_none() -> None:
    world = World()
    world.wants("b.example", "nonsense")
    world.resolver.texts["_smtp._tls.c.example"] = []
    world.ledger.numbers[Line(DAY, "c.example", replace(NONE, domain="c.example"))] = 1
    await world.sender.tick()
    assert world.states_of() == {"": PostState.UNWANTED}
    assert world.states_of("c.example") == {"": PostState.UNWANTED}
    asked = world.resolver.asked.total()
    world.clock.wait(hours=1)
    await world.sender.tick()
    assert world.resolver.asked.total() == asked
    assert not world.told


def test_each_domain_has_its_time_in_the_first_hours() -> None:
    times = [due_at(DAY, f"{number}.example") for number in range(300)]
    assert min(times) >= end_of(DAY) + timedelta(minutes=10)
    assert max(times) < end_of(DAY) + LATEST
    assert len(set(times)) > 250
    assert times == [due_at(DAY, f"{number}.example") for number in range(300)]


async def test_before_its_time_nothing_is_sent_unless_somebody_says_so() -> None:
    world = World(clock=Clock(datetime(2026, 11, 26, 0, 5, tzinfo=UTC)))
    world.wants("b.example", "mailto:r@b.example")
    world.wants("today.example", "mailto:r@today.example", day=DAY + timedelta(days=1))
    await world.sender.tick()
    assert not world.mails
    await world.sender.tick(at_once=True)
    assert len(world.mails) == 1
    assert not world.states_of("today.example")  # that day is not over


async def test_days_that_were_missed_are_sent_too() -> None:
    world = World()
    for back in range(5):
        world.wants(f"d{back}.example", "mailto:r@b.example", day=NOW.date() - timedelta(days=back))
    await world.sender.tick()
    assert {each.domain for each in world.ledger.posted.values()} == {"d1.example", "d2.example", "d3.example"}


async def test_a_look_up_that_fails_is_tried_again_for_a_day() -> None:
    world = World(resolver=FakeResolver(failing={"_smtp._tls.b.example"}))
    world.wants("b.example", "mailto:r@b.example")
    tries = 0
    while world.states_of() != {"": PostState.FAILED}:
        await world.sender.tick()
        world.clock.wait(minutes=5)
        tries += 1
        assert tries < 400
    assert 24 * 60 - 250 < tries * 5 <= 24 * 60 + 10
    (told,) = world.told
    assert (told.state, told.text) == (PostState.FAILED, "the look-up of _smtp._tls.b.example failed: SERVFAIL")
    assert told.tries == world.resolver.asked["txt _smtp._tls.b.example"] < 15


async def test_a_look_up_that_comes_right() -> None:
    world = World(resolver=FakeResolver(failing={"_smtp._tls.b.example"}))
    world.wants("b.example", "mailto:r@b.example")
    await world.sender.tick()
    assert world.states_of() == {"": PostState.ASKING}
    world.resolver.failing.clear()
    world.clock.wait(minutes=5)
    await world.sender.tick()
    assert world.states_of() == {"mailto:r@b.example": PostState.QUEUED}


async def test_a_server_that_fails_is_tried_again_with_patience() -> None:
    uri = "https://b.example/r"
    world = World(answers={uri: "b.example answered 503"})
    world.wants("b.example", uri)
    waits: list[timedelta] = []
    await world.sender.tick()
    while (posting := world.ledger.posted[DAY, "b.example", uri]).state is PostState.WAITING:
        waits.append(posting.due - world.clock.now)
        world.clock.now = posting.due
        await world.sender.tick()
    minutes = [int(each.total_seconds() / 60) for each in waits]
    assert minutes == [5, 10, 20, 40, 80, 160, 240, 240, 240, 240]
    assert posting.state is PostState.FAILED
    assert [each.text for each in world.told] == ["b.example answered 503"]
    assert len({packed for _uri, packed in world.posted}) == 1  # the same report each time


async def test_a_server_that_recovers() -> None:
    uri = "https://b.example/r"
    world = World(answers={uri: "b.example answered 503"})
    world.wants("b.example", uri)
    await world.sender.tick()
    world.answers.clear()
    await world.sender.tick()
    assert len(world.posted) == 1
    await world.sender.tick(at_once=True)
    assert world.states_of() == {uri: PostState.SENT}


@pytest.mark.parametrize("state", ["bounced", "deleted", "gone"])
async def test_a_mail_that_the_queue_gave_up(state: str) -> None:
    world = World()
    world.wants("b.example", "mailto:r@b.example")
    await world.sender.tick()
    if state == "gone":
        del world.became["M0"]
    else:
        world.became["M0"] = state
    world.clock.wait(minutes=5)
    await world.sender.tick()
    assert world.states_of() == {"mailto:r@b.example": PostState.FAILED}
    assert world.told[0].text == f"the mail is {state}: relay trace M0"
    assert not world.cancelled


async def test_a_mail_that_waits_too_long_is_taken_back() -> None:
    world = World()
    world.wants("b.example", "mailto:r@b.example")
    await world.sender.tick()
    while world.states_of() == {"mailto:r@b.example": PostState.QUEUED}:
        assert not world.cancelled
        world.clock.wait(minutes=30)
        await world.sender.tick()
    assert world.cancelled == ["M0"]
    assert GIVE_UP <= world.clock.now - NOW < GIVE_UP + timedelta(hours=1)
    assert world.told[0].text == "not delivered within 24 hours: relay trace M0"


async def test_on_demand_even_twice_and_part_of_a_day() -> None:
    world = World()
    world.wants("b.example", "mailto:r@b.example")
    (posting,) = await world.sender.begin(DAY, "b.example", end_of(DAY))
    assert posting.state is PostState.QUEUED
    await world.sender.begin(DAY, "b.example", end_of(DAY))
    assert len(world.mails) == 2
    assert await world.sender.begin(DAY, "nobody.example", end_of(DAY)) == []
    today = NOW.date()
    world.wants("b.example", "mailto:r@b.example", day=today)
    (part,) = await world.sender.begin(today, "b.example", NOW)
    assert part.ends == NOW
    assert b"2026-11-26T120000.b.example@relay.example.com" in world.mails["M2"].content
    world.clock.wait(days=1)
    await world.sender.tick()  # the whole of it, once the day is over
    assert b"2026-11-26.b.example@relay.example.com" in world.mails["M3"].content


async def test_one_report_is_not_begun_twice_at_once() -> None:
    world = World()
    world.wants("b.example", "mailto:r@b.example")
    await asyncio.gather(world.sender.tick(), world.sender.begin(DAY, "b.example", end_of(DAY)), world.sender.tick())
    assert len(world.mails) == 1


async def test_many_domains_are_looked_up_a_few_at_a_time() -> None:
    world, running, most = World(), 0, 0
    for number in range(500):
        world.wants(f"{number}.example", "mailto:r@b.example")

    async def txt(name: str) -> Any:
        nonlocal running, most
        running, most = running + 1, max(most, running + 1)
        await asyncio.sleep(0)
        running -= 1
        return await world.resolver.txt(name)

    world._txt = txt  # type: ignore[method-assign]
    world.__post_init__()
    await world.sender.tick()
    assert len(world.mails) == 500
    assert most == 10


async def test_one_failure_of_the_store_does_not_keep_the_others_from_their_turn() -> None:
    world = World(answers={"queue": "full"})
    world.wants("a.example", "mailto:r@a.example")
    world.wants("b.example", "https://b.example/r")
    with pytest.raises(Busy):
        await world.sender.tick()
    assert world.states_of() == {"https://b.example/r": PostState.SENT}
    assert world.states_of("a.example") == {"mailto:r@a.example": PostState.WAITING}
    world.answers.clear()
    await world.sender.tick()
    assert world.states_of("a.example") == {"mailto:r@a.example": PostState.QUEUED}


async def test_a_report_says_what_was_counted() -> None:
    world = World()
    world.wants("b.example", "mailto:r@b.example", sessions=7)
    world.ledger.numbers[Line(DAY, "b.example", NONE, CLEAR)] = 2
    counts = await world.ledger.counts(DAY, "b.example")
    assert [(each.successes, each.failed) for each in counts] == [(7, 2)]
    await world.sender.tick()
    assert b"Report Domain: b.example Submitter: example.com" in world.mails["M0"].content
