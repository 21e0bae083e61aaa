"""The audit log in the queue's database."""

from datetime import timedelta
from typing import Any

from relay.mail.audit import AuditEntry, AuditQuery
from relay.queue.audit import FAILED, SqliteAudit
from tests.unit.queue.world import START, World

DAY = timedelta(days=1)


def entry(number: int, action: str = "hold", **more: Any) -> AuditEntry:
    return AuditEntry(START + number * DAY, f"who {number % 2}", "token", "192.0.2.1", action, "all", number, **more)


async def numbers(log: SqliteAudit, **query: Any) -> list[int]:
    return [each["count"] for each in await log.entries(AuditQuery(**query))]


async def test_what_was_written_comes_back_newest_first(queue: World) -> None:
    log = SqliteAudit(queue.store)
    await log.add([entry(1, before={"waiting": 2}, after={"held": 2}), entry(2)])
    await log.add([entry(3, "reload", after={"diff": "+x"})])
    newest, _second, oldest = await log.entries(AuditQuery())
    assert (newest["action"], newest["before"], newest["after"]) == ("reload", None, {"diff": "+x"})
    assert oldest["before"] == {"waiting": 2}
    assert await numbers(log, who="who 1") == [3, 1]
    assert await numbers(log, action="reload") == [3]
    assert await numbers(log, since=START + 2 * DAY) == [3, 2]
    assert await numbers(log, below=newest["n"], limit=1) == [2]


async def test_it_is_bounded_by_age_and_number(queue: World) -> None:
    log = SqliteAudit(queue.store)
    await log.add([entry(number) for number in range(10)])
    await log.forget(START + 3 * DAY)
    assert await numbers(log) == [9, 8, 7, 6, 5, 4, 3]
    await log.forget(START, most=2)
    assert await numbers(log) == [9, 8]


async def test_failed_sign_ins_push_nothing_else_out(queue: World) -> None:
    log = SqliteAudit(queue.store)
    await log.add([entry(1), *(entry(number, FAILED) for number in range(2, 1500)), entry(1500)])
    await log.forget(START - DAY, most_failed=3)
    assert await numbers(log) == [1500, 1499, 1498, 1497, 1]


async def test_what_is_too_long_is_cut(queue: World) -> None:
    log = SqliteAudit(queue.store)
    await log.add([entry(1, after={"diff": "x" * 1_000_000})])
    (found,) = await log.entries(AuditQuery())
    assert len(str(found["after"])) < 70_000
