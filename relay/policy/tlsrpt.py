"""What one session means for TLS reports: each published policy judged by itself, success or the failure type of RFC 8460 section 4.3.

Only what domains publish is judged, never what a connector of ours asks: a pinned key that does not match is between us and the admin. A
session under no policy counts as `no-policy-found`: success where there was TLS, whatever the certificate; else `starttls-not-supported`
or, where TLS was offered and broke, `validation-failure`. RFC 8460 section 4.3.1 ties these types to no policy, and a domain that wants to
publish one learns from them which of its hosts are not ready.

Where TCP or the greeting failed nothing is counted (section 4.3.4), and nothing where our own trust data could not be read.
"""

import ipaddress
import re
from collections.abc import Iterable
from functools import lru_cache

from relay.config.connectors import OutboundConnector
from relay.mail.attempt import Attempt, Session, SessionEnd
from relay.mail.plan import Demand, Level, Pkix, Plaintext, PolicyApplied, Tlsa, TlsPlan
from relay.mail.published import PolicyKind
from relay.mail.tls import TlsEvidence, TlsFailure, Undecided, Untrusted
from relay.mail.tlsreport import Failing, Judged, Policy
from relay.policy.verdict import Failed, judge

# RFC 8460 section 4.3. What else can fail has no word there: validation-failure, with our word as its reason.
REPORTABLE = frozenset(TlsFailure) - {
    TlsFailure.CERTIFICATE_REVOKED,
    TlsFailure.REVOCATION_UNAVAILABLE,
    TlsFailure.PIN_MISMATCH,
    TlsFailure.TLS_VERSION_TOO_LOW,
    TlsFailure.REQUIRETLS_NOT_SUPPORTED,
    TlsFailure.HANDSHAKE_FAILED,
}
_OF_DANE = frozenset({TlsFailure.TLSA_INVALID, TlsFailure.DNSSEC_INVALID})
# What keeps mail back only where a connector requires a policy: `dane: require`, `mta_sts: require`.
_OF_REQUIRE = frozenset(
    {
        TlsFailure.DANE_REQUIRED,
        TlsFailure.STS_POLICY_FETCH_ERROR,
        TlsFailure.STS_POLICY_INVALID,
        TlsFailure.STS_WEBPKI_INVALID,
    }
)
_LONGEST_REASON = 100
_UNFIT = re.compile(r"[^\x20-\x7e]+")


def report_domain(connector: OutboundConnector, recipient_domain: str, host: str) -> str:
    """The domain that sessions are reported to: the recipients', or the smart host's (RFC 8460 section 1.1, "Policy Domain").

    "" for IP addresses, which publish nothing. `host` is the hop's.
    """
    name = recipient_domain if connector.route.by_mx else host
    return "" if name.startswith("[") or _is_address(name) else name


def judge_session(domain: str, attempt: Attempt) -> tuple[Judged, ...]:
    """What the attempt's session counts, one entry for each policy; nothing where it had none. `domain` as by `report_domain`."""
    session = attempt.session
    if session is None or not domain:
        return ()
    if session.end is SessionEnd.WITHHELD:
        return tuple(_judged(attempt, session, *each) for each in _against(domain, session))
    published = attempt.plan.published if attempt.plan is not None else ()
    if not published:
        published = (PolicyApplied(PolicyKind.NONE, domain),)
    return tuple(_session(attempt, session, published))


def _session(attempt: Attempt, session: Session, published: Iterable[PolicyApplied]) -> Iterable[Judged]:
    evidence = attempt.evidence
    for policy in published:
        if policy.failure is not None:
            yield _judged(attempt, session, policy, policy.failure, "")
        elif session.end is SessionEnd.NOT_OFFERED:
            yield _judged(attempt, session, policy, TlsFailure.STARTTLS_NOT_SUPPORTED, "")
        elif session.end is SessionEnd.BROKEN:
            yield _judged(attempt, session, policy, TlsFailure.HANDSHAKE_FAILED, session.reason)
        elif evidence is None or _is_undecided(policy, evidence):
            continue
        else:
            verdict = judge(_alone(policy.demands), evidence)
            if isinstance(verdict, Failed):
                yield _judged(attempt, session, policy, verdict.failure, _reason(policy, evidence, verdict))
            else:
                yield Judged(_named(policy))


def _against(domain: str, session: Session) -> Iterable[tuple[PolicyApplied, TlsFailure, str]]:
    """The policies that stood against a host nobody connected to."""
    useless = [(each, each.failure) for each in session.published if each.failure is not None]
    for policy, why in useless:
        yield policy, why, ""
    failure = session.failure
    if useless or failure is None or failure in _OF_REQUIRE:
        return  # an admin's `require` that nothing published satisfies is ours, as is a look-up that failed without a word for it
    kind = PolicyKind.TLSA if failure in _OF_DANE else PolicyKind.STS
    blamed = [each for each in session.published if each.kind is kind] or [PolicyApplied(kind, domain)]
    for policy in blamed:
        yield policy, failure, session.reason


def _judged(attempt: Attempt, session: Session, policy: PolicyApplied, failure: TlsFailure, reason: str) -> Judged:
    if failure not in REPORTABLE:
        failure, reason = TlsFailure.VALIDATION_FAILURE, reason or failure.value
    host = attempt.hop.rpartition(":")[0].strip("[]")
    failing = Failing(failure, _shown(session.source, attempt.address), host, attempt.address, _short(reason))
    return Judged(_named(policy), failing)


@lru_cache(maxsize=256)
def _alone(demands: frozenset[Demand]) -> TlsPlan:
    """The policy by itself, without what the connector asks."""
    return TlsPlan(Level.OPPORTUNISTIC, Plaintext.NEVER, demands)


@lru_cache(maxsize=256)
def _named(policy: PolicyApplied) -> Policy:
    return Policy(policy.kind, policy.domain, policy.strings, policy.mx)


def _is_undecided(policy: PolicyApplied, evidence: TlsEvidence) -> bool:
    """Trust data of ours could not be read: no fault of theirs."""
    trusts = (each.trust for each in policy.demands if isinstance(each, Pkix | Tlsa))
    return any(isinstance(evidence.paths.get(trust), Undecided) for trust in trusts)


def _reason(policy: PolicyApplied, evidence: TlsEvidence, failed: Failed) -> str:
    """Why, for strangers: the verdict's own words name the file that our trust is in."""
    for demand in policy.demands:
        path = evidence.paths.get(demand.trust) if isinstance(demand, Pkix | Tlsa) else None
        if isinstance(path, Untrusted):
            return path.text
    return failed.text


def _short(text: str) -> str:
    return _UNFIT.sub(" ", text)[:_LONGEST_REASON].strip()


def _shown(source: str, address: str) -> str:
    """Our end's address. One behind address translation means nothing to the receiver and tells of our network: left out, unless the
    receiver is in such a network too."""
    if not source or not address:
        return ""
    private = not ipaddress.ip_address(source).is_global and ipaddress.ip_address(address).is_global
    return "" if private else source


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
