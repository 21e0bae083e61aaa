"""Locks between processes: one holder at a time, and none that is dead."""

import subprocess
import sys
from collections.abc import Iterator

import pytest

from relay.workers.locks import Byte, ProcessLock, QueueTurn
from relay.workers.table import Table

HOLDER = """
import sys
from relay.workers.locks import Byte, ProcessLock
lock = ProcessLock(int(sys.argv[1]), Byte.QUEUE)
print(lock.take(), flush=True)
sys.stdin.readline()
lock.give()
print("given", flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def table() -> Iterator[Table]:
    made = Table(2)
    yield made
    made.close()


@pytest.fixture
def other(table: Table) -> Iterator["subprocess.Popen[str]"]:
    """Another process of the relay, that holds the right to write."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(table.fd)],
        pass_fds=[table.fd],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "True\n"
    yield process
    process.kill()
    process.communicate()


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
