"""How much TLS one delivery to one host needs: connector, exception and defaults into a TlsPlan (design section 4).

Published policy joins through `TlsPlan.adding`, which can only add. What to do with a plan once a host has shown its hand
(no STARTTLS, a broken handshake) is decided here too, so that clear text has one gate.
"""

from datetime import UTC, date, datetime, time, timedelta
from enum import Enum, auto

from relay.config.models import Allow, OutboundConnector, TlsException
from relay.mail.plan import Demand, Encryption, Level, Pins, Pkix, Plaintext, TlsPlan, TlsVersion, Unrevoked
from relay.mail.revocation import Revocation
from relay.policy.book import RuleBook

_LOWEST_TLS = "TLSv1.2"


def running_exception(book: RuleBook, domain: str, today: date) -> TlsException | None:
    """The exception for exactly this recipient domain, unless its last day (UTC, inclusive) has passed."""
    exception = book.exceptions.get(domain)
    return exception if exception is not None and today <= exception.until else None


def choose_plan(book: RuleBook, connector: OutboundConnector, domain: str, host: str, now: datetime) -> TlsPlan:
    """The plan for mail to `domain` at `host` (a smart host or MX host, normalised, or an IP address). `now` in UTC."""
    exception = running_exception(book, domain, now.astimezone(UTC).date())
    if exception is not None:
        return _excepted(exception, connector.client_certificate or "")
    return connector_plan(book, connector, host)


def connector_plan(book: RuleBook, connector: OutboundConnector, host: str) -> TlsPlan:
    """What the connector itself asks at `host`, whatever exceptions there are."""
    level, source = connector.tls, connector.source_of("tls")
    plaintext = connector.plaintext or Plaintext.IF_NOT_OFFERED
    demands: set[Demand] = {TlsVersion(connector.source_of("tls_version"), connector.tls_version)}
    if level is Level.OPPORTUNISTIC and plaintext is Plaintext.NEVER:
        demands.add(Encryption(connector.source_of("plaintext")))
    if level.rank >= Level.ENCRYPTION.rank:
        plaintext = Plaintext.NEVER
        demands.add(Encryption(source))
    if level.rank >= Level.CERTIFICATE.rank:
        names = (connector.names or (host,)) if level is Level.DOMAIN else ()
        trust = connector.ca or book.config.trust
        demands.add(Pkix(source, trust, names))
        if connector.revocation is not Revocation.OFF:
            demands.add(Unrevoked(connector.source_of("revocation"), trust, connector.revocation))
    if connector.pins and level is not Level.OPPORTUNISTIC:
        demands.add(Pins(connector.source_of("pins"), connector.pins))
    return TlsPlan(level, plaintext, frozenset(demands), connector.client_certificate or "")


def _excepted(exception: TlsException, client_certificate: str) -> TlsPlan:
    """What an exception leaves: TLS is still tried first, nothing of the connector's part is left to fail it."""
    ends = datetime.combine(exception.until + timedelta(days=1), time(), UTC)
    version = TlsVersion("exception", _LOWEST_TLS)
    if exception.allow is Allow.ENCRYPTION:
        demands: frozenset[Demand] = frozenset({version, Encryption("exception")})
        return TlsPlan(Level.ENCRYPTION, Plaintext.NEVER, demands, client_certificate, ends)
    return TlsPlan(Level.OPPORTUNISTIC, Plaintext.IF_TLS_FAILS, frozenset({version}), client_certificate, ends)


class Step(Enum):
    """What a plan says to do next with a host."""

    START_TLS = auto()
    SEND_IN_CLEAR = auto()
    REFUSE = auto()


def after_ehlo(plan: TlsPlan, *, starttls_offered: bool) -> Step:
    """After the first EHLO. Offered means tried, always."""
    if starttls_offered:
        return Step.START_TLS
    return Step.REFUSE if plan.requires_tls or plan.plaintext is Plaintext.NEVER else Step.SEND_IN_CLEAR


def after_broken_tls(plan: TlsPlan) -> Step:
    """STARTTLS was offered and then failed: 454, garbage, a broken handshake. SEND_IN_CLEAR means on a new connection.

    Threat: whoever can break a handshake could otherwise choose clear text for us.
    """
    return Step.SEND_IN_CLEAR if not plan.requires_tls and plan.plaintext is Plaintext.IF_TLS_FAILS else Step.REFUSE


def as_strong(back: TlsPlan, out: TlsPlan) -> bool:
    """True where a bounce over `back` is protected as well as the message was over `out`: then it may carry the content."""
    if not out.requires_tls:
        return True
    return back.requires_tls and back.level.rank >= out.level.rank and _kinds(back) >= _kinds(out)


def _kinds(plan: TlsPlan) -> set[type[Demand]]:
    return {type(demand) for demand in plan.demands}
