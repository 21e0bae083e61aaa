"""REQUIRETLS (RFC 8689): what a message that asks for TLS all the way adds to a plan, who vouches for a host, and when it can go nowhere.

Adds demands and takes none away; `relay.policy.verdict` judges them, and whether the hop offers REQUIRETLS comes last. Look-ups are others'.

Threat: a forged MX record. A certificate that is right for the host it names proves nothing, so somebody has to vouch for that name: DNSSEC
on the MX records, an enforced MTA-STS policy, or an admin who wrote down the hop, its names or its key (section 4.2.1).
"""

from collections.abc import Iterable
from typing import TypeGuard

from relay.config.connectors import OutboundConnector
from relay.mail.outcome import Bounced, Deferred, Outcome
from relay.mail.plan import Demand, Encryption, Level, Pins, Pkix, RequireTls, StsMx, Tlsa, TlsPlan
from relay.mail.tls import TlsFailure
from relay.policy.published import Published
from relay.policy.verdict import Failed

SOURCE = "requiretls"

REFUSED = "4.7.30"
"""The status of a host where REQUIRETLS cannot be kept. Given up, it is X.7.30 too (RFC 8689 section 7, RFC 5248)."""

_UNREACHED = "4.4.1"


def require_tls(plan: TlsPlan, *, connector: OutboundConnector, host: str, published: Published, trust: str) -> TlsPlan:
    """The plan for a REQUIRETLS message to `host`. `plan` has what is published in it already; `trust` is the configuration's own.

    An exception weakens nothing here: it speaks of the connector's part of the plan, and this is the sender's.
    """
    vouched, proof = _voucher(connector, host, published, trust)
    demands: set[Demand] = {Encryption(SOURCE), RequireTls(SOURCE, vouched)}
    if proof is not None and not any(_proves(demand) for demand in plan.demands):
        demands.add(proof)
    return plan.adding(demands)


def _voucher(
    connector: OutboundConnector, host: str, published: Published, trust: str
) -> tuple[str, Pkix | Pins | None]:
    """Who vouches for the host, "" where nobody does, and the demand that checks the certificate where the plan has none that does."""
    ca = connector.ca or trust
    if connector.pins and connector.tls is not Level.OPPORTUNISTIC:
        return connector.source_of("pins"), Pins(SOURCE, connector.pins)
    if connector.names and connector.tls is Level.DOMAIN:
        return connector.source_of("names"), Pkix(SOURCE, ca, connector.names)
    by_name = Pkix(SOURCE, ca, (host,))
    if not connector.route.by_mx:
        return connector.source_of("route"), by_name
    if any(isinstance(demand, StsMx) for demand in published.sts.demands):
        return "mta-sts", by_name
    if published.mx_secure:
        tlsa = any(isinstance(demand, Tlsa) for demand in published.dane.demands)
        return "dane" if tlsa else "dnssec", by_name
    return "", None


def _proves(demand: Demand) -> bool:
    """The demand says which certificate, by name or by key: not just any that somebody issued."""
    return isinstance(demand, Tlsa | Pins) or (isinstance(demand, Pkix) and bool(demand.names))


def refuses(failed: Failed) -> bool:
    """The verdict says that this host cannot have a REQUIRETLS message as things are there, though it might have another one.

    Not where our own trust data is the trouble, nor where a connector or published policy fails: that keeps all mail waiting.
    """
    return failed.source == SOURCE and failed.failure is not TlsFailure.VALIDATION_FAILURE


def was_refused(outcome: Outcome) -> TypeGuard[Deferred]:
    """A host refused for the sake of REQUIRETLS: its other addresses need not be tried. What a hop itself says comes without a failure."""
    return isinstance(outcome, Deferred) and outcome.status == REFUSED and outcome.failure is not None


def kept_nowhere(tried: Iterable[tuple[str, Outcome]]) -> Bounced | None:
    """What becomes of a recipient once no host is left to try. `tried`: each hop ("host:port") with each outcome it gave, in order, but
    without those that mail can never go to (no such host).

    Bounced at once where every host refused for the sake of REQUIRETLS (RFC 8689 section 4.2.1). None where anything else kept the message
    waiting at any of them, for it may still get through there; that one address does not answer, where the host refused at another, is
    nothing else.
    """
    by_hop: dict[str, list[Outcome]] = {}
    for hop, outcome in tried:
        by_hop.setdefault(hop, []).append(outcome)
    refusal: Deferred | None = None
    for outcomes in by_hop.values():
        refused = [each for each in outcomes if was_refused(each)]
        others = [each for each in outcomes if not was_refused(each)]
        if not refused or any(each.status != _UNREACHED for each in others):
            return None
        refusal = refused[-1]
    if refusal is None:
        return None
    return Bounced(550, "5.7.30", f"REQUIRETLS cannot be kept: {refusal.text}", refusal.failure)
