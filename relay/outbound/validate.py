"""Tries one connector step by step: its files and rules, and, outbound, every host of the partner. Sends no mail and never logs in.

The command line and the admin API both ask here. What a step means is decided by `relay.policy.connector_steps` and `relay.outbound.validation`.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime

from relay.config.connectors import Connector, InboundConnector, OutboundConnector
from relay.config.values import parse_domain
from relay.outbound.asking import WrongWordError
from relay.outbound.probe import Means, probe_domain
from relay.outbound.validation import Wanted, probe_steps
from relay.policy.book import RuleBook
from relay.policy.connector_steps import configuration_steps, inbound_steps
from relay.policy.steps import Step
from relay.tls.connector_files import files_of

_MOST_DOMAINS = 10


def connector_named(book: RuleBook, name: str) -> Connector:
    """As it acts, with the defaults in it. Raises WrongWordError."""
    connectors: tuple[Connector, ...] = (*book.config.inbound, *book.config.outbound)
    for each in connectors:
        if each.name == name:
            return each
    there = ", ".join(each.name for each in connectors) or "none"
    raise WrongWordError("connector", f"there is no connector {name!r}; there are: {there}")


def steps_here(book: RuleBook, connector: Connector, now: datetime) -> Iterator[Step]:
    """What can be told without asking anybody. Reads files."""
    files = files_of(book.config, connector, now)
    yield from configuration_steps(book, connector, files)
    if isinstance(connector, InboundConnector):
        yield from inbound_steps(book, connector, files)


async def steps_there(means: Means, domains: Sequence[str]) -> list[Step]:
    """The hosts of each domain, as a delivery would find them."""
    found: list[Step] = []
    for domain in domains:
        probe = await probe_domain(means, domain)
        wanted = Wanted(probe.connector, domain, means.book.config.limits.message_size, means.clock())
        found.extend(probe_steps(probe, wanted))
    return found


def domains_of(book: RuleBook, connector: Connector, domain: str) -> tuple[str, ...]:
    """Whose hosts are looked at: `domain`, or where that is "" those that the connector names; none of an inbound one. Raises WrongWordError."""
    if not isinstance(connector, OutboundConnector):
        if domain:
            raise WrongWordError("domain", f"{connector.name} is inbound: this is about mail to a partner")
        return ()
    if domain:
        return (_governed(book, connector, domain),)
    patterns = connector.match.recipient_domains
    exact = [each for each in patterns if not each.startswith("*")]
    if connector.route.by_mx:
        if not exact:
            raise WrongWordError(
                "domain", f"connector {connector.name} names only wildcards and goes by MX: say one domain"
            )
        return tuple(exact[:_MOST_DOMAINS])
    # By smart hosts, whichever domain leads to the same ones.
    anyone = [f"any.{each.removeprefix('*.')}" if each != "*" else "any.example" for each in patterns]
    governed = [each for each in (*exact, *anyone) if book.outbound_for(each).name == connector.name]
    return (*governed[:1],) or (patterns[0],)


def _governed(book: RuleBook, connector: OutboundConnector, domain: str) -> str:
    try:
        wanted = parse_domain(domain)
    except ValueError as error:
        raise WrongWordError("domain", str(error)) from None
    governing = book.outbound_for(wanted).name
    if governing != connector.name:
        raise WrongWordError("domain", f"{wanted} is governed by {governing}, not by {connector.name}")
    return wanted
