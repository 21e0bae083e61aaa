import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from relay.queue import writer
from relay.queue.disk import Disk
from tests.unit.queue.world import SlowDisk, World, world


@pytest.fixture
async def queue(tmp_path: Path) -> AsyncIterator[World]:
    """An open queue with its scheduler running."""
    async with world(tmp_path / "queue.db") as made:
        yield made


@pytest.fixture
def disk(queue: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[SlowDisk]:
    """Freed before the queue is closed."""
    made = SlowDisk()
    monkeypatch.setattr(Disk, "sync", lambda _self: made.sync())
    monkeypatch.setattr(writer, "_RETRY", 0.02)
    yield made
    made.free.set()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 3 MiB of its own, or the reason why there is none."""
    mount = shutil.which("mount")
    folder = tmp_path / "small"
    folder.mkdir()
    if mount is None or os.geteuid() != 0:
        pytest.skip("needs root, to mount a small file system")
    done = subprocess.run([mount, "-t", "tmpfs", "-o", "size=3m", "none", str(folder)], capture_output=True)
    if done.returncode:
        pytest.skip(f"cannot mount a small file system: {done.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)
