"""When a process that serves stops interrupting others, and when it leaves that alone."""

import asyncio
import os
import threading
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest

from relay.app.pace import Load, follow_load, pace, set_batch

pytestmark = pytest.mark.skipif(
    not hasattr(os, "SCHED_BATCH"), reason="Linux's alone: elsewhere there is nothing to change"
)


@pytest.mark.parametrize(
    ("shares", "busy"),
    [
        ([0.0], False),
        ([0.1], False),
        ([0.13], True),
        ([1.4], True),
        ([0.13, 0.07], True),  # what varies about one figure changes nothing
        ([0.13, 0.05], False),
        ([0.13, 0.05, 0.1], False),
    ],
)
def test_from_which_load_on_a_process_is_busy(shares: list[float], busy: bool) -> None:
    load = Load()
    for share in shares:
        load = load.after(share, 20)
    assert load.is_busy is busy


def test_a_client_that_sends_one_message_after_another_is_no_load() -> None:
    """It waits for each step, however fast it is: beside a busy program it would wait for that one's turns."""
    assert not Load().after(0.9, 3).is_busy
    assert Load().after(0.9, 4).is_busy


def test_a_crowd_is_not_gone_because_one_look_found_few() -> None:
    load, looks = Load().after(0.9, 20), 0
    while load.is_busy:
        load, looks = load.after(0.9, 1), looks + 1
    assert looks == 10
    assert not load.after(0.9, 1).is_busy
    assert load.after(0.9, 20).is_busy


@pytest.fixture
def usual() -> Iterator[None]:
    yield
    assert set_batch(False)


def of_all_threads() -> set[int]:
    return {os.sched_getscheduler(int(each.name)) for each in Path("/proc/self/task").iterdir()}


@pytest.mark.usefixtures("usual")
def test_it_holds_for_all_threads_and_for_those_to_come() -> None:
    over = threading.Event()
    threads = [threading.Thread(target=over.wait) for _ in range(2)]
    threads[0].start()
    assert set_batch(True)
    threads[1].start()
    try:
        assert of_all_threads() == {os.SCHED_BATCH}
        assert set_batch(False)
        assert of_all_threads() == {os.SCHED_OTHER}
    finally:
        over.set()
        for each in threads:
            each.join()


class Uses:
    """A process that used so much of a processor between two looks."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *shares: float) -> None:
        clock, used, rest = count(1.0), 0.0, iter(shares)
        self.looked_all = asyncio.Event()

        def used_so_far() -> float:
            nonlocal used
            share = next(rest, None)
            if share is None:
                self.looked_all.set()
            used += share or 0.0
            return used

        monkeypatch.setattr("relay.app.pace.monotonic", lambda: next(clock))
        monkeypatch.setattr("relay.app.pace.process_time", used_so_far)
        monkeypatch.setattr("relay.app.pace._LOOK", 0.0)


async def test_the_policy_changes_with_the_load_and_not_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    uses, told = Uses(monkeypatch, 0.0, 0.01, 0.5, 0.6, 0.08, 0.02, 0.0, 0.3), list[bool]()

    def tell(batch: bool, /) -> bool:
        told.append(batch)
        return True

    task = asyncio.create_task(follow_load(lambda: 20, tell))
    await asyncio.wait_for(uses.looked_all.wait(), 10)
    task.cancel()
    assert told[:3] == [True, False, True]


async def test_where_the_system_forbids_it_nobody_asks_again(monkeypatch: pytest.MonkeyPatch) -> None:
    Uses(monkeypatch, 0.0, 0.5, 0.0, 0.5, 0.0, 0.5)

    asked = 0

    def forbidden(*_arguments: object) -> None:
        nonlocal asked
        asked += 1
        raise PermissionError

    monkeypatch.setattr("os.sched_setscheduler", forbidden)
    await asyncio.wait_for(follow_load(lambda: 20, set_batch), 10)
    assert asked == 1


def test_a_thread_that_ended_meanwhile_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*_arguments: object) -> None:
        raise ProcessLookupError

    monkeypatch.setattr("os.sched_setscheduler", gone)
    assert set_batch(True)


def test_without_proc_there_is_nothing_to_change(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("relay.app.pace._THREADS", tmp_path / "not there")
    assert not set_batch(True)


def _chosen(_pid: int) -> int:
    return os.SCHED_IDLE


def _not_ours_to_ask(_pid: int) -> int:
    raise PermissionError


@pytest.mark.parametrize("answer", [_chosen, _not_ours_to_ask])
async def test_a_policy_that_somebody_chose_or_hides_is_left_alone(
    answer: Callable[[int], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.sched_getscheduler", answer)
    monkeypatch.setattr("os.sched_setscheduler", lambda *_arguments: pytest.fail("it was changed"))
    before = asyncio.all_tasks()
    with pace(lambda: 20):
        assert asyncio.all_tasks() == before
