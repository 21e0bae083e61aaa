"""The way of mail through a running relay: listeners, intake, scheduler, deliveries, and the TLS sessions counted on the way."""

import asyncio
import secrets
import traceback
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from functools import partial

from relay.app.base import Base, utc_now
from relay.app.configuration import NotAppliedError
from relay.app.reports import Neighbours, TlsReports
from relay.config.models import Config
from relay.config.values import HostPort
from relay.inbound.listener import Listeners
from relay.inbound.passwords import PasswordFileError
from relay.inbound.policies import PolicyLimits, PolicyServer
from relay.inbound.services import Services
from relay.inbound.sockets import ListenError
from relay.mail.attempt import MessageBytes
from relay.mail.envelope import Message
from relay.mail.events import Unexpected
from relay.outbound.deliver import Outbound, OutboundSettings
from relay.outbound.outside import Outside
from relay.policy.reroute import lane_of_key
from relay.policy.route import Lane
from relay.queue.intake import Intake
from relay.queue.operations import Operations
from relay.queue.reports import Ended, Report
from relay.queue.scheduler import Deliver, Limits, Scheduler
from relay.queue.store import StoreUnavailable
from relay.report.reporter import Reporter

_PATIENCE = 5.0  # seconds that a start waits for orders from before it


class Passage:
    """Made whole at once, opened step by step by its relay: what is opened first is closed last."""

    def __init__(self, base: Base, outside: Outside, delivery: OutboundSettings) -> None:
        self._base, self.port = base, delivery.port
        self.outbound = Outbound(
            book=base.book,
            resolver=outside.resolver,
            tls=outside.tls,
            ourselves=outside.ourselves,
            clock=utc_now,
            emit=base.emit,
            publications=outside.publications,
            settings=delivery,
        )
        self.reports = TlsReports(
            Neighbours(
                base.store, outside.resolver, lambda: self.intake, lambda: self.operations, base.colleagues.flush
            ),
            book=base.book,
            clock=utc_now,
            emit=base.emit,
            sends=base.place.leads,
        )
        self.scheduler = self._scheduler(self.reports.over(self.outbound.deliver))
        self.intake = Intake(base.store, emit=base.emit, accepted=self.scheduler.submit, ahead=self.scheduler.ahead)
        self.operations = Operations(
            base.store, self.scheduler, lane_of=self._lane_of, clock=utc_now, others=base.colleagues
        )
        self.policies = self._policy_server()
        self.steering = base.place.steering
        self.listeners = Listeners(self._services(outside))

    def _scheduler(self, deliver: Deliver) -> Scheduler:
        base, whole = self._base, Limits()
        reporter = Reporter(base.book, clock=utc_now, new_word=lambda: secrets.token_hex(10))

        async def compose(message: Message, body: MessageBytes, ended: Sequence[Ended]) -> Sequence[Report]:
            made = await reporter(message, body, ended)
            return [Report(each.kind, each.recipient, each.envelope, each.content, each.message_id) for each in made]

        count = base.place.count
        return Scheduler(
            base.store,
            deliver=deliver,
            compose=compose,
            lane_of=self._lane_of,
            emit=base.emit,
            clock=utc_now,
            limits=Limits(whole.deliveries // count, whole.candidates // count, whole.memory // count),
            allowance=base.place.lanes,
            tried=self.outbound.tell_withheld,
        )

    def _lane_of(self, destination: str) -> Lane:
        return lane_of_key(self._base.book(), destination)

    def _policy_server(self) -> PolicyServer:
        base, whole = self._base, PolicyLimits()
        ours = replace(whole, connections=max(whole.connections // base.place.count, 1))
        return PolicyServer(base.book, base.keyring, base.emit, ours, base.place.sockets)

    def _services(self, outside: Outside) -> Services:
        base, place = self._base, self._base.place
        return Services(
            base.book,
            self.intake,
            base.trust,
            base.keyring,
            base.emit,
            utc_now,
            sockets=place.sockets,
            elsewhere=place.connections,
            steering=self.steering,
            login_failed=base.colleagues.login_failed,
            processes=place.count,
            claims=place.leads,
            ask=self.outbound.ask,
            revocations=outside.revocations,
        )

    @property
    def listening(self) -> Mapping[str, HostPort]:
        """Where each listener of the configuration really is, by its name ("mx 127.0.0.1:0")."""
        return {each.listener.name: each.address for each in self.listeners.bound}

    # Opened and closed.

    async def start(self, stack: AsyncExitStack) -> None:
        """What waits is delivered, as soon as what was ordered of it before is done. Raises StoreUnavailable."""
        await self.reports.start()
        stack.push_async_callback(self.reports.close)
        stack.push_async_callback(lambda: self.scheduler.stop(self._base.grace))
        task = asyncio.create_task(self._begin(), name="unfinished-orders")
        stack.callback(task.cancel)
        # A store that cannot write must not keep the doors shut at which an operator asks what the matter is.
        await asyncio.wait([task], timeout=_PATIENCE)

    async def open(self, stack: AsyncExitStack) -> None:
        """Mail is taken, the last thing of all: everything behind it is ready. Raises ListenError, PasswordFileError, OSError."""
        stack.push_async_callback(self.policies.close)
        await self.policies.take(await self.policies.prepare(claim=False))
        stack.push_async_callback(lambda: self.listeners.close(self._base.grace))
        await self.listeners.start()

    # While it runs.

    async def reload(self, new: Config) -> None:
        """Everything here that does not ask for the rule book each time it decides. Raises NotAppliedError: nothing has changed then."""
        try:
            policies = await self.policies.prepare(claim=self._base.place.leads)
            try:
                await self.listeners.reload()
            except BaseException:
                self.policies.drop(policies)
                raise
        except (ListenError, PasswordFileError) as error:
            raise NotAppliedError(str(error)) from error
        await self.policies.take(policies)
        self._base.store.free_space = new.limits.free_space
        self._base.store.keep = new.retention.traces
        self.scheduler.reconfigured()

    async def adopt_abandoned(self) -> None:
        """What slots left behind that this relay does not have any more, since it has fewer workers now."""
        while True:
            try:
                for slot in await self._base.store.abandoned():
                    await self.adopt(slot)
            except StoreUnavailable:
                await asyncio.sleep(self._base.times.watch)
            else:
                return

    async def adopt(self, slot: int) -> None:
        """Takes over the mail of a slot, however long the store takes."""
        await self._insist(partial(self.operations.adopt, slot))

    async def _begin(self) -> None:
        """While the store cannot do what was ordered of our mail nothing is delivered either: it may be just what was to be held."""
        try:
            await self._insist(partial(self.operations.start, self._base.place.share.slot))
        except Exception:  # noqa: BLE001 - a bug in one order must not keep all mail waiting
            self._base.emit(Unexpected(secrets.token_hex(6), "unfinished orders", traceback.format_exc()))
        await self.scheduler.start()

    async def _insist(self, work: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                await work()
            except StoreUnavailable:
                await asyncio.sleep(self._base.times.watch)
            else:
                return

    async def learn_failed_logins(self) -> None:
        """What the other workers knew before we came."""
        for failures in await self._base.colleagues.failed_logins():
            self.listeners.learn_failed_logins(failures)
