"""Locks between the processes of one relay, given back by the kernel when their holder dies, however it dies.

Record locks on the table's file (fcntl(2), F_SETLK): they belong to the process, one byte each. Threads of one process do not keep each
other out: only one thread may use each of them at a time. About 2 µs to take and give one.
"""

import fcntl
from enum import IntEnum

from relay.workers.table import Table

_TRIES = 50


class Byte(IntEnum):
    """Which byte of the file stands for what."""

    QUEUE = 0  # the right to write to the queue
    RATES = 1
    LOG = 2  # the right to write a line that the kernel might not take at once
    DOORS = 3  # the right to say which process gets new connections


class ProcessLock:
    def __init__(self, fd: int, byte: Byte) -> None:
        self._fd, self._byte = fd, int(byte)

    def take(self) -> bool:
        """False where another process has it. Never waits."""
        try:
            fcntl.lockf(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, self._byte)
        except OSError:
            return False
        return True

    def insist(self) -> bool:
        """As `take`, again and again for some hundred microseconds: for what nobody holds for longer than a few."""
        return any(self.take() for _ in range(_TRIES))

    def give(self) -> None:
        fcntl.lockf(self._fd, fcntl.LOCK_UN, 1, self._byte)

    def __enter__(self) -> None:
        """Waits for it: not in the event loop."""
        fcntl.lockf(self._fd, fcntl.LOCK_EX, 1, self._byte)

    def __exit__(self, *_error: object) -> None:
        self.give()


class QueueTurn(ProcessLock):
    """Implements relay.queue.turn.Turn. Edition and doubt are in the table's common page."""

    def __init__(self, table: Table) -> None:
        super().__init__(table.fd, Byte.QUEUE)
        self._common = table.common

    @property
    def edition(self) -> int:
        return self._common[0]

    def new_edition(self) -> None:
        self._common[0] += 1

    @property
    def doubt(self) -> bool:
        return bool(self._common[1])

    def raise_doubt(self) -> None:
        self._common[1] = 1

    def end_doubt(self) -> None:
        self._common[1] = 0
