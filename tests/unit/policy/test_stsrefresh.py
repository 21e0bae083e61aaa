"""When a policy is fetched, as a table; and how long is waited after what."""

from datetime import timedelta

import pytest

from relay.mail.published import StsTrouble
from relay.mail.tls import TlsFailure
from relay.policy.route import LookupFailed
from relay.policy.stsfile import StsRecord
from relay.policy.stsrefresh import Record, Step, Tries, failed, may_recheck, next_step, succeeded
from tests.unit.policy.builders import NOW

MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
RECORDS: dict[str, Record] = {
    "old": StsRecord("old"),
    "new": StsRecord("new"),
    "bad": StsTrouble(TlsFailure.STS_POLICY_INVALID, "two records"),
    "silent": LookupFailed("SERVFAIL"),
    "none": None,
}
FRESH, DUE = (NOW - HOUR, NOW + HOUR), (NOW - DAY, NOW)
TRIES = {
    "never": Tries(),
    "fresh": Tries("old", 0, *FRESH),
    "due": Tries("old", 0, *DUE),
    "failing": Tries("old", 2, *FRESH),
    "failed": Tries("old", 2, *DUE),
    "ahead": Tries("old", 0, NOW + 1000 * DAY, NOW + 1001 * DAY),
}
TABLE = """
record | tries   | no policy | in force
old    | never   | WAIT      | WAIT
old    | fresh   | NOTHING   | NOTHING
old    | due     | WAIT      | BEHIND
old    | failing | NOTHING   | NOTHING
old    | failed  | BEHIND    | BEHIND
old    | ahead   | WAIT      | BEHIND
new    | fresh   | WAIT      | WAIT
new    | due     | WAIT      | WAIT
new    | failing | WAIT      | BEHIND
new    | failed  | WAIT      | BEHIND
bad    | never   | NOTHING   | MISSED
bad    | fresh   | NOTHING   | NOTHING
bad    | due     | NOTHING   | MISSED
bad    | failing | NOTHING   | NOTHING
silent | never   | NOTHING   | BEHIND
silent | fresh   | NOTHING   | NOTHING
silent | due     | NOTHING   | BEHIND
silent | failing | NOTHING   | NOTHING
silent | failed  | NOTHING   | BEHIND
none   | never   | NOTHING   | MISSED
none   | fresh   | NOTHING   | NOTHING
none   | due     | NOTHING   | MISSED
none   | failing | NOTHING   | NOTHING
none   | failed  | NOTHING   | MISSED
"""
ROWS = [tuple(cell.strip() for cell in line.split("|")) for line in TABLE.strip().splitlines()[1:]]


@pytest.mark.parametrize(("record", "tries", "without", "within"), ROWS)
def test_step(record: str, tries: str, without: str, within: str) -> None:
    assert next_step(RECORDS[record], TRIES[tries], NOW, in_force=False) is Step[without]
    assert next_step(RECORDS[record], TRIES[tries], NOW, in_force=True) is Step[within]


@pytest.mark.parametrize(
    ("max_age", "chance", "expected"),
    [
        (31557600, 0.0, DAY),
        (31557600, 0.5, DAY * 0.95),
        (86400, 0.0, DAY / 2),
        (600, 0.0, timedelta(minutes=5)),
        (60, 0.0, MINUTE),
        (0, 0.9, MINUTE),
    ],
)
def test_the_next_refresh(max_age: int, chance: float, expected: timedelta) -> None:
    """Daily, or at half of its life, spread a little, and once a minute at most."""
    assert succeeded("1", NOW, max_age, chance) == Tries("1", 0, NOW, NOW + expected)


def test_failures_back_off() -> None:
    tries, waits = Tries("1", 0, NOW - DAY, NOW), []
    for _ in range(7):
        tries = failed("1", tries, NOW, 0.0)
        waits.append(tries.again - NOW)
    assert [each // MINUTE for each in waits] == [5, 10, 20, 40, 60, 60, 60]
    assert failed("1", tries, NOW, 0.5).again == NOW + HOUR * 1.125
    assert failed("2", tries, NOW, 0.0) == Tries("2", 1, NOW, NOW + 5 * MINUTE), "per version id, RFC 8461 section 3.3"
    many = Tries("1", 10**6, NOW, NOW)
    assert failed("1", many, NOW, 0.0).again == NOW + HOUR


@pytest.mark.parametrize(
    ("record_id", "age", "expected"),
    [("1", MINUTE, False), ("1", 5 * MINUTE, True), ("2", MINUTE, True), ("1", -HOUR, True)],
)
def test_a_recheck_is_not_repeated_at_once(record_id: str, age: timedelta, expected: bool) -> None:
    assert may_recheck(record_id, Tries("1", 0, NOW - age, NOW), NOW) is expected
