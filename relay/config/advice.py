"""What is legal in connectors.yaml and yet unwise. `relay check` prints it as warnings; nothing here stops a relay.

Contradictions are `relay.config.rules`' business. Reads no file but the mode bits of those that hold a secret.
"""

import ipaddress
import stat
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from relay.config.certificates import Folder, covers
from relay.config.connectors import (
    Allow,
    InboundConnector,
    OutboundConnector,
    OutboundSettings,
    TlsException,
)
from relay.config.directions import covering, one_way, told
from relay.config.files import Secret, SecretOrigin
from relay.config.models import Config, ListenerKind, Switch, TlsRequiredNo
from relay.config.publication import DomainWords
from relay.config.rules import Place
from relay.config.tlsrpt import Unsigned
from relay.config.values import HostPort, Network
from relay.mail.plan import Level, Plaintext
from relay.mail.published import StsMode
from relay.mail.tls import SYSTEM_TRUST

SOON = timedelta(days=14)
_FAR = timedelta(days=366)
_SHORT_POLICY = timedelta(weeks=1)
_OLD_TLS = ("TLSv1", "TLSv1.1")
# Networks shorter than these hold more than one organisation's machines, mostly.
_WIDE_V4 = 16
_WIDE_V6 = 32
_LEAST_ROOM = 2**20


@dataclass(frozen=True, slots=True)
class Advice:
    """`place` is the path of keys and list positions that it is about."""

    place: Place
    text: str


def advice(config: Config, folder: Folder, now: datetime) -> tuple[Advice, ...]:
    """Every warning, in the order of the file's sections. `folder` is what `certificates` holds; `now` aware."""
    today = now.astimezone(UTC).date()
    return (
        *_listeners(config),
        *_limits(config),
        *_certificates(config, folder, now),
        *_accept(config),
        *_tls_required_no(config),
        *_tlsrpt(config),
        *_alerts(config),
        *dict.fromkeys(_publication(config, folder)),
        *_outbound(config, ("defaults", "outbound"), config.default, config.defaults.outbound),
        *_connectors(config),
        *(Advice(("connectors", position), text) for position, text in told(one_way(config))),
        *_exceptions(config, today),
    )


def _listeners(config: Config) -> Iterator[Advice]:
    for index, listener in enumerate(config.listeners):
        if listener.starttls is Switch.OFF:
            yield Advice(("listeners", index, "starttls"), "TLS is not offered here: mail comes in clear")
        if listener.proxy_protocol is not None:
            why = "all of it may claim any client address"
            yield from _wide(("listeners", index, "proxy_protocol", "from"), listener.proxy_protocol.from_, why)
    if config.observe is not None and not _is_loopback(config.observe):
        yield Advice(("observe",), f"{config.observe} is not loopback: whoever reaches it reads the metrics")
    if config.bare_lf is not None:
        yield from _wide(("bare_lf", "normalise"), config.bare_lf.normalise, "all of it may send what smuggling needs")


def _limits(config: Config) -> Iterator[Advice]:
    if config.limits.free_space < _LEAST_ROOM:
        text = "on a full disk nothing can be recorded, not even that mail has left, which is what gives room back: keep 1MiB at least"
        yield Advice(("limits", "free_space"), text)


def _is_loopback(address: HostPort) -> bool:
    return ipaddress.ip_address(address.host).is_loopback


def _certificates(config: Config, folder: Folder, now: datetime) -> Iterator[Advice]:
    for each in folder.certificates:
        left = each.not_after - now
        if timedelta(0) <= left <= SOON:
            yield Advice(("certificates",), f"the certificate {each.name} ends in {_days(left.days)}: renew it")
    for each in folder.next:
        present = next((one for one in folder.certificates if one.name == each.replaces), None)
        lost = [name for name in present.names if name not in each.names] if present is not None else []
        if lost:
            text = f"the next certificate {each.name} lacks {', '.join(lost)}, which {each.replaces} has"
            yield Advice(("certificates",), text)
    if folder.certificates and not any(covers(each.names, config.hostname) for each in folder.certificates):
        yield Advice(
            ("hostname",), f"no certificate is for {config.hostname}: partners that verify ours will refuse it"
        )


def _days(number: int) -> str:
    return "less than a day" if number < 1 else "1 day" if number == 1 else f"{number} days"


def _accept(config: Config) -> Iterator[Advice]:
    rules = _by_pattern(config)
    for index, domain in enumerate(config.accept.domains):
        if _governing(config, rules, domain).route.by_mx:
            yield Advice(
                ("accept", "domains", index),
                f"mail for {domain} goes to its MX, which leads back to us: give its connector a `route` with `smart_hosts`",
            )
    yield from _wide(("accept", "networks"), config.accept.networks, "all of it may send anywhere through us")


def _tls_required_no(config: Config) -> Iterator[Advice]:
    if config.tls_required_no is not TlsRequiredNo.HONOUR:
        return
    if all(listener.kind is ListenerKind.MX for listener in config.listeners):
        yield Advice(("tls_required_no",), "only logged-in users are heard, and no listener here lets any log in")
    else:
        text = "whoever may log in can send past the recipient's DANE and MTA-STS, by a line in the header"
        yield Advice(("tls_required_no",), text)


_WEAK_KEY = 2048  # bits


def _tlsrpt(config: Config) -> Iterator[Advice]:
    reports = config.tlsrpt
    if reports is None:
        return
    if reports.send is Switch.ON and reports.dkim is None:
        text = "reports that go by mail are not signed, so most receivers ignore them (RFC 8460 section 3): add `dkim`"
        yield Advice(("tlsrpt",), text)
    if reports.dkim is not None:
        place: Place = ("tlsrpt", "dkim", "key")
        if reports.dkim.key.bits < _WEAK_KEY:
            yield Advice(place, f"the key has {reports.dkim.key.bits} bits: make one of {_WEAK_KEY}")
        yield from _secret(place, reports.dkim.key)
    if reports.mailbox is not None and reports.unsigned is Unsigned.ACCEPT:
        yield Advice(("tlsrpt", "unsigned"), "anyone can write reports in anyone's name")


def _alerts(config: Config) -> Iterator[Advice]:
    alerts = config.alerts
    if alerts is None:
        return
    if alerts.webhook is not None:
        yield from _secret(("alerts", "webhook", "secret"), alerts.webhook.secret)
    elif alerts.mail is not None:
        yield Advice(
            ("alerts",), "mail goes through the queue: that the queue does not move, only a `webhook` can tell"
        )
    else:
        yield Advice(("alerts",), "nobody is told: give `mail` or `webhook`")


def _publication(config: Config, folder: Folder) -> Iterator[Advice]:
    """Of `publish`, where somebody wrote it. What DNS and HTTPS really say: `relay publish --verify`."""
    publish = config.publish
    if "publish" not in config.model_fields_set:
        return
    for domain in config.published_domains:
        words = config.publication_for(domain)
        own = publish.domains.get(domain)
        keys = own.model_fields_set if own is not None else frozenset[str]()

        def place(key: str, domain: str = domain, keys: Collection[str] = keys) -> Place:
            return ("publish", "domains", domain, key) if key in keys else ("publish", key)

        if publish.https is not None and not _shown_for(folder, f"mta-sts.{domain}"):
            text = f"no certificate is for mta-sts.{domain}: senders cannot fetch the policy of {domain} here"
            yield Advice(("publish", "https"), text)
        if words.mode is StsMode.ENFORCE:
            yield from _enforced(config, folder, words, place)
        elif words.mode is StsMode.TESTING and not words.reports:
            text = "mode testing without `reports`: nobody tells you who could not reach you safely"
            yield Advice(place("mode"), text)


def _enforced(config: Config, folder: Folder, words: DomainWords, place: Callable[[str], Place]) -> Iterator[Advice]:
    """What keeps mail away from us once senders hold to the policy (RFC 8461 section 4.1)."""
    for host in words.mx:
        if not _shown_for(folder, host):
            text = f"no certificate is for {host}: senders who hold to the policy will not deliver there"
            yield Advice(place("mx"), text)
    if words.max_age < _SHORT_POLICY:
        text = "below a week, a sender who writes seldom has forgotten the policy each time, and can be led astray"
        yield Advice(place("max_age"), text)
    if not any(each.kind is ListenerKind.MX and each.starttls is Switch.ON for each in config.listeners):
        text = "no listener of kind mx offers TLS: senders who hold to the policy will not deliver here"
        yield Advice(place("mode"), text)


def _shown_for(folder: Folder, host: str) -> bool:
    return any(covers(each.names, host) for each in folder.certificates)


def _by_pattern(config: Config) -> dict[str, OutboundConnector]:
    return {each: connector for connector in config.outbound for each in connector.match.recipient_domains}


def _governing(config: Config, rules: Mapping[str, OutboundConnector], pattern: str) -> OutboundConnector:
    """The connector for a domain, or for what a wildcard stands for unless a narrower rule says otherwise."""
    return next((rules[each] for each in covering(pattern) if each in rules), config.default)


def _wide(place: Place, networks: Iterable[Network], why: str) -> Iterator[Advice]:
    for index, network in enumerate(networks):
        limit = _WIDE_V4 if network.version == 4 else _WIDE_V6
        if network.prefixlen < limit and not network.is_private:
            yield Advice((*place, index), f"{network} is a large part of the internet: {why}")


def _connectors(config: Config) -> Iterator[Advice]:
    acting = iter(config.outbound)
    for index, connector in enumerate(config.connectors):
        place: Place = ("connectors", index)
        if isinstance(connector, InboundConnector):
            yield from _inbound(config, place, connector)
            yield from _adds_nothing(config, place, connector)
        else:
            yield from _outbound(config, place, next(acting), connector)


def _inbound(config: Config, place: Place, connector: InboundConnector) -> Iterator[Advice]:
    match, require, certificate = connector.match, connector.require, connector.require.certificate
    if match.sender_domains and not match.header_from:
        yield Advice(
            (*place, "match"),
            "the From: header that people see is not compared: add `header_from: true`, or anyone may write the partner's name there",
        )
    if match.certificate_names and (
        certificate is None or not (certificate.ca or certificate.pins or certificate.names)
    ):
        yield Advice(
            (*place, "match", "certificate_names"),
            "anyone can make a certificate that claims these names: `require.certificate` with `ca` or `pins` proves them",
        )
    if certificate is not None and not certificate.pins and (certificate.ca or config.trust) == SYSTEM_TRUST:
        yield Advice(
            (*place, "require", "certificate"),
            "any public CA may have issued it: name the partner's own `ca`, or `pins`, where there is one",
        )
    if certificate is not None and certificate.pins and len(certificate.pins) == 1:
        yield Advice((*place, "require", "certificate", "pins"), _SINGLE_PIN)
    if require.tls_version in _OLD_TLS:
        yield Advice((*place, "require", "tls_version"), _OLD_VERSION)
    if match.networks and require.networks and not _overlap(match.networks, require.networks):
        yield Advice(
            (*place, "require", "networks"), "no address is in these and in `match.networks`: this refuses all"
        )


_SINGLE_PIN = "one pin only: when the partner changes its key, mail stops; list the next key's pin before"
_OLD_VERSION = "versions below TLSv1.2 are broken (RFC 8996)"


def _overlap(first: Iterable[Network], second: Iterable[Network]) -> bool:
    return any(a.version == b.version and a.overlaps(b) for a in first for b in second)


def _adds_nothing(config: Config, place: Place, connector: InboundConnector) -> Iterator[Advice]:
    """Connectors for one sender domain are alternatives: one that asks more than another for all of its domains never matters."""
    domains = set(connector.match.sender_domains or ())
    if not domains or connector.grant is not None:
        return
    for other in config.inbound:
        if other is connector or not domains <= set(other.match.sender_domains or ()):
            continue
        if other.match.header_from != connector.match.header_from or other.grant is not None:
            continue
        if _asks_no_more(other, connector):
            text = f"connector {other.name} names the same domains and asks no more: whoever satisfies this one satisfies it"
            yield Advice(place, text)
            return


def _asks_no_more(easy: InboundConnector, hard: InboundConnector) -> bool:
    asked = (
        (easy.require.tls_version, hard.require.tls_version),
        (easy.require.certificate, hard.require.certificate),
        (easy.require.networks, hard.require.networks),
        (easy.match.certificate_names, hard.match.certificate_names),
        (easy.match.networks, hard.match.networks),
    )
    tls = hard.require.needs_tls or not easy.require.needs_tls
    same = all(a == b for a, b in asked) and easy.require.needs_tls == hard.require.needs_tls
    return not same and tls and all(a is None or a == b for a, b in asked)


def _outbound(config: Config, place: Place, acting: OutboundConnector, written: OutboundSettings) -> Iterator[Advice]:
    """`acting` has the defaults in it; what a connector inherited is said once, at the defaults."""
    own = written.model_fields_set
    yield from _strength(config, place, acting, own)
    if "pins" in own and acting.pins is not None and len(acting.pins) == 1:
        yield Advice((*place, "pins"), _SINGLE_PIN)
    if "tls_version" in own and acting.tls_version in _OLD_TLS:
        yield Advice((*place, "tls_version"), _OLD_VERSION)
    elif "tls_version" in own and acting.tls is Level.OPPORTUNISTIC and acting.plaintext is not Plaintext.NEVER:
        yield Advice((*place, "tls_version"), "at level opportunistic this does not stop mail from going in clear")
    if "retry" in own and acting.retry.delay_warning >= acting.retry.expire:
        yield Advice((*place, "retry"), "`delay_warning` is not before `expire`: no sender ever hears of a delay")
    if "route" in own and acting.route.auth is not None:
        auth = (*place, "route", "auth")
        if acting.tls is Level.ENCRYPTION and not acting.pins:
            yield Advice(auth, "at level encryption whoever sits on the way gets the password: write `tls: domain`")
        yield from _secret((*auth, "password"), acting.route.auth.password)


def _strength(config: Config, place: Place, acting: OutboundConnector, own: Iterable[str]) -> Iterator[Advice]:
    if "plaintext" in own and acting.plaintext is Plaintext.IF_TLS_FAILS:
        yield Advice((*place, "plaintext"), "whoever breaks the handshake gets the mail in clear")
    if "tls" in own and acting.tls is Level.ENCRYPTION and not acting.pins:
        yield Advice(
            (*place, "tls"),
            "any certificate passes, so an active attacker can read along: `certificate`, `domain` or `pins` stop that",
        )
    trust = acting.ca or config.trust
    if "tls" in own and acting.tls is Level.CERTIFICATE and trust == SYSTEM_TRUST and not acting.pins:
        yield Advice(
            (*place, "tls"),
            "any certificate of any public CA passes, whatever its name: write `tls: domain`, or name the partner's `ca`",
        )


def _secret(place: Place, secret: Secret) -> Iterator[Advice]:
    if secret.origin is SecretOrigin.WRITTEN:
        yield Advice(place, "the secret stands in the file: write ${NAME} or file:PATH, and change the secret")
    if secret.path is not None:
        try:
            others = secret.path.stat().st_mode & stat.S_IRWXO
        except OSError:
            others = 0
        if others:
            yield Advice(place, f"everybody on this machine can read {secret.path}: chmod 600 it")


def _exceptions(config: Config, today: date) -> Iterator[Advice]:
    rules = _by_pattern(config)
    for index, exception in enumerate(config.exceptions):
        place: Place = ("exceptions", index)
        left = exception.until - today
        if left < timedelta(0):
            yield Advice((*place, "until"), f"this ended on {exception.until} and holds no more: take it out")
        elif left <= SOON:
            yield Advice((*place, "until"), f"this ends in {_days(left.days)}: see that TLS works by then")
        elif left > _FAR:
            yield Advice((*place, "until"), "this is more than a year away: a shorter one reminds you in time")
        if left >= timedelta(0) and _allows_already(_governing(config, rules, exception.recipient_domain), exception):
            yield Advice(place, f"the rule for {exception.recipient_domain} allows this without it: take it out")


def _allows_already(connector: OutboundConnector, exception: TlsException) -> bool:
    if connector.tls is not Level.OPPORTUNISTIC:
        return exception.allow is Allow.ENCRYPTION and connector.tls is Level.ENCRYPTION and not connector.pins
    if exception.allow is Allow.ENCRYPTION:
        return True
    return connector.plaintext is Plaintext.IF_TLS_FAILS
