"""TLS reports on the way of deliveries: which sessions count and for whom, which mail ends in our own mailbox, what operators are told."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pytest

from relay.admin.endpoint import Unavailable
from relay.app.reports import Neighbours, TlsReports
from relay.mail.address import parse_mailbox
from relay.mail.attempt import Attempt, Delivery, Session, SessionEnd
from relay.mail.envelope import LOCAL, TLS_REPORTS, Accepted, Envelope, Message, Recipient
from relay.mail.events import Event, MessageAccepted, TlsReportIgnored, TlsSessionTried, Unexpected
from relay.mail.outcome import Deferred, Delivered
from relay.mail.plan import Encryption, Level, Plaintext, PolicyApplied, TlsPlan
from relay.mail.published import PolicyKind
from relay.mail.tls import TlsFailure
from relay.policy.book import RuleBook
from relay.policy.route import Lane
from relay.queue.intake import Intake
from relay.queue.operations import Operations
from relay.queue.sqlite import SqliteStore
from relay.queue.store import Query, State, StoreUnavailable
from tests.fakes import FakeResolver
from tests.unit.outbound.builders import Body
from tests.unit.policy.builders import book, evidence
from tests.unit.queue.world import World as Queue
from tests.unit.queue.world import world as queue_world

NOW = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)
OK = Delivered(250, "2.0.0", "ok")
STS = PolicyApplied(PolicyKind.STS, "b.example", ("version: STSv1",), (), frozenset({Encryption("mta-sts")}))
SMART = {
    "name": "smart",
    "direction": "outbound",
    "match": {"recipient_domains": ["smart.example"]},
    "route": {"smart_hosts": ["mail.provider.example:25"]},
}


async def nobody() -> None:
    """There is one process only."""


@dataclass
class World:
    """Outbound is `attempts`: what it says to each delivery."""

    queue: Queue
    rules: RuleBook
    resolver: FakeResolver = field(default_factory=FakeResolver)
    now: datetime = NOW
    events: list[Event] = field(default_factory=list)
    delivered: list[Delivery] = field(default_factory=list)
    attempts: list[Attempt] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.accepted: list[Message] = []
        intake = Intake(
            self.queue.store,
            emit=self.events.append,
            accepted=lambda message, _body: self.accepted.append(message),
        )
        self.operations = Operations(
            self.queue.store, self.queue.scheduler, lane_of=lambda _domain: cast(Lane, None), clock=lambda: self.now
        )
        around = Neighbours(self.queue.store, self.resolver, lambda: intake, lambda: self.operations, nobody)
        self.reports = TlsReports(around, book=lambda: self.rules, clock=lambda: self.now, emit=self.events.append)
        self.deliver = self.reports.over(self._outbound)

    async def _outbound(self, delivery: Delivery) -> Sequence[Attempt]:
        self.delivered.append(delivery)
        return self.attempts

    @property
    def store(self) -> SqliteStore:
        return self.queue.store

    async def send(self, *recipients: str, **accepted: Any) -> Sequence[Attempt]:
        return await self.deliver(delivery(*recipients, **accepted))

    def tried(self) -> list[tuple[str, list[str]]]:
        return [
            (
                each.domain,
                [f"{one.policy.kind.value} {one.failing.result if one.failing else 'success'}" for one in each.judged],
            )
            for each in self.events
            if isinstance(each, TlsSessionTried)
        ]


def delivery(*recipients: str, content: bytes = b"Subject: x\r\n\r\nx", **accepted: Any) -> Delivery:
    values: dict[str, Any] = {
        "at": NOW,
        "client": "192.0.2.1",
        "helo": "c",
        "listener": "mx",
        "protocol": "ESMTP",
    } | accepted
    to = tuple(Recipient(parse_mailbox(each)) for each in recipients)
    message = Message("M" * 20, Envelope(parse_mailbox("alice@a.example"), to), Accepted(**values), len(content))
    return Delivery(message, tuple(range(len(to))), Body((content,)))


def attempt(*indexes: int, session: Session | None = None, hop: str = "mx.b.example:25", **values: Any) -> Attempt:
    plan = TlsPlan(Level.OPPORTUNISTIC, Plaintext.IF_NOT_OFFERED, published=values.pop("published", ()))
    made = Attempt("M", NOW, hop, "203.0.113.7", "c", plan, evidence(), tuple((index, OK) for index in indexes or (0,)))
    return replace(made, session=session or Session(SessionEnd.SECURED, "198.51.100.1"), **values)


@asynccontextmanager
async def made(folder: Path, **tlsrpt: Any) -> AsyncIterator[World]:
    rules = book(tlsrpt=tlsrpt or {"mailbox": ["tlsrpt@us.example"]}, connectors=[SMART])
    async with queue_world(folder / "queue.db") as queue:
        world = World(queue, rules)
        await world.reports.start()
        yield world
        await world.reports.close()


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with made(tmp_path) as found:
        yield found


async def test_sessions_count_for_the_domain_whose_mail_it_is(world: World) -> None:
    world.attempts = [attempt(published=(STS,)), attempt(session=Session(SessionEnd.NOT_OFFERED, ""), evidence=None)]
    assert list(await world.send("bob@b.example")) == world.attempts
    assert world.tried() == [
        ("b.example", ["sts success"]),
        ("b.example", ["no-policy-found starttls-not-supported"]),
    ]
    listed = await world.reports.reports("", None, 10)
    (one,) = listed["reports"]
    assert (one["day"], one["domain"], one["successes"], one["failures"]) == ("2026-11-25", "b.example", 1, 1)
    assert one["to"] == []
    assert "2026-11-26T00:10" <= one["due"] < "2026-11-26T04:00"
    assert listed["sending"]
    assert listed["uncounted"] == 0


async def test_sessions_to_a_smart_host_count_for_its_domain(world: World) -> None:
    world.attempts = [
        attempt(hop="mail.provider.example:25"),
        attempt(hop="192.0.2.1:25"),
        attempt(hop="[2001:db8::1]:25"),
    ]
    await world.send("bob@smart.example")
    assert world.tried() == [("mail.provider.example", ["no-policy-found success"])]


async def test_kept_connections_and_attempts_that_came_nowhere_count_nothing(world: World) -> None:
    world.attempts = [replace(attempt(), session=None), replace(attempt(), outcomes=())]
    await world.send("bob@b.example")
    assert world.tried() == []


async def test_a_host_that_policy_keeps_mail_from_counts(world: World) -> None:
    withheld = Session(SessionEnd.WITHHELD, "", "not signed", TlsFailure.DNSSEC_INVALID)
    world.attempts = [attempt(session=withheld, plan=None, evidence=None, address="")]
    await world.send("bob@b.example")
    assert world.tried() == [("b.example", ["tlsa dnssec-invalid"])]


async def test_our_own_reports_are_not_reported(world: World) -> None:
    world.attempts = [attempt()]
    await world.send("r@b.example", protocol=LOCAL, listener=TLS_REPORTS)
    assert world.tried() == []


async def test_mail_to_our_mailbox_ends_here_and_the_rest_goes_on(world: World) -> None:
    world.attempts = [attempt(0, 2)]
    attempts = await world.send("bob@b.example", "TLSRPT@us.example", "eve@b.example")
    (ours, others) = attempts
    ((index, outcome),) = ours.outcomes
    assert index == 1
    assert isinstance(outcome, Delivered)
    assert (ours.hop, ours.connector, ours.plan, ours.session) == ("", "tlsrpt", None, None)
    assert others is world.attempts[0]
    assert [each.indexes for each in world.delivered] == [(0, 2)]
    assert any(isinstance(each, TlsReportIgnored) for each in world.events)


async def test_mail_to_our_mailbox_alone_asks_nobody_else(world: World) -> None:
    await world.send("tlsrpt@us.example")
    assert world.delivered == []


async def test_a_mailbox_whose_store_is_in_trouble_waits(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*_args: object) -> None:
        raise StoreUnavailable("disk full")

    monkeypatch.setattr("relay.report.tlsrpt.mailbox.Mailbox.take", fail)
    (attempt_made,) = await world.send("tlsrpt@us.example")
    assert attempt_made.outcomes == ((0, Deferred(451, "4.3.0", "the report cannot be kept now")),)


async def test_without_the_section_nothing_is_counted_or_taken(tmp_path: Path) -> None:
    async with made(tmp_path) as world:
        world.rules = book()
        world.attempts = [attempt()]
        await world.send("tlsrpt@us.example")
        assert len(world.delivered) == 1
        assert world.tried() == []
        for question in (
            world.reports.reports("", None, 1),
            world.reports.report("b.example", None),
            world.reports.send_reports("", None),
        ):
            with pytest.raises(Unavailable, match="no `tlsrpt`"):
                await question


async def test_counts_outlive_a_restart(tmp_path: Path) -> None:
    for expected in (1, 2):
        async with made(tmp_path) as world:
            world.attempts = [attempt()]
            await world.send("bob@b.example")
        async with made(tmp_path) as world:
            (one,) = (await world.reports.reports("b.example", NOW.date(), 10))["reports"]
            assert one["successes"] == expected


async def test_the_report_that_would_go(tmp_path: Path) -> None:
    async with made(tmp_path, organization="Example Inc.", contact="tls@example.com") as world:
        assert await world.reports.report("b.example", None) is None
        world.attempts = [attempt(published=(STS,))]
        await world.send("bob@b.example")
        found = await world.reports.report("b.example", None)
        world.now += timedelta(days=1)
        whole = await world.reports.report("b.example", NOW.date())
    assert found is not None
    assert whole is not None
    assert (found["organization-name"], found["contact-info"]) == ("Example Inc.", "tls@example.com")
    assert found["date-range"]["end-datetime"] == "2026-11-25T12:00:00Z"
    assert whole["date-range"]["end-datetime"] == "2026-11-25T23:59:59Z"
    assert whole["policies"][0]["policy"]["policy-type"] == "sts"


async def test_reports_are_sent_on_demand(tmp_path: Path) -> None:
    async with made(tmp_path, contact="tls@example.com") as world:
        world.resolver.texts["_smtp._tls.b.example"] = ["v=TLSRPTv1;rua=mailto:r@b.example"]
        world.attempts = [attempt()]
        await world.send("bob@b.example")
        assert (await world.reports.send_reports("", None))["states"] == {}  # the day is not over
        world.now += timedelta(hours=12, minutes=1)
        sent = await world.reports.send_reports("", None)
        assert sent["states"] == {"queued": 1}
        (message,) = world.accepted
        assert (message.accepted.protocol, message.accepted.listener, message.is_tls_report) == (
            LOCAL,
            TLS_REPORTS,
            True,
        )
        assert message.id == sent["reports"][0]["message"]
        assert any(isinstance(each, MessageAccepted) for each in world.events)
        (one,) = (await world.reports.reports("", None, 10))["reports"]
        assert [each["state"] for each in one["to"]] == ["queued"]
        assert one["due"] is None
        # Again, by day and by domain.
        assert (await world.reports.send_reports("", NOW.date()))["states"] == {"queued": 1}
        assert (await world.reports.send_reports("b.example", None))["states"] == {"queued": 1}
        assert (await world.reports.send_reports("other.example", None))["states"] == {}
        assert len(world.accepted) == 3


async def test_a_report_that_is_too_late_is_taken_out_of_the_queue(tmp_path: Path) -> None:
    async with made(tmp_path) as world:
        world.resolver.texts["_smtp._tls.b.example"] = ["v=TLSRPTv1;rua=mailto:r@b.example"]
        world.attempts = [attempt()]
        await world.send("bob@b.example")
        world.now += timedelta(days=1)
        await world.reports.send_reports("", None)
        world.now += timedelta(hours=25)
        await world.reports.send_reports("", None)
        (one,) = (await world.reports.reports("b.example", NOW.date(), 1))["reports"]
        assert [each["state"] for each in one["to"]] == ["failed"]
        (message,) = world.accepted
        (row,) = await world.store.listing(Query(ids=(message.id,), states=frozenset(State)))
        assert row["recipients"][0]["state"] == "deleted"


async def test_sending_is_off(tmp_path: Path) -> None:
    async with made(tmp_path, send="off") as world:
        assert not (await world.reports.reports("", None, 1))["sending"]
        with pytest.raises(Unavailable, match="is off"):
            await world.reports.send_reports("", None)


async def test_received_reports(world: World) -> None:
    assert await world.reports.received_reports(None, 10) == {"received": []}


async def test_work_in_the_background_survives_the_store_and_bugs(world: World) -> None:
    async def busy() -> None:
        raise StoreUnavailable("disk full")

    async def bug() -> None:
        raise ZeroDivisionError

    await world.reports._guarded(busy)
    assert not any(isinstance(each, Unexpected) for each in world.events)
    await world.reports._guarded(bug)
    (event,) = [each for each in world.events if isinstance(each, Unexpected)]
    assert event.where == "tls reports"
    assert "ZeroDivisionError" in event.trace


async def test_it_counts_and_sends_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relay.app.reports._FLUSH", 0.01)
    monkeypatch.setattr("relay.app.reports._TICK", 0.01)
    async with made(tmp_path) as world:
        world.resolver.texts["_smtp._tls.b.example"] = ["v=TLSRPTv1;rua=mailto:r@b.example"]
        world.attempts = [attempt()]
        await world.send("bob@b.example")
        world.now += timedelta(days=1)
        async with asyncio.timeout(20):
            while not world.accepted:
                await world.store.barrier()
