"""Locks between processes: one holder at a time, and none that is dead."""

import subprocess
from collections.abc import Iterator

import pytest

from relay.workers.locks import Byte, ProcessLock, QueueTurn
from relay.workers.table import Table
from tests.unit.workers.holder import holding


@pytest.fixture
def table() -> Iterator[Table]:
    made = Table(2)
    yield made
    made.close()


@pytest.fixture
def other(table: Table) -> Iterator["subprocess.Popen[str]"]:
    """Another process of the relay, that holds the right to write."""
    with holding(table, Byte.QUEUE) as process:
        yield process


def test_a_lock_is_waited_for_by_asking(table: Table, other: "subprocess.Popen[str]") -> None:
    turn = QueueTurn(table)
    assert not turn.take()
    assert ProcessLock(table.fd, Byte.RATES).take()  # another one
    assert other.stdin is not None
    assert other.stdout is not None
    other.stdin.write("\n")
    other.stdin.flush()
    assert other.stdout.readline() == "given\n"
    assert turn.take()
    turn.give()


def test_the_kernel_gives_back_what_the_dead_held(table: Table, other: "subprocess.Popen[str]") -> None:
    turn = QueueTurn(table)
    assert not turn.take()
    other.kill()
    other.wait()
    assert turn.take()


def test_one_that_is_held_for_long_is_not_insisted_on(table: Table, other: "subprocess.Popen[str]") -> None:
    turn = QueueTurn(table)
    assert not turn.insist()
    other.kill()
    other.wait()
    assert turn.insist()
    turn.give()


def test_a_thread_may_wait_for_one(table: Table, other: "subprocess.Popen[str]") -> None:
    assert other.stdin is not None
    other.stdin.write("\n")
    other.stdin.flush()
    with ProcessLock(table.fd, Byte.QUEUE):
        pass


def test_editions_are_seen_by_all(table: Table) -> None:
    one, two = QueueTurn(table), QueueTurn(table)
    assert one.edition == two.edition == 0
    one.new_edition()
    assert two.edition == 1


def test_doubt_is_seen_by_all(table: Table) -> None:
    one, two = QueueTurn(table), QueueTurn(table)
    one.raise_doubt()
    two.raise_doubt()
    assert one.doubt
    two.end_doubt()
    assert not one.doubt
