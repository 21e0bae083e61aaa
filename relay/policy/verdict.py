"""Does this connection satisfy this plan? The one place where evidence is judged, before any MAIL is said on the connection."""

from dataclasses import dataclass

from relay.mail.plan import (
    Demand,
    Encryption,
    Pins,
    Pkix,
    Plaintext,
    RequireTls,
    StsMx,
    Tlsa,
    TlsPlan,
    TlsVersion,
    Unrevoked,
)
from relay.mail.revocation import Revocation, State, first_of
from relay.mail.tls import TLS_VERSIONS, Certificate, TlsEvidence, TlsFailure, TrustedLeaf, Undecided, Untrusted
from relay.policy.names import is_listed, matching_name


@dataclass(frozen=True, slots=True)
class Satisfied:
    """Every demand holds."""


@dataclass(frozen=True, slots=True)
class Failed:
    """The demand that does not hold. `source` is who asked for it."""

    failure: TlsFailure
    source: str
    text: str


Verdict = Satisfied | Failed
SATISFIED = Satisfied()


def judge(plan: TlsPlan, evidence: TlsEvidence | None, *, requiretls_offered: bool = False) -> Verdict:
    """All demands must hold. `evidence` is None for a connection in clear. Fails closed on a demand it does not know.

    `requiretls_offered`: the hop named REQUIRETLS in the EHLO inside TLS.
    """
    if evidence is None:
        for demand in plan.demands:
            if isinstance(demand, RequireTls):
                text = "the connection is in clear, where REQUIRETLS cannot be kept"
                return Failed(TlsFailure.REQUIRETLS_NOT_SUPPORTED, demand.source, text)
        if plan.requires_tls or plan.plaintext is Plaintext.NEVER:
            source = min((demand.source for demand in plan.demands), default="default")
            return Failed(
                TlsFailure.STARTTLS_NOT_SUPPORTED, source, "the connection is in clear and the plan requires TLS"
            )
        return SATISFIED
    for demand in sorted(plan.demands, key=_order):
        verdict = _judge_one(demand, evidence, requiretls_offered=requiretls_offered)
        if isinstance(verdict, Failed):
            return verdict
    return SATISFIED


def _order(demand: Demand) -> tuple[bool, str, str]:
    """This one reports a wrong CA or name before a wrong pin.

    Whether REQUIRETLS is offered comes last: the answer may bounce the message, so it is taken from nobody but the host it is for.
    """
    at_last = isinstance(demand, RequireTls) and bool(demand.vouched)
    return at_last, type(demand).__name__.replace("Pins", "Zins"), demand.source


def _judge_one(demand: Demand, evidence: TlsEvidence, *, requiretls_offered: bool) -> Verdict:
    match demand:
        case Encryption():
            return SATISFIED
        case TlsVersion(source, minimum):
            return _version(source, minimum, evidence)
        case Pkix(source, trust, names):
            return _pkix(source, trust, names, evidence)
        case Tlsa():
            return _tlsa(demand, evidence)
        case Pins(source, pins):
            leaf = evidence.leaf
            if leaf is not None and leaf.spki_sha256 in pins:
                return SATISFIED
            shown = leaf.spki_sha256 if leaf else "no certificate"
            return Failed(TlsFailure.PIN_MISMATCH, source, f"the certificate's key is {shown}, which is not pinned")
        case RequireTls(source, vouched):
            return _requiretls(source, vouched, offered=requiretls_offered)
        case Unrevoked():
            return _unrevoked(demand, evidence)
        case StsMx(source, host, patterns):
            return SATISFIED if is_listed(host, patterns) else not_listed(source, host, patterns)
    return Failed(TlsFailure.VALIDATION_FAILURE, demand.source, f"no rule judges the demand {type(demand).__name__}")


def _requiretls(source: str, vouched: str, *, offered: bool) -> Verdict:
    """RFC 8689 section 4.2.1, steps 2 and 5."""
    if vouched and offered:
        return SATISFIED
    text = "the hop does not offer REQUIRETLS"
    if not vouched:
        text = "nobody vouches for the name of the host: no DNSSEC on the MX records, no MTA-STS policy, no connector"
    return Failed(TlsFailure.REQUIRETLS_NOT_SUPPORTED, source, text)


def not_listed(source: str, host: str, patterns: tuple[str, ...]) -> Failed:
    """The host is none of the policy's.

    RFC 8460 section 4.3 has no result type of its own for this. The policy is valid, so it is not sts-policy-invalid, and no certificate was
    looked at, so it is not certificate-host-mismatch: it is the "general failure for a reason not matching a category above".
    """
    shown = ", ".join(patterns[:5]) + (", ..." if len(patterns) > 5 else "") or "no host"
    text = f"the MTA-STS policy lists {shown}, and {host} is none of these"
    return Failed(TlsFailure.VALIDATION_FAILURE, source, text)


def _version(source: str, minimum: str, evidence: TlsEvidence) -> Verdict:
    if evidence.version in TLS_VERSIONS and TLS_VERSIONS.index(evidence.version) >= TLS_VERSIONS.index(minimum):
        return SATISFIED
    return Failed(
        TlsFailure.TLS_VERSION_TOO_LOW, source, f"the hop speaks {evidence.version}, {minimum} or newer is required"
    )


def _pkix(source: str, trust: str, names: tuple[str, ...], evidence: TlsEvidence) -> Verdict:
    leaf = evidence.leaf
    if leaf is None:
        return Failed(TlsFailure.CERTIFICATE_NOT_TRUSTED, source, "the hop showed no certificate")
    path = evidence.paths.get(trust, Undecided("the chain was not checked against it"))
    if isinstance(path, Untrusted):
        return Failed(path.failure, source, f"the certificate is not trusted by {trust}: {path.text}")
    if isinstance(path, Undecided):
        return Failed(TlsFailure.VALIDATION_FAILURE, source, f"{trust} cannot be used: {path.text}")
    return _named(source, names, leaf) if names else SATISFIED


def _unrevoked(demand: Unrevoked, evidence: TlsEvidence) -> Verdict:
    """Fails closed where nobody has tried to find out, whatever the mode."""
    statuses = evidence.revocation.get(demand.trust)
    if statuses is None:
        return Failed(
            TlsFailure.REVOCATION_UNAVAILABLE, demand.source, "nobody has looked whether the certificate is revoked"
        )
    revoked = first_of(statuses, State.REVOKED)
    if revoked is not None:
        return Failed(
            TlsFailure.CERTIFICATE_REVOKED, demand.source, f"the certificate {revoked.subject} is {revoked.text}"
        )
    unknown = first_of(statuses, State.UNKNOWN)
    if unknown is not None and demand.mode is not Revocation.PREFER:
        text = f"whether the certificate {unknown.subject} is revoked cannot be found out: {unknown.why}"
        return Failed(TlsFailure.REVOCATION_UNAVAILABLE, demand.source, text)
    return SATISFIED


def _tlsa(demand: Tlsa, evidence: TlsEvidence) -> Verdict:
    path = evidence.paths.get(demand.trust, Undecided("the chain was not compared with them"))
    if isinstance(path, Untrusted):
        return Failed(path.failure, demand.source, f"the TLSA records of {demand.base}: {path.text}")
    if isinstance(path, Undecided):
        text = f"the TLSA records of {demand.base} cannot be used: {path.text}"
        return Failed(TlsFailure.VALIDATION_FAILURE, demand.source, text)
    leaf = evidence.leaf
    if isinstance(path, TrustedLeaf):
        return SATISFIED  # RFC 7672 section 3.1.1: DANE-EE is bound to the name by DNS
    if leaf is None:
        return Failed(TlsFailure.TLSA_INVALID, demand.source, "the hop showed no certificate")
    return _named(demand.source, demand.names, leaf)  # RFC 7672 section 3.1.2: DANE-TA, a CA's word for many names


def _named(source: str, names: tuple[str, ...], leaf: Certificate) -> Verdict:
    if matching_name(names, leaf):
        return SATISFIED
    shown = ", ".join(leaf.names[:5]) or "no name"
    wanted = " or ".join(names)
    return Failed(TlsFailure.CERTIFICATE_HOST_MISMATCH, source, f"the certificate is for {shown}, not for {wanted}")
