"""What others publish, kept in the store over restarts and for the relay's other processes: MTA-STS policies, CRLs, OCSP answers.

Nobody waits for them as for mail: where the store is in trouble they are asked for anew.
"""

import contextlib
from collections.abc import Callable
from datetime import datetime
from functools import partial

from relay.mail.published import StsKept, StsUnknown
from relay.mail.revocation import RevocationKept
from relay.queue import policies, revocations
from relay.queue.ids import milliseconds
from relay.queue.sqlite import SqliteStore
from relay.queue.store import StoreUnavailable
from relay.queue.work import KeepPolicy


class SqlitePolicies:
    """Implements relay.dns.sts.StsKeeper."""

    def __init__(self, store: SqliteStore) -> None:
        self._store = store

    async def load_sts(self, domain: str) -> StsKept | StsUnknown | None:
        try:
            return await self._store.look_up(partial(policies.load, domain=domain))
        except StoreUnavailable as error:
            return StsUnknown(error.reason)

    def save_sts(self, kept: StsKept) -> None:
        self._store.submit(KeepPolicy(kept))

    async def due_sts(self, now: datetime, used: datetime, limit: int) -> tuple[str, ...]:
        """Empty while nothing can be written: what cannot be kept is not worth fetching again and again."""
        if self._store.trouble:
            return ()
        due = partial(policies.due, now=milliseconds(now), used=milliseconds(used), limit=limit)
        try:
            return await self._store.look_up(due)
        except StoreUnavailable:
            return ()

    async def drop_sts(self, ended: datetime) -> None:
        with contextlib.suppress(StoreUnavailable):
            await self._store.work(partial(policies.drop, ended=milliseconds(ended)))


class SqliteRevocations:
    """Implements relay.tls.revocation.answers.RevocationKeeper."""

    def __init__(self, store: SqliteStore, clock: Callable[[], datetime]) -> None:
        self._store, self._clock = store, clock

    async def load_revocation(self, key: str, after: datetime | None) -> RevocationKept | None:
        since = -1 if after is None else milliseconds(after)
        with contextlib.suppress(StoreUnavailable):
            return await self._store.look_up(partial(revocations.load, key=key, after=since))
        return None

    async def save_revocation(self, kept: RevocationKept) -> None:
        """Nothing while the store takes no mail: there is no room, or no way to write."""
        with contextlib.suppress(StoreUnavailable):
            for piece, data in revocations.pieces(kept):
                if self._store.trouble:
                    return
                await self._store.work(partial(revocations.put_piece, kept=kept, number=piece, data=data))
            await self._store.work(partial(revocations.save, kept=kept))

    async def use_revocation(self, key: str, now: datetime) -> None:
        with contextlib.suppress(StoreUnavailable):
            await self._store.work(partial(revocations.use, key=key, now=milliseconds(now)))

    async def due_revocations(self, now: datetime, used: datetime, limit: int) -> tuple[RevocationKept, ...]:
        if self._store.trouble:
            return ()
        due = partial(revocations.due, now=milliseconds(now), used=milliseconds(used), limit=limit)
        with contextlib.suppress(StoreUnavailable):
            return await self._store.look_up(due)
        return ()

    async def postpone_revocation(self, key: str, until: datetime) -> None:
        with contextlib.suppress(StoreUnavailable):
            await self._store.work(partial(revocations.postpone, key=key, until=milliseconds(until)))

    async def drop_revocations(self, unused: datetime) -> None:
        now = milliseconds(self._clock())
        with contextlib.suppress(StoreUnavailable):
            await self._store.work(partial(revocations.drop, unused=milliseconds(unused), now=now))
