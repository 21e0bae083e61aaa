"""The MTA-STS policies of domains: discovered, fetched, kept in the store, refreshed before they end (RFC 8461 sections 3.3 and 5.1).

`held` answers at once where everything is known; else `get` asks DNS, and waits for HTTPS only at the first sight of a domain or of a new id.
What follows from a policy is `relay.policy.mtasts`'s, when to fetch one `relay.policy.stsrefresh`'s, how `relay.dns.stsfetch`'s.

A policy in force stays so until its max_age is over, whatever DNS and HTTPS say meanwhile, and over a restart; only a policy that was validly
fetched takes its place. Threats: discovery blocked or forged to make us forget; domains without end (memory and fetches are bounded); a
domain that many messages ask about at once (one fetch for all of them).
"""

import asyncio
import contextlib
import itertools
import random
import secrets
import traceback
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

from relay.dns.answers import Resolver, TxtAnswer
from relay.dns.cache import Cache, Timed
from relay.mail.events import Emit, StsFetchFailed, StsPolicyChanged, StsPolicyFetched, Unexpected
from relay.mail.published import StsFetched, StsFound, StsKept, StsPolicy, StsTrouble, StsUnknown
from relay.mail.tls import TlsFailure
from relay.policy.mtasts import in_force
from relay.policy.route import LookupFailed
from relay.policy.stsfile import StsRecord, StsSyntaxError, read_policy, read_record
from relay.policy.stsrefresh import Record, Step, Tries, failed, may_recheck, next_step, succeeded

_LOOK = 60.0  # seconds after which the TXT record is looked at again; the resolver's cache gives the TTL its due
_ROUND = 60.0  # seconds between two rounds of refreshing what is kept
_A_ROUND = 100  # domains
_UNUSED = timedelta(days=30)  # without mail for it a policy is not refreshed any more, and ends by itself
_LINGERS = timedelta(days=7)  # an ended policy stays in the store: the clock that says so may be wrong
_SIZE = 20_000  # in memory: domains, and KiB of their policies
_FETCHES = 32  # at the same time
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NOTHING, _UNTRIED = StsFound(), Tries()

Fetch = Callable[[str], Awaitable[bytes | StsTrouble]]


class StsKeeper(Protocol):
    """Where policies are kept. `relay.queue` has it."""

    async def load_sts(self, domain: str) -> StsKept | StsUnknown | None:
        """None where nothing is kept of the domain, StsUnknown while that cannot be told."""
        ...

    def save_sts(self, kept: StsKept) -> None:
        """Takes the place of what was kept of the domain. Written in order, as soon as it can be."""
        ...

    async def due_sts(self, now: datetime, used: datetime, limit: int) -> tuple[str, ...]:
        """Domains whose policy is in force, due for a refresh, and was asked for since `used`; none while nothing can be written."""
        ...

    async def drop_sts(self, ended: datetime) -> None:
        """Deletes the policies that ended before."""
        ...


@dataclass(frozen=True, slots=True)
class Clocks:
    """`now` is the wall clock, in UTC; `monotonic` counts seconds and never goes back."""

    now: Callable[[], datetime]
    monotonic: Callable[[], float]


@dataclass(frozen=True, slots=True)
class _State:
    """What is known of a domain. `fetched` is kept when it has ended, `found` is what counts. `used`: when mail last asked.

    `number` is that of the fetch that this came of; later ones have higher numbers.
    """

    fetched: StsFetched | None = None
    found: StsFound = _NOTHING
    tries: Tries = _UNTRIED
    used: datetime = _EPOCH
    number: int = 0

    @property
    def weight(self) -> int:
        policy = self.fetched.policy if self.fetched is not None else None
        return 1 + (sum(map(len, policy.text)) + 64 * len(policy.mx) if policy is not None else 0) // 1024


class _UnreadableError(Exception):
    """What is kept of a domain cannot be read."""

    def __init__(self, unknown: StsUnknown) -> None:
        super().__init__(unknown.text)
        self.unknown = unknown


class StsPolicies:
    """Domains are normalised (`relay.policy.mtasts.policy_domain`). `look` is to be called every few seconds, `close` at the end."""

    def __init__(
        self, resolver: Resolver, fetch: Fetch, keeper: StsKeeper, *, clocks: Clocks, chance: random.Random, emit: Emit
    ) -> None:
        self._resolver, self._get_file, self._keeper = resolver, fetch, keeper
        self._clocks, self._chance, self._emit = clocks, chance, emit
        self._states = Cache(self._asked, size=_SIZE, monotonic=clocks.monotonic, weigh=lambda state: state.weight)
        self._fetches: dict[tuple[str, str], asyncio.Task[_State]] = {}
        self._rounds: set[asyncio.Task[Any]] = set()
        self._slots = asyncio.Semaphore(_FETCHES)
        self._numbers = itertools.count(1)
        self._next_round = clocks.monotonic()

    def held(self, domain: str) -> StsFound | None:
        """What is known without asking anyone, the same object as long as nothing changes; None where `get` is to be asked."""
        state = self._states.held(domain)
        return None if state is None else state.found

    async def get(self, domain: str) -> StsFound | StsUnknown:
        """Asks DNS where that is due. Never raises for what DNS, the policy host or the store do.

        A policy host that does not answer takes a minute, at the first sight of a domain or of a new id.
        """
        try:
            return (await self._states.get(domain)).found
        except _UnreadableError as error:
            return error.unknown

    async def recheck(self, domain: str) -> StsFound | StsUnknown:
        """Asks DNS and the policy host anew before a failure under the policy is final (RFC 8461 section 5.1).

        Quick where that was done less than five minutes ago, unless the id is another one now.
        """
        try:
            state = await self._known(domain)
        except _UnreadableError as error:
            return error.unknown
        record = await self._record(domain)
        state = self._states.last(domain) or state
        record_id = _id_to_fetch(record, state)
        if record_id and may_recheck(record_id, state.tries, self._clocks.now()):
            state = await asyncio.shield(self._fetching(domain, record_id, state))
            self._states.put(domain, self._timed(state))
        return state.found

    def learn(self, kept: StsKept) -> None:
        """Another process of the relay has fetched it, or tried to. What nobody asked about here is read from the store when somebody does."""
        state = self._states.last(kept.domain)
        if state is None or (state.fetched is not None and state.fetched.at >= kept.fetched.at):
            return
        tries = Tries(kept.fetched.policy.id, 0, kept.fetched.at, kept.refresh)
        number = next(self._numbers)  # newer than what is being fetched here
        known = replace(state, fetched=kept.fetched, found=StsFound(kept.fetched), tries=tries, number=number)
        self._states.put(kept.domain, self._timed(known))

    async def look(self) -> None:
        """Once a minute: begins to refresh what is due though no mail asks for it, and drops what has ended. Waits for no fetch."""
        now = self._clocks.monotonic()
        if now < self._next_round:
            return
        self._next_round = now + _ROUND
        today = self._clocks.now()
        await self._keeper.drop_sts(today - _LINGERS)
        for domain in await self._keeper.due_sts(today, today - _UNUSED, _A_ROUND):
            self._start(self._refresh(domain))

    async def close(self) -> None:
        """Ends what is under way. What was fetched is kept."""
        await self._states.close()
        tasks = (*self._rounds, *self._fetches.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # Discovery

    async def _asked(self, domain: str) -> Timed[_State]:
        """Mail asks."""
        state = replace(await self._visit(domain), used=self._clocks.now())
        return self._timed(state)

    async def _refresh(self, domain: str) -> None:
        """Nobody asks."""
        with contextlib.suppress(_UnreadableError):
            state = await self._visit(domain)
            if self._states.last(domain) is not None:
                self._states.put(domain, self._timed(state))

    async def _visit(self, domain: str) -> _State:
        """Looks at the record, and fetches where that is due."""
        state = await self._known(domain)
        record = await self._record(domain)
        state = self._states.last(domain) or state  # a fetch may have ended meanwhile
        now = self._clocks.now()
        policy = in_force(StsFound(state.fetched), now)
        match next_step(record, state.tries, now, in_force=policy is not None):
            case Step.WAIT:
                fetched = await asyncio.shield(self._fetching(domain, _id_to_fetch(record, state), state))
                return self._states.last(domain) or fetched
            case Step.BEHIND:
                self._fetching(domain, _id_to_fetch(record, state), state)
            case Step.MISSED:
                trouble = record if isinstance(record, StsTrouble) else _gone(domain)
                return self._failed(
                    domain, state, failed(state.tries.id, state.tries, now, self._chance.random()), trouble
                )
        return _with_found(state, policy, _trouble_now(domain, record, state, policy))

    async def _record(self, domain: str) -> Record:
        answer = await self._resolver.txt(f"_mta-sts.{domain}")
        return _read(domain, answer)

    async def _known(self, domain: str) -> _State:
        """From memory, else from the store. Raises _UnreadableError."""
        state = self._states.last(domain)
        if state is not None:
            return state
        kept = await self._keeper.load_sts(domain)
        if isinstance(kept, StsUnknown):
            raise _UnreadableError(kept)
        if kept is None:
            return _State(used=self._clocks.now())
        tries = Tries(kept.fetched.policy.id, 0, kept.fetched.at, kept.refresh)
        return _State(kept.fetched, StsFound(kept.fetched), tries, kept.used)

    # Fetching

    def _fetching(self, domain: str, record_id: str, state: _State) -> asyncio.Task[_State]:
        """The fetch of this version that is under way, or a new one."""
        key = (domain, record_id)
        task = self._fetches.get(key)
        if task is None:
            task = self._fetches[key] = asyncio.get_running_loop().create_task(self._fetch(domain, record_id, state))
            task.add_done_callback(lambda done: self._ended(done, key))
        return task

    async def _fetch(self, domain: str, record_id: str, state: _State) -> _State:
        async with self._slots:
            began, number = self._clocks.now(), next(self._numbers)
            file = await self._get_file(domain)
        policy = file if isinstance(file, StsTrouble) else _parsed(domain, file, record_id)
        state = self._states.last(domain) or state
        if state.number > number:
            return state  # another fetch began later and has ended already: what it found is newer
        state = replace(state, number=number)
        chance = self._chance.random()
        if isinstance(policy, StsTrouble):
            return self._failed(domain, state, failed(record_id, state.tries, began, chance), policy)
        return self._succeeded(domain, state, succeeded(record_id, began, policy.max_age, chance), policy)

    def _succeeded(self, domain: str, state: _State, tries: Tries, policy: StsPolicy) -> _State:
        before, fetched = state.fetched, StsFetched(policy, self._clocks.now())
        self._emit(StsPolicyFetched(domain, policy.mode, policy.id, policy.max_age))
        if before is not None and (before.policy.mode, before.policy.mx) != (policy.mode, policy.mx):
            self._emit(StsPolicyChanged(domain, before.policy.mode, policy.mode, policy.mx))
        return self._keep(domain, replace(state, fetched=fetched, found=StsFound(fetched), tries=tries))

    def _failed(self, domain: str, state: _State, tries: Tries, trouble: StsTrouble) -> _State:
        """What is in force stays in force."""
        policy = in_force(StsFound(state.fetched), self._clocks.now())
        held = "" if policy is None else policy.policy.mode
        self._emit(StsFetchFailed(domain, trouble.failure, trouble.text, held))
        return self._keep(domain, _with_found(replace(state, tries=tries), policy, trouble))

    def _keep(self, domain: str, state: _State) -> _State:
        if self._states.last(domain) is not None:
            self._states.put(domain, self._timed(state))
        if state.fetched is not None:
            self._keeper.save_sts(StsKept(domain, state.fetched, state.tries.again, state.used))
        return state

    def _timed(self, state: _State) -> Timed[_State]:
        """Good until the record is to be looked at again, or until the policy in force is not in force any more."""
        left = _LOOK
        if state.found.fetched is not None:
            left = min(left, (state.found.fetched.ends - self._clocks.now()).total_seconds())
        return Timed(state, left)

    # Tasks that nobody waits for

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._rounds.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[Any], key: tuple[str, str] | None = None) -> None:
        self._rounds.discard(task)
        if key is not None:
            self._fetches.pop(key, None)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            text = "".join(traceback.format_exception(error))
            self._emit(Unexpected(secrets.token_hex(6), "mta-sts", text))


def _read(domain: str, answer: TxtAnswer) -> Record:
    if isinstance(answer, LookupFailed):
        return answer
    try:
        return read_record(answer.texts)
    except StsSyntaxError as error:
        return StsTrouble(TlsFailure.STS_POLICY_INVALID, f"_mta-sts.{domain}: {error}")


def _parsed(domain: str, file: bytes, record_id: str) -> StsPolicy | StsTrouble:
    try:
        return read_policy(file, record_id)
    except StsSyntaxError as error:
        return StsTrouble(TlsFailure.STS_POLICY_INVALID, f"mta-sts.{domain}: {error}")


def _id_to_fetch(record: Record, state: _State) -> str:
    """The record's, or that of the last try where DNS does not answer; "" where there is nothing to fetch."""
    if isinstance(record, StsRecord):
        return record.id
    return state.tries.id if isinstance(record, LookupFailed) and state.fetched is not None else ""


def _gone(domain: str) -> StsTrouble:
    return StsTrouble(
        TlsFailure.STS_POLICY_FETCH_ERROR, f"_mta-sts.{domain} has no record any more, so the policy is not fetched"
    )


def _trouble_now(domain: str, record: Record, state: _State, policy: StsFetched | None) -> StsTrouble | None:
    if isinstance(record, LookupFailed):
        text = f"the look-up of _mta-sts.{domain} failed: {record.text}"
        return StsTrouble(TlsFailure.STS_POLICY_FETCH_ERROR, text, announced=False)
    if isinstance(record, StsTrouble):
        return record
    is_about_it = record is not None or policy is not None
    return state.found.trouble if is_about_it and state.tries.failures else None


def _with_found(state: _State, policy: StsFetched | None, trouble: StsTrouble | None) -> _State:
    """Keeps the object where it says the same."""
    found = StsFound(policy, trouble)
    return state if found == state.found else replace(state, found=found)
