"""Outbound: takes a delivery from the scheduler and gives back what became of every recipient at every hop it tried.

Recipients are grouped by connector and plan; each group goes to its hops in order until all are settled: the next address after a
failed connection, failed TLS, a failed verdict, or 4xx; 5xx after MAIL is the end (see `relay.outbound.outcomes`).
Knows nothing of the queue. Tells `TlsWithheld` once for a message's recipient that waits because of TLS, when that is recorded.
"""

import random
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from relay.config.models import ForwardClient, OutboundConnector
from relay.config.values import HostPort
from relay.dns.answers import Resolver
from relay.mail.address import Address
from relay.mail.attempt import Attempt, Delivery
from relay.mail.envelope import Message
from relay.mail.events import Emit, TlsWithheld
from relay.mail.outcome import Bounced, Deferred, Outcome
from relay.mail.plan import TlsPlan
from relay.mail.tls import TlsFailure
from relay.outbound.attempt import OVERTAKEN, Attempts, Job
from relay.outbound.callout import Questions, Where
from relay.outbound.client import Timeouts
from relay.outbound.clientname import reverse_name
from relay.outbound.connection import ClientTls, Connection
from relay.outbound.detour import DetourWays
from relay.outbound.lookup import Hosts, ask_addresses, find_hosts, in_order, shuffled
from relay.outbound.ourselves import Ourselves
from relay.outbound.pool import Pool, PoolLimits
from relay.outbound.publications import NothingPublished, Publications, Way
from relay.outbound.target import Target
from relay.outbound.ways import Ways
from relay.policy.book import RuleBook
from relay.policy.callout import Answer
from relay.policy.forward import OnBehalfOf, on_behalf_of
from relay.policy.plan import running_exception
from relay.policy.published import UNPUBLISHED, Published
from relay.policy.remedy import remedy
from relay.policy.requiretls import kept_nowhere, was_refused
from relay.policy.reroute import Detour, parse_key
from relay.policy.route import SMTP_PORT, Unroutable

_TOLD = 10_000


@dataclass(frozen=True, slots=True)
class OutboundSettings:
    """`addresses`: how many one delivery tries. `refusals`: how many hops may answer it with 4xx before it waits for its next turn."""

    timeouts: Timeouts = field(default_factory=Timeouts)
    pool: PoolLimits = field(default_factory=PoolLimits)
    port: int = SMTP_PORT
    addresses: int = 8
    refusals: int = 3


@dataclass(frozen=True, slots=True)
class _Group:
    """Recipients that share connector, route and plan; `domain` is that of the first."""

    connector: OutboundConnector
    domain: str
    indexes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Course:
    """What a group goes by: `ways` and `publications` are its own where an operator sends it elsewhere."""

    group: _Group
    ways: Ways
    publications: Publications


class Outbound:
    """`book` and `ourselves` are asked at every delivery, so that a reload holds at once. `clock` is the wall clock in UTC."""

    def __init__(
        self,
        *,
        book: Callable[[], RuleBook],
        resolver: Resolver,
        tls: ClientTls,
        ourselves: Callable[[], Ourselves],
        clock: Callable[[], datetime],
        emit: Emit,
        publications: Publications = NothingPublished(),  # noqa: B008 - it has no state
        chance: random.Random | None = None,
        settings: OutboundSettings = OutboundSettings(),
    ) -> None:
        self._book, self._resolver, self._ourselves = book, resolver, ourselves
        self._publications = publications
        self._clock, self._emit = clock, emit
        self._chance = chance or random.SystemRandom()
        self._settings = settings
        self._pool: Pool[Connection] = Pool(settings.pool, time.monotonic)
        self._attempts = Attempts(self._pool, tls, settings.timeouts, clock, book)
        self._questions = Questions(self._pool, tls, settings.timeouts, clock, book)
        self._ways: Ways | None = None
        self._told: OrderedDict[tuple[str, int], None] = OrderedDict()

    async def deliver(self, delivery: Delivery) -> Sequence[Attempt]:
        """Every attempt, in order. Of a recipient, the last attempt that has it says what became of it; every one of
        `delivery.indexes` is in at least one. Never raises for what hops, DNS or the network do."""
        attempts: list[Attempt] = []
        left = delivery
        while left.indexes:
            ways, found = self._current(), list[Attempt]()
            if left.via:
                found.extend(await self._on_detours(ways.book, left))
            own = (
                replace(left, indexes=tuple(each for each in left.indexes if each not in left.via), via={})
                if left.via
                else left
            )
            for group in _groups(ways, own) if own.indexes else ():
                found.extend(await self._deliver(ways, own, group))
            attempts.extend(found)
            # A reload holds at once: what it overtook is tried again, by the new rules.
            left = replace(left, indexes=_overtaken(found))
        return attempts

    async def ask(self, address: Address) -> Answer:
        """Would the hosts that mail for this address goes to take it? Never raises for what hops, DNS or the network do."""
        ways = self._current()
        connector = ways.connector(address.domain)
        places = self._places(ways, connector, address.domain)
        try:
            return await self._questions.ask(address, Where(connector, ways.book, places))
        finally:
            await places.aclose()

    async def _places(
        self, ways: Ways, connector: OutboundConnector, domain: str
    ) -> AsyncGenerator[Target | str, None]:
        """Where a delivery would go, in order, without its retries."""
        ourselves = self._ourselves()
        hosts = await find_hosts(self._resolver, connector, domain, ourselves, self._settings.port)
        if isinstance(hosts, Bounced | Deferred):
            yield hosts.text
            return
        uses = ways.uses(connector, domain, tls_optional=False)
        for hop in in_order(hosts.groups, self._chance, self._pool.is_warm):
            way = Way(connector, domain, hop, hosts.secure)
            plan = ways.plan(way, self._clock(), await self._publications.find(way, uses))
            if isinstance(plan, Deferred):
                yield plan.text
                continue
            answer = await ask_addresses(self._resolver, connector, hop)
            targets = ways.targets(connector, hop, plan, answer, ourselves)
            if isinstance(targets, Bounced | Deferred):
                yield targets.text
                continue
            for target in self._ordered(hop, targets):
                yield target

    def _current(self) -> Ways:
        book, day = self._book(), self._clock().date()
        if self._ways is None or not self._ways.serves(book, day):
            self._ways = Ways(book, day)
        return self._ways

    async def close(self) -> None:
        """QUIT to idle connections, briefly waited for. Deliveries under way are for the scheduler to end."""
        await self._pool.close()

    async def _deliver(self, ways: Ways, delivery: Delivery, group: _Group) -> list[Attempt]:
        connector = group.connector
        messages = connector.limits.messages_per_connection
        client = await self._client_of(connector, delivery)
        job = Job(delivery.message, delivery.body, connector.name, ways.book, messages, client)
        ourselves = self._ourselves()
        hosts = await find_hosts(self._resolver, connector, group.domain, ourselves, self._settings.port)
        return await self._go(job, _Course(group, ways, self._publications), hosts)

    async def _on_detours(self, book: RuleBook, delivery: Delivery) -> list[Attempt]:
        """The recipients that an operator sends another way."""
        by_key: dict[str, list[int]] = {}
        for index in delivery.indexes:
            if index in delivery.via:
                by_key.setdefault(delivery.via[index], []).append(index)
        found: list[Attempt] = []
        for key, indexes in by_key.items():
            domain, detour = parse_key(key)
            asked = delivery.message.envelope.requiretls
            ways = DetourWays(book, self._clock().date(), domain, detour or Detour(), requiretls=asked)
            acting = ways.acting if isinstance(ways.acting, OutboundConnector) else book.outbound_for(domain)
            client = await self._client_of(acting, delivery)
            job = Job(delivery.message, delivery.body, acting.name, book, acting.limits.messages_per_connection, client)
            around = self._resolver, self._ourselves(), self._settings.port
            hosts, publications = await ways.hosts(*around), await ways.publications(self._publications, *around)
            if isinstance(publications, Bounced | Deferred):
                hosts, publications = publications, self._publications
            course = _Course(_Group(acting, domain, tuple(indexes)), ways, publications)
            found.extend(await self._go(job, course, hosts))
        return found

    async def _go(self, job: Job, course: _Course, hosts: Hosts | Unroutable) -> list[Attempt]:
        group = course.group
        if isinstance(hosts, Deferred) and hosts.failure is not None:
            # Forged or broken MX records: the domain hears of it (RFC 8460 section 4.3.2.1, dnssec-invalid).
            return [job.withheld(self._clock(), "", hosts, group.indexes, UNPUBLISHED)]
        if isinstance(hosts, Bounced | Deferred):
            return [job.record(self._clock(), "", "", None, dict.fromkeys(group.indexes, hosts))]
        walk = _Walk(job, group.indexes)
        await self._walk(course, hosts, walk)
        if walk.waiting and walk.by_sts is not None and await course.publications.recheck(*walk.by_sts):
            # RFC 8461 section 5.1: no failure under an MTA-STS policy that has been replaced meanwhile.
            walk.begin_again()
            await self._walk(course, hosts, walk)
        return walk.end()

    async def _walk(self, course: _Course, hosts: Hosts, walk: "_Walk") -> None:
        """Along the hosts until all recipients are settled or enough has been tried."""
        ways, publications = course.ways, course.publications
        connector, domain, ourselves = course.group.connector, course.group.domain, self._ourselves()
        envelope = walk.job.message.envelope
        uses = ways.uses(connector, domain, tls_optional=envelope.tls_optional)
        for hop in in_order(hosts.groups, self._chance, self._pool.is_warm):
            if walk.is_over(self._settings):
                return
            way = Way(connector, domain, hop, hosts.secure)
            published = await publications.find(way, uses)
            walk.is_at(way, published)
            plan = ways.plan(way, self._clock(), published, requiretls=envelope.requiretls)
            if isinstance(plan, Deferred):
                walk.withheld(self._clock(), hop, plan, published)
                continue
            answer = await ask_addresses(self._resolver, connector, hop)
            targets = ways.targets(connector, hop, plan, answer, ourselves)
            if isinstance(targets, Bounced | Deferred):
                walk.dead_end(self._clock(), hop, plan, targets)
                continue
            if walk.job.client is not None:
                targets = tuple(each.on_behalf_of(walk.job.client) for each in targets)
            for target in self._ordered(hop, targets):
                tried = await self._attempts.at(walk.job, target, walk.waiting)
                walk.went(tried.attempts, said_mail=tried.said_mail)
                if tried.overtaken:
                    return
                if walk.was_refused:
                    break
                if walk.is_over(self._settings):
                    return
        walk.has_tried_all = True

    async def _client_of(self, connector: OutboundConnector, delivery: Delivery) -> OnBehalfOf | None:
        client = on_behalf_of(connector, delivery.message.accepted)
        if client is None or client.address is None or client.how is not ForwardClient.XCLIENT:
            return client
        return replace(client, names=await reverse_name(self._resolver, client.address))

    def _ordered(self, hop: HostPort, targets: Sequence[Target]) -> Sequence[Target]:
        """The addresses of a hop in the order to try them: connected ones first, else by chance, both families in turns."""
        if len(targets) == 1:
            return targets
        ordered = shuffled(targets, lambda target: target.address.version, self._chance)
        if self._pool.is_warm(hop):
            ordered.sort(key=lambda target: not self._pool.has(target))
        return ordered

    def tell_withheld(self, message: Message, attempts: Sequence[Attempt]) -> None:
        """Of recipients that wait at the end of a delivery: the last TLS failure on their way, whatever else went wrong after it. Called
        when its attempts are recorded: a message may be refused after all that was tried with it (`MessageBytes.chunks`)."""
        failures: dict[int, tuple[Attempt, TlsFailure]] = {}
        waiting: set[int] = set()
        for attempt in attempts:
            for index, outcome in attempt.outcomes:
                if not isinstance(outcome, Deferred):
                    waiting.discard(index)
                    continue
                waiting.add(index)
                if outcome.failure is not None:
                    failures[index] = (attempt, outcome.failure)
        for index, (attempt, failure) in failures.items():
            key = (message.id, index)
            if index not in waiting or key in self._told:
                continue
            self._told[key] = None
            if len(self._told) > _TOLD:
                self._told.popitem(last=False)
            address = message.envelope.recipients[index].address
            what = remedy(failure, hop=attempt.hop, connector=attempt.connector, domain=address.domain)
            self._emit(TlsWithheld(message.id, str(address), attempt.hop, failure, what))


class _Walk:
    """How far a group has come on its way along the hops."""

    def __init__(self, job: Job, indexes: Sequence[int]) -> None:
        self.job = job
        self.attempts: list[Attempt] = []
        self.waiting: list[int] = list(indexes)
        self.by_sts: tuple[Way, Published] | None = None
        self.has_tried_all = False
        self._begun = 0  # attempts before the present round
        self._closed: set[str] = set()  # hops that mail can never go to
        self._tried = self._refusals = 0
        self._dead_ends: list[Unroutable] = []

    def begin_again(self) -> None:
        """The same hosts once more. What was recorded stays."""
        self._tried = self._refusals = 0
        self._dead_ends.clear()
        self._closed.clear()
        self._begun, self.has_tried_all = len(self.attempts), False

    def is_at(self, way: Way, published: Published) -> None:
        """Notes whose MTA-STS policy, if any, may be what keeps the mail from its hosts."""
        if published.sts.demands or published.sts.withheld is not None:
            self.by_sts = way, published

    def withheld(self, at: datetime, hop: HostPort, why: Deferred, published: Published) -> None:
        """A host that published policy keeps mail from: nobody connects to it."""
        self._dead_ends.append(why)
        self.attempts.append(self.job.withheld(at, str(hop), why, self.waiting, published))

    def dead_end(self, at: datetime, hop: HostPort, plan: TlsPlan, why: Unroutable) -> None:
        """A host without an address to try. As long as others are left it only defers."""
        self._dead_ends.append(why)
        if isinstance(why, Bounced):
            self._closed.add(str(hop))
        soft = Deferred(451, f"4{why.status[1:]}", why.text)
        self.attempts.append(self.job.record(at, str(hop), "", plan, dict.fromkeys(self.waiting, soft)))

    def went(self, attempts: Sequence[Attempt], *, said_mail: bool) -> None:
        self.attempts.extend(attempts)
        self._tried += 1
        self._refusals += said_mail
        if attempts:
            last = dict(attempts[-1].outcomes)
            self.waiting = [index for index in self.waiting if isinstance(last.get(index), Deferred)]

    def is_over(self, settings: OutboundSettings) -> bool:
        return not self.waiting or self._tried >= settings.addresses or self._refusals >= settings.refusals

    @property
    def was_refused(self) -> bool:
        """The last host cannot keep REQUIRETLS (RFC 8689), so its other addresses cannot either."""
        return bool(self.attempts) and all(was_refused(each) for _index, each in self.attempts[-1].outcomes)

    def end(self) -> list[Attempt]:
        """No hop is left. Where every one was a dead end for good, so is the route; where none keeps REQUIRETLS, so is the message."""
        if self.has_tried_all and self.job.message.envelope.requiretls:
            bounced = {index: found for index in self.waiting if (found := kept_nowhere(self._answers(index)))}
            outcomes = dict(self.attempts[-1].outcomes) | bounced
            self.attempts[-1] = replace(self.attempts[-1], outcomes=tuple(sorted(outcomes.items())))
        if not self._tried and self._dead_ends and all(isinstance(each, Bounced) for each in self._dead_ends):
            final = dict.fromkeys(self.waiting, self._dead_ends[-1])
            self.attempts[-1] = replace(self.attempts[-1], outcomes=tuple(final.items()))
        return self.attempts

    def _answers(self, index: int) -> Iterator[tuple[str, Outcome]]:
        for attempt in self.attempts[self._begun :]:
            if attempt.hop not in self._closed:
                yield from ((attempt.hop, outcome) for each, outcome in attempt.outcomes if each == index)


def _overtaken(attempts: Sequence[Attempt]) -> tuple[int, ...]:
    """The recipients whose last word is that the configuration changed meanwhile."""
    last = {index: outcome for attempt in attempts for index, outcome in attempt.outcomes}
    return tuple(index for index, outcome in last.items() if outcome is OVERTAKEN)


def _groups(ways: Ways, delivery: Delivery) -> list[_Group]:
    """One group where all recipients have one domain; else by connector, by domain for MX, and by running exception."""
    recipients = delivery.message.envelope.recipients
    if len(delivery.indexes) == 1:
        domain = recipients[delivery.indexes[0]].address.domain
        return [_Group(ways.connector(domain), domain, delivery.indexes)]
    found: dict[object, tuple[OutboundConnector, str, list[int]]] = {}
    known: dict[str, list[int]] = {}
    for index in delivery.indexes:
        domain = recipients[index].address.domain
        indexes = known.get(domain)
        if indexes is None:
            connector = ways.connector(domain)
            exception = running_exception(ways.book, domain, ways.day)
            terms = (exception.allow, exception.until) if exception is not None else ()
            key = (connector.name, domain if connector.route.by_mx else "", terms)
            indexes = known[domain] = found.setdefault(key, (connector, domain, []))[2]
        indexes.append(index)
    return [_Group(connector, domain, tuple(indexes)) for connector, domain, indexes in found.values()]
