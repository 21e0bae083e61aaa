"""Reads connectors.yaml: `load(path)` gives the configuration, or every error of the file in one go.

Shape is checked by the models, contradictions by `relay.config.rules`, other files by `relay.config.references`. A part whose shape
is wrong is left out and the rest is checked all the same, so that one typing slip does not hide the next error.

Threat: a file that is just being saved. Whatever is in it, nothing but ConfigError comes out, and nothing of it acts.
"""

import os
import stat
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from relay.config.document import Fault, Node, UnreadableError, read
from relay.config.models import Config
from relay.config.problems import ConfigError, Problem, key_text
from relay.config.references import reference_errors
from relay.config.rules import Contradiction, Place, contradictions
from relay.config.shape import ShapeError, shape_errors

__all__ = ["ConfigError", "Loaded", "Problem", "load", "load_text", "load_with_places"]

_Found = Fault | ShapeError | Contradiction

_LARGEST = 4 * 2**20
# These stand in for what is wrong while the rest is checked. Nothing is ever served from them.
_REQUIRED: Mapping[str, Any] = {
    "hostname": "relay.invalid",
    "postmaster": "postmaster@relay.invalid",
    "listeners": [{"address": "127.0.0.1:0", "starttls": "off"}],
}
_ENTRIES: Mapping[str, Callable[[str], dict[str, Any]]] = {
    "listeners": lambda _: {"address": "127.0.0.1:0", "starttls": "off"},
    "connectors": lambda name: {
        "name": name,
        "direction": "inbound",
        "match": {"sender_domains": [f"{name}.invalid"]},
        "require": {"tls": True},
    },
    "exceptions": lambda name: {
        "recipient_domain": f"{name}.invalid",
        "allow": "encryption",
        "until": "2099-12-31",
        "reason": name,
    },
}


@dataclass(frozen=True, slots=True)
class Loaded:
    """A configuration and the file it came from, to say in which line a thing stands.

    `files` are other files whose content became part of it: secrets, recipient lists. `text` may hold secrets (`relay.config.masking`).
    """

    config: Config
    _placer: "_Placer" = field(repr=False)
    files: frozenset[Path] = frozenset()
    text: str = field(default="", repr=False)

    def at(self, place: Place, message: str) -> Problem:
        """`message` about what stands at `place`."""
        return self._placer.problem(Contradiction(place, message))


def load(path: Path, *, environment: Mapping[str, str] | None = None) -> Config:
    """The configuration in `path`. Raises ConfigError, and nothing else. `environment` is the process's unless given.

    Blocks: it reads this file and those that it names. A large file takes seconds.
    """
    return load_with_places(path, environment=environment).config


def load_with_places(path: Path, *, environment: Mapping[str, str] | None = None) -> Loaded:
    """`load`, for a caller that has more to say about places in the file."""
    return load_text(file_text(path), path, environment=environment)


def load_text(text: str, path: Path, *, environment: Mapping[str, str] | None = None) -> Loaded:
    """The same for a text that is, or shall be, in `path`: errors name it, and paths are relative to its folder."""
    try:
        root, faults = read(text, os.environ if environment is None else environment)
    except UnreadableError as error:
        raise _Placer(str(path), Node(1, 1)).error([error.fault]) from None
    placer = _Placer(str(path), root)
    if not isinstance(root.content, dict):
        empty = root.content is None
        message = (
            "the file is empty" if empty else "this must be a mapping of `key: value` lines, beginning with `hostname:`"
        )
        raise placer.error([*faults, Fault(root.line, root.column, message)])
    files: set[Path] = set()
    config = _checked(root, faults, placer, {"base": path.parent, "files": files})
    return Loaded(config, placer, frozenset(files), text)


def _checked(root: Node, faults: Sequence[Fault], placer: "_Placer", context: Mapping[str, Any]) -> Config:
    found: list[_Found] = list(faults)
    told = frozenset(fault.place for fault in faults)
    data = root.plain()
    gone: frozenset[str] = frozenset()
    damaged: frozenset[str] = frozenset()
    try:
        config = Config.model_validate(data, context=dict(context))
    except ValidationError as error:
        details = error.errors(include_url=False, include_input=False)
        shapes = tuple(each for each in shape_errors(details, root) if not _is_under(each.place, told))
        found.extend(shapes)
        gone, damaged = _stand_in(data, [each["loc"] for each in details])
        try:
            config = Config.model_validate(data, context=dict(context))
        except ValidationError:
            raise placer.error(found) from None  # nothing sound is left to compare
    for each in (*contradictions(config), *reference_errors(config, datetime.now(UTC))):
        compared = each.place[0] in gone or bool(damaged.intersection(each.against))
        if not compared and not _is_under(each.place, told):
            found.append(each)
    if found:
        raise placer.error(found)
    return config


def _is_under(place: Place, told: frozenset[Place]) -> bool:
    """True where a fault already says what is wrong there, or around it."""
    return any(place[:length] in told for length in range(1, len(place) + 1))


def _stand_in(data: dict[str, Any], places: Iterable[Sequence[str | int]]) -> tuple[frozenset[str], frozenset[str]]:
    """Puts harmless values in the place of what has errors, so that the rest can be compared. Positions in lists stay.

    Returns the top-level keys that are gone as a whole, and those of which at least a part is.
    """
    gone: set[str] = set()
    damaged: set[str] = set()
    for place in places:
        head = str(place[0])
        entries = data.get(head)
        damaged.add(head)
        if head in _ENTRIES and len(place) > 1 and isinstance(entries, list):
            position = int(place[1])
            entries[position] = _ENTRIES[head](f"stand-in-{position}")
        else:
            data.pop(head, None)
            gone.add(head)
    data.update({key: value for key, value in _REQUIRED.items() if key not in data})
    return frozenset(gone), frozenset(damaged)


class _Placer:
    """Finds the lines of places in the tree."""

    def __init__(self, file: str, root: Node) -> None:
        self._file = file
        self._root = root
        self._names = _connector_names(root)

    def error(self, found: Iterable[_Found]) -> ConfigError:
        return ConfigError(tuple(dict.fromkeys(self.problem(each) for each in found)))

    def problem(self, found: _Found) -> Problem:
        key = key_text(found.place, self._names)
        if isinstance(found, Fault):
            return Problem(self._file, found.line, found.column, key, found.message)
        line, column = self._mark(found.place)
        if isinstance(found, ShapeError):
            return Problem(self._file, line, column, key, found.message, found.allowed, found.meant)
        return Problem(self._file, line, column, key, found.text)

    def _mark(self, place: Place) -> tuple[int, int]:
        """Where the key stands, or the entry of a list; for a key that is not there, the nearest thing around it."""
        node = self._root
        mark = (node.line, node.column)
        for part in place:
            child = node.child(part)
            if child is None:
                break
            mark = node.keys[part] if isinstance(part, str) else (child.line, child.column)
            node = child
        return mark


def _connector_names(root: Node) -> dict[int, str]:
    connectors = root.child("connectors")
    names: dict[int, str] = {}
    if connectors is not None and isinstance(connectors.content, list):
        for position, each in enumerate(connectors.content):
            name = each.child("name")
            if name is not None and isinstance(name.content, str) and not name.reference:
                names[position] = name.content[:64]
    return names


def file_text(path: Path) -> str:
    """The text of the file. Raises ConfigError where it cannot be read, or changes while it is."""

    def problem(message: str, line: int = 0, column: int = 0) -> ConfigError:
        return ConfigError([Problem(str(path), line, column, "", message)])

    try:
        # A FIFO or a device would hold up the start, or never end.
        if not stat.S_ISREG(path.stat().st_mode):
            raise problem("this is not a regular file")
        with path.open("rb") as file:
            before = os.fstat(file.fileno())
            data = file.read(_LARGEST + 1)
            after = os.fstat(file.fileno())
    except FileNotFoundError:
        raise problem("this file does not exist: `relay init` writes one to start from") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise problem(f"the file cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if (before.st_mtime_ns, before.st_size) != (after.st_mtime_ns, after.st_size):
        raise problem("the file changed while it was read: it is being saved, try again")
    if len(data) > _LARGEST:
        raise problem(f"the file is larger than {_LARGEST // 2**20} MiB")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before_it = data[: error.start]
        line = before_it.count(b"\n") + 1
        raise problem("the file is not UTF-8 text", line, len(before_it) - before_it.rfind(b"\n")) from None
