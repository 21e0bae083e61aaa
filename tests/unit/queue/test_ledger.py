"""What TLS reports keep in the queue's database."""

import sqlite3
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import pytest

from relay.mail.codec import received_json
from relay.mail.published import PolicyKind
from relay.mail.tls import TlsFailure
from relay.mail.tlsreport import (
    Counts,
    Failing,
    Line,
    Policy,
    Posting,
    PostState,
    Received,
    ReceivedFailing,
    ReceivedPolicy,
    Summary,
    Wanted,
)
from relay.queue.ledger import SqliteLedger
from relay.queue.schema import MIGRATIONS, prepare
from relay.queue.sqlite import SqliteStore
from relay.report.tlsrpt.ledger import Ledger
from tests.unit.queue.world import START, Clock

DAY, NEXT = date(2026, 11, 21), date(2026, 11, 22)
STS = Policy(PolicyKind.STS, "b.example", ("version: STSv1", "mx: *.b.example"), ("*.b.example",))
NONE = Policy(PolicyKind.NONE, "b.example")
EXPIRED = Failing(TlsFailure.CERTIFICATE_EXPIRED, "192.0.2.1", "mx.b.example", "203.0.113.7", "certificate has expired")
CLEAR = Failing(TlsFailure.STARTTLS_NOT_SUPPORTED)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    made = await SqliteStore.open(tmp_path / "queue.db", emit=lambda _event: None, clock=Clock(), free_space=0)
    yield made
    await made.close()


@pytest.fixture
def ledger(store: SqliteStore) -> Ledger:
    return SqliteLedger(store)


async def test_numbers_add_up(ledger: Ledger) -> None:
    good, bad, worse = (
        Line(DAY, "b.example", STS),
        Line(DAY, "b.example", STS, EXPIRED),
        Line(DAY, "b.example", STS, CLEAR),
    )
    await ledger.add({good: 3, bad: 1})
    await ledger.add({good: 4, bad: 2, worse: 10, Line(DAY, "b.example", NONE): 1, Line(NEXT, "b.example", STS): 9})
    assert list(await ledger.counts(DAY, "b.example")) == [
        Counts(NONE, 1),
        Counts(STS, 7, ((CLEAR, 10), (EXPIRED, 3))),
    ]
    assert list(await ledger.counts(DAY, "c.example")) == []
    assert set(await ledger.lines(DAY)) == {good, bad, worse, Line(DAY, "b.example", NONE)}


async def test_a_policy_that_only_failed_has_no_line_of_successes(ledger: Ledger) -> None:
    await ledger.add({Line(DAY, "b.example", STS, EXPIRED): 1})
    assert list(await ledger.lines(DAY)) == [Line(DAY, "b.example", STS, EXPIRED)]


async def test_summaries_newest_first_and_worst_first(ledger: Ledger) -> None:
    await ledger.add(
        {
            Line(DAY, "a.example", NONE): 5,
            Line(DAY, "b.example", STS): 1,
            Line(DAY, "b.example", NONE): 1,
            Line(DAY, "b.example", STS, EXPIRED): 2,
            Line(DAY, "b.example", STS, CLEAR): 1,
            Line(NEXT, "a.example", NONE, CLEAR): 1,
        }
    )
    every = [Summary(NEXT, "a.example", 0, 1), Summary(DAY, "b.example", 2, 3), Summary(DAY, "a.example", 5, 0)]
    assert list(await ledger.summaries(Wanted())) == every
    assert list(await ledger.summaries(Wanted(limit=1))) == every[:1]
    assert list(await ledger.summaries(Wanted(day=DAY))) == every[1:]
    assert list(await ledger.summaries(Wanted("b.example"))) == every[1:2]


def posting(**values: object) -> Posting:
    made = Posting(DAY, "b.example", "mailto:r@b.example", PostState.WAITING, START, START, START + timedelta(days=1))
    return replace(made, **values)  # type: ignore[arg-type]


async def test_postings(ledger: Ledger) -> None:
    await ledger.add({Line(DAY, domain, NONE): 1 for domain in ("b.example", "c.example")})
    assert list(await ledger.unposted(DAY, START)) == ["b.example", "c.example"]
    first, other = posting(), posting(to="https://b.example/", due=START + timedelta(minutes=1))
    await ledger.post(DAY, "b.example", [first, other])
    assert list(await ledger.unposted(DAY, START)) == ["c.example"]
    # A report of part of the day does not stand for the whole of it.
    assert list(await ledger.unposted(DAY, START + timedelta(seconds=1))) == ["b.example", "c.example"]
    assert list(await ledger.due(START - timedelta(seconds=1), 10)) == []
    assert list(await ledger.due(START, 10)) == [first]
    assert list(await ledger.due(START + timedelta(hours=1), 10)) == [first, other]
    assert list(await ledger.due(START + timedelta(hours=1), 1)) == [first]
    sent = replace(first, state=PostState.SENT, tries=2, text="ok", message="M")
    await ledger.note(sent)
    assert list(await ledger.due(START + timedelta(hours=1), 10)) == [other]
    assert list(await ledger.postings(DAY, "b.example")) == [other, sent]
    await ledger.note(posting(domain="gone.example"))
    assert list(await ledger.postings(DAY, "gone.example")) == []
    await ledger.post(DAY, "b.example", [first])
    assert list(await ledger.postings(DAY, "b.example")) == [first]


RECEIVED = Received(
    *(START, "Example Inc.", "tls@example.com", "1@example.com", START, START, "example.com", "example.com"),
    (ReceivedPolicy(PolicyKind.STS, "us.example", ("a",), ("b",), 3, 2, (ReceivedFailing("certificate-expired", 2),)),),
)


async def test_received_reports_are_kept_once(ledger: Ledger) -> None:
    assert await ledger.take(RECEIVED)
    assert not await ledger.take(replace(RECEIVED, at=START + timedelta(hours=1)))
    # Somebody else's report of the same name is another.
    assert await ledger.take(replace(RECEIVED, signer="other.example", at=START + timedelta(hours=2)))
    assert list(await ledger.received(START + timedelta(hours=1), 10)) == [
        received_json(replace(RECEIVED, signer="other.example", at=START + timedelta(hours=2)))
    ]
    assert [each["signed_by"] for each in await ledger.received(None, 10)] == ["other.example", "example.com"]
    assert len(await ledger.received(None, 1)) == 1


async def test_what_is_old_is_forgotten(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relay.queue.ledger._STEP", 2)
    await ledger.add({Line(DAY, f"{number}.example", NONE, CLEAR): 1 for number in range(5)})
    await ledger.add({Line(NEXT, "b.example", NONE): 1})
    await ledger.post(DAY, "b.example", [posting()])
    for number in range(5):
        await ledger.take(replace(RECEIVED, report_id=str(number), at=START + timedelta(minutes=number)))
    await ledger.forget(days=NEXT, received=START + timedelta(minutes=1), most=3)
    assert [each.day for each in await ledger.summaries(Wanted())] == [NEXT]
    assert list(await ledger.lines(DAY)) == []
    assert list(await ledger.postings(DAY, "b.example")) == []
    assert [each["report_id"] for each in await ledger.received(None, 10)] == ["4", "3", "2"]


async def test_it_outlives_a_restart(tmp_path: Path) -> None:
    for expected in (1, 2):
        store = await SqliteStore.open(tmp_path / "queue.db", emit=lambda _event: None, clock=Clock(), free_space=0)
        await SqliteLedger(store).add({Line(DAY, "b.example", NONE): 1})
        (counts,) = await SqliteLedger(store).counts(DAY, "b.example")
        assert counts.successes == expected
        await store.close()


def test_a_queue_of_the_first_version_gets_the_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    db = sqlite3.connect(tmp_path / "queue.db", isolation_level=None)
    with monkeypatch.context() as patch:
        patch.setattr("relay.queue.schema.MIGRATIONS", MIGRATIONS[:1])
        prepare(db, "here")
    prepare(db, "here")
    tables = {row[0] for row in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    db.close()
    assert {"tlsrpt_policy", "tlsrpt_failing", "tlsrpt_posting", "tlsrpt_received"} <= tables


async def test_any_text_of_peers_can_be_kept(ledger: Ledger) -> None:
    odd = Policy(PolicyKind.STS, "b.example", ("v\ud800", "\x00", "ü"), ())
    await ledger.add({Line(DAY, "b.example", odd): 1})
    (counts,) = await ledger.counts(DAY, "b.example")
    assert counts.policy == odd
