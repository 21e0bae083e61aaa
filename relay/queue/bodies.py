"""The folder of large bodies beside the queue's database: a file for each, named by its message's number.

Says where a body is, reads it, lists and removes. Whether a message's bytes are in a file says its row (schema.py, `body_file`), never that
there is one. How a body gets there is arriving.py's.

Two who must not meet: who removes files, and who copies the queue (copies.py) with the bodies that its rows name. The first hold the folder's
lock together, the second alone; the kernel gives it back where its holder dies.
"""

import contextlib
import fcntl
import os
import stat
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from relay.config.owner import give
from relay.queue.disk import BODIES, beside, sync_folder
from relay.queue.ids import name_of, row_of
from relay.queue.store import CHUNK, BodyMissing, StoreUnusable

PRIVATE = 0o600  # mail is not for other users of the machine
_PRIVATE_FOLDER = 0o700
_PATIENCE = 10.0  # seconds that a copy waits for those who remove files
_AGAIN = 0.01
_PROBE = b"\0" * 64 * 1024


class BodyFolder:
    """That of the queue whose database is `database`. Every method waits for the disk, but `file` and `removing`."""

    def __init__(self, database: Path) -> None:
        self.path = beside(database, BODIES)

    def file(self, row: int) -> Path:
        return self.path / name_of(row)

    def prepare(self, needed: int) -> None:
        """Makes it where it is not there and no message needs it. Raises StoreUnusable, which says what to do."""
        try:
            if not os.path.lexists(self.path):
                if needed:
                    raise StoreUnusable(
                        f"{self.path} is gone, which has the bytes of {needed} messages: put it back. Where it is lost, "
                        f"make an empty one (as the relay's user: mkdir -m 0700 {self.path}); `relay store check` then names them"
                    )
                self._make()
            if not stat.S_ISDIR(self.path.lstat().st_mode):
                raise StoreUnusable(f"{self.path} must be a folder, which the relay makes by itself: move it away")
        except OSError as error:
            raise StoreUnusable(
                f"cannot make {self.path}: {error.strerror}; the queue's folder must belong to the relay's user"
            ) from error
        if not os.access(self.path, os.R_OK | os.W_OK | os.X_OK):
            raise StoreUnusable(f"cannot write to {self.path}: it must belong to the relay's user (chown, chmod 0700)")

    def _make(self) -> None:
        with contextlib.suppress(FileExistsError):  # another process of this relay was quicker
            self.path.mkdir(_PRIVATE_FOLDER)
        descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            give(descriptor, self.path.parent)
        finally:
            os.close(descriptor)
        sync_folder(self.path)

    def rows(self) -> Iterator[int]:
        """The messages of which there are files. None where there is no folder. Raises OSError."""
        with contextlib.suppress(FileNotFoundError), os.scandir(self.path) as found:
            yield from (row for each in found if (row := row_of(each.name)) is not None)

    def size(self, row: int) -> int | None:
        """Of the file; None where there is none. Raises OSError."""
        try:
            return self.file(row).stat().st_size
        except FileNotFoundError:
            return None

    def age(self, row: int, now: float) -> float:
        """Seconds since it was last written to; 0 where it is gone. `now` in seconds since 1970."""
        try:
            return now - self.file(row).stat().st_mtime
        except OSError:
            return 0.0

    def open(self, row: int, size: int) -> int:
        """A descriptor of a whole body. Raises BodyMissing, OSError."""
        path = self.file(row)
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError as error:
            raise BodyMissing(f"{path} is not there") from error
        found = os.fstat(descriptor).st_size
        if found != size:
            os.close(descriptor)
            raise BodyMissing(f"{path} has {found} bytes of {size}")
        return descriptor

    def pieces(self, row: int, size: int) -> Iterator[bytes]:
        """A whole body, in chunks. Raises BodyMissing, OSError."""
        descriptor = self.open(row, size)
        try:
            while data := os.read(descriptor, CHUNK):
                yield data
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self.file(row))) from error
        finally:
            os.close(descriptor)

    def remove(self, rows: Iterable[int]) -> None:
        """What cannot be removed is left to the next start."""
        for row in rows:
            with contextlib.suppress(OSError):
                self.file(row).unlink()

    def probe(self, slot: int) -> None:
        """Writes a small file in earnest. Raises OSError while that cannot be done."""
        path = self.path / f"probe-{slot}"
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, PRIVATE)
            try:
                rest = memoryview(_PROBE)
                while rest:
                    rest = rest[os.write(descriptor, rest) :]
                os.fdatasync(descriptor)
            finally:
                os.close(descriptor)
            self.sync()
            sync_folder(self.path)  # somebody may have made the folder anew, or put it back
        finally:
            path.unlink(missing_ok=True)

    def sync(self) -> None:
        """The names in it outlive a power cut. Raises OSError."""
        sync_folder(self.path / "any")

    @contextmanager
    def removing(self) -> Iterator[bool]:
        """Around the removal of files that a message had. False while a copy is being made: another time, then."""
        with self._locked() as descriptor:
            try:
                if descriptor >= 0:
                    fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except OSError:
                yield False
            else:
                yield True

    @contextmanager
    def copying(self) -> Iterator[None]:
        """No file that a message had is removed meanwhile. Raises StoreUnusable where somebody else copies, or removes for as long."""
        with self._locked() as descriptor:
            end = time.monotonic() + _PATIENCE
            while descriptor >= 0:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except OSError as error:
                    if time.monotonic() > end:
                        raise StoreUnusable(
                            f"another copy of {self.path} is being made (or its disk hangs): wait for its end"
                        ) from error
                time.sleep(_AGAIN)
            yield

    @contextmanager
    def _locked(self) -> Iterator[int]:
        """A descriptor of the folder, -1 where there is none."""
        try:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            descriptor = -1
        try:
            yield descriptor
        finally:
            if descriptor >= 0:
                os.close(descriptor)
