"""May this client send as this sender? Inbound connectors judged on the client's address and TLS evidence (design section 4).

A sender domain that any inbound connector names is accepted only when at least one connector naming it is wholly satisfied; the
defaults never apply to it. Connectors that name no sender domain go with the client: where such a one matches, one of them must be
satisfied, and its grant holds whatever the sender.

Threat: a partner's domain sent by somebody else. So every key of `match` beside `sender_domains` counts as a requirement: failing
it is a refusal, never a way out of the rule.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from relay.config.models import CertificateRequirement, InboundConnector
from relay.mail.reply import Reply
from relay.mail.revocation import Revocation, State, Statuses, first_of
from relay.mail.tls import TLS_VERSIONS, Certificate, TlsEvidence, Trusted, Undecided
from relay.policy.book import IpAddress, RuleBook, in_networks
from relay.policy.names import matching_name

NO_DOMAIN = ""
LOWEST_TLS = "TLSv1.2"


@dataclass(frozen=True, slots=True)
class Peer:
    """What is known of the client. `address` is None where PROXY did not say; `evidence` is None in clear."""

    address: IpAddress | None
    evidence: TlsEvidence | None


@dataclass(frozen=True, slots=True)
class Requirement:
    """One thing a connector asks, and what was there. `undecided` where it could not be judged now."""

    name: str
    required: str
    found: str
    met: bool
    undecided: bool = False


@dataclass(frozen=True, slots=True)
class Finding:
    """One connector's judgement: every requirement, met or not, for the reply, the trace and `relay explain`."""

    connector: InboundConnector
    requirements: tuple[Requirement, ...]

    @property
    def satisfied(self) -> bool:
        return bool(self.requirements) and all(each.met for each in self.requirements)

    @property
    def failed(self) -> tuple[Requirement, ...]:
        return tuple(each for each in self.requirements if not each.met)

    @property
    def undecided(self) -> bool:
        """Not satisfied, and only because something could not be judged."""
        return not self.satisfied and all(each.undecided for each in self.failed)


@dataclass(frozen=True, slots=True)
class Admitted:
    """`connector` admitted it, "" where no connector speaks of it. `may_relay` says that a grant or a network lets it send anywhere."""

    connector: str
    may_relay: bool
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True, slots=True)
class Refused:
    reply: Reply
    connector: str
    findings: tuple[Finding, ...] = ()


Admission = Admitted | Refused


def candidates(book: RuleBook, peer: Peer, domain: str) -> tuple[InboundConnector, ...]:
    """Every connector that `admit` will judge for a sender domain (NO_DOMAIN for the null sender or a bare postmaster)."""
    return (*book.senders.find(domain).values, *(each for each in book.peers if _matches_peer(each, peer)))


def header_candidates(book: RuleBook, domain: str) -> tuple[InboundConnector, ...]:
    """Every connector that `admit_header_from` will judge for the domain of the From: header."""
    return book.header_from.find(domain).values


def trusts(book: RuleBook, connectors: Iterable[InboundConnector]) -> frozenset[str]:
    """The trust stores that the evidence must be checked against before these connectors can be judged."""
    return frozenset(
        _trust(book, each.require.certificate)
        for each in connectors
        if each.require.certificate is not None and needs_path(each.require.certificate)
    )


def unchecked(book: RuleBook, peer: Peer, connectors: Iterable[InboundConnector]) -> frozenset[str]:
    """The trust stores of which it must be found out whether the path to them is revoked, before these connectors can be judged.

    Threat: clients that make us fetch whatever their certificates name. So only where all else that a connector asks is satisfied.
    """
    if peer.evidence is None:
        return frozenset()
    found: set[str] = set()
    for connector in connectors:
        required = connector.require.certificate
        if required is None or revoking(book, required) is Revocation.OFF:
            continue
        trust = _trust(book, required)
        if trust not in peer.evidence.revocation and all(
            each.met or each.name == _REVOCATION for each in _judge(book, connector, peer).requirements
        ):
            found.add(trust)
    return frozenset(found)


def revoking(book: RuleBook, required: CertificateRequirement) -> Revocation:
    """What the connector asks about revocation."""
    return book.config.revocation_of(required)


def admit(book: RuleBook, peer: Peer, domain: str) -> Admission:
    """The decision at MAIL for the sender's domain."""
    may_relay = in_networks(peer.address, book.config.accept.networks)
    if not book.config.inbound:
        return Admitted("", may_relay)
    named = tuple(_judge(book, each, peer) for each in book.senders.find(domain).values)
    client = tuple(_judge(book, each, peer) for each in book.peers if _matches_peer(each, peer))
    for group in (named, client):
        if group and not any(finding.satisfied for finding in group):
            return _refusal(group, named + client)
    satisfied = tuple(finding for finding in named + client if finding.satisfied)
    granted = any(each.connector.grant is not None for each in satisfied)
    return Admitted(
        connector=satisfied[0].connector.name if satisfied else "",
        may_relay=granted or may_relay,
        findings=named + client,
    )


def asks_header_from(book: RuleBook) -> bool:
    """True while any connector uses `header_from`: every message then needs one readable From: header."""
    return any(each.match.header_from for each in book.config.inbound)


def admit_header_from(book: RuleBook, peer: Peer, domain: str) -> Admission:
    """The decision at the end of data for the From: header's domain. NO_DOMAIN where it has none, several or an unreadable one."""
    if domain == NO_DOMAIN:
        text = "the message needs exactly one readable From: header, since partners here are recognised by it"
        return Refused(Reply(550, "5.7.1", text), "")
    findings = tuple(_judge(book, each, peer) for each in book.header_from.find(domain).values)
    if findings and not any(each.satisfied for each in findings):
        return _refusal(findings, findings)
    name = next((each.connector.name for each in findings if each.satisfied), "")
    return Admitted(name, may_relay=False, findings=findings)


def _matches_peer(connector: InboundConnector, peer: Peer) -> bool:
    """All keys of a `match` that names no sender domain: the names a certificate claims (proved by `require`), and networks."""
    match = connector.match
    if match.networks and not in_networks(peer.address, match.networks):
        return False
    leaf = peer.evidence.leaf if peer.evidence else None
    return not match.certificate_names or (leaf is not None and bool(matching_name(match.certificate_names, leaf)))


def _refusal(failing: Sequence[Finding], every: tuple[Finding, ...]) -> Refused:
    """The reply of the connector that came nearest to being satisfied."""
    nearest = min(failing, key=lambda finding: len(finding.failed))
    name = nearest.connector.name
    if any(each.undecided for each in failing):
        # Fail closed, but not for good: the trust data may be back in a minute.
        undecided = next(each for each in failing if each.undecided)
        text = f"connector {undecided.connector.name} cannot be judged now: try again later"
        return Refused(Reply(451, "4.7.1", text), undecided.connector.name, every)
    first = nearest.failed[0]
    if first.name == "tls":
        return Refused(Reply(530, "5.7.10", f"connector {name} requires TLS: use STARTTLS"), name, every)
    why = "; ".join(_public(each) for each in nearest.failed)
    return Refused(Reply(550, "5.7.1", f"connector {name} refuses this message: {why}"), name, every)


def _public(requirement: Requirement) -> str:
    """What the peer is told. Which networks and which files we hold is nobody's business but ours."""
    if requirement.name in ("network", "certificate ca"):
        return f"{requirement.name}: {requirement.found} is not accepted"
    return f"{requirement.name}: required {requirement.required}, found {requirement.found}"


def _judge(book: RuleBook, connector: InboundConnector, peer: Peer) -> Finding:
    require, match = connector.require, connector.match
    found: list[Requirement] = []
    if require.needs_tls:
        found.append(_tls(peer))
        floor = _version(require.tls_version or LOWEST_TLS, peer)
        # A listener takes older versions where any connector does: that is that connector's word, not this one's.
        if require.tls_version or (peer.evidence is not None and not floor.met):
            found.append(floor)
    if match.certificate_names and match.sender_domains:
        found.append(_names(match.certificate_names, peer, "match certificate_names"))
    if require.certificate is not None:
        found.extend(_certificate(book, require.certificate, peer))
    networks = tuple(each for each in (match.networks if match.sender_domains else None, require.networks) if each)
    for each in networks:
        ours = ", ".join(str(network) for network in each)
        found.append(Requirement("network", ours, str(peer.address or "unknown"), in_networks(peer.address, each)))
    return Finding(connector, tuple(found))


def _tls(peer: Peer) -> Requirement:
    return Requirement(
        "tls", "TLS", peer.evidence.version if peer.evidence else "clear text", peer.evidence is not None
    )


def _version(minimum: str, peer: Peer) -> Requirement:
    version = peer.evidence.version if peer.evidence else ""
    met = version in TLS_VERSIONS and TLS_VERSIONS.index(version) >= TLS_VERSIONS.index(minimum)
    return Requirement("tls_version", f"{minimum} or newer", version or "clear text", met)


def _certificate(book: RuleBook, required: CertificateRequirement, peer: Peer) -> Iterable[Requirement]:
    leaf = peer.evidence.leaf if peer.evidence else None
    if peer.evidence is None or leaf is None:
        yield Requirement("certificate", "a client certificate", "none was shown", met=False)
        return
    if required.names:
        yield _names(required.names, peer, "certificate names")
    if needs_path(required):
        trust = _trust(book, required)
        path = _path(trust, peer.evidence)
        yield path
        mode = revoking(book, required)
        if path.met and mode is not Revocation.OFF:
            yield _revocation(mode, peer.evidence.revocation.get(trust))
    if required.pins:
        yield Requirement(
            "certificate pin", " or ".join(required.pins), leaf.spki_sha256, leaf.spki_sha256 in required.pins
        )


def _names(wanted: tuple[str, ...], peer: Peer, what: str) -> Requirement:
    leaf = peer.evidence.leaf if peer.evidence else None
    if leaf is None:
        return Requirement(what, " or ".join(wanted), "no certificate", met=False)
    name = matching_name(wanted, leaf)
    return Requirement(what, " or ".join(wanted), name or _shown(leaf), bool(name))


def _shown(leaf: Certificate) -> str:
    return ", ".join(leaf.names[:5]) or "a certificate without names"


def _path(trust: str, evidence: TlsEvidence) -> Requirement:
    required = f"issued under {trust}"
    match evidence.paths.get(trust, Undecided("the certificate was not checked against it")):
        case Trusted(anchor):
            return Requirement("certificate ca", required, anchor, met=True)
        case Undecided(text):
            return Requirement("certificate ca", required, text, met=False, undecided=True)
        case untrusted:
            return Requirement("certificate ca", required, f"{untrusted.failure.value} ({untrusted.text})", met=False)


_REVOCATION = "certificate revocation"


def _revocation(mode: Revocation, statuses: Statuses | None) -> Requirement:
    """Revoked is a refusal; what could not be found out is none (451), and under PREFER no obstacle."""
    required = f"not revoked ({mode.value})"
    if statuses is None:
        return Requirement(_REVOCATION, required, "nobody has looked", met=False, undecided=True)
    revoked = first_of(statuses, State.REVOKED)
    if revoked is not None:
        return Requirement(_REVOCATION, required, f"{revoked.subject} is {revoked.text}", met=False)
    unknown = first_of(statuses, State.UNKNOWN)
    if unknown is None:
        return Requirement(_REVOCATION, required, "; ".join(each.text for each in statuses) or "an anchor", met=True)
    passes = mode is Revocation.PREFER
    return Requirement(_REVOCATION, required, f"{unknown.subject}: {unknown.text}", met=passes, undecided=not passes)


def needs_path(required: CertificateRequirement) -> bool:
    """Pins alone authenticate a key; names alone authenticate nothing, so they always come with a path."""
    return required.ca is not None or required.pins is None


def _trust(book: RuleBook, required: CertificateRequirement) -> str:
    return required.ca or book.config.trust
