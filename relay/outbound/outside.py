"""What is learnt from others beside mail: DNS, what they publish, which certificates are revoked.

Put together here for relay and commands alike; decides nothing, and where things are kept is the caller's business.
"""

import random
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from datetime import datetime

from relay.config.values import HostPort
from relay.dns.answers import Resolver
from relay.dns.download import Downloader
from relay.dns.sts import Clocks, StsKeeper, StsPolicies
from relay.dns.stsfetch import FetchSettings, PolicyFetcher
from relay.mail.events import Emit
from relay.outbound.handshake import TlsClient
from relay.outbound.ourselves import Ourselves
from relay.outbound.probe import Means
from relay.outbound.publications import LookedUp
from relay.policy.book import RuleBook
from relay.tls.keyring import Keyring
from relay.tls.revocation.answers import Answers, RevocationKeeper, RevocationSettings
from relay.tls.revocation.checks import RevocationChecks, Revocations
from relay.tls.trust import TrustStores


@dataclass(frozen=True, slots=True)
class Kept:
    """Where MTA-STS policies, CRLs and OCSP answers are kept."""

    policies: StsKeeper
    revocations: RevocationKeeper


@dataclass(frozen=True, slots=True)
class Asking:
    """How others are asked: MTA-STS policy hosts, and how long is waited for CRLs and OCSP answers."""

    policy_hosts: FetchSettings = FetchSettings()  # noqa: RUF009 - frozen
    revocation: RevocationSettings = RevocationSettings()  # noqa: RUF009 - frozen


@dataclass(frozen=True, slots=True)
class Here:
    """This side of the network. `keyring` is None without certificates, `vouched` gives `revocation_hosts`, `now` is the wall clock in UTC."""

    keyring: Keyring | None
    trust: TrustStores
    ourselves: Callable[[], Ourselves]
    vouched: Callable[[], Iterable[HostPort]]
    now: Callable[[], datetime]
    emit: Emit


class Outside:
    """`resolver` is closed by whoever made it. `checks` take the place of CRLs and OCSP."""

    def __init__(
        self,
        here: Here,
        resolver: Resolver,
        kept: Kept,
        asking: Asking = Asking(),
        checks: RevocationChecks | None = None,
    ) -> None:
        self.resolver, self.now, self.ourselves = resolver, here.now, here.ourselves
        # To who says what is revoked, no certificate of ours is shown, and any of the host's will do: what it says is signed.
        self.fetch = Downloader(resolver, TlsClient(lambda _name: None, TrustStores(), here.now), here.vouched)
        self.answers = Answers(self.fetch, kept.revocations, clock=here.now, emit=here.emit, settings=asking.revocation)
        self._checks = Revocations(self.answers, clock=here.now, emit=here.emit, settings=asking.revocation)
        self.revocations: RevocationChecks = checks or self._checks
        show = here.keyring.by_name if here.keyring is not None else lambda _name: None
        self.tls = TlsClient(show, here.trust, here.now, self.revocations)
        self.policies = StsPolicies(
            resolver,
            PolicyFetcher(resolver, self.tls, asking.policy_hosts),
            kept.policies,
            clocks=Clocks(here.now, time.monotonic),
            chance=random.SystemRandom(),
            emit=here.emit,
        )
        self.publications = LookedUp(resolver, self.policies, here.now)

    def means(self, book: RuleBook) -> Means:
        """What a probe looks with, as deliveries do."""
        return Means(book, self.resolver, self.tls, self.publications, self.now, self.ourselves())

    @property
    def looks(self) -> tuple[Callable[[], Awaitable[None]], ...]:
        """To be called every few seconds, so that what is kept is refreshed before it ends."""
        return self.policies.look, self.answers.look

    async def close(self) -> None:
        await self.policies.close()
        await self._checks.close()
        await self.answers.close()
