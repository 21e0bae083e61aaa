"""What one configuration decides about domains and hops on one day (UTC), decided once: the next message finds it ready.

Another configuration, or the next day, is another `Ways`, so nothing that an old configuration decided can be found under a new one. A
delivery that a new configuration overtakes begins anew with the new `Ways` (`relay.outbound.attempt`).
"""

from dataclasses import dataclass
from datetime import date, datetime

from relay.config.models import OutboundConnector
from relay.config.values import HostPort
from relay.dns.answers import AddressAnswer
from relay.mail.outcome import Bounced, Deferred
from relay.mail.plan import TlsPlan
from relay.outbound.lookup import fit_addresses
from relay.outbound.ourselves import Ourselves
from relay.outbound.publications import Way
from relay.outbound.target import Target
from relay.policy.book import RuleBook
from relay.policy.plan import choose_plan, running_exception
from relay.policy.published import Published, Uses, join, uses
from relay.policy.requiretls import require_tls
from relay.policy.route import Unroutable

MANY = 10_000


@dataclass(frozen=True, slots=True)
class _Found:
    """What came of an answer about a host's addresses. Good for an equal answer, and while we are who we are."""

    answer: AddressAnswer
    ourselves: Ourselves
    targets: tuple[Target, ...] | Unroutable


class Ways:
    """`day` is the UTC date for which plans are chosen."""

    def __init__(self, book: RuleBook, day: date) -> None:
        self.book, self.day = book, day
        self._connectors: dict[str, OutboundConnector] = {}
        self._uses: dict[tuple[str, str, bool], Uses] = {}
        self._plans: dict[tuple[str, str, str, bool], tuple[Published, TlsPlan | Deferred]] = {}
        self._found: dict[tuple[str, HostPort, TlsPlan], _Found] = {}

    def serves(self, book: RuleBook, day: date) -> bool:
        """False where new ways are due: the configuration or the day is another, or there is too much in here."""
        size = max(len(self._connectors), len(self._uses), len(self._plans), len(self._found))
        return book is self.book and day == self.day and size < MANY

    def connector(self, domain: str) -> OutboundConnector:
        connector = self._connectors.get(domain)
        if connector is None:
            connector = self._connectors[domain] = self.book.outbound_for(domain)
        return connector

    def uses(self, connector: OutboundConnector, domain: str, *, tls_optional: bool) -> Uses:
        """What mail to `domain` makes of published policy."""
        key = (connector.name, domain, tls_optional)
        found = self._uses.get(key)
        if found is None:
            exception = running_exception(self.book, domain, self.day)
            found = self._uses[key] = uses(connector, exception, tls_optional=tls_optional)
        return found

    def plan(self, way: Way, now: datetime, published: Published, *, requiretls: bool = False) -> TlsPlan | Deferred:
        """The plan for a host with what is published about it, or why mail must not go there. `requiretls`: the message asks for it."""
        connector, host = way.connector, way.hop.host
        key = (connector.name, way.domain, host, requiretls)
        found = self._plans.get(key)
        if found is None or (found[0] is not published and found[0] != published):
            plan = join(choose_plan(self.book, connector, way.domain, host, now), published)
            if requiretls and isinstance(plan, TlsPlan):
                trust = self.book.config.trust
                plan = require_tls(plan, connector=connector, host=host, published=published, trust=trust)
            found = self._plans[key] = published, plan
        return found[1]

    def targets(
        self, connector: OutboundConnector, hop: HostPort, plan: TlsPlan, answer: AddressAnswer, ourselves: Ourselves
    ) -> tuple[Target, ...] | Unroutable:
        """A target for each address that mail may go to, in DNS order, or why there is none."""
        key = (connector.name, hop, plan)
        found = self._found.get(key)
        if found is None or found.answer != answer or found.ourselves != ourselves:
            targets = self._make(connector, hop, plan, answer, ourselves)
            found = self._found[key] = _Found(answer, ourselves, targets)
        return found.targets

    def _make(
        self, connector: OutboundConnector, hop: HostPort, plan: TlsPlan, answer: AddressAnswer, ourselves: Ourselves
    ) -> tuple[Target, ...] | Unroutable:
        addresses = fit_addresses(connector, hop, answer, ourselves)
        if isinstance(addresses, Bounced | Deferred):
            return addresses
        helo, source, auth = connector.helo or self.book.config.hostname, connector.source or "", connector.route.auth
        return tuple(Target(hop, address, plan, helo, source, auth) for address in addresses)
