"""What only the whole of connectors.yaml can contradict: two connectors for one domain, an accepted domain that leads nowhere.

Yields contradictions with the place they stand at; `relay.config.load` finds the lines. A legal but unwise file is `relay.config.advice`.
"""

import ipaddress
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

from relay.config.connectors import (
    DEFAULT,
    ForwardClient,
    InboundConnector,
    OutboundConnector,
    OutboundSettings,
)
from relay.config.models import Config, ListenerKind, Switch
from relay.config.values import Network
from relay.mail.plan import Level, Plaintext
from relay.mail.published import Use
from relay.mail.revocation import Revocation

Place = tuple[str | int, ...]

_ASKED = "suggest"  # GET /connectors/suggest of the admin API is no connector's


@dataclass(frozen=True, slots=True)
class Contradiction:
    """`place` is the path of keys and list positions to where it stands, such as ("connectors", 2, "names").

    `against` names the top-level keys that it was compared with: where one of these was itself unreadable, nothing is contradicted.
    """

    place: Place
    text: str
    against: tuple[str, ...] = ()


def contradictions(config: Config) -> Iterator[Contradiction]:
    """Every contradiction in the file."""
    yield from _listeners(config)
    yield from _accepted(config)
    yield from _tlsrpt(config)
    yield from _publication(config)
    yield from _outbound(config, ("defaults", "outbound"), config.default, config.defaults.outbound)
    yield from _connectors(config)
    yield from _exceptions(config)


def _listeners(config: Config) -> Iterator[Contradiction]:
    seen: dict[str, int] = {}
    for index, listener in enumerate(config.listeners):
        place: Place = ("listeners", index)
        first = seen.setdefault(str(listener.address), index)
        if first != index and listener.address.port:
            yield Contradiction((*place, "address"), f"{listener.address} is already the address of listeners[{first}]")
        if listener.kind is not ListenerKind.MX and config.submission is None:
            yield Contradiction(
                place,
                f"kind {listener.kind.value} needs `submission: {{passwords: FILE}}`: nobody could log in",
                ("submission",),
            )
        if listener.starttls is Switch.ON and config.certificates is None:
            yield Contradiction(
                place,
                "TLS is on and there are no `certificates`: name the folder, or write `starttls: off` to take mail in clear",
                ("certificates",),
            )
        if listener.proxy_protocol is not None:
            yield from _everyone(
                (*place, "proxy_protocol", "from"), listener.proxy_protocol.from_, "anyone could claim any address"
            )
    if config.bare_lf is not None:
        why = "this is for devices of your own; from elsewhere a bare LF is an attempt at smuggling"
        yield from _everyone(("bare_lf", "normalise"), config.bare_lf.normalise, why)


def _everyone(place: Place, networks: Iterable[Network], why: str) -> Iterator[Contradiction]:
    """`networks` that take in all of IPv4 or IPv6, in one piece or in several."""
    every = tuple(networks)
    v4 = ipaddress.collapse_addresses(each for each in every if isinstance(each, ipaddress.IPv4Network))
    v6 = ipaddress.collapse_addresses(each for each in every if isinstance(each, ipaddress.IPv6Network))
    whole: tuple[Network, ...] = (*v4, *v6)
    for network in whole:
        if network.prefixlen == 0:
            position = next((index for index, each in enumerate(every) if each == network), None)
            where = place if position is None else (*place, position)
            yield Contradiction(where, f"{network} is the whole internet: {why}")


def _accepted(config: Config) -> Iterator[Contradiction]:
    named = {pattern for connector in config.outbound for pattern in connector.match.recipient_domains}
    for index, domain in enumerate(config.accept.domains):
        if domain == "*":
            yield Contradiction(
                ("accept", "domains", index), '"*" makes an open relay: name the domains that are yours'
            )
        elif not _covered(domain, named):
            # Its MX record leads to us: without a route of its own, this mail would come back.
            yield Contradiction(
                ("accept", "domains", index),
                f"no outbound connector names {domain}: add one whose `route` says where its mail goes",
                ("connectors",),
            )
    for domain in config.accept.recipients:
        if not _covered(domain, set(config.accept.domains)):
            yield Contradiction(
                ("accept", "recipients", domain), f"{domain} is not in `accept.domains`, so this is never used"
            )
    yield from _everyone(("accept", "networks"), config.accept.networks, "this makes an open relay")


def _publication(config: Config) -> Iterator[Contradiction]:
    https = config.publish.https
    for domain in config.publish.domains:
        if not _covered(domain, set(config.accept.domains)):
            yield Contradiction(
                ("publish", "domains", domain),
                f"{domain} is not in `accept.domains`: its mail would be refused here",
                ("accept",),
            )
    if https is not None and config.certificates is None:
        text = "policies are served by HTTPS, and there are no `certificates`: name the folder"
        yield Contradiction(("publish", "https"), text, ("certificates",))
    taken = {str(each.address): f"listeners[{index}]" for index, each in enumerate(config.listeners)}
    if config.observe is not None:
        taken.setdefault(str(config.observe), "`observe`")
    for index, address in enumerate(https or ()):
        first = taken.setdefault(str(address), f"https[{index}]")
        if address.port and first != f"https[{index}]":
            text = f"{address} is already the address of {first}"
            yield Contradiction(("publish", "https", index), text, ("listeners", "observe"))


def _covered(domain: str, patterns: set[str]) -> bool:
    """True where one of `patterns` takes in all that `domain`, itself perhaps a pattern, stands for."""
    if domain in patterns or "*" in patterns:
        return True
    labels = domain.removeprefix("*.").split(".")
    start = 0 if domain.startswith("*.") else 1
    return any("*." + ".".join(labels[depth:]) in patterns for depth in range(start, len(labels)))


def _tlsrpt(config: Config) -> Iterator[Contradiction]:
    """Receivers look for a signature of the domain that a report comes from (RFC 8460 section 3)."""
    reports = config.tlsrpt
    if reports is None or reports.dkim is None:
        return
    contact = reports.contact or config.postmaster
    for key, address in (("sender", reports.sender or contact), ("contact", contact)):
        if address.domain != reports.dkim.domain and not address.domain.endswith(f".{reports.dkim.domain}"):
            yield Contradiction(
                ("tlsrpt", "dkim", "domain"),
                f"{reports.dkim.domain} cannot sign for the {key} {address}: write its domain, or one above it",
                ("postmaster",),
            )


def _connectors(config: Config) -> Iterator[Contradiction]:
    names: dict[str, int] = {}
    patterns: dict[str, int] = {}
    acting = iter(config.outbound)
    for index, connector in enumerate(config.connectors):
        place: Place = ("connectors", index)
        if connector.name == DEFAULT:
            yield Contradiction(
                (*place, "name"), f"`{DEFAULT}` is the name of what acts without a connector: choose another"
            )
        if connector.name == _ASKED:
            yield Contradiction(
                (*place, "name"), f"`{_ASKED}` stands for something else where a connector is asked for: choose another"
            )
        first = names.setdefault(connector.name, index)
        if first != index:
            yield Contradiction((*place, "name"), f"connectors[{first}] has the name {connector.name} already")
        if isinstance(connector, InboundConnector):
            yield from _inbound(place, connector)
            continue
        for number, pattern in enumerate(connector.match.recipient_domains):
            other = patterns.setdefault(pattern, index)
            where: Place = (*place, "match", "recipient_domains", number)
            if other != index:
                name = config.connectors[other].name
                yield Contradiction(
                    where,
                    f"{pattern} is named by connectors[{other}] {name} too, equally specific: which one acts would be chance",
                )
            elif pattern in connector.match.recipient_domains[:number]:
                yield Contradiction(where, f"{pattern} stands in this list already")
        yield from _outbound(config, place, next(acting), connector)


def _inbound(place: Place, connector: InboundConnector) -> Iterator[Contradiction]:
    why = "it requires nothing"
    yield from _everyone((*place, "require", "networks"), connector.require.networks or (), why)
    yield from _everyone((*place, "match", "networks"), connector.match.networks or (), "it matches everybody")


def _outbound(
    config: Config, place: Place, acting: OutboundConnector, written: OutboundSettings
) -> Iterator[Contradiction]:
    """`acting` has the defaults in it; what it inherited is not an error of the connector, what it wrote itself is."""
    own, level = written.model_fields_set, acting.tls

    def found(key: str, text: str, *against: str) -> Contradiction:
        return Contradiction((*place, key), text, (*against, "defaults") if place[0] != "defaults" else against)

    if "plaintext" in own and level is not Level.OPPORTUNISTIC and acting.plaintext is Plaintext.NEVER:
        yield found("plaintext", f"at level {level.value} nothing is ever sent in clear: leave `plaintext` out")
    elif "plaintext" in own and level is not Level.OPPORTUNISTIC:
        yield found(
            "plaintext",
            f"`plaintext` is for level opportunistic only, and this is {level.value}: "
            "write an entry under `exceptions`, which ends by itself",
        )
    if "names" in own and level is not Level.DOMAIN:
        yield found("names", f"names are compared only at level domain, and this is {level.value}: write `tls: domain`")
    if "ca" in own and level.rank < Level.CERTIFICATE.rank:
        yield found("ca", f"a CA counts from level certificate on, and this is {level.value}: write `tls: certificate`")
    if "pins" in own and level is Level.OPPORTUNISTIC:
        yield found(
            "pins", "a pin holds only where TLS is required, and this is opportunistic: write `tls: encryption`"
        )
    is_default = place[0] == "defaults"  # which is for connectors of any level
    if (
        "revocation" in own
        and not is_default
        and acting.revocation is not Revocation.OFF
        and level.rank < Level.CERTIFICATE.rank
    ):
        yield found(
            "revocation",
            f"revocation is looked at from level certificate on, and this is {level.value}: write `tls: certificate`",
        )
    vouched = Use.REQUIRE in (acting.dane, acting.mta_sts)
    if level is Level.DOMAIN and acting.names is None and acting.route.by_mx and not vouched:
        yield found(
            "tls",
            "level domain with delivery by MX needs `names`, or `dane: require` or `mta_sts: require`: "
            "the MX host's name comes from DNS that anyone can forge",
        )
    yield from _published(config, place, acting, own)
    if (
        acting.route.auth is not None
        and level is Level.OPPORTUNISTIC
        and acting.plaintext is not Plaintext.NEVER
        and ("route" in own or "tls" in own or "plaintext" in own)
    ):
        yield found("route", "`auth` at level opportunistic could send the password in clear: write `tls: certificate`")
    if acting.forward_client is not ForwardClient.OFF:
        yield from _forwarding(place, acting)
    if "client_certificate" in own and config.certificates is None:
        yield found("client_certificate", "there are no `certificates` to find it in", "certificates")


def _forwarding(place: Place, acting: OutboundConnector) -> Iterator[Contradiction]:
    """A hop that is told who the client is must be ours, and must not take everything for its own user's."""
    where = (*place, "forward_client")
    if acting.route.by_mx:
        text = "needs `smart_hosts`: who our clients are is told to a mail server of your own, never to whatever host an MX record names"
        yield Contradiction(where, f"`forward_client` {text}", ("defaults",))
    elif acting.route.auth is not None:
        text = "and `auth` contradict each other: the mail server inside would take every client for our own user"
        yield Contradiction(where, f"`forward_client` {text}", ("defaults",))


def _published(
    config: Config, place: Place, acting: OutboundConnector, own: Collection[str]
) -> Iterator[Contradiction]:
    """`dane` and `mta_sts`: left out only where the connector says itself who the hop is, required only where they can be had."""
    against: tuple[str, ...] = ("defaults",) if place[0] != "defaults" else ()
    for key, use in (("dane", acting.dane), ("mta_sts", acting.mta_sts)):
        if key in own and use is Use.OFF and not acting.is_fixed:
            yield Contradiction(
                (*place, key),
                f"`{key}: off` is for a connector that says itself who the hop is: write `tls: domain` with `names` and `ca`, or `pins`",
                against,
            )
    if "dane" in own and acting.dane is Use.REQUIRE and not config.dns.validating:
        yield Contradiction(
            (*place, "dane"),
            "`dane: require` needs a validating resolver: without `dns: {resolver: ..., validating: true}` all this mail would wait",
            (*against, "dns"),
        )


def _exceptions(config: Config) -> Iterator[Contradiction]:
    seen: dict[str, int] = {}
    for index, exception in enumerate(config.exceptions):
        if seen.setdefault(exception.recipient_domain, index) != index:
            yield Contradiction(
                ("exceptions", index, "recipient_domain"), f"{exception.recipient_domain} has an exception already"
            )
