"""What of a connector can be judged from here, before anybody is connected to: its files, its rules, and how they stand beside the others'.

Pure: what files hold and what was looked up come in as values (`Files`, which `relay.tls.connector_files` reads). The steps that need the
network are `relay.outbound.validation`'s and `relay.cli.connectors_play`'s.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from relay.config.certificates import CertificateFiles
from relay.config.connectors import Connector, InboundConnector, OutboundConnector, TlsException
from relay.config.models import ListenerKind, Switch
from relay.config.values import Network
from relay.mail.codec import Json
from relay.policy.book import RuleBook
from relay.policy.difference import few
from relay.policy.steps import Result, Step

SOON = timedelta(days=30)


@dataclass(frozen=True, slots=True)
class Files:
    """`problems`: why a trust store cannot be used, "" where it can; `ends`: when the last of its certificates ends.

    `client` is the certificate of ours that the connector names. `shown`: whether a listener has any to show. `advice`: what is unwise.
    """

    now: datetime
    problems: Mapping[str, str] = field(default_factory=dict)
    ends: Mapping[str, datetime] = field(default_factory=dict)
    client: CertificateFiles | None = None
    shown: Sequence[CertificateFiles] = ()
    advice: Sequence[str] = ()


def configuration_steps(book: RuleBook, connector: Connector, files: Files) -> Iterator[Step]:
    """The connector itself. `connector` as it acts, with the defaults in it."""
    yield Step(
        "configuration",
        "",
        Result.OK,
        f"{connector.direction}, for {few(frozenset(whom(connector)))}: {asks(connector)}",
    )
    for trust, problem in files.problems.items():
        yield _trust(trust, problem, files)
    if isinstance(connector, OutboundConnector):
        if connector.client_certificate is not None:
            yield _own("our-certificate", connector.client_certificate, files.client, files.now)
        for exception in exceptions_for(book, connector, files.now):
            text = f"{exception.allow.value} is allowed until {exception.until}: {exception.reason}"
            yield Step(
                "exception", exception.recipient_domain, Result.WARNING, text, "Take it out once the partner is ready."
            )
    for text in files.advice:
        yield Step("advice", "", Result.WARNING, text)


def whom(connector: Connector) -> tuple[str, ...]:
    """The partner, as the connector's `match` says it."""
    if isinstance(connector, OutboundConnector):
        return connector.match.recipient_domains
    match = connector.match
    return match.sender_domains or match.certificate_names or tuple(str(each) for each in match.networks or ())


def asks(connector: Connector) -> str:
    """How much it asks, in a line."""
    if isinstance(connector, OutboundConnector):
        words = [f"level {connector.tls.value}"]
        if connector.pins:
            words.append(f"{len(connector.pins)} pin{'s' if len(connector.pins) > 1 else ''}")
        words.append(f"{connector.tls_version} or newer")
        return ", ".join(words)
    require = connector.require
    words = ["TLS"] if require.needs_tls else []
    if require.tls_version:
        words.append(f"{require.tls_version} or newer")
    certificate = require.certificate
    if certificate is not None:
        named = f" for {' or '.join(certificate.names)}" if certificate.names else ""
        words.append(
            f"a certificate{named}" + (f" with one of {len(certificate.pins)} pins" if certificate.pins else "")
        )
    if require.networks:
        words.append(f"from {few(frozenset(str(each) for each in require.networks))}")
    return ", ".join(words)


def exceptions_for(book: RuleBook, connector: OutboundConnector, now: datetime) -> tuple[TlsException, ...]:
    """Those in force for domains that the connector governs."""
    running = (each for each in book.config.exceptions if each.until >= now.date())
    return tuple(each for each in running if book.outbound_for(each.recipient_domain).name == connector.name)


def _trust(trust: str, problem: str, files: Files) -> Step:
    if problem:
        return Step("ca", trust, Result.FAILED, problem, "Put the CA's certificate there, in PEM.")
    end = files.ends.get(trust)
    if end is None:
        return Step("ca", trust, Result.OK, "can be read")
    days = (end - files.now) // timedelta(days=1)
    if end <= files.now:
        how = "Get the CA's new certificate from the partner, by a safe way."
        return Step("ca", trust, Result.FAILED, f"its last certificate ended on {end:%Y-%m-%d}", how)
    text = f"can be read; its last certificate ends on {end:%Y-%m-%d} ({days} days left)"
    if end - files.now <= SOON:
        return Step("ca", trust, Result.WARNING, text, "Ask the partner for the next one.")
    return Step("ca", trust, Result.OK, text)


def _own(name: str, wanted: str, found: CertificateFiles | None, now: datetime) -> Step:
    if found is None:
        how = "Put NAME.pem and NAME.key into the folder that `certificates` names."
        return Step(name, wanted, Result.FAILED, "there is no such certificate with its key", how)
    days = (found.not_after - now) // timedelta(days=1)
    text = f"for {', '.join(found.names[:5]) or found.name}, ends on {found.not_after:%Y-%m-%d} ({days} days left)"
    if not found.valid_at(now):
        return Step(
            name, wanted, Result.FAILED, f"not valid now: {text}", "Renew it, or check the clock of this machine."
        )
    if found.not_after - now <= SOON:
        return Step(name, wanted, Result.WARNING, text, "Renew it.")
    return Step(name, wanted, Result.OK, text)


def inbound_steps(book: RuleBook, connector: InboundConnector, files: Files) -> Iterator[Step]:
    """How it stands beside listeners and the other connectors."""
    yield from _listeners(book, connector, files)
    yield from _networks(book, connector)
    yield from _others(book, connector)


def last_seen(last: Json | None, nothing: str) -> Step:
    """What the partner's last message came with. `last` is `{at, evidence}`, None for the reason that `nothing` says."""
    if last is None:
        return Step("last-seen", "", Result.SKIPPED, nothing)
    return Step("last-seen", "", Result.OK, f"{last['at'][:19]}Z: {_shown(last['evidence'])}")


def _shown(tls: Json | None) -> str:
    if tls is None:
        return "in clear"
    words = f"{tls['version']}, {tls['cipher']}"
    if not tls["chain"]:
        return f"{words}, no certificate"
    leaf = tls["chain"][0]
    names = ", ".join(leaf["names"][:3]) or leaf["subject"]
    return f"{words}, certificate for {names} from {leaf['issuer']}, until {leaf['not_after'][:10]}"


def _listeners(book: RuleBook, connector: InboundConnector, files: Files) -> Iterator[Step]:
    taking = [each for each in book.config.listeners if each.kind is ListenerKind.MX]
    if not taking:
        yield Step(
            "listener",
            "",
            Result.FAILED,
            "no listener of kind mx takes mail from servers",
            "Add one under `listeners`.",
        )
    for listener in taking:
        if listener.starttls is Switch.OFF:
            bad = connector.require.needs_tls
            text = "TLS is not offered here" + (": the partner can satisfy nothing" if bad else "")
            result = Result.WARNING if not bad or len(taking) > 1 else Result.FAILED
            yield Step("listener", listener.name, result, text, "Take `starttls: off` away.")
            continue
        valid = [each for each in files.shown if each.valid_at(files.now)]
        if not valid:
            text = "no certificate of ours is valid now: a partner that verifies ours will not send"
            yield Step("listener", listener.name, Result.FAILED, text, "Renew ours.")
            continue
        certificate = (
            "clients are asked for a certificate" if book.asks_for_certificates else "no certificate is asked for"
        )
        yield Step("listener", listener.name, Result.OK, f"STARTTLS is offered, {certificate}")


def _networks(book: RuleBook, connector: InboundConnector) -> Iterator[Step]:
    ours = _of(connector)
    for network in book.config.accept.networks:
        for each in ours:
            if _overlap(each, network):
                text = f"overlaps {network} of `accept.networks`: whoever is in both may send anywhere through us"
                yield Step(
                    "networks",
                    str(each),
                    Result.WARNING,
                    text,
                    "Take the partner's addresses out of `accept.networks`.",
                )
    for other in book.config.inbound:
        if other is connector:
            continue
        for each in ours:
            shared = [network for network in _of(other) if _overlap(each, network)]
            if shared:
                text = f"overlaps {shared[0]} of connector {other.name}: an address alone does not tell the two apart"
                how = "Tell them apart by certificates, or narrow the networks."
                yield Step("networks", str(each), Result.WARNING, text, how)


def _of(connector: InboundConnector) -> tuple[Network, ...]:
    return (*(connector.require.networks or ()), *(connector.match.networks or ()))


def _overlap(one: Network, other: Network) -> bool:
    return one.version == other.version and one.overlaps(other)


def _others(book: RuleBook, connector: InboundConnector) -> Iterator[Step]:
    """Which other connectors speak of the same senders: alternatives, or narrower ones that take some of them away."""
    names = connector.match.sender_domains or ()
    for domain in names:
        others = [each.name for each in book.senders.find(domain).values if each.name != connector.name]
        if others:
            text = f"connector {', '.join(others)} speaks of it too: mail is taken where any one of them is wholly satisfied"
            yield Step("alternatives", domain, Result.WARNING, text, "See that each of them asks enough.")
    for other in book.config.inbound:
        for pattern in other.match.sender_domains or ():
            if other.name != connector.name and _narrower(pattern, names):
                text = f"is governed by connector {other.name}, not by this one: the narrower pattern wins"
                yield Step("shadowed", pattern, Result.WARNING, text)


def _narrower(pattern: str, names: Iterable[str]) -> bool:
    """A wildcard of ours would speak for it, were it not named by itself."""
    wide = [each for each in names if each.startswith("*.") or each == "*"]
    rest = pattern.removeprefix("*")  # of a wildcard with its dot, so that it is below another, or the same
    return pattern not in names and any(each == "*" or rest.endswith(each[1:]) for each in wide)
