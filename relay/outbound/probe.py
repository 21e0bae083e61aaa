"""Looks at the hosts that mail for a domain would go to: EHLO, STARTTLS, EHLO again, QUIT. Sends no mail and never logs in.

Connections are made as a delivery makes them, but go on as far as they can, so that every level can be judged by what was seen
(`relay.policy.probe`). Times are short and hosts are few: somebody waits for the answer.
"""

import asyncio
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime

from relay.config.connectors import Route
from relay.config.models import OutboundConnector
from relay.config.values import HostPort
from relay.dns.answers import Resolver
from relay.mail.outcome import Bounced, Deferred
from relay.mail.plan import TlsPlan
from relay.mail.tls import TlsEvidence, TlsFailure
from relay.outbound.client import Timeouts
from relay.outbound.connection import (
    ClientTls,
    Connection,
    NoCertificateError,
    Stage,
    Trouble,
    open_connection,
)
from relay.outbound.lookup import Hosts, ask_addresses, find_hosts, fit_addresses
from relay.outbound.offer import Offer
from relay.outbound.ourselves import Ourselves
from relay.outbound.publications import Publications, Way
from relay.outbound.target import Target
from relay.policy.book import IpAddress, RuleBook
from relay.policy.forward import ourselves
from relay.policy.plan import running_exception
from relay.policy.probe import (
    IN_FORCE,
    NOT_OFFERED,
    LevelVerdict,
    Measure,
    NoTls,
    Seen,
    Standing,
    Subject,
    everything,
    measures,
    probe_plan,
    verdicts,
)
from relay.policy.published import UNPUBLISHED, Published, uses
from relay.policy.route import SMTP_PORT, Unroutable

PATIENCE = Timeouts(connect=10.0, greeting=30.0, command=15.0, handshake=15.0, quit=2.0)


@dataclass(frozen=True, slots=True)
class ProbeSettings:
    """`hosts` and `addresses` in all, in the order of preference; more are named and not looked at. `at_once`: connections at the same time."""

    timeouts: Timeouts = PATIENCE
    port: int = SMTP_PORT
    hosts: int = 20
    addresses: int = 40
    at_once: int = 8


@dataclass(frozen=True, slots=True)
class ProbedAddress:
    """`trouble`: why there was no session, or none to the end; "" where all went well. `offer` is what the last EHLO said.

    `stages`: how far it came, each with the seconds since it began.
    """

    address: IpAddress
    seconds: float
    trouble: str = ""
    evidence: TlsEvidence | None = None
    offer: Offer | None = None
    verdicts: tuple[LevelVerdict, ...] = ()
    stages: tuple[tuple[Stage, float], ...] = field(default=(), compare=False)

    @property
    def passes(self) -> bool:
        """The policy in force would let mail go here."""
        return not self.trouble and any(
            each.level == IN_FORCE and each.standing is Standing.PASSES for each in self.verdicts
        )


@dataclass(frozen=True, slots=True)
class ProbedHop:
    """`trouble`: why no address was looked at, and the `status` (RFC 3463) that mail would get. `left_out`: too many to look at."""

    hop: HostPort
    measures: tuple[Measure, ...]
    published: Published
    addresses: tuple[ProbedAddress, ...] = ()
    left_out: tuple[IpAddress, ...] = ()
    trouble: str = ""
    status: str = ""
    seconds: float = field(default=0.0, compare=False)


@dataclass(frozen=True, slots=True)
class Probe:
    """`domain` is whose mail it is about. `unroutable` where no host could be found. `seconds`: how long looking for hosts took; a hop's,
    looking up its addresses and what is published."""

    domain: str
    connector: OutboundConnector
    hops: tuple[ProbedHop, ...] = ()
    unroutable: Unroutable | None = None
    seconds: float = field(default=0.0, compare=False)

    @property
    def passes(self) -> bool:
        return any(each.passes for hop in self.hops for each in hop.addresses)


@dataclass(frozen=True, slots=True)
class Means:
    """What a probe goes by and looks with, as deliveries do. `clock` is the wall clock in UTC."""

    book: RuleBook
    resolver: Resolver
    tls: ClientTls
    publications: Publications
    clock: Callable[[], datetime]
    ourselves: Ourselves = field(default_factory=Ourselves)
    settings: ProbeSettings = field(default_factory=ProbeSettings)


async def probe_domain(means: Means, domain: str) -> Probe:
    """Every host, every address that mail for the domain would go to."""
    connector, begun = means.book.outbound_for(domain), time.monotonic()
    hosts = await find_hosts(means.resolver, connector, domain, means.ourselves, means.settings.port)
    seconds = time.monotonic() - begun
    if isinstance(hosts, Bounced | Deferred):
        return Probe(domain, connector, (), hosts, seconds)
    return replace(await _Prober(means, connector, domain).all(hosts), seconds=seconds)


async def probe_hop(means: Means, connector: OutboundConnector, domain: str, hop: HostPort) -> Probe:
    """One host that an admin names, as if it were the connector's smart host; our own listeners may be looked at too."""
    there = connector.model_copy(update={"route": Route(smart_hosts=(hop,))})
    return await _Prober(means, there, domain, Ourselves()).all(Hosts(((hop,),), secure=True))


@dataclass(frozen=True, slots=True)
class _Known:
    """What is known of a host before it is connected to."""

    hop: HostPort
    published: Published
    measures: tuple[Measure, ...]
    addresses: tuple[IpAddress, ...] | Unroutable
    seconds: float


@dataclass(frozen=True, slots=True)
class _Look:
    """`seen` None: nothing that a level could be held against."""

    seen: Seen | None
    trouble: str = ""
    offer: Offer | None = None
    stages: tuple[tuple[Stage, float], ...] = ()


class _Prober:
    def __init__(
        self, means: Means, connector: OutboundConnector, domain: str, ourselves: Ourselves | None = None
    ) -> None:
        self._means, self._connector, self._domain = means, connector, domain
        self._ourselves = means.ourselves if ourselves is None else ourselves
        self._slots = asyncio.Semaphore(means.settings.at_once)

    async def all(self, hosts: Hosts) -> Probe:
        settings = self._means.settings
        hops = [hop for group in hosts.groups for hop in group]
        known = await asyncio.gather(*(self._look_up(hop, secure=hosts.secure) for hop in hops[: settings.hosts]))
        left = settings.addresses
        work = []
        for each in known:
            count = 0 if isinstance(each.addresses, Bounced | Deferred) else min(len(each.addresses), left)
            left -= count
            work.append(self._hop(each, count))
        probed = await asyncio.gather(*work)
        text = f"not looked at: these are more than {settings.hosts} hosts"
        many = (ProbedHop(hop, (), UNPUBLISHED, trouble=text) for hop in hops[settings.hosts :])
        return Probe(self._domain, self._connector, (*probed, *many))

    async def _look_up(self, hop: HostPort, *, secure: bool) -> _Known:
        means, connector, now, begun = self._means, self._connector, self._means.clock(), time.monotonic()
        exception = running_exception(means.book, self._domain, now.date())
        way = Way(connector, self._domain, hop, secure)
        published = await means.publications.find(way, uses(connector, exception))
        measured = measures(means.book, Subject(connector, self._domain, hop, published), now)
        answer = await ask_addresses(means.resolver, connector, hop)
        fit = fit_addresses(connector, hop, answer, self._ourselves)
        return _Known(hop, published, measured, fit, time.monotonic() - begun)

    async def _hop(self, known: _Known, count: int) -> ProbedHop:
        if isinstance(known.addresses, Bounced | Deferred):
            there = ProbedHop(known.hop, known.measures, known.published, seconds=known.seconds)
            return replace(there, trouble=known.addresses.text, status=known.addresses.status)
        found = await asyncio.gather(*(self._address(known, address) for address in known.addresses[:count]))
        left_out = known.addresses[count:]
        return ProbedHop(known.hop, known.measures, known.published, tuple(found), left_out, seconds=known.seconds)

    async def _address(self, known: _Known, address: IpAddress) -> ProbedAddress:
        connector, helo = self._connector, self._connector.helo or self._means.book.config.hostname
        plan = probe_plan(known.measures)
        target = Target(known.hop, address, plan, helo, connector.source or "", client=ourselves(connector))
        async with self._slots:
            begun = time.monotonic()
            look = await self._look(target, known.measures)
            seconds = time.monotonic() - begun
        evidence = look.seen if isinstance(look.seen, TlsEvidence) else None
        offered = look.offer is not None and look.offer.requiretls
        judged = verdicts(known.measures, look.seen, requiretls_offered=offered) if look.seen is not None else ()
        return ProbedAddress(address, seconds, look.trouble, evidence, look.offer, judged, look.stages)

    async def _look(self, target: Target, measured: tuple[Measure, ...]) -> _Look:
        tls = _ForAll(self._means.tls, target.plan.adding(everything(measured)))
        try:
            context = tls.context(target.plan)
        except NoCertificateError as error:
            return _Look(None, str(error))
        begun, stages = time.monotonic(), list[tuple[Stage, float]]()

        def reached(stage: Stage) -> None:
            stages.append((stage, time.monotonic() - begun))

        opened = await open_connection(target, context, tls, self._means.settings.timeouts, reached)
        return replace(await self._seen(opened), stages=tuple(stages))

    async def _seen(self, opened: Connection | Trouble) -> _Look:
        if not isinstance(opened, Trouble):
            opened.leave()
            await opened.gone()
            return _Look(opened.evidence or NOT_OFFERED, offer=opened.offer)
        failure = opened.outcome.failure
        if failure is TlsFailure.STARTTLS_NOT_SUPPORTED:
            return _Look(NOT_OFFERED)
        if failure is not None and opened.evidence is None:
            return _Look(NoTls(True, failure, opened.outcome.text))
        return _Look(opened.evidence, opened.outcome.text)


class _ForAll:
    """Takes evidence for every level at once, and always of a full handshake: what is shown now is what counts."""

    def __init__(self, tls: ClientTls, plan: TlsPlan) -> None:
        self._tls, self._plan = tls, plan

    def context(self, _plan: TlsPlan) -> ssl.SSLContext:
        return self._tls.context(self._plan)

    def evidence(self, ssl_object: object, _plan: TlsPlan) -> TlsEvidence:
        return self._tls.evidence(ssl_object, self._plan)

    async def with_revocation(self, evidence: TlsEvidence, _plan: TlsPlan) -> TlsEvidence:
        return await self._tls.with_revocation(evidence, self._plan)

    async def with_news(self, evidence: TlsEvidence) -> TlsEvidence:
        return await self._tls.with_news(evidence)

    def resuming(self, _target: Target, context: ssl.SSLContext) -> ssl.SSLContext:
        return context

    def keep(self, _target: Target, _context: ssl.SSLContext, _ssl_object: object) -> None:
        """There is no next time."""
