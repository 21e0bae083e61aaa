"""What the admin socket and the observe listener ask of a running relay, answered from the rooms that know."""

import os
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, TypeVar

import relay
from relay.admin.endpoint import Unavailable
from relay.admin.queue import Action
from relay.admin.queue import Selection as Selected
from relay.admin.reload import Reload
from relay.admin.reports import ReportsQuery
from relay.admin.trace import TraceQuery as Wanted
from relay.app.alerts import Alerts
from relay.app.certificates import Certificates
from relay.app.colleagues import Colleagues, Condition
from relay.app.configuration import Configuration
from relay.app.evidence import Evidence
from relay.app.reports import TlsReports
from relay.config.directions import one_way
from relay.config.values import HostPort
from relay.mail.address import Address
from relay.mail.codec import time_text
from relay.observe.metrics import CountKey, Readings
from relay.queue.operations import Operations, Selection
from relay.queue.store import LIVE, State, Store, StoreUnavailable, TraceQuery

Json = dict[str, Any]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What is looked at. `listening` gives the listeners that are open, `sessions` the open connections by listener.

    `alerts` are made later than this; `trial` queues a test message. `colleagues` are the relay's other workers.
    """

    configuration: Configuration
    store: Store
    operations: Operations
    reports: TlsReports
    certificates: Certificates
    evidence: Evidence
    listening: Callable[[], Mapping[str, HostPort]]
    sessions: Callable[[], Mapping[str, int]]
    lines_dropped: Callable[[], int]
    clock: Callable[[], datetime]
    colleagues: Colleagues
    counts: Callable[[], Mapping[CountKey, float]]
    alerts: Callable[[], Alerts]
    trial: Callable[[str, Address], Awaitable[Json]]
    last_reload: Callable[[], Awaitable[Mapping[str, Any] | None]]


class Operator:
    """Implements what the topics of `relay.admin` ask, and `relay.observe.http.Observed`."""

    def __init__(self, around: Surroundings) -> None:
        self._around = around
        self._started = around.clock()

    @property
    def evidence(self) -> Evidence:
        return self._around.evidence

    # For the admin socket.

    async def status(self) -> Json:
        around = self._around
        conditions = await self._conditions()
        troubles = _troubles(conditions)
        return {
            "version": relay.__version__,
            "hostname": around.configuration.config.hostname,
            "pid": os.getpid(),
            "started_at": time_text(self._started),
            "ready": not troubles,
            "troubles": troubles,
            "configuration": {"waiting": list(around.configuration.waiting)},
            "listeners": {name: str(address) for name, address in around.listening().items()},
            "connections": _sum([each.sessions for each in conditions.values()]),
            "workers": [{"worker": slot, "pid": each.pid} for slot, each in sorted(conditions.items())],
            "certificates": dict(around.certificates.days_left()),
            "queue": await _asked(around.operations.statistics()),
            "one_way": [
                {"domain": each.domain, "connector": each.connector, "missing": each.other}
                for each in one_way(around.configuration.config)
            ],
        }

    async def messages(self, selection: Selected, *, after: str, limit: int) -> Json:
        return await _asked(self._around.operations.list(_selection(selection), after=after, limit=limit))

    async def message(self, message_id: str) -> Json | None:
        return await _asked(self._around.operations.show(message_id))

    async def destinations(self, after: str, limit: int) -> Json:
        return await _asked(self._around.operations.destinations(after, limit))

    async def act(self, action: Action, selection: Selected, reason: str = "") -> Json:
        operations = self._around.operations
        acts: dict[Action, Callable[[Selection], Awaitable[Json]]] = {
            Action.RETRY: operations.retry,
            Action.HOLD: operations.hold,
            Action.RELEASE: operations.release,
            Action.BOUNCE: partial(operations.bounce, reason=reason),
            Action.DELETE: operations.delete,
        }
        return await _asked(acts[action](_selection(selection)))

    async def trace(self, query: Wanted) -> Sequence[Json]:
        wanted = TraceQuery(
            id=query.id,
            recipient=query.recipient,
            sender=query.sender,
            message_id=query.message_id,
            since=query.since,
            limit=query.limit,
            before=query.before,
        )
        return await _asked(self._around.operations.trace(wanted))

    async def reports(self, query: ReportsQuery) -> Json:
        return await _asked(self._around.reports.reports(query.domain, query.day, query.limit))

    async def report(self, query: ReportsQuery) -> Json | None:
        return await _asked(self._around.reports.report(query.domain, query.day))

    async def send_reports(self, query: ReportsQuery) -> Json:
        return await _asked(self._around.reports.send_reports(query.domain, query.day))

    async def received_reports(self, since: datetime | None, limit: int) -> Json:
        return await _asked(self._around.reports.received_reports(since, limit))

    async def certificates(self) -> Json:
        """What the relay's processes have noticed of partners is in it."""
        await self._around.colleagues.flush()
        return await _asked(self._around.certificates.listed())

    async def certificate_sheets(self, name: str) -> Sequence[Json] | None:
        return await self._around.certificates.sheets(name)

    async def certificate_page(self, name: str) -> bytes | None:
        return await self._around.certificates.page(name)

    async def alerts(self) -> Json:
        return self._around.alerts().active()

    async def test_alerts(self, ways: Sequence[str]) -> Json:
        return await _asked(self._around.alerts().test(ways))

    async def test_connector(self, connector: str, to: Address) -> Json:
        return await _asked(self._around.trial(connector, to))

    async def reload(self, *, dry_run: bool) -> Reload:
        return await self._around.configuration.reload(dry_run=dry_run)

    def waiting(self) -> Sequence[str]:
        return self._around.configuration.waiting

    async def last_reload(self) -> Mapping[str, Any] | None:
        return await self._around.last_reload()

    # For /metrics and /readyz.

    async def readings(self) -> Readings:
        around = self._around
        found = await around.operations.statistics()
        conditions = await self._conditions()
        return Readings(
            queue={state: found[state] for state in ("waiting", "delivering", "held")},
            oldest=found["oldest"],
            store_bytes=found["bytes"],
            free_bytes=found["free"],
            connections=_sum([each.sessions for each in conditions.values()]),
            certificates=around.certificates.days_left(),
            partner_certificates=around.certificates.partner_days(),
            log_lines_dropped=sum(each.lines_dropped for each in conditions.values()),
            tls_sessions_uncounted=sum(each.sessions_uncounted for each in conditions.values()),
            processes=around.colleagues.processes(conditions),
            workers=sum(not each.troubles for each in conditions.values()),
            alerts=around.alerts().counts,
            store_ok=not any(each.store_trouble for each in conditions.values()),
        )

    async def totals(self) -> Mapping[CountKey, float] | None:
        return await self._around.colleagues.totals(self._around.counts())

    async def troubles(self) -> Sequence[str]:
        return _troubles(await self._conditions())

    async def store_troubles(self) -> Sequence[str]:
        """Why the queue takes no mail, in any worker; empty where it does."""
        conditions = await self._conditions()
        return _troubles({slot: each for slot, each in conditions.items() if each.store_trouble})

    def condition(self) -> Condition:
        """How this worker is."""
        around = self._around
        troubles = [] if around.listening() else ["no listener is open"]
        trouble = around.store.trouble
        if trouble:
            troubles.append(f"the queue takes no mail: {trouble}")
        return Condition(
            os.getpid(),
            around.sessions(),
            tuple(troubles),
            bool(trouble),
            around.lines_dropped(),
            around.reports.uncounted,
        )

    async def _conditions(self) -> dict[int, Condition]:
        """Of all workers that answer, by slot."""
        return {self._around.colleagues.slot: self.condition(), **await self._around.colleagues.conditions()}


def _sum(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    total: dict[str, int] = {}
    for each in counts:
        for name, count in each.items():
            total[name] = total.get(name, 0) + count
    return total


def _troubles(conditions: Mapping[int, Condition]) -> list[str]:
    """Each once, however many workers have it."""
    return list(dict.fromkeys(trouble for each in conditions.values() for trouble in each.troubles))


async def _asked(answer: Awaitable[T]) -> T:
    """The answer, or the admin API's word for a store that cannot give it now."""
    try:
        return await answer
    except StoreUnavailable as error:
        raise Unavailable(error.reason) from error


def _selection(wanted: Selected) -> Selection:
    states = frozenset(State(each) for each in wanted.states) or LIVE
    return Selection(wanted.ids, wanted.everything, wanted.domain, wanted.connector, states)
