"""Certificates in a running relay: ours followed on disk, partners' noticed, ends announced in time, all of them told to who asks.

New ones of ours are shown from the next handshake on, troubles are said once.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from relay.app.expiry import ExpiryWatch
from relay.app.partners_seen import PartnersSeen
from relay.config.certificates import CertificateFiles, Problem
from relay.config.models import Config
from relay.mail.codec import time_text
from relay.mail.events import CertificatesLoaded, CertificateTrouble, Emit, Event
from relay.mail.seen import SeenCertificate
from relay.policy.expiry import days_left, verifies
from relay.policy.holdings import holding_json, seen_json
from relay.policy.sheet import Sheet
from relay.queue.seen import SqliteSeen
from relay.queue.sqlite import SqliteStore
from relay.queue.store import StoreUnavailable
from relay.report.sheet import sheet_html, sheet_json
from relay.tls.inventory import holdings, worse
from relay.tls.keyring import Keyring
from relay.tls.sheets import sheets

Json = dict[str, Any]
FLUSH = timedelta(seconds=10)


class Certificates:
    """All about certificates that a relay does beside its mail. Every process follows the folder and notices partners' certificates, the
    one that `leads` speaks of both."""

    def __init__(
        self,
        keyring: Keyring | None,
        store: SqliteStore,
        *,
        config: Callable[[], Config],
        emit: Emit,
        clock: Callable[[], datetime],
        leads: bool,
    ) -> None:
        self._keyring, self._config, self._clock, self._leads = keyring, config, clock, leads
        keeper = self._keeper = SqliteSeen(store)
        self._seen = PartnersSeen(keeper)
        self._expiry = ExpiryWatch(keyring, keeper, config=config, emit=emit, clock=clock)
        folder = config().certificates
        self._watch = None
        if keyring is not None and folder is not None:
            self._watch = CertificateWatch(
                keyring, folder, config=config, emit=emit if leads else _ignore, clock=clock, compares=leads
            )
        self._flushed = clock()

    def hear(self, event: Event) -> None:
        """An observer of what SHOWS_CERTIFICATES."""
        self._seen.hear(event)

    def start(self) -> None:
        if self._watch is not None:
            self._watch.start()

    async def look(self) -> None:
        """Every few seconds."""
        if self._watch is not None:
            await self._watch.look()
        now = self._clock()
        if not self._flushed <= now < self._flushed + FLUSH:
            self._flushed = now
            await self.flush()
        if self._leads:
            await self._expiry.look()

    async def flush(self) -> None:
        """What was noticed is written, where the store takes it."""
        with suppress(StoreUnavailable):
            await self._seen.flush()

    # For operators.

    def days_left(self) -> Mapping[str, float]:
        """Of ours, by name."""
        ours = self._keyring.certificates if self._keyring is not None else ()
        return {each.name: days_left(each.not_after, self._clock()) for each in ours}

    @property
    def partners(self) -> Sequence[SeenCertificate] | None:
        """What partners showed, as it was read last; None where nothing has been read."""
        return self._expiry.partners

    def partner_days(self) -> Mapping[str, float]:
        """Days until the first certificate ends, by connector that verifies its partner."""
        return self._expiry.partner_days()

    async def listed(self) -> Json:
        """{at, ours: [...], partners: [...]}: what is in use, waits or is in trouble, and what partners showed last. Raises StoreUnavailable."""
        await self.flush()
        now, config, keyring = self._clock(), self._config(), self._keyring
        ours = await asyncio.to_thread(holdings, config, keyring, now) if keyring is not None else ()
        seen = await self._keeper.all()
        return {
            "at": time_text(now),
            "ours": [holding_json(each, now) for each in ours],
            "partners": [
                seen_json(each, now, verified=verifies(config, each.spot.direction, each.spot.connector))
                for each in seen
            ],
        }

    async def sheets(self, name: str) -> list[Json] | None:
        """The partner sheets of all of ours, or of one; None where there is none of that name."""
        found = await self._sheets(name)
        return [sheet_json(each) for each in found] if found or not name else None

    async def page(self, name: str) -> bytes | None:
        """The partner sheet of one of ours as HTML; None where there is none of that name."""
        found = await self._sheets(name)
        return (await asyncio.to_thread(sheet_html, found[0])).encode() if found else None

    async def _sheets(self, name: str) -> list[Sheet]:
        now, config, keyring = self._clock(), self._config(), self._keyring
        found = await asyncio.to_thread(sheets, config, keyring, now) if keyring is not None else ()
        return [each for each in found if name in ("", each.name)]


def _ignore(_event: Event) -> None:
    """Another worker tells of it."""


class CertificateWatch:
    """`look` is called every few seconds, `start` once before. `compares`: what is worse about a renewed pair is told too."""

    def __init__(
        self,
        keyring: Keyring,
        folder: Path,
        *,
        config: Callable[[], Config],
        emit: Emit,
        clock: Callable[[], datetime],
        compares: bool,
    ) -> None:
        self._keyring, self._folder = keyring, folder
        self._config, self._emit, self._clock, self._compares = config, emit, clock, compares
        self._seen = _listing(folder)
        self._found: tuple[Problem, ...] = keyring.problems
        self._doubted = self._said = frozenset[Problem]()

    def start(self) -> None:
        self._emit(CertificatesLoaded(tuple(each.name for each in self._keyring.certificates)))
        self._doubted = frozenset(self._found)
        self._complain()

    async def look(self) -> None:
        listing = _listing(self._folder)
        waits = self._keyring.waits_until
        if listing != self._seen or (waits is not None and self._clock() >= waits):
            self._seen = listing
            before = {each.name: each for each in self._keyring.certificates}
            changes = self._keyring.reload()
            self._found = tuple(dict.fromkeys((*self._keyring.problems, *changes.kept)))
            if changes.any:
                self._emit(CertificatesLoaded(tuple(each.name for each in self._keyring.certificates)))
            after = {each.name: each for each in self._keyring.certificates}
            for name in changes.replaced if self._compares else ():
                await self._compare(before[name], after[name])
        self._complain()

    async def _compare(self, before: CertificateFiles, after: CertificateFiles) -> None:
        """A renewal is used whatever it lost: a missing intermediate, a name. It may be meant, and the old one ends. But it is said."""
        for each in await asyncio.to_thread(worse, before, after, self._config(), self._clock()):
            remedy = f"; {each.remedy}" if each.remedy else ""
            self._emit(CertificateTrouble(after.name, f"{after.name}.pem is in use, and {each.text}{remedy}"))

    def _complain(self) -> None:
        """Each problem once, and again when it comes back; not before it is there at two looks, for a renewal takes a moment: the key is there,
        the certificate not yet."""
        for problem in self._found:
            if problem in self._doubted and problem not in self._said:
                self._emit(CertificateTrouble(problem.file.stem, str(problem)))
        found = frozenset(self._found)
        self._said = found & (self._said | self._doubted)
        self._doubted = found


def _listing(folder: Path) -> frozenset[tuple[str, int, int, int, int]]:
    """Names, times, sizes and rights of what is in the folder; empty where it cannot be read (the keyring says why). Links are followed,
    so that what they lead to may be exchanged too (certbot's `live`, the `..data` of a Kubernetes secret)."""
    try:
        entries = list(folder.iterdir())
    except OSError:
        return frozenset()
    found = set()
    for entry in entries:
        try:
            status = entry.stat()
        except OSError:
            continue
        # A change of owner or mode alone changes st_ctime: a key that can be read no more should be told before the next start.
        found.add((entry.name, status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino))
    return frozenset(found)
