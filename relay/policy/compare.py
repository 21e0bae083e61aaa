"""What a new configuration allows that the old one did not, and what of it a running relay cannot take over.

A change on disk is taken by itself only where `weakened` finds nothing (design section 4, "Reload"). Connectors are compared as they
act, with the defaults in them, domain by domain: who governed contoso.com before, who does now. `relay.policy.partners` compares
inbound connectors, `relay.policy.publish` what we publish.

Threat: a change that weakens and slips through. So every key has a rule here or counts as weakening when it differs at all; a key
that enters the models later does so by itself. What never counts is listed in HARMLESS, each with its reason.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from relay.config.connectors import (
    DEFAULT,
    Allow,
    Model,
    OutboundConnector,
    OutboundSettings,
    PrivateAddresses,
    Route,
    TlsException,
)
from relay.config.models import (
    Alerts,
    Callout,
    Config,
    Dkim,
    Limits,
    Listener,
    Switch,
    TlsRequiredNo,
    Tlsrpt,
    Unsigned,
)
from relay.config.values import HostPort, duration_text
from relay.mail.plan import Level, Plaintext
from relay.mail.published import Use
from relay.mail.tls import TLS_VERSIONS
from relay.policy.alert_terms import ALERTS_HARMLESS, weakened_alerts
from relay.policy.book import RuleBook
from relay.policy.compare_accept import HARMLESS_IN_CALLOUTS, weakened_acceptance
from relay.policy.difference import changes, from_to, more_names, more_networks, unknown
from relay.policy.partners import weakened_partners
from relay.policy.publish import weakened_publication

AT_RESTART = ("hostname", "certificates", "workers", "queue", "admin", "observe")
"""Keys that are read only when the relay starts: who we are, and where things are."""

ALL_THE_SAME = "say `relay reload` to put it in force all the same"
"""Stands behind the reasons for which a change waits."""

HARMLESS: Mapping[type[Model], Mapping[str, str]] = {
    OutboundSettings: {
        "helo": "a name that we say",
        "source": "an address of ours",
        "limits": "more or less speed",
    },
    Limits: {
        "message_size": "refuses or takes, with a clear reply",
        "recipients": "refuses or takes, with a clear reply",
        "connections": "refuses or takes, with a clear reply",
        "connections_per_ip": "refuses or takes, with a clear reply",
        "line_length": "refuses or takes, with a clear reply",
        "command_timeout": "patience",
        "data_timeout": "patience",
        "session_messages": "the client connects again",
    },
    Callout: HARMLESS_IN_CALLOUTS,
    TlsException: {"reason": "words for people"},
    Alerts: ALERTS_HARMLESS,
    Tlsrpt: {
        "organization": "words for people",
        "contact": "words for people",
        "sender": "an address of ours",
    },
    Dkim: {
        "domain": "must fit the sender",
        "selector": "how a key is rotated",
        "key": "how a key is rotated",
    },
}


def weakened(old: Config, new: Config) -> tuple[str, ...]:
    """Every way in which `new` removes or weakens something, in words for an admin. Empty: it may be taken by itself."""
    if old == new:
        return ()
    found: list[str] = []
    for rule in _SECTIONS.values():
        found.extend(rule(old, new))
    found.extend(unknown(old, new, _SECTIONS.keys()))
    return tuple(dict.fromkeys(found))


def needs_restart(old: Config, new: Config) -> tuple[str, ...]:
    """What differs and is only read when the relay starts."""
    return tuple(text for key in AT_RESTART for text in changes(old, new, key))


def _restart_only(_old: Config, _new: Config) -> Iterable[str]:
    """Cannot be taken while running, so it cannot weaken anything either: `needs_restart` speaks of it."""
    return ()


def _listeners(old: Config, new: Config) -> Iterator[str]:
    before = {str(each.address): each for each in old.listeners}
    after = {str(each.address): each for each in new.listeners}
    yield from (f"listener {address} is gone" for address in before if address not in after)
    for address, listener in after.items():
        was = before.get(address)
        if was is None:
            if listener.starttls is Switch.OFF or listener.proxy_protocol is not None:
                yield f"listener {address} is new, and without TLS or behind a proxy"
            continue
        if listener.starttls is Switch.OFF and was.starttls is Switch.ON:
            yield f"listener {address}: starttls is turned off"
        if listener.kind is not was.kind:
            yield f"listener {address}: kind goes from {was.kind.value} to {listener.kind.value}"
        if listener.proxy_protocol != was.proxy_protocol:
            yield from _proxy(address, was, listener)
        yield from unknown(was, listener, {"address", "starttls", "kind", "proxy_protocol"}, f"listener {address}: ")


def _proxy(address: str, was: Listener, listener: Listener) -> Iterator[str]:
    if was.proxy_protocol is None or listener.proxy_protocol is None:
        # Without the header, every client would come from the proxy's address; with it, whoever sends one is believed.
        yield f"listener {address}: proxy_protocol is turned {'on' if was.proxy_protocol is None else 'off'}"
        return
    added = more_networks(was.proxy_protocol.from_, listener.proxy_protocol.from_)
    if added:
        yield f"listener {address}: proxy_protocol.from has {added} in addition"


def _limits(old: Config, new: Config) -> Iterator[str]:
    if new.limits.free_space < old.limits.free_space:
        yield f"limits.free_space goes from {old.limits.free_space} to {new.limits.free_space} bytes"
    yield from unknown(old.limits, new.limits, HARMLESS[Limits].keys() | {"free_space"}, "limits.")


def _retention(old: Config, new: Config) -> Iterator[str]:
    """What is forgotten does not come back. Keeping it for longer takes nothing away."""
    for key in ("traces", "tls_reports"):
        before, after = getattr(old.retention, key), getattr(new.retention, key)
        if after < before:
            yield f"retention.{key} goes from {duration_text(before)} to {duration_text(after)}: what is older is forgotten"
    yield from unknown(old.retention, new.retention, {"traces", "tls_reports"}, "retention.")


def _dns(old: Config, new: Config) -> Iterator[str]:
    if old.dns.validating and not new.dns.validating:
        yield "dns.validating goes from true to false: DANE is not used any more"
    for key in type(old.dns).model_fields.keys() - {"validating", "self_test"}:
        yield from (f"dns.{each}" for each in from_to(old.dns, new.dns, key))
    for key in type(old.dns.self_test).model_fields:
        yield from (f"dns.self_test.{each}" for each in from_to(old.dns.self_test, new.dns.self_test, key))


def _bare_lf(old: Config, new: Config) -> Iterator[str]:
    if new.bare_lf is None:
        return
    added = more_networks(old.bare_lf.normalise if old.bare_lf else (), new.bare_lf.normalise)
    if added:
        yield f"bare_lf.normalise has {added} in addition"
    if old.bare_lf is not None:
        yield from unknown(old.bare_lf, new.bare_lf, {"normalise"}, "bare_lf.")


def _tls_required_no(old: Config, new: Config) -> Iterator[str]:
    if new.tls_required_no is TlsRequiredNo.HONOUR:
        yield from (f"{each}: users may set published policy aside" for each in from_to(old, new, "tls_required_no"))


def _tlsrpt(old: Config, new: Config) -> Iterator[str]:
    """What nobody hears of any more, and mail that is taken in or refused where it was not."""
    if new.tlsrpt is None:
        if old.tlsrpt is not None:
            yield "tlsrpt is gone"
        return
    before, after = old.tlsrpt or Tlsrpt(), new.tlsrpt
    for address in after.mailbox or ():
        if address not in (before.mailbox or ()):
            yield f"tlsrpt.mailbox has {address} in addition: its mail is taken in as reports"
    for address in before.mailbox or ():
        if address not in (after.mailbox or ()):
            yield f"tlsrpt.mailbox has {address} no more"
    if after.send is Switch.OFF and old.tlsrpt is not None and before.send is Switch.ON:
        yield "tlsrpt.send is turned off"
    if after.unsigned is Unsigned.ACCEPT and before.unsigned is Unsigned.IGNORE:
        yield "tlsrpt.unsigned goes from ignore to accept"
    if before.dkim is not None and after.dkim is None:
        yield "tlsrpt.dkim is gone: reports are not signed any more"
    if before.dkim is not None and after.dkim is not None:
        yield from unknown(before.dkim, after.dkim, HARMLESS[Dkim], "tlsrpt.dkim.")
    yield from unknown(before, after, HARMLESS[Tlsrpt].keys() | {"mailbox", "send", "unsigned", "dkim"}, "tlsrpt.")


def _defaults(old: Config, new: Config) -> Iterator[str]:
    """`defaults.outbound` and `defaults.inbound` show in the connectors as they act."""
    yield from unknown(old.defaults, new.defaults, {"outbound", "inbound"}, "defaults.")
    yield from unknown(old.defaults.inbound, new.defaults.inbound, {"revocation"}, "defaults.inbound.")


def _exceptions(old: Config, new: Config) -> Iterator[str]:
    before = {each.recipient_domain: each for each in old.exceptions}
    for exception in new.exceptions:
        domain = exception.recipient_domain
        was = before.get(domain)
        if was is None:
            yield f"exception for {domain}: {exception.allow.value} until {exception.until}"
            continue
        if exception.until > was.until:
            yield f"exception for {domain}: until goes from {was.until} to {exception.until}"
        if exception.allow is not was.allow and exception.allow is Allow.PLAINTEXT:
            yield f"exception for {domain}: plaintext instead of {was.allow.value}"
        known = {"recipient_domain", "until", "allow"} | HARMLESS[TlsException].keys()
        yield from unknown(was, exception, known, f"exception for {domain}: ")


@dataclass(frozen=True, slots=True)
class _Pair:
    """Who governed a domain and who does now, as they act, and the trust that stands in for a `ca`."""

    old: OutboundConnector
    new: OutboundConnector
    old_trust: str
    new_trust: str


def _connectors(old: Config, new: Config) -> Iterator[str]:
    names = {each.name for each in new.outbound}
    yield from (f"connector {each.name} is gone" for each in old.outbound if each.name not in names)
    before, after = RuleBook.of(old), RuleBook.of(new)
    patterns = [p for config in (old, new) for each in config.outbound for p in each.match.recipient_domains]
    # A pattern is looked up like a domain: what governs `*.contoso.com` there, wherever no narrower rule does.
    for pattern in dict.fromkeys([*patterns, "*"]):
        pair = _Pair(before.outbound_for(pattern), after.outbound_for(pattern), old.trust, new.trust)
        for text in _weaker_delivery(pair):
            yield f"{_about(pair, pattern)}: {text}"
    yield from weakened_partners(before, after)


def _about(pair: _Pair, pattern: str) -> str:
    if pair.old.name == pair.new.name:
        return _who(pair.new)
    return f"mail to {pattern}, before under {_who(pair.old)}, now under {_who(pair.new)}"


def _who(connector: OutboundConnector) -> str:
    return "the defaults" if connector.name == DEFAULT else f"connector {connector.name}"


def _weaker_delivery(pair: _Pair) -> Iterator[str]:
    for rule in _DELIVERY:
        yield from rule(pair)
    yield from unknown(pair.old, pair.new, _DELIVERY_KEYS)


def _tls(pair: _Pair) -> Iterator[str]:
    if pair.new.tls.rank < pair.old.tls.rank:
        yield f"tls goes from {pair.old.tls.value} to {pair.new.tls.value}"


def _plaintext(pair: _Pair) -> Iterator[str]:
    before, after = _clear(pair.old), _clear(pair.new)
    if after.rank > before.rank:
        yield f"plaintext goes from {before.value} to {after.value}"


def _clear(connector: OutboundConnector) -> Plaintext:
    if connector.tls is not Level.OPPORTUNISTIC:
        return Plaintext.NEVER
    return connector.plaintext or Plaintext.IF_NOT_OFFERED


def _names(pair: _Pair) -> Iterator[str]:
    if pair.old.tls is Level.DOMAIN and pair.new.tls is Level.DOMAIN:
        added = more_names(_wanted(pair.old), _wanted(pair.new))
        if added:
            yield f"names accept {added} in addition"


def _wanted(connector: OutboundConnector) -> tuple[str, ...]:
    return connector.names or tuple(each.host for each in connector.route.hosts)


def _ca(pair: _Pair) -> Iterator[str]:
    if min(pair.old.tls.rank, pair.new.tls.rank) < Level.CERTIFICATE.rank:
        return
    before, after = pair.old.ca or pair.old_trust, pair.new.ca or pair.new_trust
    if before != after:
        yield f"certificates are trusted from {after} instead of {before}"


def _pins(pair: _Pair) -> Iterator[str]:
    if pair.old.tls is Level.OPPORTUNISTIC or pair.new.tls is Level.OPPORTUNISTIC or pair.old.pins is None:
        return
    if pair.new.pins is None:
        yield "pins are gone"
    else:
        yield from (f"pins has {pin} in addition" for pin in pair.new.pins if pin not in pair.old.pins)


def _tls_version(pair: _Pair) -> Iterator[str]:
    if TLS_VERSIONS.index(pair.new.tls_version) < TLS_VERSIONS.index(pair.old.tls_version):
        yield f"tls_version goes from {pair.old.tls_version} to {pair.new.tls_version}"


def _published(pair: _Pair) -> Iterator[str]:
    """`off` is less than `auto`, which is less than `require`."""
    ranks = (Use.OFF, Use.AUTO, Use.REQUIRE)
    for key in ("dane", "mta_sts"):
        before, after = getattr(pair.old, key), getattr(pair.new, key)
        if ranks.index(after) < ranks.index(before):
            yield f"{key} goes from {before.value} to {after.value}"


def _revocation(pair: _Pair) -> Iterator[str]:
    if min(pair.old.tls.rank, pair.new.tls.rank) >= Level.CERTIFICATE.rank:
        before, after = pair.old.revocation, pair.new.revocation
        if after.rank < before.rank:
            yield f"revocation goes from {before.value} to {after.value}"


def _revocation_hosts(old: Config, new: Config) -> Iterator[str]:
    """More may be reached from within, or less be found out about certificates."""
    for host in new.revocation_hosts:
        if host not in old.revocation_hosts:
            yield f"revocation_hosts has {_fetch_host(host)} in addition"
    for host in old.revocation_hosts:
        if host not in new.revocation_hosts:
            yield f"revocation_hosts has {_fetch_host(host)} no more: what is there is not fetched"


def _fetch_host(host: HostPort) -> str:
    return str(host) if host.port else host.host


def _client_certificate(pair: _Pair) -> Iterator[str]:
    if pair.old.client_certificate is not None:
        yield from from_to(pair.old, pair.new, "client_certificate")


def _route(pair: _Pair) -> Iterator[str]:
    before, after = pair.old.route, pair.new.route
    if before.hosts != after.hosts:
        yield f"mail goes to {_hosts(after)} instead of {_hosts(before)}"
    if after.private is PrivateAddresses.ALLOW and before.private is not after.private:
        yield "route.private lets MX records lead to private addresses"
    if before.auth is not None:
        if after.auth is None:
            yield "route.auth is gone"
        elif before.auth.user != after.auth.user:
            yield f"route.auth.user goes from {before.auth.user} to {after.auth.user}"
        # A new password is nothing weaker: it is how a secret is rotated.
    yield from unknown(before, after, {"smart_hosts", "private", "auth"}, "route.")


def _hosts(route: Route) -> str:
    return "the domain's MX" if route.by_mx else ", ".join(str(each) for each in route.hosts)


def _retry(pair: _Pair) -> Iterator[str]:
    """Giving up earlier would bounce mail that waits now. The rest is patience."""
    before, after = pair.old.retry, pair.new.retry
    if after.expire < before.expire:
        yield f"retry.expire goes from {duration_text(before.expire)} to {duration_text(after.expire)}"
    yield from unknown(before, after, {"expire", "initial", "maximum", "delay_warning"}, "retry.")


def _forward_client(pair: _Pair) -> Iterator[str]:
    """Told in either direction: off, the checks inside see us in the client's place; on, the hop is told of every client."""
    yield from from_to(pair.old, pair.new, "forward_client")


def _on_5xx(pair: _Pair) -> Iterator[str]:
    """Told in either direction: senders hear nothing of what is held, and strangers get bounces where nothing is."""
    yield from from_to(pair.old, pair.new, "on_5xx")


_DELIVERY: tuple[Callable[[_Pair], Iterable[str]], ...] = (
    _tls,
    _plaintext,
    _names,
    _ca,
    _pins,
    _tls_version,
    _published,
    _revocation,
    _client_certificate,
    _route,
    _retry,
    _forward_client,
    _on_5xx,
)
_DEMANDS = (_tls, _plaintext, _names, _ca, _pins, _tls_version, _published, _revocation, _client_certificate)


def weaker_demands(own: OutboundConnector, other: OutboundConnector, trust: str) -> Iterator[str]:
    """What mail under `own` must satisfy and under `other` need not, both as they act and with the same `trust`."""
    pair = _Pair(own, other, trust, trust)
    for rule in _DEMANDS:
        yield from rule(pair)
    yield from unknown(own, other, _DELIVERY_KEYS)


_DELIVERY_KEYS = HARMLESS[OutboundSettings].keys() | {
    *("name", "direction", "match"),
    *("tls", "plaintext", "names", "ca", "pins", "tls_version", "dane", "mta_sts", "revocation"),
    *("client_certificate", "route", "retry", "forward_client", "on_5xx"),
}

_SECTIONS: Mapping[str, Callable[[Config, Config], Iterable[str]]] = {
    "hostname": lambda old, new: from_to(old, new, "hostname"),
    "postmaster": lambda old, new: from_to(old, new, "postmaster"),
    "listeners": _listeners,
    "certificates": lambda old, new: from_to(old, new, "certificates"),
    "trust": lambda old, new: from_to(old, new, "trust"),
    "workers": _restart_only,
    "queue": _restart_only,
    "admin": _restart_only,
    "observe": _restart_only,
    "retention": _retention,
    "limits": _limits,
    "dns": _dns,
    "accept": weakened_acceptance,
    "publish": weakened_publication,
    "bare_lf": _bare_lf,
    "tls_required_no": _tls_required_no,
    "tlsrpt": _tlsrpt,
    "alerts": weakened_alerts,
    "revocation_hosts": _revocation_hosts,
    "defaults": _defaults,
    "connectors": _connectors,
    "exceptions": _exceptions,
}
