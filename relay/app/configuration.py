"""The configuration in force, and how a new one comes into force (design section 4, "Reload").

A file that does not load changes nothing. A change on disk is taken by itself only where it removes or weakens nothing; else it waits, loudly,
for somebody who says `relay reload`. What is taken holds at once: everybody asks `book()` when they decide.

Threat: a half-saved file, or a slip of the editor, that opens the relay without anybody having said so.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from relay.admin.operations import Reload
from relay.config.load import ConfigError, Loaded, load_with_places
from relay.config.models import Config
from relay.mail.events import ConfigurationSettled, ConfigurationTaken, ConfigurationWaiting, Emit
from relay.policy.book import RuleBook
from relay.policy.compare import AT_RESTART, needs_restart, weakened

Apply = Callable[[Config, Config], Awaitable[None]]
"""Puts the new configuration in force everywhere beside the rule book, given the old and the new one. Raises NotAppliedError,
and has changed nothing then."""


class NotAppliedError(Exception):
    """The configuration is sound and cannot be put in force; str() says why and what to do."""


@dataclass(frozen=True, slots=True)
class _Stamp:
    """What tells one state of a file from another without reading it."""

    modified: int
    size: int
    inode: int


class Configuration:
    """`loaded` is what the relay started with. `apply` is called before a new one is in force; where it raises, the old one stays."""

    def __init__(self, file: Path, loaded: Loaded, emit: Emit, apply: Apply) -> None:
        self._file, self._emit, self._apply = file, emit, apply
        self._book = RuleBook.of(loaded.config)
        self._stamps = _stamps(file, loaded)
        self._said: tuple[str, ...] = ()
        self._turn = asyncio.Lock()

    def book(self) -> RuleBook:
        return self._book

    @property
    def config(self) -> Config:
        return self._book.config

    @property
    def waiting(self) -> tuple[str, ...]:
        """Why the file on disk is not what is in force; empty where it is."""
        return self._said

    async def reload(self, *, dry_run: bool) -> Reload:
        """What `relay reload` does: the file as it is now, whatever it weakens."""
        async with self._turn:
            try:
                loaded = await self._load()
            except ConfigError as error:
                errors = tuple(str(problem) for problem in error.problems)
                if not dry_run:
                    self._wait(errors)
                return Reload(taken=False, changed=True, errors=errors)
            weaker = weakened(self.config, loaded.config)
            restart = _at_restart(self.config, loaded.config)
            changed = loaded.config != self.config
            if dry_run:
                return Reload(taken=True, changed=changed, weaker=weaker, restart=restart)
            try:
                await self._take(loaded, weaker, restart)
            except NotAppliedError as error:
                self._wait((str(error),))  # after a SIGHUP nobody reads the answer
                return Reload(taken=False, changed=changed, weaker=weaker, restart=restart, errors=(str(error),))
            return Reload(taken=True, changed=changed, weaker=weaker, restart=restart)

    async def look(self) -> None:
        """Called every few seconds: takes a changed file if nothing in it is weaker, says once why it does not otherwise."""
        async with self._turn:
            if all(_stamp(path) == stamp for path, stamp in self._stamps.items()):
                return
            # Stamps from before the reading: what is saved meanwhile is seen the next time.
            self._stamps = {path: _stamp(path) for path in self._stamps}
            try:
                loaded = await self._load()
            except ConfigError as error:
                self._wait(tuple(str(problem) for problem in error.problems))
                return
            if loaded.config == self.config:
                self._settle()
                return
            weaker = weakened(self.config, loaded.config)
            if weaker:
                self._wait((*weaker, "say `relay reload` to put it in force all the same"))
                return
            try:
                await self._take(loaded, (), _at_restart(self.config, loaded.config))
            except NotAppliedError as error:
                self._wait((str(error),))

    async def _load(self) -> Loaded:
        loaded = await asyncio.to_thread(load_with_places, self._file)
        self._stamps = self._stamps | {path: _stamp(path) for path in loaded.files if path not in self._stamps}
        return loaded

    async def _take(self, loaded: Loaded, weaker: Sequence[str], restart: tuple[str, ...]) -> None:
        old, new = self.config, loaded.config
        if restart:
            # The rest is taken; these keep what they are until the process is started anew.
            new = new.model_copy(update={key: getattr(old, key) for key in AT_RESTART})
        before = self._book
        self._book = RuleBook.of(new)
        try:
            await self._apply(old, new)
        except BaseException:
            self._book = before
            raise
        self._stamps = _stamps(self._file, loaded)
        self._emit(ConfigurationTaken(str(self._file), tuple(weaker)))
        if restart:
            self._wait(restart)
        else:
            self._said = ()

    def _settle(self) -> None:
        if self._said:
            self._emit(ConfigurationSettled(str(self._file)))
        self._said = ()

    def _wait(self, reasons: tuple[str, ...]) -> None:
        if reasons != self._said:
            self._emit(ConfigurationWaiting(str(self._file), reasons))
        self._said = reasons


def _at_restart(old: Config, new: Config) -> tuple[str, ...]:
    return tuple(f"{text} (takes effect when the relay is started again)" for text in needs_restart(old, new))


def _stamps(file: Path, loaded: Loaded) -> dict[Path, _Stamp | None]:
    return {path: _stamp(path) for path in (file, *loaded.files)}


def _stamp(path: Path) -> _Stamp | None:
    """None where it cannot be looked at: gone, or not ours to see."""
    try:
        found = path.stat()
    except OSError:
        return None
    return _Stamp(found.st_mtime_ns, found.st_size, found.st_ino)
