"""The configuration in force, and how a new one comes into force (design section 4, "Reload").

A file that does not load changes nothing. A change on disk is taken by itself only where it removes or weakens nothing; else it waits, loudly,
for somebody who says `relay reload`. What is taken holds at once: everybody asks `book()` when they decide. Where a relay has several
processes, the first one decides, and the others follow: all of them take it, or none.

Threat: a half-saved file, or a slip of the editor, that opens the relay without anybody having said so.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from relay.admin.reload import Reload
from relay.app.place import InForce
from relay.config.load import ConfigError, Loaded, load_with_places
from relay.config.masking import difference
from relay.config.models import Config
from relay.mail.events import ConfigurationSettled, ConfigurationTaken, ConfigurationWaiting, Emit
from relay.policy.book import RuleBook
from relay.policy.compare import ALL_THE_SAME, AT_RESTART, needs_restart, weakened

Apply = Callable[[Config, Config], Awaitable[None]]
"""Puts the new configuration in force everywhere beside the rule book, given the old and the new one. Raises NotAppliedError,
and has changed nothing then."""


Share = Callable[[InForce, InForce], Awaitable[None]]
"""Has the other processes of the relay follow, given the new and the old one. Raises NotAppliedError, and they have the old one then."""


async def nobody_else(_new: InForce, _old: InForce) -> None:
    """There is one process only."""


Took = Callable[[str], Awaitable[None]]
"""Hears of a change that was taken by itself: its masked diff."""


async def nobody_asks(_diff: str) -> None:
    """There is no audit log."""


class NotAppliedError(Exception):
    """The configuration is sound and cannot be put in force; str() says why and what to do."""


@dataclass(frozen=True, slots=True)
class _Stamp:
    """What tells one state of a file from another without reading it."""

    modified: int
    size: int
    inode: int


class Configuration:
    """`in_force` is what the relay started with. `apply` and `share` are called before a new one is in force; where one raises, the old one
    stays. `took` is told of what is taken by itself."""

    def __init__(
        self,
        file: Path,
        in_force: InForce,
        emit: Emit,
        apply: Apply,
        share: Share = nobody_else,
        took: Took = nobody_asks,
    ) -> None:
        self._file, self._emit, self._apply, self._share, self._took = file, emit, apply, share, took
        self._text = in_force.text
        self._book = RuleBook.of(in_force.config)
        self._files = in_force.files
        self._stamps = _stamps(file, in_force.files)
        if in_force.is_older:
            self._stamps = dict.fromkeys(self._stamps)  # what is on disk now is looked at first
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
            diff = await self._difference(loaded)
            weaker = weakened(self.config, loaded.config)
            restart = _at_restart(self.config, loaded.config)
            changed = loaded.config != self.config
            if dry_run:
                return Reload(taken=True, changed=changed, weaker=weaker, restart=restart, diff=diff)
            try:
                await self._take(loaded, weaker, restart)
            except NotAppliedError as error:
                self._wait((str(error),))  # after a SIGHUP nobody reads the answer
                return Reload(
                    taken=False, changed=changed, weaker=weaker, restart=restart, errors=(str(error),), diff=diff
                )
            return Reload(taken=True, changed=changed, weaker=weaker, restart=restart, diff=diff)

    async def follow(self, config: Config) -> None:
        """Another process of the relay has decided. Raises NotAppliedError."""
        async with self._turn:
            if config != self.config:
                await self._put_in_force(config)

    async def share(self) -> None:
        """Has the other processes follow what is in force here: our predecessor may have died while they were taking another one."""
        async with self._turn:
            ours = InForce(self.config, self._files, text=self._text)
            with suppress(NotAppliedError):  # whoever could not take it is being replaced
                await self._share(ours, ours)

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
                self._wait((*weaker, ALL_THE_SAME))
                return
            diff = await self._difference(loaded)
            try:
                await self._take(loaded, (), _at_restart(self.config, loaded.config))
            except NotAppliedError as error:
                self._wait((str(error),))
                return
            await self._took(diff)

    async def _load(self) -> Loaded:
        loaded = await asyncio.to_thread(load_with_places, self._file)
        self._stamps = self._stamps | {path: _stamp(path) for path in loaded.files if path not in self._stamps}
        return loaded

    async def _difference(self, loaded: Loaded) -> str:
        """Between what is in force and what is on disk. Both load: what does not load has no diff, only errors, since nobody can tell
        where the secrets are in it."""
        return await asyncio.to_thread(difference, self._text, loaded.text)

    async def _take(self, loaded: Loaded, weaker: Sequence[str], restart: tuple[str, ...]) -> None:
        old, new = self.config, loaded.config
        if restart:
            # The rest is taken; these keep what they are until the process is started anew.
            new = new.model_copy(update={key: getattr(old, key) for key in AT_RESTART})
        await self._put_in_force(new)
        try:
            await self._share(InForce(new, loaded.files, text=loaded.text), InForce(old, self._files, text=self._text))
        except BaseException:
            await self._put_in_force(old)
            raise
        self._files, self._text = loaded.files, loaded.text
        self._stamps = _stamps(self._file, loaded.files)
        self._emit(ConfigurationTaken(str(self._file), tuple(weaker)))
        if restart:
            self._wait(restart)
        else:
            self._said = ()

    async def _put_in_force(self, new: Config) -> None:
        """Here. Where it raises, nothing has changed."""
        before = self._book
        self._book = RuleBook.of(new)
        try:
            await self._apply(before.config, new)
        except BaseException:
            self._book = before
            raise

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


def _stamps(file: Path, others: frozenset[Path]) -> dict[Path, _Stamp | None]:
    return {path: _stamp(path) for path in (file, *others)}


def _stamp(path: Path) -> _Stamp | None:
    """None where it cannot be looked at: gone, or not ours to see."""
    try:
        found = path.stat()
    except OSError:
        return None
    return _Stamp(found.st_mtime_ns, found.st_size, found.st_ino)
