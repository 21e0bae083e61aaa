"""The queue's file: whose it is, whether it is still there, and how much room is left beside it.

A lock of its own (flock on NAME.lock) keeps a second relay out. It is not taken on the database: closing any descriptor of that file
would drop the locks that SQLite holds on it.
"""

import contextlib
import fcntl
import os
import socket
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from relay.config.owner import give
from relay.mail.codec import time_text
from relay.queue.store import StoreLocked, StoreUnusable

_PRIVATE = 0o600  # mail is not for other users of the machine
_PIECE = 2**20
BODIES = "-bodies"  # the folder of large ones (bodies.py)
_HYSTERESIS = 20  # mail is taken again with a twentieth more room than the limit, lest it flaps


class Lock:
    """Held from `take` to `release`, or to the process's end, however it ends."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = -1

    def take(self, now: datetime) -> None:
        """Raises StoreLocked, naming the holder, or StoreUnusable where the file cannot be made."""
        try:
            # Not through a symbolic link: root would empty whatever somebody let it lead to.
            descriptor = _open(self._path, os.O_NOFOLLOW)
        except OSError as error:
            raise StoreUnusable(
                f"cannot open {self._path}: {error.strerror}; it and the queue's folder must belong to the relay's user"
            ) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(descriptor, 200, 0).decode("utf-8", "replace").strip() or "another process"
            os.close(descriptor)
            raise StoreLocked(f"the queue is in use by {holder} (lock file {self._path})") from error
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()} since {time_text(now)}\n".encode(), 0)
        self._descriptor = descriptor

    def release(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def beside(path: Path, suffix: str) -> Path:
    """The file that SQLite, or we, keep next to the database: `-wal`, `.lock`."""
    return path.with_name(path.name + suffix)


def create(path: Path) -> None:
    """An empty file that only we can read, where there is none. SQLite gives its -wal and -shm the same mode. Raises StoreUnusable."""
    try:
        os.close(_open(path))
    except OSError as error:
        raise StoreUnusable(
            f"cannot open the queue {path}: {error.strerror}; it must belong to the relay's user"
        ) from error


def _open(path: Path, more: int = 0) -> int:
    """Made where there is none. Raises OSError."""
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | more
    try:
        descriptor = os.open(path, flags | os.O_EXCL, _PRIVATE)
    except FileExistsError:
        return os.open(path, flags, _PRIVATE)
    try:
        give(descriptor, path.parent)
    except OSError:
        os.close(descriptor)
        path.unlink(missing_ok=True)  # else the next start would find root's file, and take it
        raise
    return descriptor


def existing(path: Path) -> str:
    """How SQLite is told to open a file, and to make none where it is gone."""
    return f"{path.absolute().as_uri()}?mode=rw"


def sync_folder(path: Path) -> None:
    """The names of the files beside `path` outlive a power cut. Raises OSError."""
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def room(path: Path) -> int:
    """Bytes that we may still write on the file system that holds `path`. Raises OSError."""
    status = os.statvfs(path)
    return status.f_bavail * status.f_frsize


Identity = tuple[int, int]


def _identity(path: Path) -> Identity | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


class Disk:
    """Watches the files and the room. `limit` in bytes may be changed at any time; `pause`: seconds between two looks."""

    def __init__(self, path: Path, limit: int, probe: Callable[[Path], int] = room, pause: float = 0.0) -> None:
        self.path = path
        self.limit = limit
        self.pause = pause
        self._probe = probe
        self._short = False
        self._wal = beside(path, "-wal")
        self._bodies = beside(path, BODIES)
        self._files: dict[Path, Identity] = {}
        self._log = -1

    def free(self) -> int:
        """Bytes left, 0 where that cannot be told: where large bodies have a file system of their own, on the fuller of the two."""
        return self._least()[0]

    def _least(self) -> tuple[int, str]:
        """And where that is."""
        beside_it = f"beside {self.path}"
        try:
            free = self._probe(self.path.parent)
        except OSError:
            return 0, beside_it
        with contextlib.suppress(OSError):  # whoever writes to it tells that it is gone
            elsewhere = self._probe(self._bodies)
            if elsewhere < free:
                return elsewhere, f"in {self._bodies}"
        return free, beside_it

    def shortage(self) -> str:
        """Why mail must not be taken: less room than `limit` ("" while there is enough)."""
        free, where = self._least()
        wanted = self.limit + self.limit // _HYSTERESIS if self._short else self.limit
        self._short = free < wanted
        return f"{free} bytes left {where}, limits.free_space is {self.limit}" if self._short else ""

    def note(self) -> None:
        """The files that are there now are the ones that the open database writes to. Raises OSError."""
        found = {path: _identity(path) for path in (self.path, self._wal)}
        self._files = {path: identity for path, identity in found.items() if identity is not None}
        self.close()
        # SQLite keeps its locks on the other two files: a descriptor of the log may be closed.
        self._log = os.open(self._wal, os.O_RDWR | os.O_CLOEXEC)
        sync_folder(self.path)

    def sync(self) -> None:
        """Returns when all that was committed is on the disk. Raises OSError."""
        os.fdatasync(self._log)

    def write_again(self) -> None:
        """The whole log, as it reads now, goes to the disk once more. Only while nobody else writes to it. Raises OSError.

        Threat: where a sync fails the kernel forgets that those pages were to be written, and says so once to each who has the file open
        then. The next sync succeeds without them, and so does every sync of a process that opens the file later.
        """
        offset = 0
        while data := os.pread(self._log, _PIECE, offset):
            offset += os.pwrite(self._log, data, offset)
        self.sync()

    def close(self) -> None:
        if self._log >= 0:
            os.close(self._log)
            self._log = -1

    def loss(self) -> str:
        """Why what we write would not be found again: a file was removed, renamed or replaced under us ("" if none was).

        SQLite does not notice: it goes on writing to a file that has no name any more.
        """
        for path, identity in self._files.items():
            found = _identity(path)
            if found is None:
                return f"{path} is gone"
            if found != identity:
                return f"{path} was replaced by another file"
        return ""

    @property
    def is_replaced(self) -> bool:
        """True where another database now has our name."""
        found = _identity(self.path)
        return found is not None and self.path in self._files and found != self._files[self.path]
