"""Takes down who changed what: an event at once, and a line of the durable audit log.

Threat: a store in trouble just then. What could not be written waits, and is written when the store takes it.
"""

import secrets
from collections import deque
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

from relay.admin.endpoint import Caller, Change, Json, Scope, Unavailable
from relay.mail.audit import AuditEntry, AuditQuery
from relay.mail.events import AdminActed, Emit, Unexpected
from relay.queue.audit import SqliteAudit
from relay.queue.store import StoreUnavailable

ITSELF = Caller("relay", Scope.ADMIN, "itself")
_MOST_WAITING = 1000
_FORGET = timedelta(hours=1)
_AGAIN = timedelta(hours=1)  # a token's or certificate's sign-in is noted once in that time
_MOST_SEEN = 1000


class Audit:
    """Implements relay.admin.audit.AuditLog. `keep` says how long entries are kept."""

    def __init__(
        self, log: SqliteAudit, emit: Emit, clock: Callable[[], datetime], keep: Callable[[], timedelta]
    ) -> None:
        self._log, self._emit, self._clock, self._keep = log, emit, clock, keep
        self._waiting: deque[AuditEntry] = deque()
        self._forgotten: datetime | None = None
        self._seen: dict[Caller, datetime] = {}

    async def note(self, caller: Caller, action: str, change: Change) -> None:
        """Never raises for a store in trouble."""
        self._emit(AdminActed(caller.name, caller.via, action, change.what, change.count))
        entry = AuditEntry(
            *(self._clock(), caller.name, caller.via, caller.address, action, change.what, change.count),
            *(change.before, change.after),
        )
        if len(self._waiting) >= _MOST_WAITING:
            self._emit(Unexpected(secrets.token_hex(6), "audit log", f"no room for {entry!r}"))
            return
        self._waiting.append(entry)
        await self._write()

    async def look(self) -> None:
        """Called every few seconds: writes what waits, and forgets what is too old."""
        await self._write()
        now = self._clock()
        if self._forgotten is None or now - self._forgotten >= _FORGET:
            self._forgotten = now
            try:
                await self._log.forget(now - self._keep())
            except StoreUnavailable:
                self._forgotten = None

    async def audit(self, query: AuditQuery) -> Sequence[Json]:
        try:
            return await self._log.entries(query)
        except StoreUnavailable as error:
            raise Unavailable(error.reason) from error

    async def last(self, action: str) -> Json | None:
        found: Sequence[Any] = await self.audit(AuditQuery(action=action, limit=1))
        return found[0] if found else None

    async def seen(self, caller: Caller) -> None:
        """A program or a certificate that signs in with each request: noted once an hour."""
        now, last = self._clock(), self._seen.get(caller)
        if last is not None and now - last < _AGAIN:
            return
        self._seen.pop(caller, None)
        if len(self._seen) >= _MOST_SEEN:
            del self._seen[next(iter(self._seen))]
        self._seen[caller] = now
        await self.note(caller, "sign-in", Change("the admin API"))

    async def _write(self) -> None:
        entries = list(self._waiting)
        if not entries:
            return
        self._waiting.clear()
        try:
            await self._log.add(entries)
        except StoreUnavailable:
            self._waiting.extendleft(reversed(entries))
