"""Lines to a file descriptor, without ever making the mail wait for whoever reads them.

One thread per writer does the blocking writes. What waits is bounded in bytes: when the reader (a full disk, a stuck pipe) is too slow,
the newest lines are dropped and counted, and one line says how many once there is room again. A kill -9 loses at most
the last `_GATHER` seconds of lines; the queue, not the log, is the record that must not lose anything.

Where several processes write to one descriptor, lines stay whole: a block goes out under a lock, and to a pipe in pieces of whole lines that
the kernel takes at once (PIPE_BUF, pipe(7)), so that not even a kill -9 in the middle leaves half a line.
"""

import os
import select
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext

_GATHER = 0.02  # seconds: lines wait this long for company, so that a busy relay wakes the thread 50 times a second and not 5,000
_LIMIT = 8 * 2**20
PIPE_BUF = select.PIPE_BUF


class LineWriter:
    """`write` may be called from any thread. `notice(n)` makes the line that says that n lines were dropped.

    `lock` keeps the other processes out that write to the same descriptor; None where there are none.
    """

    def __init__(
        self,
        fd: int,
        *,
        notice: Callable[[int], bytes],
        limit: int = _LIMIT,
        lock: AbstractContextManager[object] | None = None,
    ) -> None:
        self.dropped = 0
        self._alone: AbstractContextManager[object] = nullcontext() if lock is None else lock
        self._piece = PIPE_BUF if lock is not None and _is_pipe(fd) else 0
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
            with self._alone:
                for piece in pieces(lines, self._piece) if self._piece else (block,):
                    _write_all(self._fd, piece)
                if untold:
                    _write_all(self._fd, self._notice(untold))
        except OSError:
            # The reader is gone (a closed pipe, a full disk). There is nowhere left to say so but the counter.
            with self._lock:
                self.dropped += len(lines)
                self._untold += len(lines) + untold
        finally:
            with self._lock:
                self._waiting -= len(block)


def pieces(lines: list[bytes], size: int) -> Iterator[bytes]:
    """The lines in pieces of at most `size` bytes; one that is longer by itself is a piece of its own."""
    piece: list[bytes] = []
    length = 0
    for line in lines:
        if piece and length + len(line) > size:
            yield b"".join(piece)
            piece, length = [], 0
        piece.append(line)
        length += len(line)
    if piece:
        yield b"".join(piece)


def _is_pipe(fd: int) -> bool:
    """Or a socket, as journald's: both take what is written in parts when they are full."""
    mode = os.fstat(fd).st_mode
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)


def _write_all(fd: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        try:
            rest = rest[os.write(fd, rest) :]
        except BlockingIOError:  # somebody made our standard output non-blocking
            select.select([], [fd], [])
