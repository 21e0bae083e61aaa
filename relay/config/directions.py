"""Partners that are held to TLS in one direction only: what we send them is protected and what comes in their name is not, or the other way.

Threat: a connector for one direction looks like the whole agreement with a partner, and half of the mail stays readable, or forgeable.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from relay.config.connectors import InboundConnector, OutboundConnector
from relay.config.models import Config
from relay.mail.plan import Level

_NAMED = 3


@dataclass(frozen=True, slots=True)
class OneWay:
    """`connector` holds `domain` (a pattern) to TLS and stands at `position` in `connectors`; nothing does in the `other` direction."""

    domain: str
    connector: str
    other: str
    position: int


def told(found: Iterable[OneWay]) -> Iterator[tuple[int, str]]:
    """One line for each connector and direction, with the place of the connector."""
    grouped: dict[tuple[int, str], list[str]] = {}
    for each in found:
        grouped.setdefault((each.position, each.other), []).append(each.domain)
    for (position, other), domains in grouped.items():
        named = ", ".join(domains[:_NAMED]) + (f" and {len(domains) - _NAMED} more" if len(domains) > _NAMED else "")
        if other == "inbound":
            text = f"mail to {named} must have TLS, and mail from there is taken without: add an inbound connector, or anyone may write as them"
        else:
            text = f"mail from {named} must have TLS, and mail to there may go in clear: add an outbound connector with `tls`"
        yield position, f"forced in one direction only: {text}"


def covering(pattern: str) -> Iterator[str]:
    """The patterns that speak for a domain, or for what a wildcard stands for, the narrowest first."""
    yield pattern
    rest = pattern.removeprefix("*.")
    while "." in rest:
        rest = rest.partition(".")[2]
        yield f"*.{rest}"
    if pattern != "*":
        yield "*"


def one_way(config: Config) -> tuple[OneWay, ...]:
    """Each partner's domains, in the order of the file. Our own domains are no partner's, nor is everybody (`*`)."""
    return tuple(dict.fromkeys(_found(config)))


def _found(config: Config) -> Iterator[OneWay]:
    sending = {pattern: each for each in config.outbound for pattern in each.match.recipient_domains}
    taking: dict[str, list[InboundConnector]] = {}
    for each in config.inbound:
        for pattern in each.match.sender_domains or ():
            taking.setdefault(pattern, []).append(each)
    acting = iter(config.outbound)
    for position, connector in enumerate(config.connectors):
        if isinstance(connector, InboundConnector):
            for domain in _partners(config, connector.match.sender_domains or ()):
                outbound = next((sending[each] for each in covering(domain) if each in sending), config.default)
                if all(each.require.needs_tls for each in taking[domain]) and not is_forced(outbound):
                    yield OneWay(domain, connector.name, "outbound", position)
            continue
        outbound = next(acting)
        for domain in _partners(config, outbound.match.recipient_domains):
            named = next((taking[each] for each in covering(domain) if each in taking), [])
            if is_forced(outbound) and not (named and all(each.require.needs_tls for each in named)):
                yield OneWay(domain, outbound.name, "inbound", position)


def is_forced(connector: OutboundConnector) -> bool:
    """Clear text is out of the question."""
    return connector.tls is not Level.OPPORTUNISTIC


def _partners(config: Config, patterns: Iterable[str]) -> Iterator[str]:
    own = set(config.accept.domains)
    for pattern in patterns:
        if pattern != "*" and not any(each in own for each in covering(pattern)):
            yield pattern
