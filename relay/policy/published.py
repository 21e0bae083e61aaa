"""How published policies join a plan (design section 4): union, all must hold, nothing takes a demand away that an admin wrote.

`relay.policy.dane` and `relay.policy.mtasts` each say what their policy asks of one host; here what they say is put together.
TLSA takes the place of MTA-STS's certificate check only, and only where the MX RRset is secure; MTA-STS's host patterns always apply, and
a failing DANE is never excused by MTA-STS (RFC 8461 section 2).
"""

from dataclasses import dataclass, replace

from relay.config.connectors import OutboundConnector, TlsException
from relay.mail.outcome import Deferred
from relay.mail.plan import Demand, Pkix, PolicyApplied, Tlsa, TlsPlan
from relay.mail.published import Use


@dataclass(frozen=True, slots=True)
class Says:
    """What one kind of published policy says about deliveries to one host.

    `demands` join the plan. `applied` is for reports and people, None where nothing is published. `reason` is one line for `relay explain`,
    `details` are more of them: each record, and what it is good for. `withheld`: mail must not go to this host now (the outcome it gets
    there); None where it may.
    """

    demands: frozenset[Demand] = frozenset()
    applied: PolicyApplied | None = None
    reason: str = ""
    withheld: Deferred | None = None
    details: tuple[str, ...] = ()


NOTHING = Says()


@dataclass(frozen=True, slots=True)
class Published:
    """Everything published about one host. `mx_secure`: the MX RRset is DNSSEC-secure, or an admin named the host (a smart host)."""

    dane: Says = NOTHING
    sts: Says = NOTHING
    mx_secure: bool = False


UNPUBLISHED = Published()


@dataclass(frozen=True, slots=True)
class Uses:
    """What a delivery makes of each kind of published policy."""

    dane: Use
    sts: Use


def uses(connector: OutboundConnector, exception: TlsException | None, *, tls_optional: bool = False) -> Uses:
    """`exception` is the one that runs for the domain. `tls_optional`: the submitter said `TLS-Required: No`, and may (RFC 8689 section 5).

    `off` stands on the connector's own names and keys: an exception that lifts these lifts it too. What an admin requires holds for every
    message; a submitter can only let go of what others published.
    """

    def one(use: Use) -> Use:
        if use is Use.OFF and exception is not None:
            use = Use.AUTO
        return Use.OFF if use is Use.AUTO and tls_optional else use

    return Uses(one(connector.dane), one(connector.mta_sts))


def join(plan: TlsPlan, published: Published) -> TlsPlan | Deferred:
    """The plan with what is published, or why mail must not go to this host."""
    if published is UNPUBLISHED:
        return plan
    if published.dane.withheld is not None:
        return published.dane.withheld
    if published.sts.withheld is not None:
        return published.sts.withheld
    asked_by_sts = published.sts.demands
    if published.mx_secure and any(isinstance(demand, Tlsa) for demand in published.dane.demands):
        asked_by_sts = frozenset(demand for demand in asked_by_sts if not isinstance(demand, Pkix))
    applied = tuple(each.applied for each in (published.dane, published.sts) if each.applied is not None)
    return replace(plan.adding(published.dane.demands | asked_by_sts), published=applied)
