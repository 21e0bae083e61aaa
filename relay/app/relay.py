"""Starts the rooms in order, hands each the callables it needs, stops them in the opposite order, loses nothing on the way.

Decides nothing about mail. What a signal or a command does to it is `relay.cli.serve`'s business. A relay of several processes is several
of these (`relay.app.several`), each in its `Place`.
"""

import asyncio
import secrets
import traceback
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from relay.admin.accounts import AccountsFileError
from relay.admin.endpoint import Change
from relay.admin.reload import told
from relay.admin.unix import SocketUnusableError
from relay.app.audit import ITSELF, Audit
from relay.app.base import Base, StartError, Times, keyring_of, store_of, utc_now
from relay.app.certificates import Certificates
from relay.app.colleagues import Answers, Colleagues
from relay.app.configuration import Configuration
from relay.app.desk import Look
from relay.app.evidence import REFUSALS, Refused
from relay.app.hearing import Hearing
from relay.app.network import DaneWatch, ResolverSwitch, SelfPortrait
from relay.app.offices import Offices
from relay.app.operations import Operator
from relay.app.partners_seen import SHOWS_CERTIFICATES
from relay.app.passage import Passage
from relay.app.place import InForce, Place
from relay.config.load import load_with_places
from relay.config.models import Config, ListenerKind
from relay.config.values import HostPort
from relay.dns.answers import Resolver
from relay.dns.resolver import DnsResolver
from relay.dns.stsfetch import FetchSettings
from relay.inbound.passwords import PasswordFileError
from relay.inbound.sockets import ListenError
from relay.mail.events import Emit, Unexpected
from relay.observe.http import observe_listener
from relay.observe.metrics import Metrics
from relay.outbound.deliver import OutboundSettings
from relay.outbound.outside import Asking, Here, Kept, Outside
from relay.queue.keepers import SqliteRevocations
from relay.tls.revocation.answers import RevocationSettings
from relay.tls.trust import TrustStores

__all__ = ["Relay", "StartError", "Times"]


class Relay:
    """`async with Relay(Path("connectors.yaml")) as relay:` serves until the block ends.

    `observers` hear every event, in the event loop: they must be quick and must not raise. `resolver` takes the place of DNS.
    `policy_hosts` is how MTA-STS policies are fetched, `revocation` how long is waited for CRLs and OCSP answers.
    `lines_dropped` counts log lines that nobody took, for the metrics.
    `place`: among the workers of a relay; `in_force`: the configuration that they have.
    Raises ConfigError, or StartError, on entering.
    """

    def __init__(
        self,
        file: Path,
        *,
        observers: Sequence[Emit] = (),
        resolver: Resolver | None = None,
        times: Times = Times(),  # noqa: B008 - frozen
        delivery: OutboundSettings = OutboundSettings(),  # noqa: B008 - frozen
        policy_hosts: FetchSettings = FetchSettings(),  # noqa: B008 - frozen
        revocation: RevocationSettings = RevocationSettings(),  # noqa: B008 - frozen
        lines_dropped: Callable[[], int] = lambda: 0,
        place: Place = Place(),  # noqa: B008 - frozen
        in_force: InForce | None = None,
    ) -> None:
        self.metrics = Metrics()
        self._place, self._in_force = place, in_force
        self._colleagues = Colleagues(place.link)
        self._file, self._resolver, self._times, self._delivery = file, resolver, times, delivery
        self._asking = Asking(policy_hosts, revocation)
        self._refused = Refused(utc_now)
        self._emit = Hearing()
        self._emit.add(self.metrics, self.metrics.hears)
        self._emit.add(self._refused, REFUSALS)
        for each in observers:
            self._emit.add(each)
        self._lines_dropped = lines_dropped
        self._observed: HostPort | None = None
        self._admin: HostPort | None = None
        self._admin_looks: tuple[Look, ...] = ()
        self._stack = AsyncExitStack()
        self._stopping = False

    # What is open, for those who embed a relay.

    @property
    def config(self) -> Config:
        """The configuration in force."""
        return self._base.config

    @property
    def listening(self) -> Mapping[str, HostPort]:
        """Where each listener of the configuration really is, by its name ("mx 127.0.0.1:0")."""
        return self._passage.listening

    def address(self, kind: ListenerKind = ListenerKind.MX) -> HostPort:
        """Where the first listener of a kind really is. LookupError where there is none."""
        for each in self._passage.listeners.bound:
            if each.listener.kind is kind:
                return each.address
        raise LookupError(f"no listener of kind {kind.value}")

    @property
    def observed(self) -> HostPort:
        """Where /metrics, /healthz and /readyz really are. LookupError where `observe` is not configured."""
        if self._observed is None:
            raise LookupError("`observe` is not configured")
        return self._observed

    @property
    def admin(self) -> HostPort:
        """Where the admin API really is, by network. LookupError where `admin.listen` is not configured."""
        if self._admin is None:
            raise LookupError("`admin.listen` is not configured")
        return self._admin

    @property
    def policies(self) -> tuple[HostPort, ...]:
        """Where our MTA-STS policies are really served, in the order of `publish.https`; empty where that is not configured."""
        return self._passage.policies.addresses

    @property
    def under_way(self) -> int:
        """Connections of clients, and recipients that are in hand."""
        return self._passage.listeners.sessions + len(self._passage.scheduler.claims)

    @property
    def operator(self) -> Operator:
        """What the admin socket offers, as calls."""
        return self._offices.operator

    @property
    def audit(self) -> Audit:
        """Who changed what."""
        return self._offices.audit

    # Start and stop.

    async def __aenter__(self) -> Self:
        in_force = self._in_force
        if in_force is None:
            in_force = InForce.of(await asyncio.to_thread(load_with_places, self._file))
        async with AsyncExitStack() as stack:
            await self._start(stack, in_force)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping = True
        await self._stack.aclose()

    async def _start(self, stack: AsyncExitStack, in_force: InForce) -> None:
        """In the order of need. What is opened first is closed last, so that mail under way has all it needs until it is safe."""
        base = self._base = await self._found(stack, in_force)
        certificates = self._certificates = Certificates(
            base.keyring,
            base.store,
            config=lambda: base.config,
            emit=self._emit,
            clock=utc_now,
            leads=self._place.leads,
        )
        stack.push_async_callback(certificates.flush)
        outside = self._look_outside(stack)
        passage = self._passage = Passage(base, outside, self._delivery)
        stack.push_async_callback(passage.outbound.close)
        offices = self._offices = Offices(base, outside, passage, certificates, self._refused)
        self._emit.add(certificates.hear, SHOWS_CERTIFICATES)
        self._emit.add(offices.alerts.hear, offices.alerts.hears)
        await offices.start(stack, is_anew=not in_force.is_older)
        await passage.start(stack)
        await self._open_doors(stack)
        self._colleagues.answer(self._answers(outside))
        await offices.control.load()  # what was suspended before anybody could tell us
        self._join(stack, in_force)
        certificates.start()
        offices.alerts.begin()
        self._begin(stack, self._watch(self._looks(outside)))

    async def _found(self, stack: AsyncExitStack, in_force: InForce) -> Base:
        """What all rooms stand on. Raises StartError."""
        configuration = Configuration(
            self._file, in_force, self._emit, self._apply, self._colleagues.share, self._took_by_itself
        )
        store = await store_of(in_force.config, self._place, self._emit)
        stack.push_async_callback(store.close)
        return Base(
            file=self._file,
            place=self._place,
            times=self._times,
            configuration=configuration,
            keyring=keyring_of(in_force.config),
            trust=TrustStores(),
            store=store,
            colleagues=self._colleagues,
            metrics=self.metrics,
            lines_dropped=self._lines_dropped,
            emit=self._emit,
        )

    def _look_outside(self, stack: AsyncExitStack) -> Outside:
        base = self._base
        resolver = self._switch = ResolverSwitch(self._resolver or DnsResolver.of(base.config.dns, self._emit))
        stack.push_async_callback(resolver.close)
        self._dane = DaneWatch(resolver, self._emit)
        self._begin(stack, self._dane.run())
        portrait = SelfPortrait(lambda: base.config, lambda: (each.address for each in self._passage.listeners.bound))
        here = Here(base.keyring, base.trust, portrait.look, lambda: base.config.revocation_hosts, utc_now, self._emit)
        outside = Outside(
            here,
            resolver,
            Kept(self._colleagues.keeper(base.store), SqliteRevocations(base.store, utc_now)),
            self._asking,
        )
        stack.push_async_callback(outside.close)
        return outside

    async def _open_doors(self, stack: AsyncExitStack) -> None:
        """Everything that others connect to; mail's own last, when all behind it is ready."""
        config, leads = self.config, self._place.leads
        try:
            if config.admin is not None and leads:
                self._admin, self._admin_looks = await self._offices.desk().open(stack, config.admin)
            if config.observe is not None and leads:
                self._observed = await stack.enter_async_context(
                    observe_listener(config.observe, self.metrics, self.operator)
                )
            await self._passage.open(stack)
        except (ListenError, AccountsFileError, PasswordFileError, SocketUnusableError, OSError) as error:
            raise StartError(str(error)) from error

    def _answers(self, outside: Outside) -> Answers:
        passage, offices = self._passage, self._offices

        async def flush() -> None:
            await self._certificates.flush()
            await passage.reports.flush()
            await offices.evidence.flush()

        return Answers(
            condition=offices.operator.condition,
            running=passage.scheduler.claims.running,
            carry_out=passage.operations.carry_out,
            counts=self.metrics.counts,
            follow=self._base.configuration.follow,
            login_failed=passage.listeners.login_failed,
            failed_logins=passage.listeners.failed_logins,
            adopt=passage.adopt,
            learn=outside.policies.learn,
            flush=flush,
            saw=offices.alerts.hear,
            suspend=offices.control.heed,
        )

    def _join(self, stack: AsyncExitStack, in_force: InForce) -> None:
        """Takes our part among the workers."""
        if self._place.leads:
            self._colleagues.keep(in_force)
            if in_force.is_older:
                self._begin(stack, self._base.configuration.share())
            self._begin(stack, self._passage.adopt_abandoned())
        if self._place.link is not None:
            self._begin(stack, self._count())
            self._begin(stack, self._passage.learn_failed_logins())
        passage = self._passage
        if passage.steering is not None:
            watch = passage.steering.watch(lambda: passage.listeners.listening, lambda: len(passage.scheduler.claims))
            self._begin(stack, watch)

    def _begin(self, stack: AsyncExitStack, work: Coroutine[Any, Any, None]) -> None:
        stack.push_async_callback(_ended, asyncio.create_task(work))

    def _looks(self, outside: Outside) -> Sequence[Look]:
        """What is looked at every few seconds. Every worker follows the certificates; the first one says what became of them."""
        certificates = self._certificates.look
        if not self._place.leads:
            return [certificates]
        told = (self.audit.look, self._offices.control.look)
        return [self._base.configuration.look, *outside.looks, *told, *self._admin_looks, certificates]

    # While it runs.

    async def _took_by_itself(self, diff: str) -> None:
        await self.audit.note(ITSELF, "reload", Change("it weakens nothing", after={"diff": diff}))

    async def reload_on_signal(self) -> None:
        """What SIGHUP does."""
        result = await self.operator.reload(dry_run=False)
        await self.audit.note(replace(ITSELF, name="SIGHUP"), "reload", told(result))

    async def _apply(self, old: Config, new: Config) -> None:
        """Everything that does not ask for the rule book each time it decides. Raises NotAppliedError."""
        if self._stopping:
            return  # a listener that opened now would stay open
        await self._passage.reload(new)
        if self._resolver is None and new.dns != old.dns:
            self._switch.to(DnsResolver.of(new.dns, self._emit))
        self._dane.reconfigured()

    async def _count(self) -> None:
        while True:
            await asyncio.sleep(self._times.counts)
            self._colleagues.tell_counts(self.metrics.counts())

    async def _watch(self, looks: Sequence[Callable[[], Awaitable[None]]]) -> None:
        while True:
            await asyncio.sleep(self._times.watch)
            for look in looks:
                try:
                    await look()
                except Exception:  # noqa: BLE001 - watching must go on; what is in force stays in force
                    self._emit(Unexpected(secrets.token_hex(6), "watch", traceback.format_exc()))


async def _ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
