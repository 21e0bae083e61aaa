"""Starts the rooms in order, hands each the callables it needs, stops them in the opposite order, loses nothing on the way.

Decides nothing about mail. What a signal or a command does to it is `relay.cli.serve`'s business. A relay of several processes is several
of these (`relay.app.several`), each in its `Place`.
"""

import asyncio
import random
import secrets
import time
import traceback
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from relay.admin.accounts import AccountsFileError
from relay.admin.endpoint import Change
from relay.admin.reload import told
from relay.admin.unix import SocketUnusableError
from relay.app.alerts import Alerts, Seen
from relay.app.audit import ITSELF, Audit
from relay.app.certificates import Certificates
from relay.app.colleagues import Answers, Colleagues
from relay.app.configuration import Configuration, NotAppliedError
from relay.app.control import Around, Control
from relay.app.desk import Desk, Look
from relay.app.evidence import Around as Seeing
from relay.app.evidence import Evidence, Refused, proving
from relay.app.inquiries import Inquiries, Sources
from relay.app.network import DaneWatch, ResolverSwitch, SelfPortrait
from relay.app.operations import Operator, Surroundings
from relay.app.place import InForce, Place
from relay.app.reports import Neighbours, TlsReports
from relay.app.transfer import Transfer
from relay.app.trial import send_trial
from relay.config.load import load_with_places
from relay.config.models import Config, ListenerKind
from relay.config.values import HostPort
from relay.dns.answers import Resolver
from relay.dns.download import Downloader
from relay.dns.resolver import DnsResolver
from relay.dns.sts import Clocks, StsPolicies
from relay.dns.stsfetch import FetchSettings, PolicyFetcher
from relay.inbound.listener import Listeners
from relay.inbound.passwords import PasswordFileError
from relay.inbound.policies import PolicyLimits, PolicyServer
from relay.inbound.services import Services
from relay.inbound.sockets import ListenError
from relay.mail.attempt import MessageBytes
from relay.mail.envelope import Message
from relay.mail.events import Emit, Event, Unexpected
from relay.observe.http import observe_listener, rendered
from relay.observe.metrics import Metrics
from relay.outbound.deliver import Outbound, OutboundSettings
from relay.outbound.handshake import TlsClient
from relay.outbound.probe import Means
from relay.outbound.publications import LookedUp
from relay.policy.reroute import lane_of_key
from relay.policy.route import Lane
from relay.queue.alerts import SqliteAlerts
from relay.queue.audit import SqliteAudit
from relay.queue.intake import Intake
from relay.queue.operations import Operations
from relay.queue.reports import Ended, Report
from relay.queue.scheduler import Deliver, Limits, Scheduler
from relay.queue.sqlite import SqliteStore
from relay.queue.store import StoreLocked, StoreUnavailable, StoreUnusable
from relay.queue.tallying import Tallying
from relay.report.reporter import Reporter
from relay.tls.keyring import Keyring
from relay.tls.revocation.answers import Answers as RevocationAnswers
from relay.tls.revocation.answers import RevocationSettings
from relay.tls.revocation.checks import Revocations
from relay.tls.trust import TrustStores

SQLITE = "sqlite:"
KEEP_AUDIT = timedelta(days=400)


class StartError(Exception):
    """The relay cannot start; str() names what, why and the remedy."""


@dataclass(frozen=True, slots=True)
class Times:
    """In seconds. `watch`: how often files are looked at. `grace`: how long sessions and deliveries under way may take at the end;
    `orphaned`: and where the supervisor has gone, so that somebody else may soon start the relay anew. `counts`: how often a worker tells
    the supervisor what it has counted; `alerts`: how often what may be worth an alert is looked at."""

    watch: float = 2.0
    grace: float = 30.0
    orphaned: float = 3.0
    counts: float = 5.0
    alerts: float = 30.0


def utc_now() -> datetime:
    return datetime.now(UTC)


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
        times: Times = Times(),
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
        self._policy_hosts, self._revocation_settings = policy_hosts, revocation
        self._refused = Refused(utc_now)
        self._observers: tuple[Emit, ...] = (self.metrics, self._refused, *observers)
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
        return self._configuration.config

    @property
    def listening(self) -> Mapping[str, HostPort]:
        """Where each listener of the configuration really is, by its name ("mx 127.0.0.1:0")."""
        return {each.listener.name: each.address for each in self._listeners.bound}

    def address(self, kind: ListenerKind = ListenerKind.MX) -> HostPort:
        """Where the first listener of a kind really is. LookupError where there is none."""
        for each in self._listeners.bound:
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
        return self._policy_server.addresses

    @property
    def operator(self) -> Operator:
        """What the admin socket offers, as calls."""
        return self._operator

    @property
    def audit(self) -> Audit:
        """Who changed what."""
        return self._audit

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
        config, place = in_force.config, self._place
        configuration = self._configuration = Configuration(
            self._file, in_force, self._emit, self._apply, self._colleagues.share, self._took_by_itself
        )
        book = configuration.book
        keyring = _keyring(config)
        trust = TrustStores()
        store = self._store = await self._open_store(stack, config)
        certificates = self._certificates = Certificates(
            keyring, store, config=lambda: self.config, emit=self._emit, clock=utc_now, leads=place.leads
        )
        self._observers = (*self._observers, certificates.hear)
        stack.push_async_callback(certificates.flush)
        resolver = self._switch = ResolverSwitch(self._resolver or DnsResolver.of(config.dns, self._emit))
        stack.push_async_callback(resolver.close)
        self._dane = DaneWatch(resolver, self._emit)
        stack.push_async_callback(_ended, asyncio.create_task(self._dane.run()))
        answers, revocations = self._make_revocations(stack, resolver, store)
        tls = TlsClient(keyring.by_name if keyring else lambda _name: None, trust, utc_now, revocations)
        policies = StsPolicies(
            resolver,
            PolicyFetcher(resolver, tls, self._policy_hosts),
            self._colleagues.keeper(store),
            clocks=Clocks(utc_now, time.monotonic),
            chance=random.SystemRandom(),
            emit=self._emit,
        )
        stack.push_async_callback(policies.close)
        self._portrait = SelfPortrait(lambda: self.config, lambda: (each.address for each in self._listeners.bound))
        outbound = self._make_outbound(resolver, tls, policies)
        self._inquiries = self._make_inquiries(resolver, tls, policies, revocations)
        stack.push_async_callback(outbound.close)
        reports = TlsReports(
            Neighbours(store, resolver, lambda: intake, lambda: operations, self._colleagues.flush),
            book=book,
            clock=utc_now,
            emit=self._emit,
            sends=place.leads,
        )
        scheduler = self._scheduler = self._make_scheduler(store, reports.over(outbound.deliver))
        intake = Intake(store, emit=self._emit, clock=utc_now, accepted=scheduler.submit)
        self._policy_server = PolicyServer(book, keyring, self._emit, self._policy_limits(), place.sockets)
        self._listeners = Listeners(replace(self._services(intake, trust, keyring, revocations), ask=outbound.ask))
        operations = Operations(store, scheduler, lane_of=self._lane_of, clock=utc_now, others=self._colleagues)
        evidence = self._make_evidence(store)
        self._operator = Operator(
            Surroundings(
                configuration=configuration,
                store=store,
                operations=operations,
                reports=reports,
                certificates=certificates,
                evidence=evidence,
                listening=lambda: self.listening,
                sessions=lambda: self._listeners.by_listener,
                lines_dropped=self._lines_dropped,
                clock=utc_now,
                colleagues=self._colleagues,
                counts=self.metrics.counts,
                alerts=lambda: self._alerts,
                trial=partial(send_trial, configuration.book, lambda: intake, utc_now),
                last_reload=lambda: self._audit.last("reload"),
            )
        )
        self._audit = Audit(
            SqliteAudit(store),
            self._emit,
            utc_now,
            lambda: self.config.admin.audit if self.config.admin else KEEP_AUDIT,
        )
        alerts = self._alerts = self._make_alerts(store, keyring, lambda: intake)
        self._observers = (*self._observers, alerts.hear)
        self._control = Control(
            Around(
                store=store,
                scheduler=scheduler,
                operations=operations,
                colleagues=self._colleagues,
                resolver=resolver,
                book=book,
                ourselves=self._portrait.look,
                clock=utc_now,
                port=self._delivery.port,
            )
        )
        self._transfer = Transfer(store, intake, operations, lambda: self.config, utc_now)
        await self._control.load()
        await reports.start()
        stack.push_async_callback(reports.close)
        await alerts.load(is_anew=not in_force.is_older)
        stack.push_async_callback(alerts.close)
        evidence.start()
        stack.push_async_callback(evidence.close)
        await scheduler.start()
        stack.push_async_callback(self._stop_scheduler)
        await self._open_doors(stack, config, trust, keyring)
        self._colleagues.answer(self._answers(operations, policies, reports, evidence))
        await self._control.load()  # what was suspended before anybody could tell us
        self._join(stack, in_force)
        certificates.start()
        alerts.begin()
        self._begin(stack, self._watch(self._looks((policies.look, answers.look))))

    def _make_revocations(
        self, stack: AsyncExitStack, resolver: Resolver, store: SqliteStore
    ) -> tuple[RevocationAnswers, Revocations]:
        """Who finds out whether certificates are revoked. Over HTTPS no certificate of ours is shown, and any of the host's will do."""
        plain = TlsClient(lambda _name: None, TrustStores(), utc_now)
        fetch = Downloader(resolver, plain, lambda: self.config.revocation_hosts)
        settings = self._revocation_settings
        answers = RevocationAnswers(fetch, store, clock=utc_now, emit=self._emit, settings=settings)
        stack.push_async_callback(answers.close)
        revocations = Revocations(answers, clock=utc_now, emit=self._emit, settings=settings)
        stack.push_async_callback(revocations.close)
        return answers, revocations

    def _make_inquiries(
        self, resolver: Resolver, tls: TlsClient, policies: StsPolicies, revocations: Revocations
    ) -> Inquiries:
        book = self._configuration.book

        def means() -> Means:
            return Means(book(), resolver, tls, LookedUp(resolver, policies, utc_now), utc_now, self._portrait.look())

        async def render() -> bytes:
            return await rendered(self.metrics, self._operator)

        return Inquiries(Sources(self._file, book, means, revocations, self._store, render, utc_now))

    def _make_outbound(self, resolver: Resolver, tls: TlsClient, policies: StsPolicies) -> Outbound:
        return Outbound(
            book=self._configuration.book,
            resolver=resolver,
            tls=tls,
            ourselves=self._portrait.look,
            clock=utc_now,
            emit=self._emit,
            publications=LookedUp(resolver, policies, utc_now),
            settings=self._delivery,
        )

    def _make_alerts(self, store: SqliteStore, keyring: Keyring | None, intake: Callable[[], Intake]) -> Alerts:
        configuration = self._configuration
        seen = Seen(
            book=configuration.book,
            keyring=keyring,
            resolver=self._switch,
            store=SqliteAlerts(store),
            intake=intake,
            store_troubles=self._operator.store_troubles,
            ended=self._colleagues.ended,
            file=str(self._file),
            waiting=lambda: configuration.waiting,
            look=self._times.alerts,
        )
        leads, hand_on = self._place.leads, self._colleagues.saw
        return Alerts(seen, clock=utc_now, emit=self._emit, leads=leads, hand_on=hand_on)

    def _make_evidence(self, store: SqliteStore) -> Evidence:
        book, place = self._configuration.book, self._place
        tallying = Tallying(store, place.share, clock=utc_now, proves=lambda: proving(self.config))
        return Evidence(
            tallying, self._refused, Seeing(book, utc_now, self._emit, self._colleagues.flush, leads=place.leads)
        )

    def _answers(
        self, operations: Operations, policies: StsPolicies, reports: TlsReports, evidence: Evidence
    ) -> Answers:
        async def flush() -> None:
            await self._certificates.flush()
            await reports.flush()
            await evidence.flush()

        return Answers(
            condition=self._operator.condition,
            running=self._scheduler.claims.running,
            carry_out=operations.carry_out,
            counts=self.metrics.counts,
            follow=self._configuration.follow,
            login_failed=self._listeners.login_failed,
            failed_logins=self._listeners.failed_logins,
            adopt=self._adopt,
            learn=policies.learn,
            flush=flush,
            saw=self._alerts.hear,
            suspend=self._control.heed,
        )

    def _join(self, stack: AsyncExitStack, in_force: InForce) -> None:
        """Takes our part among the workers."""
        if self._place.leads:
            self._colleagues.keep(in_force)
            if in_force.is_older:
                self._begin(stack, self._configuration.share())
            self._begin(stack, self._adopt_abandoned())
        if self._place.link is not None:
            self._begin(stack, self._count())
            self._begin(stack, self._learn_failed_logins())

    def _begin(self, stack: AsyncExitStack, work: Coroutine[Any, Any, None]) -> None:
        stack.push_async_callback(_ended, asyncio.create_task(work))

    def _desk(self, trust: TrustStores, keyring: Keyring | None) -> Desk:
        rooms = (self._operator, self._inquiries, self._audit, self._control, self._transfer)
        return Desk(self.config.hostname, *rooms, keyring, trust, self._emit, utc_now)

    def _policy_limits(self) -> PolicyLimits:
        """Of one worker."""
        whole = PolicyLimits()
        return replace(whole, connections=max(whole.connections // self._place.count, 1))

    def _services(
        self, intake: Intake, trust: TrustStores, keyring: Keyring | None, revocations: Revocations
    ) -> Services:
        place = self._place
        return Services(
            self._configuration.book,
            intake,
            trust,
            keyring,
            self._emit,
            utc_now,
            sockets=place.sockets,
            elsewhere=place.connections,
            login_failed=self._colleagues.login_failed,
            processes=place.count,
            claims=place.leads,
            revocations=revocations,
        )

    def _looks(self, refreshes: Sequence[Callable[[], Awaitable[None]]]) -> Sequence[Callable[[], Awaitable[None]]]:
        """What is looked at every few seconds. Every worker follows the certificates; the first one says what became of them."""
        certificates = self._certificates.look
        if not self._place.leads:
            return [certificates]
        return [self._configuration.look, *refreshes, self._audit.look, *self._admin_looks, certificates]

    async def _open_store(self, stack: AsyncExitStack, config: Config) -> SqliteStore:
        path = Path(config.queue.removeprefix(SQLITE))
        try:
            store = await SqliteStore.open(
                path,
                emit=self._emit,
                clock=utc_now,
                free_space=config.limits.free_space,
                keep=config.retention.traces,
                share=self._place.share,
            )
        except (StoreLocked, StoreUnusable) as error:
            raise StartError(str(error)) from error
        stack.push_async_callback(store.close)
        return store

    def _make_scheduler(self, store: SqliteStore, deliver: Deliver) -> Scheduler:
        reporter = Reporter(self._configuration.book, clock=utc_now, new_word=lambda: secrets.token_hex(10))

        async def compose(message: Message, body: MessageBytes, ended: Sequence[Ended]) -> Sequence[Report]:
            made = await reporter(message, body, ended)
            return [Report(each.kind, each.recipient, each.envelope, each.content, each.message_id) for each in made]

        count, whole = self._place.count, Limits()
        return Scheduler(
            store,
            deliver=deliver,
            compose=compose,
            lane_of=self._lane_of,
            emit=self._emit,
            clock=utc_now,
            limits=Limits(whole.deliveries // count, whole.candidates // count, whole.memory // count),
            allowance=self._place.lanes,
        )

    async def _open_doors(
        self, stack: AsyncExitStack, config: Config, trust: TrustStores, keyring: Keyring | None
    ) -> None:
        """Everything that others connect to; mail's own last, when all behind it is ready."""
        try:
            if config.admin is not None and self._place.leads:
                self._admin, self._admin_looks = await self._desk(trust, keyring).open(stack, config.admin)
            if config.observe is not None and self._place.leads:
                self._observed = await stack.enter_async_context(
                    observe_listener(config.observe, self.metrics, self._operator)
                )
            stack.push_async_callback(self._policy_server.close)
            await self._policy_server.take(await self._policy_server.prepare(claim=False))
            stack.push_async_callback(self._close_listeners)
            await self._listeners.start()
        except (ListenError, AccountsFileError, PasswordFileError, SocketUnusableError, OSError) as error:
            raise StartError(str(error)) from error

    @property
    def _grace(self) -> float:
        link = self._place.link
        return self._times.grace if link is None or not link.lost.is_set() else self._times.orphaned

    async def _stop_scheduler(self) -> None:
        await self._scheduler.stop(self._grace)

    async def _close_listeners(self) -> None:
        await self._listeners.close(self._grace)

    # While it runs.

    def _emit(self, event: Event) -> None:
        for hear in self._observers:
            hear(event)

    def _lane_of(self, destination: str) -> Lane:
        return lane_of_key(self._configuration.book(), destination)

    async def _took_by_itself(self, diff: str) -> None:
        await self._audit.note(ITSELF, "reload", Change("it weakens nothing", after={"diff": diff}))

    async def reload_on_signal(self) -> None:
        """What SIGHUP does."""
        result = await self._operator.reload(dry_run=False)
        await self._audit.note(replace(ITSELF, name="SIGHUP"), "reload", told(result))

    async def _apply(self, old: Config, new: Config) -> None:
        """Everything that does not ask for the rule book each time it decides."""
        if self._stopping:
            return  # a listener that opened now would stay open
        try:
            policies = await self._policy_server.prepare(claim=self._place.leads)
            try:
                await self._listeners.reload()
            except BaseException:
                self._policy_server.drop(policies)
                raise
        except (ListenError, PasswordFileError) as error:
            raise NotAppliedError(str(error)) from error
        await self._policy_server.take(policies)
        self._store.free_space = new.limits.free_space
        self._store.keep = new.retention.traces
        if self._resolver is None and new.dns != old.dns:
            self._switch.to(DnsResolver.of(new.dns, self._emit))
        self._dane.reconfigured()
        self._scheduler.reconfigured()

    async def _adopt_abandoned(self) -> None:
        """What slots left behind that this relay does not have any more, since it has fewer workers now."""
        while True:
            try:
                for slot in await self._store.abandoned():
                    await self._adopt(slot)
            except StoreUnavailable:
                await asyncio.sleep(self._times.watch)
            else:
                return

    async def _adopt(self, slot: int) -> None:
        """Takes over the mail of a slot, however long the store takes."""
        while True:
            try:
                await self._scheduler.adopt(slot)
            except StoreUnavailable:
                await asyncio.sleep(self._times.watch)
            else:
                return

    async def _learn_failed_logins(self) -> None:
        for failures in await self._colleagues.failed_logins():
            self._listeners.learn_failed_logins(failures)

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


def _keyring(config: Config) -> Keyring | None:
    if config.certificates is None:
        return None
    return Keyring(config.certificates, hostname=config.hostname, clock=utc_now)


async def _ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
