"""What a command sees of the world without the running relay: DNS, published policies, our own certificates, who we are.

The resolver is put to the test first where it is declared to validate, so that DANE is explained as a relay would use it. MTA-STS policies
that a relay keeps in its queue's file count here too, and so do CRLs and OCSP answers; what is fetched is not kept.
"""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime

from relay.config.models import Config
from relay.dns.answers import Resolver
from relay.dns.resolver import DnsResolver
from relay.outbound.ourselves import Ourselves, interface_addresses
from relay.outbound.outside import Asking, Here, Kept, Outside
from relay.queue.policies import KeptPolicies
from relay.queue.revocations import KeptRevocations
from relay.tls.keyring import Keyring
from relay.tls.revocation.answers import RevocationSettings
from relay.tls.revocation.checks import RevocationChecks
from relay.tls.trust import TrustStores

_PATIENT = Asking(revocation=RevocationSettings(wait=20.0))


def utc_now() -> datetime:
    return datetime.now(UTC)


@asynccontextmanager
async def outside(
    config: Config, resolver: Resolver | None = None, revocations: RevocationChecks | None = None
) -> AsyncIterator[Outside]:
    """`resolver` takes the place of DNS, `revocations` that of CRLs and OCSP. Never raises for what DNS, policy hosts or the queue's file do."""
    async with AsyncExitStack() as stack:
        if resolver is None:
            resolver = made = DnsResolver.of(config.dns)
            stack.push_async_callback(made.close)
            await made.test()
        listening = frozenset(each.address for each in config.listeners)
        ourselves = Ourselves(frozenset({config.hostname}), interface_addresses(), listening)
        here = Here(
            keyring=Keyring(config.certificates, hostname=config.hostname, clock=utc_now)
            if config.certificates
            else None,
            trust=TrustStores(),
            ourselves=lambda: ourselves,
            vouched=lambda: config.revocation_hosts,
            now=utc_now,
            emit=lambda _event: None,
        )
        queue = config.queue_file
        world = Outside(here, resolver, Kept(KeptPolicies(queue), KeptRevocations(queue)), _PATIENT, revocations)
        stack.push_async_callback(world.close)
        yield world
