"""Counting in memory: nothing lost, nothing twice, and never more than the budget."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from relay.mail.published import PolicyKind
from relay.mail.tls import TlsFailure
from relay.mail.tlsreport import Failing, Judged, Line, Policy
from relay.report.tlsrpt.counts import Budget, Counter
from tests.unit.report.tlsrpt.builders import CLEAR, DAY, EXPIRED, NONE, STS, TLSA, Busy, Clock, MemoryLedger

START = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)


async def test_sessions_are_added_up_and_written_once() -> None:
    ledger = MemoryLedger()
    counter = Counter(ledger.add, Clock(START))
    for judged in (Judged(STS), Judged(STS), Judged(STS, EXPIRED)):
        counter.count("b.example", [judged])
    await counter.flush()
    await counter.flush()
    counter.count("b.example", [Judged(STS)])
    await counter.flush()
    assert ledger.numbers == {Line(DAY, "b.example", STS): 3, Line(DAY, "b.example", STS, EXPIRED): 1}


async def test_danes_results_go_to_the_owner_of_the_records_too() -> None:
    ledger = MemoryLedger()
    counter = Counter(ledger.add, Clock(START))
    counter.count("b.example", [Judged(TLSA), Judged(STS)])
    await counter.flush()
    assert ledger.numbers == {
        Line(DAY, "b.example", TLSA): 1,
        Line(DAY, "mx.b.example", TLSA): 1,
        Line(DAY, "b.example", STS): 1,
    }


async def test_what_cannot_be_written_is_kept() -> None:
    ledger, clock = MemoryLedger(busy=True), Clock(START)
    counter = Counter(ledger.add, clock)
    counter.count("b.example", [Judged(STS)])
    with pytest.raises(Busy):
        await counter.flush()
    counter.count("b.example", [Judged(STS)])
    clock.wait(days=1)  # midnight: the day before is still to be written
    ledger.busy = False
    await counter.flush()
    assert ledger.numbers == {Line(DAY, "b.example", STS): 2}


async def test_what_is_counted_while_writing_is_not_lost() -> None:
    written: list[Mapping[Line, int]] = []

    async def write(group: Mapping[Line, int]) -> None:
        counter.count("b.example", [Judged(STS)]) if not written else None
        written.append(dict(group))

    counter = Counter(write, Clock(START))
    counter.count("b.example", [Judged(STS)])
    await counter.flush()
    await counter.flush()
    await counter.flush()
    assert written == [{Line(DAY, "b.example", STS): 1}] * 2


async def test_large_groups_are_written_in_pieces_and_a_failing_one_loses_nothing() -> None:
    ledger, sizes = MemoryLedger(), list[int]()

    async def write(group: Mapping[Line, int]) -> None:
        sizes.append(len(group))
        if len(sizes) == 2:
            raise Busy
        await ledger.add(group)

    counter = Counter(write, Clock(START))
    for number in range(1100):
        counter.count(f"{number}.example", [Judged(Policy(PolicyKind.NONE, f"{number}.example"))])
    with pytest.raises(Busy):
        await counter.flush()
    await counter.flush()
    assert sizes == [500, 500, 500, 100]
    assert len(ledger.numbers) == 1100
    assert set(ledger.numbers.values()) == {1}


async def test_each_day_by_itself_and_the_old_one_is_forgotten() -> None:
    ledger, clock = MemoryLedger(), Clock(START)
    counter = Counter(ledger.add, clock, Budget(all=10_000, one=1_000))
    counter.count("b.example", [Judged(NONE)])
    clock.wait(days=1)
    counter.count("b.example", [Judged(NONE)])
    await counter.flush()
    assert ledger.numbers == {Line(DAY, "b.example", NONE): 1, Line(DAY + timedelta(days=1), "b.example", NONE): 1}
    for _day in range(50):  # each day has the whole budget
        clock.wait(days=1)
        counter.count("b.example", [Judged(NONE)])
        await counter.flush()
    assert len(ledger.numbers) == 52
    assert counter.uncounted == 0


async def test_past_a_domains_budget_failures_are_summed_up_by_type() -> None:
    ledger = MemoryLedger()
    counter = Counter(ledger.add, Clock(START), Budget(one=4_000))
    for number in range(100):
        counter.count("b.example", [Judged(NONE, replace(EXPIRED, reason=f"reason {number}"))])
    counter.count("c.example", [Judged(replace(NONE, domain="c.example"))])
    await counter.flush()
    told = {line.failing: number for line, number in ledger.numbers.items() if line.domain == "b.example"}
    assert sum(value for value in told.values()) == 100
    assert told[Failing(TlsFailure.CERTIFICATE_EXPIRED)] > 90
    assert len(told) < 10
    assert ledger.numbers[Line(DAY, "c.example", replace(NONE, domain="c.example"))] == 1  # nobody else suffers


async def test_past_the_budget_policies_lose_their_text_and_then_sessions_are_only_counted() -> None:
    ledger = MemoryLedger()
    counter = Counter(ledger.add, Clock(START), Budget(one=4_000))
    for number in range(200):
        policy = Policy(PolicyKind.STS, "b.example", (f"id: {number}", "x" * 900), ())
        counter.count("b.example", [Judged(policy)])
    await counter.flush()
    assert ledger.numbers[Line(DAY, "b.example", Policy(PolicyKind.STS, "b.example"))] > 190
    assert len(ledger.numbers) < 6
    for number in range(200):  # more types of policy than there is room for
        counter.count("b.example", [Judged(Policy(PolicyKind.TLSA, f"{number}.b.example"))])
    await counter.flush()
    assert 0 < counter.uncounted < 200


async def test_past_the_whole_budget_new_domains_are_only_counted() -> None:
    ledger = MemoryLedger()
    counter = Counter(ledger.add, Clock(START), Budget(all=40_000))
    for number in range(1000):
        counter.count(f"{number}.example", [Judged(Policy(PolicyKind.NONE, f"{number}.example"))])
    await counter.flush()
    assert len(ledger.numbers) + counter.uncounted == 1000
    assert 50 < len(ledger.numbers) <= 100
    counter.count("0.example", [Judged(Policy(PolicyKind.NONE, "0.example"))])  # the known ones go on
    await counter.flush()
    assert ledger.numbers[Line(DAY, "0.example", Policy(PolicyKind.NONE, "0.example"))] == 2


async def test_a_policy_that_is_too_long_is_named_without_its_text() -> None:
    ledger = MemoryLedger()
    counter = Counter(ledger.add, Clock(START))
    counter.count("b.example", [Judged(replace(STS, strings=("x" * 9000,)))])
    counter.count("b.example", [Judged(replace(STS, strings=("x" * 9000,)))])
    await counter.flush()
    assert ledger.numbers == {Line(DAY, "b.example", Policy(PolicyKind.STS, "b.example")): 2}


async def test_after_a_restart_the_budget_is_what_it_was() -> None:
    ledger = MemoryLedger()
    budget = Budget(all=2_000)
    first = Counter(ledger.add, Clock(START), budget)
    for number in range(10):
        first.count(f"{number}.example", [Judged(Policy(PolicyKind.NONE, f"{number}.example"))])
    await first.flush()
    known = await ledger.lines(DAY)
    second = Counter(ledger.add, Clock(START), budget)
    second.count(known[0].domain, [Judged(known[0].policy)])
    second.restore(known)
    second.count("new.example", [Judged(replace(NONE, domain="new.example"), CLEAR)])
    await second.flush()
    assert second.uncounted == 1
    assert ledger.numbers[known[0]] == 2
