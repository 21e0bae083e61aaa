"""What only the whole of connectors.yaml can contradict: two connectors for one domain, an accepted domain that leads nowhere.

Yields contradictions with the place they stand at; `relay.config.load` finds the lines. A legal but unwise file is `relay.config.advice`.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from relay.config.models import DEFAULT, Config, ListenerKind, OutboundConnector, OutboundSettings, Switch
from relay.mail.plan import Level, Plaintext

Place = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Contradiction:
    """`place` is the path of keys and list positions to where it stands, such as ("connectors", 2, "names")."""

    place: Place
    text: str


def contradictions(config: Config) -> Iterator[Contradiction]:
    """Every contradiction in the file, in the file's order."""
    yield from _listeners(config)
    yield from _accepted(config)
    yield from _outbound(config, ("defaults", "outbound"), config.default, config.defaults.outbound)
    yield from _connectors(config)
    yield from _exceptions(config)


def _listeners(config: Config) -> Iterator[Contradiction]:
    seen: dict[str, int] = {}
    for index, listener in enumerate(config.listeners):
        place: Place = ("listeners", index)
        first = seen.setdefault(str(listener.address), index)
        if first != index and listener.address.port:
            yield Contradiction(place, f"{listener.address} is already the address of listener {first + 1}")
        if listener.kind is not ListenerKind.MX and config.submission is None:
            yield Contradiction(
                place, f"kind {listener.kind.value} needs `submission: {{passwords: FILE}}`: nobody could log in"
            )
        if listener.starttls is Switch.ON and config.certificates is None:
            yield Contradiction(
                place,
                "TLS is on and there are no `certificates`: name the folder, or write `starttls: off` to take mail in clear",
            )


def _accepted(config: Config) -> Iterator[Contradiction]:
    named = {pattern for connector in config.outbound for pattern in connector.match.recipient_domains}
    for index, domain in enumerate(config.accept.domains):
        if not _covered(domain, named):
            # Its MX record leads to us: without a route of its own, this mail would come back.
            yield Contradiction(
                ("accept", "domains", index),
                f"no outbound connector names {domain}: add one whose `route` says where its mail goes",
            )
    for domain in config.accept.recipients:
        if not _covered(domain, set(config.accept.domains)):
            yield Contradiction(
                ("accept", "recipients", domain), f"{domain} is not in `accept.domains`, so this list is never used"
            )


def _covered(domain: str, patterns: set[str]) -> bool:
    """True where one of `patterns` takes in all that `domain`, itself perhaps a pattern, stands for."""
    if domain in patterns or "*" in patterns:
        return True
    labels = domain.removeprefix("*.").split(".")
    start = 0 if domain.startswith("*.") else 1
    return any("*." + ".".join(labels[depth:]) in patterns for depth in range(start, len(labels)))


def _connectors(config: Config) -> Iterator[Contradiction]:
    names: dict[str, int] = {}
    patterns: dict[str, str] = {}
    effective = {connector.name: connector for connector in config.outbound}
    for index, connector in enumerate(config.connectors):
        place: Place = ("connectors", index)
        if connector.name == DEFAULT:
            yield Contradiction(
                (*place, "name"), f"`{DEFAULT}` is the name of what acts without a connector: choose another"
            )
        if names.setdefault(connector.name, index) != index:
            yield Contradiction(
                (*place, "name"), f"connector {names[connector.name] + 1} has the name {connector.name} already"
            )
            continue
        if not isinstance(connector, OutboundConnector):
            continue
        for number, pattern in enumerate(connector.match.recipient_domains):
            other = patterns.setdefault(pattern, connector.name)
            if other != connector.name:
                yield Contradiction(
                    (*place, "match", "recipient_domains", number),
                    f"{pattern} is named by connector {other} too, equally specific: which one acts would be chance",
                )
        yield from _outbound(config, place, effective[connector.name], connector)


def _outbound(
    config: Config, place: Place, acting: OutboundConnector, written: OutboundSettings
) -> Iterator[Contradiction]:
    """`acting` has the defaults in it; what it inherited is not an error of the connector, what it wrote itself is."""
    own = written.model_fields_set
    if "plaintext" in own and acting.tls is not Level.OPPORTUNISTIC and acting.plaintext is not Plaintext.NEVER:
        yield Contradiction(
            (*place, "plaintext"),
            f"`plaintext` is for level opportunistic only, and this is {acting.tls.value}: "
            "write an entry under `exceptions`, which ends by itself",
        )
    if "names" in own and acting.tls is not Level.DOMAIN:
        yield Contradiction(
            (*place, "names"),
            f"names are compared only at level domain, and this is {acting.tls.value}: write `tls: domain`",
        )
    if "ca" in own and acting.tls.rank < Level.CERTIFICATE.rank:
        yield Contradiction(
            (*place, "ca"),
            f"a CA counts from level certificate on, and this is {acting.tls.value}: write `tls: certificate`",
        )
    if "pins" in own and acting.tls is Level.OPPORTUNISTIC:
        yield Contradiction(
            (*place, "pins"),
            "a pin holds only where TLS is required, and this is opportunistic: write `tls: encryption`",
        )
    if acting.tls is Level.DOMAIN and acting.names is None and acting.route.by_mx:
        yield Contradiction(
            (*place, "tls"),
            "level domain with delivery by MX needs `names`: the MX host's name comes from DNS that anyone can forge",
        )
    if acting.client_certificate is not None and config.certificates is None:
        yield Contradiction((*place, "client_certificate"), "there are no `certificates` to find it in")


def _exceptions(config: Config) -> Iterator[Contradiction]:
    seen: dict[str, int] = {}
    for index, exception in enumerate(config.exceptions):
        if seen.setdefault(exception.recipient_domain, index) != index:
            yield Contradiction(
                ("exceptions", index, "recipient_domain"), f"{exception.recipient_domain} has an exception already"
            )
