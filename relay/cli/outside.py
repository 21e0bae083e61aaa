"""What a command sees of the world without the running relay: DNS, published policies, our own certificates, who we are.

The resolver is put to the test first where it is declared to validate, so that DANE is explained as a relay would use it. MTA-STS policies
that a relay keeps in its queue's file count here too, and so do CRLs and OCSP answers; what is fetched is not kept.
"""

import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from relay.config.models import Config
from relay.dns.answers import Resolver
from relay.dns.download import Downloader
from relay.dns.resolver import DnsResolver
from relay.dns.sts import Clocks, StsPolicies
from relay.dns.stsfetch import FetchSettings, PolicyFetcher
from relay.outbound.handshake import TlsClient
from relay.outbound.ourselves import Ourselves, interface_addresses
from relay.outbound.probe import Means
from relay.outbound.publications import LookedUp, Publications
from relay.policy.book import RuleBook
from relay.queue.policies import KeptPolicies
from relay.queue.revocations import KeptRevocations
from relay.tls.keyring import Keyring
from relay.tls.revocation.answers import Answers, Fetch, RevocationSettings
from relay.tls.revocation.checks import RevocationChecks, Revocations
from relay.tls.trust import TrustStores


@dataclass(frozen=True, slots=True)
class Outside:
    """`now` is the wall clock in UTC."""

    resolver: Resolver
    publications: Publications
    tls: TlsClient
    ourselves: Ourselves
    now: Callable[[], datetime]
    fetch: Fetch
    revocations: RevocationChecks

    def means(self, book: RuleBook) -> Means:
        return Means(book, self.resolver, self.tls, self.publications, self.now, self.ourselves)


_PATIENT = RevocationSettings(wait=20.0)


def utc_now() -> datetime:
    return datetime.now(UTC)


@asynccontextmanager
async def outside(
    config: Config,
    resolver: Resolver | None = None,
    policy_hosts: FetchSettings = FetchSettings(),
    revocations: RevocationChecks | None = None,
) -> AsyncIterator[Outside]:
    """`resolver` takes the place of DNS, `revocations` that of CRLs and OCSP. Never raises for what DNS, policy hosts or the queue's file do."""
    async with AsyncExitStack() as stack:
        if resolver is None:
            resolver = made = DnsResolver.of(config.dns)
            stack.push_async_callback(made.close)
            await made.test()
        keyring = Keyring(config.certificates, hostname=config.hostname, clock=utc_now) if config.certificates else None
        queue = Path(config.queue.removeprefix("sqlite:"))
        plain = TlsClient(lambda _name: None, TrustStores(), utc_now)
        fetch = Downloader(resolver, plain, lambda: config.revocation_hosts)
        if revocations is None:
            answers = Answers(fetch, KeptRevocations(queue), clock=utc_now, emit=lambda _event: None, settings=_PATIENT)
            stack.push_async_callback(answers.close)
            revocations = made_here = Revocations(answers, clock=utc_now, emit=lambda _event: None, settings=_PATIENT)
            stack.push_async_callback(made_here.close)
        tls = TlsClient(keyring.by_name if keyring else lambda _name: None, TrustStores(), utc_now, revocations)
        policies = StsPolicies(
            resolver,
            PolicyFetcher(resolver, tls, policy_hosts),
            KeptPolicies(queue),
            clocks=Clocks(utc_now, time.monotonic),
            chance=random.SystemRandom(),
            emit=lambda _event: None,
        )
        stack.push_async_callback(policies.close)
        listening = frozenset(each.address for each in config.listeners)
        ourselves = Ourselves(frozenset({config.hostname}), interface_addresses(), listening)
        publications = LookedUp(resolver, policies, utc_now)
        yield Outside(resolver, publications, tls, ourselves, utc_now, fetch, revocations)
