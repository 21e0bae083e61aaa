"""What new inbound connectors admit that the old ones did not: the part of `relay.policy.compare` about who may send to us.

Connectors for one sender domain are alternatives (relay.policy.admission), so a new one is no weaker only where whoever satisfies
it would have satisfied one of the old. A key without a rule here counts as weakening when it differs.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from relay.config.connectors import CertificateRequirement, InboundConnector, InboundMatch
from relay.config.values import Network
from relay.mail.tls import TLS_VERSIONS
from relay.policy.admission import needs_path, revoking
from relay.policy.book import RuleBook
from relay.policy.difference import more_names, more_networks, unknown
from relay.policy.match import PatternIndex


@dataclass(frozen=True, slots=True)
class _Pair:
    """One connector against another, each with the configuration that it stands in."""

    old: InboundConnector
    new: InboundConnector
    old_book: RuleBook
    new_book: RuleBook

    @property
    def old_trust(self) -> str:
        """What stands in for a `ca`."""
        return self.old_book.config.trust

    @property
    def new_trust(self) -> str:
        return self.new_book.config.trust


def weakened_partners(old: RuleBook, new: RuleBook) -> Iterator[str]:
    """Every way in which the inbound connectors of `new` admit what those of `old` refused."""
    names = {each.name for each in new.config.inbound}
    for each in old.config.inbound:
        if each.name not in names:
            yield f"connector {each.name} is gone"
    patterns = tuple(
        dict.fromkeys(p for book in (old, new) for each in book.config.inbound for p in each.match.sender_domains or ())
    )
    for pattern in patterns:
        yield from _senders(old, new, old.senders, new.senders, pattern, f"mail from {pattern}")
        about = f"mail with {pattern} in its From: header"
        yield from _senders(old, new, old.header_from, new.header_from, pattern, about)
    yield from _by_name(old, new)


def _senders(
    old: RuleBook,
    new: RuleBook,
    before: PatternIndex[InboundConnector],
    after: PatternIndex[InboundConnector],
    pattern: str,
    about: str,
) -> Iterator[str]:
    """One sender domain, under the alternatives that named it and those that do now."""
    was, now = before.find(pattern).values, after.find(pattern).values
    if was and not now:
        yield f"{about} is taken without the rules of connector {', '.join(each.name for each in was)}"
        return
    for connector in now if was else ():
        pairs = [_Pair(each, connector, old, new) for each in was]
        if all(_weaker(pair) for pair in pairs):
            yield from _told(pairs, about)


def _told(pairs: list[_Pair], about: str) -> Iterator[str]:
    """Why a connector is weaker than each of those before it: told against the one of its own name, else against the first."""
    pair = next((each for each in pairs if each.old.name == each.new.name), pairs[0])
    for text in _weaker(pair):
        if pair.old.name == pair.new.name:
            yield f"connector {pair.new.name}: {text}"
        else:
            yield f"{about} is admitted by connector {pair.new.name} too; against connector {pair.old.name}, {text}"


def _by_name(old: RuleBook, new: RuleBook) -> Iterator[str]:
    """What goes with a connector whatever the sender: grants, and rules about clients rather than sender domains."""
    before = {each.name: each for each in old.config.inbound}
    for connector in new.config.inbound:
        was = before.get(connector.name)
        about = f"connector {connector.name}"
        if was is None:
            if connector.grant is not None:
                yield f"{about} is new: its peers may send anywhere"
            elif connector in new.peers and old.peers:
                yield f"{about} is new: a client that it matches needs to satisfy no other rule about clients"
            continue
        peer = connector in new.peers or was in old.peers
        if (peer or connector.grant is not None) and connector.match != was.match:
            yield f"{about}: match changes"
        if peer or connector.grant is not None:
            pair = _Pair(was, connector, old, new)
            yield from (f"{about}: {text}" for text in _weaker(pair))
        yield from unknown(was, connector, {"name", "direction", "match", "require", "grant"}, f"{about}: ")


def _weaker(pair: _Pair) -> tuple[str, ...]:
    """How the new connector can be satisfied by a peer that does not satisfy the old one. Empty: not at all."""
    granted = ("its peers may send anywhere",) if pair.new.grant is not None and pair.old.grant is None else ()
    return (*granted, *_weaker_require(pair), *_weaker_match(pair.old.match, pair.new.match))


def _weaker_require(pair: _Pair) -> Iterator[str]:
    before, after = pair.old.require, pair.new.require
    if before.needs_tls and not after.needs_tls:
        yield "tls is no longer required"
    if before.tls_version is not None:
        if after.tls_version is None:
            yield f"tls_version {before.tls_version} is no longer required"
        elif TLS_VERSIONS.index(after.tls_version) < TLS_VERSIONS.index(before.tls_version):
            yield f"tls_version goes from {before.tls_version} to {after.tls_version}"
    if before.certificate is not None:
        if after.certificate is None:
            yield "a certificate is no longer required"
        else:
            yield from _weaker_certificate(pair, before.certificate, after.certificate)
    yield from _weaker_networks("require.networks", before.networks, after.networks)
    yield from unknown(before, after, {"tls", "tls_version", "certificate", "networks"}, "require.")


def _weaker_certificate(pair: _Pair, before: CertificateRequirement, after: CertificateRequirement) -> Iterator[str]:
    yield from _weaker_names("certificate.names", before.names, after.names)
    if needs_path(before):
        old_trust, new_trust = before.ca or pair.old_trust, after.ca or pair.new_trust
        if not needs_path(after):
            yield "the certificate's issuer is no longer checked, only its pin"
        elif old_trust != new_trust:
            yield f"certificates are trusted from {new_trust} instead of {old_trust}"
        was, now = revoking(pair.old_book, before), revoking(pair.new_book, after)
        if needs_path(after) and now.rank < was.rank:
            yield f"certificate.revocation goes from {was.value} to {now.value}"
    if before.pins is not None:
        if after.pins is None:
            yield "certificate.pins are gone"
        else:
            yield from (f"certificate.pins has {pin} in addition" for pin in after.pins if pin not in before.pins)
    yield from unknown(before, after, {"names", "ca", "pins", "revocation"}, "certificate.")


def _weaker_match(before: InboundMatch, after: InboundMatch) -> Iterator[str]:
    """Beside `sender_domains`, the keys of `match` count as requirements."""
    yield from _weaker_names("match.certificate_names", before.certificate_names, after.certificate_names)
    yield from _weaker_networks("match.networks", before.networks, after.networks)
    known = {"sender_domains", "certificate_names", "networks", "header_from"}
    yield from unknown(before, after, known, "match.")


def _weaker_names(key: str, before: tuple[str, ...] | None, after: tuple[str, ...] | None) -> Iterator[str]:
    if before is None:
        return
    if after is None:
        yield f"{key} are gone: any name is accepted"
    elif added := more_names(before, after):
        yield f"{key} accept {added} in addition"


def _weaker_networks(key: str, before: tuple[Network, ...] | None, after: tuple[Network, ...] | None) -> Iterator[str]:
    if before is None:
        return
    if after is None:
        yield f"{key} are gone: any address is accepted"
    elif added := more_networks(before, after):
        yield f"{key} has {added} in addition"
