"""MTA-STS (RFC 8461): what a domain's policy asks of deliveries to one host, and whose policy it is.

Reading record and file is `relay.policy.stsfile`'s, finding and keeping policies `relay.dns.sts`'s; when to look for a new one is decided in
`relay.policy.stsrefresh`. How it joins with DANE and with what the connector asks: `relay.policy.published`.

Threat: whoever is on the path forges MX records, strips STARTTLS, shows another certificate; or blocks DNS and HTTPS so that the policy
that would stop this is not seen. A policy once fetched holds until its max_age is over, whatever can be fetched meanwhile (section 5.1).
"""

from dataclasses import replace
from datetime import datetime, timedelta

from relay.config.connectors import OutboundConnector
from relay.config.values import HostPort
from relay.mail.outcome import Deferred
from relay.mail.plan import Demand, Encryption, Pkix, PolicyApplied, StsMx, TlsVersion
from relay.mail.published import PolicyKind, StsFetched, StsFound, StsMode, StsPolicy, StsTrouble, StsUnknown, Use
from relay.mail.tls import SYSTEM_TRUST, TlsFailure
from relay.policy.names import is_listed
from relay.policy.published import Says
from relay.policy.verdict import not_listed

SOURCE = "mta-sts"
MINIMUM = "TLSv1.2"  # RFC 8461 section 7.2


def policy_domain(connector: OutboundConnector, recipient_domain: str, hop: HostPort) -> str:
    """Whose policy governs mail to `recipient_domain` at `hop`; "" where none can.

    By MX it is the recipient's domain itself, never a parent of it. With smart hosts the domain to ask is the smart host's own name, as
    configured: the recipient's policy is about hosts that we do not talk to (RFC 8461 section 3.4). An address has no policy.
    """
    if not connector.route.by_mx:
        return "" if hop.is_address else hop.host
    return "" if recipient_domain.startswith("[") else recipient_domain


def in_force(found: StsFound, now: datetime) -> StsFetched | None:
    """RFC 8461 section 5.1: a policy counts until max_age after it was last fetched. One from the future does: clocks go wrong."""
    fetched = found.fetched
    return fetched if fetched is not None and now <= fetched.ends else None


def sts_says(use: Use, found: StsFound | StsUnknown, domain: str, host: str, now: datetime) -> Says:
    """What the policy of `domain` (see `policy_domain`) says about deliveries to `host`, normalised. `use` is the connector's `mta_sts`."""
    if use is Use.OFF:
        return Says(reason="MTA-STS is left out here (mta_sts: off)")
    if not domain:
        return _missing(use, StsFound(), "an address has no MTA-STS policy")
    if isinstance(found, StsUnknown):
        # It may be one that is enforced, so mail waits (fail closed).
        text = f"the MTA-STS policy kept for {domain} cannot be read: {found.text}"
        return Says(reason=text, withheld=Deferred(451, "4.3.0", text))
    fetched = in_force(found, now)
    if fetched is None:
        says = _missing(use, found, f"{domain} publishes no MTA-STS policy")
        trouble = unfetched(use, found, now)
        return says if trouble is None else replace(says, applied=_useless(domain, trouble))
    policy, reason = fetched.policy, _reason(domain, fetched, found.trouble, now)
    if policy.mode is StsMode.NONE:
        return _unenforced(use, Says(reason=reason), f"the MTA-STS policy of {domain} is mode none")
    says = _says(policy, domain, host, reason)
    if policy.mode is StsMode.TESTING:
        return _unenforced(use, says, f"the MTA-STS policy of {domain} is only in testing")
    return says


def is_another(fetched: StsFetched | None, applied: PolicyApplied | None) -> bool:
    """The policy in force, None for none, is not the one that mail went by. The same text fetched again is no other."""
    policy = None if fetched is None or fetched.policy.mode is StsMode.NONE else fetched.policy
    if applied is None or applied.failure is not None:
        return policy is not None
    return policy is None or (policy.text, policy.mx, policy.mode is StsMode.ENFORCE) != (
        applied.strings,
        applied.mx,
        applied.enforced,
    )


def unfetched(use: Use, found: StsFound | StsUnknown, now: datetime) -> StsTrouble | None:
    """What sessions with a domain fail of in its TLS reports though no policy of it applies: it announces one that cannot be had.

    RFC 8460 section 4.3.2.2. Delivery goes on "as though the domain has not implemented MTA-STS" (RFC 8461 section 3.3); its owner hears.
    """
    if use is Use.OFF or isinstance(found, StsUnknown) or in_force(found, now) is not None:
        return None
    return found.trouble if found.trouble is not None and found.trouble.announced else None


def _useless(domain: str, trouble: StsTrouble) -> PolicyApplied:
    return PolicyApplied(PolicyKind.STS, domain, enforced=False, failure=trouble.failure)


def _says(policy: StsPolicy, domain: str, host: str, reason: str) -> Says:
    """In mode enforce the demands hold, in testing they are only judged for the report (RFC 8461 section 5)."""
    enforced = policy.mode is StsMode.ENFORCE
    demands: frozenset[Demand] = frozenset(
        {
            Encryption(SOURCE),
            TlsVersion(SOURCE, MINIMUM),
            Pkix(SOURCE, SYSTEM_TRUST, (host,)),  # section 4.2
            StsMx(SOURCE, host, policy.mx),  # section 4.1
        }
    )
    applied = PolicyApplied(PolicyKind.STS, domain, policy.text, policy.mx, demands, enforced)
    withheld = None
    if not is_listed(host, policy.mx):
        failed = not_listed(SOURCE, host, policy.mx)
        reason = f"{reason}; {failed.text}"
        withheld = Deferred(451, "4.7.5", failed.text, failed.failure) if enforced else None
    return Says(demands if enforced else frozenset(), applied, reason, withheld)


def _missing(use: Use, found: StsFound, nothing: str) -> Says:
    """No policy in force. RFC 8461 section 3.3: deliver as though there were none, unless the admin insists on one."""
    trouble = found.trouble or StsTrouble(TlsFailure.STS_POLICY_FETCH_ERROR, nothing)
    return _insisting(use, Says(reason=trouble.text), trouble.failure, trouble.text)


def _unenforced(use: Use, says: Says, text: str) -> Says:
    """A valid policy that enforces nothing."""
    return _insisting(use, says, TlsFailure.STS_POLICY_INVALID, text)


def _insisting(use: Use, says: Says, failure: TlsFailure, text: str) -> Says:
    if use is not Use.REQUIRE:
        return says
    text = f"an enforced MTA-STS policy is required (mta_sts: require), and {text}"
    return Says(says.demands, says.applied, says.reason, Deferred(451, "4.7.5", text, failure))


def _reason(domain: str, fetched: StsFetched, trouble: StsTrouble | None, now: datetime) -> str:
    policy = fetched.policy
    age = max(now - fetched.at, timedelta(0))
    text = f"MTA-STS policy of {domain}: mode {policy.mode}, id {policy.id}, fetched {_span(age)} ago, good for {_span(fetched.ends - now)}"
    return f"{text}; the latest try to fetch it failed: {trouble.text}" if trouble is not None else text


def _span(span: timedelta) -> str:
    """In the largest unit that is less than it: for people."""
    seconds = int(span.total_seconds())
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"
