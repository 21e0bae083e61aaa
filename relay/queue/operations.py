"""What operators see of the queue and do to it: lists, traces, counts, orders. JSON in the shapes of design section 11.

A recipient's connector is looked up when it is asked for, by the configuration in force then. Where a relay has several processes, what
is being delivered is asked of each, and an order goes to the one that has the mail (`Others`).
"""

import builtins
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from relay.mail.codec import time_text
from relay.policy.reroute import parse_key
from relay.policy.route import Lane
from relay.policy.suspension import Suspension, Suspensions
from relay.queue.ids import Clock, number
from relay.queue.lanes import Key
from relay.queue.orders import Orders
from relay.queue.scheduler import Scheduler
from relay.queue.store import LIVE, Command, Json, Order, Query, Row, State, Store, TraceQuery

_PAGE = 200  # messages in one step of an order
_LEADS_TO = {
    Order.RETRY: State.WAITING.value,
    Order.HOLD: State.HELD.value,
    Order.RELEASE: State.WAITING.value,
    Order.BOUNCE: State.BOUNCED.value,
    Order.DELETE: State.DELETED.value,
    Order.REROUTE: "rerouted",  # its state is what it was
}


@dataclass(frozen=True, slots=True)
class Selection:
    """Messages by `ids`, or `everything` narrowed by recipient domain and by connector. Empty: none."""

    ids: tuple[str, ...] = ()
    everything: bool = False
    domain: str = ""
    connector: str = ""
    states: frozenset[State] = LIVE


class Others(Protocol):
    """The relay's other processes. May raise StoreUnavailable."""

    def has(self, slot: int) -> bool:
        """True where that slot is one of theirs; what is in any other is ours to handle."""
        ...

    async def running(self) -> Collection[Key]:
        """The recipients that they deliver to just now."""
        ...

    async def carry_out(self, slot: int, rows: Sequence[Row], command: Command) -> tuple[int, int]:
        """Has it done by the process that has that slot: `Orders.carry_out` there."""
        ...


class NoOthers:
    """There is one process only."""

    def has(self, slot: int) -> bool:
        return False

    async def running(self) -> Collection[Key]:
        return ()

    async def carry_out(self, slot: int, rows: Sequence[Row], command: Command) -> tuple[int, int]:
        raise LookupError(slot)


class Operations:
    """Every method may raise StoreUnavailable."""

    def __init__(
        self,
        store: Store,
        scheduler: Scheduler,
        *,
        lane_of: Callable[[str], Lane],
        clock: Clock,
        others: Others = NoOthers(),  # noqa: B008 - it has no state
    ) -> None:
        self._store = store
        self._others = others
        self._scheduler = scheduler
        self._claims = scheduler.claims
        self._lane_of = lane_of
        self._clock = clock
        self._orders = Orders(store, scheduler, clock)

    async def list(self, selection: Selection, after: str = "", limit: int = 100) -> Json:
        """`{"messages": [...], "next": id or None}`, in the order of ids; `after` is the `next` of the page before."""
        query = await self._query(selection, after, limit)
        found = await self._store.listing(query) if query is not None else []
        following = found[-1]["id"] if len(found) == limit else None
        running = await self._running() if found else frozenset()
        messages = [self._dress(message, running) for message in found]
        return {"messages": [each for each in messages if _shows(each, selection)], "next": following}

    async def show(self, message: str) -> Json | None:
        """One message, whatever its state; None where there is none."""
        found = await self._store.listing(Query(ids=(message,), states=frozenset(State)))
        return self._dress(found[0], await self._running()) if found else None

    async def retry(self, selection: Selection) -> Json:
        """Due now, and a destination that was down is tried. What is suspended stays so: it is counted apart, and due once that ends."""
        return await self._order(selection, Command(Order.RETRY))

    async def hold(self, selection: Selection) -> Json:
        """Not tried until it is released."""
        return await self._order(selection, Command(Order.HOLD))

    async def release(self, selection: Selection) -> Json:
        """Due now, if it was held."""
        return await self._order(selection, Command(Order.RELEASE))

    async def bounce(self, selection: Selection, reason: str = "") -> Json:
        """Given up, and its sender is told, with the reason (one line)."""
        return await self._order(selection, Command(Order.BOUNCE, reason=reason))

    async def delete(self, selection: Selection) -> Json:
        """Given up, and nobody is told."""
        return await self._order(selection, Command(Order.DELETE))

    async def reroute(self, selection: Selection, detour: str) -> Json:
        """Sent that way (str() of relay.policy.reroute.Detour), "" for its own way again, and due now. Whether it may is the caller's to ask."""
        return await self._order(selection, Command(Order.REROUTE, detour=detour))

    async def waiting_domains(self, selection: Selection) -> Iterable[str]:
        """The recipient domains of what waits, or is held, of a selection; each once, a page of it in memory."""
        query, found = await self._query(replace(selection, states=LIVE)), dict[str, None]()
        while query is not None:
            rows = await self._store.rows(query)
            if not rows:
                break
            found.update((row.domain, None) for row in rows)
            query = replace(query, after=rows[-1].message)
        return found

    async def destinations(self, after: str, limit: int) -> Json:
        """`{"destinations": [...]}`: what waits by recipient domain, each with the connector that governs it now."""
        found = await self._store.destinations(after, limit)
        return {"destinations": [{**each, "connector": self._lane_of(each["domain"]).connector} for each in found]}

    async def trace(self, query: TraceQuery) -> Sequence[Json]:
        """Newest first."""
        found = await self._store.traces(query)
        running = await self._running() if found else frozenset()
        return [self._dress(each, running) for each in found]

    async def statistics(self) -> Json:
        """Recipients by state, messages, the oldest's age in seconds, bytes on disk and left there."""
        found = await self._store.statistics()
        delivering = min(len(await self._running()), found.waiting)
        oldest = (self._clock() - found.oldest).total_seconds() if found.oldest is not None else 0.0
        return {
            "waiting": found.waiting - delivering,
            "delivering": delivering,
            "held": found.held,
            "messages": found.messages,
            "oldest": max(oldest, 0.0),
            "bytes": found.size,
            "free": found.free,
        }

    async def _query(self, selection: Selection, after: str = "", limit: int = _PAGE) -> Query | None:
        """None where nothing can match."""
        if after:
            number(after)  # ValueError: not an id
        if not (selection.ids or selection.everything or selection.domain or selection.connector):
            return None
        ids = selection.ids
        domains: tuple[str, ...] | None = (selection.domain,) if selection.domain else None
        if selection.connector:
            among = domains if domains is not None else await self._store.domains()
            domains = tuple(each for each in among if self._lane_of(each).connector == selection.connector)
        if selection.states == {State.DELIVERING}:
            running = {message for message, _index in await self._running()}
            ids = tuple(running & set(ids)) if ids else tuple(running)
            if not ids:
                return None
        return Query(ids, domains, selection.states, after, limit)

    async def _running(self) -> frozenset[Key]:
        """The recipients that are being delivered to."""
        return frozenset([*self._claims.running(), *await self._others.running()])

    async def carry_out(self, rows: Sequence[Row], command: Command) -> tuple[int, int]:
        """An order about our own mail: how many recipients it changed, and how many it will once their attempt is over."""
        return await self._orders.carry_out(rows, command)

    async def start(self, slot: int) -> None:
        """What was ordered of our own mail and not done: before the scheduler starts. Raises StoreUnavailable."""
        await self._orders.finish(slot)

    async def adopt(self, slot: int) -> None:
        """Takes over the mail of a slot that no process has, and what was ordered of it. Raises StoreUnavailable; then it can go on."""
        await self._orders.finish(slot)
        await self._scheduler.adopt(slot)

    def _dress(self, message: Json, running: frozenset[Key]) -> Json:
        """Adds to each recipient what the store does not know."""
        for index, recipient in enumerate(message["recipients"]):
            domain, via = recipient.pop("domain"), recipient.pop("via")
            recipient["connector"] = self._lane_of(domain).connector
            if via:
                recipient["via"] = via_json(via)
            if recipient["state"] != State.WAITING:
                continue
            if (message["id"], index) in running:
                recipient["state"] = State.DELIVERING.value
            elif self._suspended:
                stopped = self._suspended.of(message["sender"], domain, self._lane_of(via or domain).connector)
                if stopped is not None:
                    recipient |= {"state": State.SUSPENDED.value, "next_attempt": None}
                    recipient["suspended"] = suspension_json(stopped)
        return message

    @property
    def _suspended(self) -> Suspensions:
        return self._scheduler.suspensions

    async def _order(self, selection: Selection, command: Command) -> Json:
        """`{"changed": recipients, "running": recipients whose attempt has to end first, "unknown": ids that are not in the queue,
        "before": recipients that were looked at, by state, "after": those that it concerned, by their state now}`."""
        changed = running = suspended = 0
        before: Counter[str] = Counter()
        seen: set[str] = set()
        query = await self._query(replace(selection, states=LIVE))
        while query is not None:
            rows = await self._store.rows(query)
            if not rows:
                break
            before.update(row.state.value for row in rows)
            stopped = self._stopped(rows, command.order)
            suspended += len(stopped)
            done, later = await self._carry_out([row for row in rows if row not in stopped], command)
            changed, running = changed + done, running + later
            if stopped:
                done, later = await self._carry_out([row for row in rows if row in stopped], command)
                changed, running = changed + (done if command.order is Order.RELEASE else 0), running + later
            seen.update(row.message for row in rows if selection.ids)
            query = replace(query, after=rows[-1].message)
        led_to = changed if command.order is Order.RETRY else max(changed - suspended, 0)
        after = {_LEADS_TO[command.order]: led_to, State.DELIVERING.value: running, State.SUSPENDED.value: suspended}
        return {
            "changed": changed,
            "running": running,
            "unknown": [each for each in selection.ids if each not in seen],
            "before": dict(before),
            "after": {state: count for state, count in after.items() if count},
        }

    def _stopped(self, rows: Sequence[Row], order: Order) -> frozenset[Row]:
        """Those that are suspended, and stay so: they are tried once that ends."""
        if not self._suspended or order not in (Order.RETRY, Order.RELEASE):
            return frozenset()
        return frozenset(
            row
            for row in rows
            if row.state in order.applies_to
            and self._suspended.of(row.sender, row.domain, self._lane_of(row.destination).connector) is not None
        )

    async def _carry_out(self, rows: Sequence[Row], command: Command) -> tuple[int, int]:
        """By whoever has them."""
        changed = running = 0
        for slot, its in self._by_slot(rows).items():
            ours, theirs = self._orders.carry_out, self._others.carry_out
            done, later = await (ours(its, command) if slot is None else theirs(slot, its, command))
            changed, running = changed + done, running + later
        return changed, running

    def _by_slot(self, rows: Sequence[Row]) -> Mapping[int | None, Sequence[Row]]:
        """None: ours."""
        found: dict[int | None, builtins.list[Row]] = {}
        for row in rows:
            found.setdefault(row.slot if self._others.has(row.slot) else None, []).append(row)
        return found


def via_json(via: str) -> Json:
    """Where an operator sends a recipient (relay.policy.reroute.key): {connector, host, weaker}."""
    _domain, detour = parse_key(via)
    if detour is None or detour.hop is not None:
        return {"connector": None, "host": str(detour.hop) if detour else None, "weaker": False}
    return {"connector": detour.connector, "host": None, "weaker": detour.weaker}


def suspension_json(suspension: Suspension) -> Json:
    """{id, to|connector|from, reason, who, since, until}."""
    return {
        "id": suspension.id,
        suspension.stops.value: suspension.what,
        "reason": suspension.reason,
        "who": suspension.who,
        "since": time_text(suspension.since),
        "until": time_text(suspension.until) if suspension.until is not None else None,
    }


def _shows(message: dict[str, Any], selection: Selection) -> bool:
    """The store does not tell WAITING from DELIVERING."""
    return any(recipient["state"] in selection.states for recipient in message["recipients"])
