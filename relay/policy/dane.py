"""What DANE asks of mail to one host (RFC 7672 section 2): from what DNS said to the demands that join a plan.

`candidates` says at which names TLSA records are looked for, `dane_says` what follows from what was found there. `relay.dns.dane` asks.
Threats: a downgrade. Whatever is not known for certain keeps the mail from the host; only what DNSSEC proves to be unsigned, or not
published, lets it go there as if DANE did not exist.
"""

from dataclasses import dataclass
from enum import StrEnum

from relay.config.values import HostPort
from relay.mail.outcome import Deferred
from relay.mail.plan import Demand, Encryption, PolicyApplied, Tlsa
from relay.mail.published import PolicyKind, TlsaRecord, Use
from relay.mail.tls import TlsFailure
from relay.policy.published import Says
from relay.policy.route import LookupFailed, look_up_failed
from relay.policy.tlsa import Judged, Usage, judge_records, short

SOURCE = "dane"


class Vouched(StrEnum):
    """How far DNSSEC vouches for the way from a host's name to its addresses (RFC 7672 section 2.2.2)."""

    ADDRESSES = "secure"
    """All the way, aliases included."""
    FIRST_ALIAS = "alias"
    """The name is a secure alias; further on, something is not signed."""
    NOTHING = "insecure"
    NOWHERE = "none"
    """There is no address: no mail will go there."""


@dataclass(frozen=True, slots=True)
class TlsaFound:
    """What the look-up of TLSA records at one base domain gave. `failed` where nothing is known; `secure` as in `TlsaRecords`."""

    base: str
    records: tuple[TlsaRecord, ...] = ()
    secure: bool = False
    failed: LookupFailed | None = None


@dataclass(frozen=True, slots=True)
class HostFacts:
    """All that DNS said about one host, as far as it was asked.

    `next_hop`: the domain whose mail it is, or the smart host's own name. `trouble`: why nothing that the resolver says is believed.
    `mx_secure`: DNSSEC vouches for the MX records (or that there are none), or an admin named the host. `failed` where the look-up of the
    addresses, or of the alias, came to nothing; `vouched` counts only where it did not.
    """

    hop: HostPort
    next_hop: str
    trouble: str = ""
    mx_secure: bool = True
    failed: LookupFailed | None = None
    vouched: Vouched = Vouched.NOTHING
    tlsa: tuple[TlsaFound, ...] = ()


def candidates(host: str, canonical: str, vouched: Vouched) -> tuple[str, ...]:
    """The TLSA base domains in the order to look (RFC 7672 section 2.2.2): the end of a secure alias chain, then the name itself."""
    if vouched is Vouched.ADDRESSES:
        return (canonical, host) if canonical and canonical != host else (host,)
    return (host,) if vouched is Vouched.FIRST_ALIAS else ()


def is_final(found: TlsaFound) -> bool:
    """True where no further base domain is looked at: there are secure records, usable or not, or nobody knows."""
    return found.failed is not None or (found.secure and bool(found.records))


def dane_says(facts: HostFacts, use: Use) -> Says:
    """What follows for mail to this host."""
    if use is Use.OFF:
        return Says(reason="left out: the connector says `dane: off`")
    says = _published(facts)
    if use is Use.REQUIRE and says.withheld is None and not any(isinstance(each, Tlsa) for each in says.demands):
        text = f"DANE is required for {facts.hop.host}, and there is none: {says.reason}"
        return Says(reason=text, withheld=_withheld(text, TlsFailure.DANE_REQUIRED), details=says.details)
    return says


def _published(facts: HostFacts) -> Says:
    host = facts.hop.host
    if facts.trouble:
        return Says(reason=f"not used: {facts.trouble}")
    if not facts.mx_secure:
        # RFC 7672 section 2.2.1: who forges MX records chooses the host, so its TLSA records would prove nothing.
        return Says(reason=f"not used: DNSSEC does not vouch for the MX records of {facts.next_hop}")
    if facts.hop.is_address:
        return Says(reason=f"none: {host} is an address, and TLSA records belong to names")
    if facts.failed is not None:
        # RFC 7672 section 2.1.2: what may be hidden from us is not taken for absent.
        unknown = look_up_failed(f"the look-up of {host}", facts.failed)
        return Says(reason=unknown.text, withheld=unknown)
    if facts.vouched is Vouched.NOWHERE:
        return Says(reason=f"none: {host} has no address")
    if facts.vouched is Vouched.NOTHING:
        return Says(reason=f"not used: DNSSEC does not vouch for the addresses of {host}")
    for found in facts.tlsa:
        if found.failed is not None:
            return _tlsa_unknown(facts, found.base, found.failed)
        if is_final(found):
            return _with_records(facts, found)
    bases = " nor at ".join(found.base for found in facts.tlsa)
    return Says(reason=f"none: no TLSA records at {bases}, port {facts.hop.port}")


def _with_records(facts: HostFacts, found: TlsaFound) -> Says:
    judged = judge_records(found.records)
    usable = tuple(each.record for each in judged if not each.trouble)
    demands: set[Demand] = {Encryption(SOURCE)}
    if usable:
        # RFC 7672 section 3.2.2: with DANE-TA the certificate may name the base domain or the domain whose mail it is.
        demands.add(Tlsa(SOURCE, found.base, usable, tuple(dict.fromkeys((found.base, facts.next_hop)))))
        reason = f"{len(usable)} of {len(judged)} TLSA records at {found.base} can be used"
    else:
        # RFC 7672 section 2.2: TLS is promised, by records that say nothing about who is there.
        reason = f"TLS, with any certificate: none of the {len(judged)} TLSA records at {found.base} can be used"
    asked = frozenset(demands)
    texts = tuple(str(each) for each in found.records)
    applied = PolicyApplied(PolicyKind.TLSA, found.base, texts, (facts.hop.host,), asked)
    return Says(asked, applied, reason, details=tuple(_detail(each) for each in judged))


def _detail(judged: Judged) -> str:
    if judged.trouble:
        return f"{short(judged.record)} (not used: {judged.trouble})"
    return f"{short(judged.record)} ({Usage(judged.record.usage).name.replace('_', '-')})"


def _tlsa_unknown(facts: HostFacts, base: str, failed: LookupFailed) -> Says:
    text = f"the look-up of TLSA records at {base}, port {facts.hop.port}, failed: {failed.text}"
    applied = PolicyApplied(PolicyKind.TLSA, base, mx=(facts.hop.host,))
    return Says(frozenset(), applied, text, _withheld(text, TlsFailure.DNSSEC_INVALID))


def _withheld(text: str, failure: TlsFailure) -> Deferred:
    return Deferred(451, "4.7.5", text, failure)
