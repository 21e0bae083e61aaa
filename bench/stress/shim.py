"""Steers shim.c: a process's disk that fills, fails and slows down, and its clock, while it runs; and what it did to its files."""

import mmap
import shutil
import struct
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import IntEnum, IntFlag
from pathlib import Path

_SOURCE = Path(__file__).with_name("shim.c")
_HEAD = struct.Struct("=ciqI")


class Shim:
    """Compiled into `folder`. Its environment makes a process that is started with it misbehave as `control` says.

    `prefix`: how the paths of the files begin that are concerned. Raises RuntimeError where there is no C compiler.
    """

    def __init__(self, folder: Path, prefix: Path, *, record: bool = False) -> None:
        compiler = shutil.which("cc") or shutil.which("gcc")
        if compiler is None:
            raise RuntimeError("no C compiler: install gcc")
        folder.mkdir(parents=True, exist_ok=True)
        library, self.log = folder / "shim.so", folder / "disk.log"
        subprocess.run(
            [compiler, "-O2", "-shared", "-fPIC", "-o", str(library), str(_SOURCE), "-ldl", "-lpthread"], check=True
        )
        self.control = Control(folder / "control")
        self.environment = {
            "LD_PRELOAD": str(library),
            "SHIM_PREFIX": str(prefix),
            "SHIM_CONTROL": str(folder / "control"),
        }
        if record:
            self.log.touch()
            self.environment["SHIM_LOG"] = str(self.log)

    @property
    def recorded(self) -> int:
        """How long the record is now: all that the process has done is before this place."""
        return self.log.stat().st_size


class Kind(IntFlag):
    """What fails."""

    WRITES = 1
    SYNCS = 2
    OPENS = 4


class _Field(IntEnum):
    CLOCK_NS = 0
    FAULT_ERRNO = 1
    FAULT_AFTER = 2
    FAULT_KINDS = 3
    SYNC_DELAY_US = 4
    CHANGES = 5
    FAULTS = 6


class Control:
    """What is in force from the next call on."""

    def __init__(self, path: Path) -> None:
        path.write_bytes(bytes(4096))
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), 4096)

    def _get(self, which: _Field) -> int:
        return int(struct.unpack_from("=q", self._map, which * 8)[0])

    def _set(self, which: _Field, value: int) -> None:
        struct.pack_into("=q", self._map, which * 8, value)

    def clock(self, seconds: float) -> None:
        """The wall clock is so much ahead (below 0: behind). The monotonic clock is not touched."""
        self._set(_Field.CLOCK_NS, int(seconds * 1e9))

    def fail(self, error: int, *, after: int = 0, kinds: Kind = Kind.WRITES) -> None:
        """From the change behind the next `after` ones of these kinds on, all of them fail with this errno, until `heal`."""
        self._set(_Field.FAULT_ERRNO, 0)
        self._set(_Field.FAULT_KINDS, kinds)
        self._set(_Field.FAULT_AFTER, after)
        self._set(_Field.FAULTS, 0)
        self._set(_Field.FAULT_ERRNO, error)

    def heal(self) -> None:
        self._set(_Field.FAULT_ERRNO, 0)

    def slow(self, seconds: float) -> None:
        """Every sync takes so much longer."""
        self._set(_Field.SYNC_DELAY_US, int(seconds * 1e6))

    @property
    def changes(self) -> int:
        """Writes, syncs and new files so far."""
        return self._get(_Field.CHANGES)

    @property
    def faults(self) -> int:
        """How many changes have failed since `fail`."""
        return self._get(_Field.FAULTS)


@dataclass(frozen=True, slots=True)
class Change:
    """One record: what was done to the file `path`. `end` is its place in the record; `path` of D and M is the folder."""

    kind: str
    path: Path
    offset: int
    data: bytes = field(repr=False)
    end: int


def changes(log: Path) -> Iterator[Change]:
    """The record, in order. Renames come as kind R with the new name as data."""
    names: dict[int, Path] = {}
    data = log.read_bytes()
    place = 0
    while place + _HEAD.size <= len(data):
        kind, number, offset, length = _HEAD.unpack_from(data, place)
        place += _HEAD.size
        content = data[place : place + length]
        place += length
        match kind:
            case b"N":
                names[number] = Path(content.decode())
            case b"D" | b"U" | b"M":
                yield Change(kind.decode(), Path(content.decode()), 0, b"", place)
            case b"R":
                old, _, new = content.partition(b"\0")
                yield Change("R", Path(old.decode()), 0, new, place)
            case _:
                yield Change(kind.decode(), names[number], offset, content, place)
