"""Starts the rooms in order, hands each the callables it needs, stops them in the opposite order, loses nothing on the way.

Decides nothing about mail. What a signal or a command does to it is `relay.cli.serve`'s business.
"""

import asyncio
import random
import secrets
import time
import traceback
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from relay.admin.unix import SocketUnusableError, admin_socket
from relay.app.certificates import CertificateWatch
from relay.app.configuration import Configuration, NotAppliedError
from relay.app.network import DaneWatch, ResolverSwitch, SelfPortrait
from relay.app.operations import Operator, Surroundings
from relay.app.reports import Neighbours, TlsReports
from relay.config.load import Loaded, load_with_places
from relay.config.models import Config, ListenerKind
from relay.config.values import HostPort
from relay.dns.answers import Resolver
from relay.dns.resolver import DnsResolver
from relay.dns.sts import Clocks, StsPolicies
from relay.dns.stsfetch import FetchSettings, PolicyFetcher
from relay.inbound.listener import Listeners
from relay.inbound.passwords import PasswordFileError
from relay.inbound.policies import PolicyServer
from relay.inbound.services import Services
from relay.inbound.sockets import ListenError
from relay.mail.attempt import MessageBytes
from relay.mail.envelope import Message
from relay.mail.events import Emit, Event, Unexpected
from relay.observe.http import observe_listener
from relay.observe.metrics import Metrics
from relay.outbound.deliver import Outbound, OutboundSettings
from relay.outbound.handshake import TlsClient
from relay.outbound.publications import LookedUp
from relay.policy.route import Lane, lane_of
from relay.queue.intake import Intake
from relay.queue.operations import Operations
from relay.queue.reports import Ended, Report
from relay.queue.scheduler import Deliver, Scheduler
from relay.queue.sqlite import SqliteStore
from relay.queue.store import StoreLocked, StoreUnusable
from relay.report.reporter import Reporter
from relay.tls.keyring import Keyring
from relay.tls.trust import TrustStores

SQLITE = "sqlite:"


class StartError(Exception):
    """The relay cannot start; str() names what, why and the remedy."""


@dataclass(frozen=True, slots=True)
class Times:
    """In seconds. `watch`: how often files are looked at. `grace`: how long sessions and deliveries under way may take at the end."""

    watch: float = 2.0
    grace: float = 30.0


def utc_now() -> datetime:
    return datetime.now(UTC)


class Relay:
    """`async with Relay(Path("connectors.yaml")) as relay:` serves until the block ends.

    `observers` hear every event, in the event loop: they must be quick and must not raise. `resolver` takes the place of DNS.
    `policy_hosts` is how MTA-STS policies are fetched. `lines_dropped` counts log lines that nobody took, for the metrics.
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
        lines_dropped: Callable[[], int] = lambda: 0,
    ) -> None:
        self.metrics = Metrics()
        self._file, self._resolver, self._times, self._delivery = file, resolver, times, delivery
        self._policy_hosts = policy_hosts
        self._observers: tuple[Emit, ...] = (self.metrics, *observers)
        self._lines_dropped = lines_dropped
        self._observed: HostPort | None = None
        self._stack = AsyncExitStack()

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
    def policies(self) -> tuple[HostPort, ...]:
        """Where our MTA-STS policies are really served, in the order of `publish.https`; empty where that is not configured."""
        return self._policy_server.addresses

    @property
    def operator(self) -> Operator:
        """What the admin socket offers, as calls."""
        return self._operator

    # Start and stop.

    async def __aenter__(self) -> Self:
        loaded = await asyncio.to_thread(load_with_places, self._file)
        async with AsyncExitStack() as stack:
            await self._start(stack, loaded)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def _start(self, stack: AsyncExitStack, loaded: Loaded) -> None:
        """In the order of need. What is opened first is closed last, so that mail under way has all it needs until it is safe."""
        config = loaded.config
        configuration = self._configuration = Configuration(self._file, loaded, self._emit, self._apply)
        book = configuration.book
        keyring = _keyring(config)
        trust = TrustStores()
        store = self._store = await self._open_store(stack, config)
        resolver = self._switch = ResolverSwitch(self._resolver or DnsResolver.of(config.dns, self._emit))
        stack.push_async_callback(resolver.close)
        self._dane = DaneWatch(resolver, self._emit)
        stack.push_async_callback(_ended, asyncio.create_task(self._dane.run()))
        tls = TlsClient(keyring.by_name if keyring else lambda _name: None, trust, utc_now)
        policies = StsPolicies(
            resolver,
            PolicyFetcher(resolver, tls, self._policy_hosts),
            store,
            clocks=Clocks(utc_now, time.monotonic),
            chance=random.SystemRandom(),
            emit=self._emit,
        )
        stack.push_async_callback(policies.close)
        outbound = Outbound(
            book=book,
            resolver=resolver,
            tls=tls,
            ourselves=SelfPortrait(lambda: self.config, lambda: (each.address for each in self._listeners.bound)).look,
            clock=utc_now,
            emit=self._emit,
            publications=LookedUp(resolver, policies, utc_now),
            settings=self._delivery,
        )
        stack.push_async_callback(outbound.close)
        reports = TlsReports(
            Neighbours(store, resolver, lambda: intake, lambda: operations), book=book, clock=utc_now, emit=self._emit
        )
        scheduler = self._scheduler = self._make_scheduler(store, reports.over(outbound.deliver))
        intake = Intake(store, emit=self._emit, clock=utc_now, accepted=scheduler.submit)
        self._policy_server = PolicyServer(book, keyring, self._emit)
        self._listeners = Listeners(Services(book, intake, trust, keyring, self._emit, utc_now))
        operations = Operations(store, scheduler, lane_of=self._lane_of, clock=utc_now)
        self._operator = Operator(
            Surroundings(
                configuration=configuration,
                store=store,
                operations=operations,
                reports=reports,
                keyring=keyring,
                listening=lambda: self.listening,
                sessions=lambda: self._listeners.by_listener,
                lines_dropped=self._lines_dropped,
                clock=utc_now,
            )
        )
        await reports.start()
        stack.push_async_callback(reports.close)
        await scheduler.start()
        stack.push_async_callback(scheduler.stop, self._times.grace)
        await self._open_doors(stack, config)
        watch: list[Callable[[], Awaitable[None]]] = [configuration.look, policies.look]
        if keyring is not None and config.certificates is not None:
            certificates = CertificateWatch(keyring, config.certificates, emit=self._emit, clock=utc_now)
            certificates.start()
            watch.append(certificates.look)
        watching = asyncio.create_task(self._watch(watch))
        stack.push_async_callback(_ended, watching)

    async def _open_store(self, stack: AsyncExitStack, config: Config) -> SqliteStore:
        path = Path(config.queue.removeprefix(SQLITE))
        try:
            store = await SqliteStore.open(path, emit=self._emit, clock=utc_now, free_space=config.limits.free_space)
        except (StoreLocked, StoreUnusable) as error:
            raise StartError(str(error)) from error
        stack.push_async_callback(store.close)
        return store

    def _make_scheduler(self, store: SqliteStore, deliver: Deliver) -> Scheduler:
        reporter = Reporter(self._configuration.book, clock=utc_now, new_word=lambda: secrets.token_hex(10))

        async def compose(message: Message, body: MessageBytes, ended: Sequence[Ended]) -> Sequence[Report]:
            made = await reporter(message, body, ended)
            return [Report(each.kind, each.recipient, each.envelope, each.content, each.message_id) for each in made]

        return Scheduler(store, deliver=deliver, compose=compose, lane_of=self._lane_of, emit=self._emit, clock=utc_now)

    async def _open_doors(self, stack: AsyncExitStack, config: Config) -> None:
        """Everything that others connect to; mail's own last, when all behind it is ready."""
        try:
            if config.admin is not None:
                await stack.enter_async_context(admin_socket(config.admin.socket, self._operator, self._emit))
            if config.observe is not None:
                self._observed = await stack.enter_async_context(
                    observe_listener(config.observe, self.metrics, self._operator)
                )
            stack.push_async_callback(self._policy_server.close)
            await self._policy_server.take(await self._policy_server.prepare())
            stack.push_async_callback(self._listeners.close, self._times.grace)
            await self._listeners.start()
        except (ListenError, PasswordFileError, SocketUnusableError, OSError) as error:
            raise StartError(str(error)) from error

    # While it runs.

    def _emit(self, event: Event) -> None:
        for hear in self._observers:
            hear(event)

    def _lane_of(self, domain: str) -> Lane:
        return lane_of(self._configuration.book(), domain)

    async def _apply(self, old: Config, new: Config) -> None:
        """Everything that does not ask for the rule book each time it decides."""
        try:
            policies = await self._policy_server.prepare()
            try:
                await self._listeners.reload()
            except BaseException:
                self._policy_server.drop(policies)
                raise
        except (ListenError, PasswordFileError) as error:
            raise NotAppliedError(str(error)) from error
        await self._policy_server.take(policies)
        self._store.free_space = new.limits.free_space
        if self._resolver is None and new.dns != old.dns:
            self._switch.to(DnsResolver.of(new.dns, self._emit))
        self._dane.reconfigured()
        self._scheduler.reconfigured()

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
