"""What operators do to the flow of mail: suspend and resume it, send it another way, forget its traces.

Suspensions are in the store before anybody heeds them, and heeded by all workers before the operator hears that they are: one that does
not answer is replaced, and begins with what the store has.
"""

import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TypeVar

from relay.admin.control import Purge, Refused, Suspend, Undo
from relay.admin.endpoint import Caller, Change, Json, Unavailable
from relay.admin.queue import Selection as Selected
from relay.app.audit import ITSELF
from relay.app.colleagues import Colleagues
from relay.config.values import HostPort
from relay.dns.answers import Addresses, Resolver
from relay.outbound.ourselves import Ourselves
from relay.policy.book import RuleBook
from relay.policy.reroute import Detour, find_connector, refusal, weaker_than_own
from relay.policy.suspension import Stops, Suspension, Suspensions
from relay.queue.operations import Operations, Selection, suspension_json
from relay.queue.scheduler import Scheduler
from relay.queue.sqlite import SqliteStore
from relay.queue.store import LIVE, StoreUnavailable, TracePurge
from relay.queue.suspended import MOST, SqliteSuspensions

T = TypeVar("T")
_DEFAULT = "default"


@dataclass(frozen=True, slots=True)
class Around:
    """What is acted on. `book` is the configuration in force."""

    store: SqliteStore
    scheduler: Scheduler
    operations: Operations
    colleagues: Colleagues
    resolver: Resolver
    book: Callable[[], RuleBook]
    ourselves: Callable[[], Ourselves]
    note: Callable[[Caller, str, Change], Awaitable[None]]
    clock: Callable[[], datetime]
    port: int


class Control:
    """Implements `relay.admin.control.Control`. Every worker has one; the first one's is asked."""

    def __init__(self, around: Around) -> None:
        self._around = around
        self._kept = SqliteSuspensions(around.store)
        self._ends: datetime | None = None  # when the first of those in the store ends by itself

    # In every worker.

    async def load(self) -> None:
        """Heeds what the store has. Raises StoreUnavailable."""
        self.heed(await self._kept.load())

    def heed(self, suspensions: tuple[Suspension, ...]) -> None:
        """From now on, these and no others."""
        found = Suspensions(suspensions)
        self._ends = found.ends
        self._around.scheduler.suspend(found)

    # In the first one.

    async def look(self) -> None:
        """Called every few seconds: what has ended by itself is told of once, in log and audit, and forgotten. Every worker has let go of it."""
        if self._ends is None or self._around.clock() < self._ends:
            return
        with contextlib.suppress(StoreUnavailable):  # next time
            now = self._around.clock()
            kept = await self._kept.load()
            gone = await self._kept.remove(tuple(each.id for each in kept if not each.holds_at(now)))
            self._ends = Suspensions(each for each in kept if each.holds_at(now)).ends
            for each in gone:
                what = f"{each.stops.value} {each.what}, whose time is over"
                await self._around.note(ITSELF, "resume", Change(what, 1, [suspension_json(each)], []))

    async def suspensions(self) -> Json:
        now = self._around.clock()
        return {
            "suspensions": [suspension_json(each) for each in await _asked(self._kept.load()) if each.holds_at(now)]
        }

    async def suspend(self, wanted: Suspend, who: str) -> Json:
        now = self._around.clock()
        if wanted.until is not None and wanted.until <= now:
            raise Refused(f"until: {wanted.until:%Y-%m-%dT%H:%M:%SZ} has passed")
        stops = Stops(wanted.stops)
        if stops is Stops.CONNECTOR and find_connector(self._around.book(), wanted.what) is None:
            raise Refused(f"there is no outbound connector {wanted.what}")
        await self.look()  # what has ended takes no room
        made = await _asked(self._kept.add(Suspension(stops, wanted.what, wanted.reason, who, now, wanted.until)))
        if made is None:
            raise Refused(f"there are {MOST} suspensions already: end some, or suspend by pattern")
        await self._share()
        return suspension_json(made)

    async def resume(self, undo: Undo) -> Json:
        """The suspensions that were ended."""
        await self.look()  # what has ended by itself is not what is resumed now
        found = [each for each in await _asked(self._kept.load()) if _is_meant(each, undo)]
        gone = await _asked(self._kept.remove(tuple(each.id for each in found)))
        await self._share()
        return {"ended": [suspension_json(each) for each in gone]}

    async def _share(self) -> None:
        kept = await _asked(self._kept.load())
        self.heed(kept)
        await self._around.colleagues.suspend(kept)

    async def reroute(self, selection: Selected, via: str, *, weaker: bool, anywhere: bool) -> Json:
        """In the shape of Rerouted. Raises Refused.

        Threat: whoever names a host of his own reads the mail, where no name or key is asked of it. So a host that the configuration does
        not know takes the right to read mail, `anywhere`.
        """
        wanted = Selection(selection.ids, selection.everything, selection.domain, selection.connector, LIVE)
        operations, book = self._around.operations, self._around.book()
        if via == _DEFAULT:
            return {**await _asked(operations.reroute(wanted, "")), "via": None, "weaker": []}
        detour = self._detour(via, weaker=weaker)
        if detour.hop is not None and not anywhere and not _is_known(book, detour.hop):
            raise Refused(f"{detour.hop} is no smart host of any connector: sending mail there takes the scope admin")
        domains = tuple(await _asked(operations.waiting_domains(wanted)))
        why = refusal(book, domains, detour)
        if why:
            hint = (
                ""
                if weaker or detour.hop is not None or "asks for less" not in why
                else "; `weaker` sends it all the same, with the scope admin"
            )
            raise Refused(why + hint)
        lost: dict[str, list[str]] = {}
        if detour.hop is not None:
            await self._refuse_ourselves(detour.hop)
        elif (other := find_connector(book, detour.connector)) is not None:
            lost = {domain: list(found) for domain in domains if (found := weaker_than_own(book, domain, other))}
            if not lost:  # what was allowed and is not needed is not kept: a later configuration may ask for more
                detour = replace(detour, weaker=False)
        done = await _asked(operations.reroute(wanted, str(detour)))
        return {**done, "via": str(detour), "weaker": [f"{domain}: {each}" for domain in lost for each in lost[domain]]}

    def _detour(self, via: str, *, weaker: bool) -> Detour:
        """A connector's name, else a host."""
        if find_connector(self._around.book(), via) is not None:
            return Detour(connector=via, weaker=weaker)
        if "." not in via and ":" not in via:
            return Detour(connector=via, weaker=weaker)  # a slip of the pen in a name is told as such
        if weaker:
            raise Refused(f"weaker is about connectors: at {via} mail must satisfy all that it must on its own way")
        try:
            return Detour(hop=HostPort.parse(via, default_port=self._around.port))
        except ValueError as error:
            raise Refused(f"via: {error}") from None

    async def _refuse_ourselves(self, hop: HostPort) -> None:
        found = await self._around.resolver.configured_addresses(hop.host)
        if not isinstance(found, Addresses) or not found.addresses:
            raise Refused(f"via: no address is found for {hop.host}")
        ourselves = self._around.ourselves()
        if all(ourselves.listens_at(each, hop.port) for each in found.addresses):
            raise Refused(f"via: {hop} is this relay itself")

    async def forget(self, purge: Purge) -> int:
        wanted = TracePurge(purge.id, purge.recipient, purge.sender, purge.before)
        return await _asked(self._around.store.purge_traces(wanted))


def _is_meant(suspension: Suspension, undo: Undo) -> bool:
    if undo.everything:
        return True
    if undo.id:
        return suspension.id == undo.id
    return (suspension.stops.value, suspension.what) == (undo.stops, undo.what)


async def _asked(answer: Awaitable[T]) -> T:
    try:
        return await answer
    except StoreUnavailable as error:
        raise Unavailable(error.reason) from error


def _is_known(book: RuleBook, hop: HostPort) -> bool:
    return any(hop in each.route.hosts for each in book.config.outbound)
