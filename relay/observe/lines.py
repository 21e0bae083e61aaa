"""Lines to a file descriptor, without ever making the mail wait for whoever reads them.

One thread per writer does the blocking writes. What waits is bounded in bytes: when the reader (a full disk, a stuck pipe) is too slow,
the newest lines are dropped and counted, and one line says how many once there is room again. A kill -9 loses at most
the last `_GATHER` seconds of lines; the queue, not the log, is the record that must not lose anything.
"""

import os
import select
import threading
from collections.abc import Callable

_GATHER = 0.02  # seconds: lines wait this long for company, so that a busy relay wakes the thread 50 times a second and not 5,000
_LIMIT = 8 * 2**20


class LineWriter:
    """`write` may be called from any thread. `notice(n)` makes the line that says that n lines were dropped."""

    def __init__(self, fd: int, *, notice: Callable[[int], bytes], limit: int = _LIMIT) -> None:
        self.dropped = 0
        self._fd = fd
        self._notice = notice
        self._limit = limit
        self._lock = threading.Lock()
        self._lines: list[bytes] = []
        self._waiting = 0  # bytes in `_lines` and in the write that is running
        self._untold = 0
        self._some = threading.Event()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()

    def write(self, line: bytes) -> None:
        """Take one line, its newline included. Never blocks on the reader; never raises."""
        with self._lock:
            if self._waiting + len(line) > self._limit or self._closing.is_set():
                self.dropped += 1
                self._untold += 1
                return
            self._waiting += len(line)
            self._lines.append(line)
            first = len(self._lines) == 1
        if first:
            self._some.set()

    def close(self, timeout: float = 2.0) -> None:
        """Write out what waits, for at most `timeout` seconds: a reader that is stuck does not hold up the end of the process."""
        with self._lock:
            self._closing.set()
        self._some.set()
        self._thread.join(timeout)

    def _run(self) -> None:
        alive = True
        while alive:
            self._some.wait()
            self._closing.wait(_GATHER)
            alive = not self._closing.is_set()
            self._some.clear()
            self._flush()

    def _flush(self) -> None:
        with self._lock:
            lines, self._lines = self._lines, []
            untold, self._untold = self._untold, 0
        block = b"".join(lines)
        try:
            _write_all(self._fd, block + self._notice(untold) if untold else block)
        except OSError:
            # The reader is gone (a closed pipe, a full disk). There is nowhere left to say so but the counter.
            with self._lock:
                self.dropped += len(lines)
                self._untold += len(lines) + untold
        finally:
            with self._lock:
                self._waiting -= len(block)


def _write_all(fd: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        try:
            rest = rest[os.write(fd, rest) :]
        except BlockingIOError:  # somebody made our standard output non-blocking
            select.select([], [fd], [])
