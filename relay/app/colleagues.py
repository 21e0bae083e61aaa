"""The other workers of a relay: what the first one asks them, and what each answers.

Orders about mail, who is being delivered to, open sessions, troubles, counts, and a new configuration. A worker that has just died is waited
for where its answer matters; where it does not, what is known without it is the answer.
"""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from relay.app.configuration import NotAppliedError
from relay.app.place import InForce
from relay.clients.limits import Failures
from relay.config.models import Config
from relay.dns.sts import StsKeeper
from relay.mail.events import Event
from relay.mail.published import StsKept, StsUnknown
from relay.observe.metrics import WORKERS_ENDED, CountKey
from relay.policy.suspension import Suspension
from relay.queue.keepers import SqlitePolicies
from relay.queue.lanes import Key
from relay.queue.sqlite import SqliteStore
from relay.queue.store import Command, Row, StoreUnavailable
from relay.workers.frames import SUPERVISOR
from relay.workers.link import Gone, Handler, Link, Silent
from relay.workers.supervisor import ADOPT, ADOPTED, COUNTS, KEEP, PAST, REPLACE

_FOLLOW = 30.0  # seconds to put a configuration in force
_ORDERS = 60.0  # seconds to carry out a page of orders
_BACK = 5.0  # seconds for which a worker that died is waited for
_AGAIN = 0.2
LEADER = 0
"""The slot of the first worker."""
_ANSWER = 10.0

FOLLOW = "follow"
LOGIN_FAILED = "login-failed"
FAILED_LOGINS = "failed-logins"
LEARN = "learn"
SAW = "saw"
SUSPEND = "suspend"


@dataclass(frozen=True, slots=True)
class Condition:
    """How a worker is: its sessions by listener, why it takes no mail (empty where it does), whether that is the queue's doing, and what
    nobody took: log lines, and sessions for TLS reports."""

    pid: int
    sessions: Mapping[str, int]
    troubles: tuple[str, ...]
    store_trouble: bool
    lines_dropped: int
    sessions_uncounted: int


@dataclass(frozen=True, slots=True)
class Answers:
    """What this worker says when it is asked."""

    condition: Callable[[], Condition]
    running: Callable[[], Collection[Key]]
    carry_out: Callable[[Sequence[Row], Command], Awaitable[tuple[int, int]]]
    counts: Callable[[], Mapping[CountKey, float]]
    follow: Callable[[Config], Awaitable[None]]
    login_failed: Callable[[int | str], None]
    failed_logins: Callable[[], Mapping[int | str, Failures]]
    adopt: Callable[[int], Awaitable[None]]
    learn: Callable[[StsKept], None]
    suspend: Callable[[tuple[Suspension, ...]], None]
    flush: Callable[[], Awaitable[None]]
    saw: Callable[[Event], None]


class Colleagues:
    """Implements relay.queue.operations.Others. `link` is None where there are none."""

    def __init__(self, link: Link | None) -> None:
        self._link = link
        self._totals: Mapping[CountKey, float] = {}

    def answer(self, answers: Answers) -> None:
        """From now on."""
        link = self._link
        if link is None:
            return

        async def condition(_argument: Any) -> Condition:
            return answers.condition()

        async def running(_argument: Any) -> Collection[Key]:
            return answers.running()

        async def carry_out(argument: tuple[Sequence[Row], Command]) -> tuple[int, int]:
            return await answers.carry_out(*argument)

        async def count(_argument: Any) -> None:
            self.tell_counts(answers.counts())

        async def failed_logins(_argument: Any) -> Mapping[int | str, Failures]:
            return answers.failed_logins()

        async def adopt(slot: Any) -> None:
            await answers.adopt(slot)
            link.tell(SUPERVISOR, ADOPTED, slot)

        async def flush(_argument: Any) -> None:
            await answers.flush()

        handlers: dict[str, Handler] = {
            SAW: _told(answers.saw),
            LEARN: _told(answers.learn),
            SUSPEND: _told(answers.suspend),
            "flush": flush,
            ADOPT: adopt,
            "condition": condition,
            "running": running,
            "carry-out": carry_out,
            "count": count,
            FOLLOW: answers.follow,
            LOGIN_FAILED: _told(answers.login_failed),
            FAILED_LOGINS: failed_logins,
        }
        link.listen(handlers)

    # Orders, and who is being delivered to.

    def has(self, slot: int) -> bool:
        return self._link is not None and slot in self._link.others

    async def running(self) -> Collection[Key]:
        found = await self._ask_all("running")
        return [key for keys in found.values() for key in keys]

    async def carry_out(self, slot: int, rows: Sequence[Row], command: Command) -> tuple[int, int]:
        if self._link is None:
            raise LookupError(slot)
        end = time.monotonic() + _BACK
        while True:
            try:
                done: tuple[int, int] = await self._link.ask(slot, "carry-out", (rows, command), seconds=_ORDERS)
            except Gone as error:
                if time.monotonic() > end:
                    raise StoreUnavailable(f"{error}, and has no successor yet: try again") from error
                await asyncio.sleep(_AGAIN)
            except Silent as error:
                raise StoreUnavailable(f"{error}: try again") from error
            else:
                return done

    async def suspend(self, suspensions: tuple[Suspension, ...]) -> None:
        """All heed these when it returns. One that does not answer is replaced: its successor begins with what the store has."""
        if self._link is None:
            return
        answers = await self._link.ask_others(SUSPEND, suspensions, seconds=_ANSWER)
        for slot, answer in answers.items():
            if isinstance(answer, BaseException):
                self._link.tell(SUPERVISOR, REPLACE, slot)

    # How they are.

    async def conditions(self) -> dict[int, Condition]:
        """By slot."""
        return await self._ask_all("condition")

    async def _ask_all(self, name: str) -> dict[int, Any]:
        """Without those that are gone, or failed to answer."""
        if self._link is None:
            return {}
        answers = await self._link.ask_others(name)
        return {slot: each for slot, each in answers.items() if not isinstance(each, BaseException)}

    @property
    def slot(self) -> int:
        """Ours."""
        return 0 if self._link is None else self._link.slot

    def processes(self, conditions: Mapping[int, Condition]) -> tuple[int, ...]:
        """The supervisor, then the workers; empty for a relay of one process."""
        return () if self._link is None else (os.getppid(), *(each.pid for each in conditions.values()))

    # Counts.

    def tell_counts(self, counts: Mapping[CountKey, float]) -> None:
        """The supervisor has them then, whatever becomes of us."""
        if self._link is not None:
            self._link.tell(SUPERVISOR, COUNTS, dict(counts))

    async def totals(self, own: Mapping[CountKey, float]) -> Mapping[CountKey, float] | None:
        """What all have counted, those that ended among them; None where there is one process only. Never less than before."""
        if self._link is None:
            return None
        self.tell_counts(own)
        await self._ask_all("count")
        try:
            found, ended = await self._link.ask(SUPERVISOR, PAST)
            self._totals = {**found, WORKERS_ENDED: float(ended)}
        except (Gone, Silent):
            pass  # it goes down, and we with it
        return self._totals

    async def flush(self) -> None:
        """All that they have counted for TLS reports is written, as far as they can."""
        await self._ask_all("flush")

    # What one of them has found out.

    def keeper(self, store: SqliteStore) -> StsKeeper:
        """Where MTA-STS policies are kept: in the store, and the others hear of them."""
        kept = SqlitePolicies(store)
        return kept if self._link is None else _TellingKeeper(kept, self._link)

    def saw(self, event: Event) -> None:
        """The first worker hears of what it may have to alert somebody of."""
        if self._link is not None:
            self._link.tell(LEADER, SAW, event)

    async def ended(self) -> int | None:
        """How many workers have ended that should not have, as this supervisor counts. None where there is none, or it goes down."""
        if self._link is None:
            return None
        try:
            _found, ended = await self._link.ask(SUPERVISOR, PAST)
        except (Gone, Silent):
            return None
        return int(ended)

    # Limits.

    def login_failed(self, client: int | str) -> None:
        if self._link is not None:
            self._link.tell_others(LOGIN_FAILED, client)

    async def failed_logins(self) -> Sequence[Mapping[int | str, Failures]]:
        """That the others know of."""
        return tuple((await self._ask_all(FAILED_LOGINS)).values())

    # The configuration.

    def keep(self, in_force: InForce) -> None:
        """Workers that are started from now on begin with it."""
        if self._link is not None:
            self._link.tell(SUPERVISOR, KEEP, replace(in_force, is_older=True))

    async def share(self, new: InForce, old: InForce) -> None:
        """Has all others follow, or none. Raises NotAppliedError.

        Threat: workers that die meanwhile, the one that shares among them. So successors begin with the old one until all have taken the
        new one, and those that began so are asked again.
        """
        link = self._link
        if link is None:
            return
        try:
            await self._all_follow(link, new.config)
            self.keep(new)
            await self._all_follow(link, new.config)
        except NotAppliedError:
            self.keep(old)
            await asyncio.gather(*(self._take_back(link, slot, old.config) for slot in link.others))
            raise

    async def _all_follow(self, link: Link, config: Config) -> None:
        """One that does not answer is replaced: nobody knows what it has in force. Raises NotAppliedError where one refuses."""
        answers = await link.ask_others(FOLLOW, config, seconds=_FOLLOW)
        for slot, error in answers.items():
            if isinstance(error, Silent):
                link.tell(SUPERVISOR, REPLACE, slot)
            elif isinstance(error, BaseException):
                raise NotAppliedError(f"worker {slot} cannot take it: {error}")

    async def _take_back(self, link: Link, slot: int, old: Config) -> None:
        """A worker that cannot go back is replaced by one that never had the new one."""
        try:
            await link.ask(slot, FOLLOW, old, seconds=_FOLLOW)
        except Gone:
            pass  # the supervisor knows what is kept by now: its successor begins with that
        except Exception:  # noqa: BLE001 - whatever keeps it, it must not stay as it is
            link.tell(SUPERVISOR, REPLACE, slot)


def _told(hear: Callable[[Any], None]) -> Handler:
    """For what needs no answer and never waits."""

    async def handler(argument: Any) -> None:
        hear(argument)

    return handler


class _TellingKeeper:
    """Implements relay.dns.sts.StsKeeper."""

    def __init__(self, kept: StsKeeper, link: Link) -> None:
        self._kept, self._link = kept, link

    async def load_sts(self, domain: str) -> StsKept | StsUnknown | None:
        return await self._kept.load_sts(domain)

    def save_sts(self, kept: StsKept) -> None:
        self._kept.save_sts(kept)
        self._link.tell_others(LEARN, kept)

    async def due_sts(self, now: datetime, used: datetime, limit: int) -> tuple[str, ...]:
        return await self._kept.due_sts(now, used, limit)

    async def drop_sts(self, ended: datetime) -> None:
        await self._kept.drop_sts(ended)
