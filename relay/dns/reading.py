"""What one answer of a name server says, in the nouns of `relay.dns.answers` and `relay.policy.route`, and for how long it is good.

RFC 7505 (null MX), RFC 2308 (how long "no" is good), RFC 2181 section 10.3 (an MX names a host), RFC 6698 (TLSA), RFC 8914 (why it failed).
Threat: an answer is a stranger's word: what is no host name is left out, and the number of records is bounded.
"""

import contextlib
import ipaddress
from functools import lru_cache

import dns.edns
import dns.exception
import dns.message
import dns.name
import dns.rdatatype
import dns.resolver
from dns.rdtypes.ANY.MX import MX

from relay.dns.answers import AddressAnswer, Addresses, Names, TlsaRecords, TxtRecords
from relay.mail.address import AddressError, normalise_domain
from relay.mail.published import TlsaRecord
from relay.policy.route import MxRecord, MxRecords

MAX_RECORDS = 100

_TTL = (5.0, 86400.0)
_NO_TTL = (5.0, 300.0)  # RFC 2308 section 5 allows up to three hours; mail is mostly sent to what has just been set up

# RFC 8914 section 4: DNSSEC Bogus, Signature Expired, Signature Not Yet Valid, DNSKEY Missing, RRSIGs Missing, No Zone Key Bit Set,
# NSEC Missing; and 25, Signature Expired before Valid, of the IANA registry.
_BOGUS = frozenset({*range(6, 13), 25})


@lru_cache(maxsize=4096)
def literal(host: str) -> Addresses | None:
    """An IP address is its own answer; None for a name."""
    if not host[-1:].isdigit() and ":" not in host:
        return None
    try:
        return Addresses((ipaddress.ip_address(host),))
    except ValueError:
        return None


def seconds(answer: dns.resolver.Answer, *, secure: bool) -> float:
    """How long an answer is good. What is DNSSEC-secure is never kept for longer than it is."""
    if answer.rrset is None:
        return seconds_of_no(answer.response, secure=secure)
    low, high = _TTL
    return min(max(answer.chaining_result.minimum_ttl, 0.0 if secure else low), high)


def seconds_of_no(*responses: dns.message.Message, secure: bool) -> float:
    """How long "no" is good: the lesser of the SOA's TTL and its minimum (RFC 2308 section 5).

    Hardly at all without an SOA: so answers docker's resolver about a container that is not up yet.
    """
    low, high = _NO_TTL
    times = [
        each.resolve_chaining().minimum_ttl
        for each in responses
        if isinstance(each, dns.message.QueryMessage)
        and any(rrset.rdtype == dns.rdatatype.SOA for rrset in each.authority)
    ]
    return min(max(min(times, default=low), 0.0 if secure else low), high)


def words(error: Exception) -> str:
    """dnspython's words are long and name our resolvers, which is nothing for a bounce; the kind is what helps."""
    if isinstance(error, dns.resolver.NoResolverConfiguration):
        return "this machine has no DNS resolver configured"
    if isinstance(error, dns.exception.Timeout):
        return "no answer in time"
    if is_bogus(error):
        return "its DNSSEC signatures do not verify"
    if isinstance(error, dns.resolver.NoNameservers):
        return "every resolver failed (SERVFAIL, REFUSED or no sound answer)"
    return type(error).__name__


def is_bogus(error: Exception) -> bool:
    """True where a resolver said, with its SERVFAIL, that the signatures do not verify (RFC 8914)."""
    if not isinstance(error, dns.resolver.NoNameservers):
        return False
    responses = (each[4] for each in error.kwargs.get("errors", ()))
    return any(
        isinstance(option, dns.edns.EDEOption) and option.code in _BOGUS
        for response in responses
        if response is not None
        for option in response.options
    )


def addresses(answer: dns.resolver.Answer, secure: bool) -> AddressAnswer:
    found = tuple(ipaddress.ip_address(rdata.address) for rdata in answer)[:MAX_RECORDS]
    if not answer.chaining_result.cnames:
        return Addresses(found, secure)
    end = answer.canonical_name.to_text(omit_final_dot=True)
    try:
        return Addresses(found, secure, normalise_domain(end))
    except AddressError:
        # Aliases that end at what is no host name: good enough to connect to, and nothing to look for TLSA records at.
        return Addresses(found, canonical=end.lower())


def alias(answer: dns.resolver.Answer, secure: bool) -> bool:
    """To a question for CNAME, which nobody follows further (RFC 1034 section 3.6.2)."""
    return secure and answer.rrset is not None


def tlsa_records(answer: dns.resolver.Answer, secure: bool) -> TlsaRecords:
    found = [TlsaRecord(each.usage, each.selector, each.mtype, each.cert.hex()) for each in answer]
    return TlsaRecords(tuple(sorted(found)[:MAX_RECORDS]), secure)


def txt_records(answer: dns.resolver.Answer, _secure: bool) -> TxtRecords:
    return TxtRecords(tuple(b"".join(each.strings).decode("utf-8", "replace") for each in answer)[:MAX_RECORDS])


def host_names(answer: dns.resolver.Answer, _secure: bool) -> Names:
    """PTR records; what is no host name is left out."""
    found: list[str] = []
    for each in list(answer)[:MAX_RECORDS]:
        with contextlib.suppress(AddressError):
            found.append(normalise_domain(each.target.to_text(omit_final_dot=True)))
    return Names(tuple(dict.fromkeys(found)))


def mx_records(answer: dns.resolver.Answer, secure: bool) -> MxRecords:
    records: list[MxRecord] = []
    skipped: list[str] = []
    for rdata in sorted(answer, key=lambda each: each.preference):  # stable, so that the bound drops the worst
        host = _mx_host(rdata)
        if isinstance(host, _NoHost):
            skipped.append(host.reason)
        elif len(records) >= MAX_RECORDS:
            skipped.append("more MX records than anyone needs")
            break
        else:
            records.append(MxRecord(rdata.preference, host))
    if any(each.host for each in records) or skipped:
        # RFC 7505 section 3: "." beside other records is no null MX, and no host either.
        records = [each for each in records if each.host]
    return MxRecords(tuple(records), tuple(skipped), secure)


class _NoHost:
    def __init__(self, reason: str) -> None:
        self.reason = reason


def _mx_host(rdata: MX) -> str | _NoHost:
    """The target as a normalised host name, "" for the root (null MX)."""
    if rdata.exchange == dns.name.root:
        return ""
    text = rdata.exchange.to_text(omit_final_dot=True)
    if literal(text):
        return _NoHost(f"{text} is an IP address, not a host name")  # RFC 5321 section 5.1, RFC 2181 section 10.3
    try:
        return normalise_domain(text)
    except AddressError as error:
        return _NoHost(str(error))
