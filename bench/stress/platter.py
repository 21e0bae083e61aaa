"""What a power cut leaves of files: rebuilt from the record of what was written and what was synced (shim.py).

POSIX promises of a file what was written before its last fsync, and of a folder the names that were there at its last fsync. Anything
later may be there, or not, or in part, in any order. `Platter` follows the record and says what could be on the disk after a cut.
"""

import random
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from bench.stress.shim import Change

_SECTOR = 512


class Cut(StrEnum):
    """What becomes of changes that were not synced."""

    NONE_KEPT = "none kept"
    ALL_KEPT = "all kept"  # as after kill -9
    SOME_KEPT = "some kept, torn, in any order"


@dataclass
class _File:
    """`safe` is on the disk; `loose` are changes since the last sync, in order."""

    safe: bytearray = field(default_factory=bytearray)
    loose: list[Change] = field(default_factory=list)

    def sync(self) -> None:
        for change in self.loose:
            _apply(self.safe, change)
        self.loose.clear()


def _apply(content: bytearray, change: Change) -> None:
    if change.kind == "T":
        del content[change.offset :]
        content.extend(bytes(change.offset - len(content)))
        return
    if change.offset > len(content):
        content.extend(bytes(change.offset - len(content)))
    content[change.offset : change.offset + len(change.data)] = change.data


class Platter:
    """`names`: which files count, and all in folders of such a name; locks and shared memory are not worth rebuilding."""

    def __init__(self, names: Iterable[str]) -> None:
        self._names = frozenset(names)
        self._files: dict[Path, _File] = {}  # as the process sees them
        self._safe_names: dict[Path, _File] = {}  # as the folder on the disk has them
        self._folders: dict[Path, bool] = {}  # that were made, and whether the folder above has their name on the disk

    def follow(self, change: Change) -> None:
        if change.kind == "D":
            kept = {path: file for path, file in self._safe_names.items() if path.parent != change.path}
            self._safe_names = kept | {path: file for path, file in self._files.items() if path.parent == change.path}
            self._folders |= {each: True for each in self._folders if each.parent == change.path}
            return
        if change.kind == "M":
            self._folders[change.path] = False
            return
        if self._names.isdisjoint((change.path.name, change.path.parent.name)):
            return
        match change.kind:
            case "C":
                self._files[change.path] = _File()
            case "U":
                self._files.pop(change.path, None)
            case "R":
                self._files[Path(change.data.decode())] = self._files.pop(change.path)
            case "S":
                self._files[change.path].sync()
            case _:
                self._files[change.path].loose.append(change)

    def after(self, cut: Cut, chance: random.Random) -> dict[Path, bytes]:
        """The files that could be found once the power is back."""
        found = self._after(cut, chance)
        gone = {
            folder
            for folder, is_safe in self._folders.items()
            if not is_safe and (cut is Cut.NONE_KEPT or (cut is Cut.SOME_KEPT and chance.random() < 0.5))
        }
        return {path: content for path, content in found.items() if path.parent not in gone}

    def _after(self, cut: Cut, chance: random.Random) -> dict[Path, bytes]:
        match cut:
            case Cut.NONE_KEPT:
                return {path: bytes(file.safe) for path, file in self._safe_names.items()}
            case Cut.ALL_KEPT:
                return {path: _whole(file) for path, file in self._files.items()}
            case Cut.SOME_KEPT:
                names = dict(self._safe_names)
                for path in {*self._files, *names}:
                    # A name that was made, or taken away, and not synced, may be either way.
                    if self._files.get(path) is not names.get(path) and chance.random() < 0.5:
                        if path in self._files:
                            names[path] = self._files[path]
                        else:
                            del names[path]
                return {path: _torn(file, chance) for path, file in names.items()}


def _whole(file: _File) -> bytes:
    content = bytearray(file.safe)
    for change in file.loose:
        _apply(content, change)
    return bytes(content)


def _torn(file: _File, chance: random.Random) -> bytes:
    content, loose = bytearray(file.safe), list(file.loose)
    chance.shuffle(loose)
    share = chance.choice((0.1, 0.5, 0.9))
    for change in loose:
        if chance.random() > share:
            continue
        if change.kind == "T" or chance.random() < 0.7:
            _apply(content, change)
            continue
        for start in range(0, len(change.data), _SECTOR):
            if chance.random() < 0.5:
                piece = change.data[start : start + _SECTOR]
                _apply(content, Change("W", change.path, change.offset + start, piece, change.end))
    return bytes(content)
