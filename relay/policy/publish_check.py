"""What DNS and HTTPS say about us, compared with what we publish: record by record, with what it means where they differ.

The look-ups are others'; here are values. An answer that could not be had is neither right nor wrong, and is no success.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from relay.mail.published import StsMode, TlsaRecord
from relay.policy.names import is_listed
from relay.policy.publish import DomainRecords, HostRecords, OurRecords, Record, tlsa_of
from relay.policy.route import LookupFailed, MxAnswer, MxRecords


class State(StrEnum):
    PUBLISHED = "published"
    MISSING = "missing"
    DIFFERS = "differs"
    EXTRA = "extra"
    """It is published and none of ours."""
    UNKNOWN = "unknown"
    """The look-up failed."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One record or file. `text` says what it means, or what to do; "" where all is well."""

    name: str
    type: str
    state: State
    expected: str = ""
    found: str = ""
    text: str = ""


@dataclass(frozen=True, slots=True)
class TlsaFound:
    """`secure`: DNSSEC vouches for the answer. `matching` are those that a certificate of ours satisfies, `in_use` those of them that one
    in use does."""

    records: tuple[TlsaRecord, ...]
    secure: bool
    matching: frozenset[TlsaRecord] = frozenset()
    in_use: frozenset[TlsaRecord] = frozenset()


@dataclass(frozen=True, slots=True)
class FileFound:
    """A policy file as it was fetched, its lines without their ends."""

    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FetchFailed:
    text: str


@dataclass(frozen=True, slots=True)
class PublicView:
    """What was looked up, by the name asked for. `validates`: the resolver's word about DNSSEC counts."""

    texts: Mapping[str, tuple[str, ...] | LookupFailed] = field(default_factory=dict)
    files: Mapping[str, FileFound | FetchFailed] = field(default_factory=dict)
    tlsa: Mapping[str, TlsaFound | LookupFailed] = field(default_factory=dict)
    mx: Mapping[str, MxAnswer] = field(default_factory=dict)
    validates: bool = False


_NOT_ASKED = LookupFailed("it was not looked up")


def compare(ours: OurRecords, view: PublicView) -> tuple[Finding, ...]:
    """Every record, right or wrong, in the order in which they are printed."""
    found: list[Finding] = []
    for domain in ours.domains:
        found.append(_text(domain.sts, view, "v=STSv1"))
        found.append(_policy(domain, view))
        found.extend(_mx(domain, view))
        if domain.tlsrpt is not None:
            found.append(_text(domain.tlsrpt, view, "v=TLSRPTv1"))
    for host in ours.hosts:
        found.extend(_tlsa(host, view))
    return tuple(found)


def _text(record: Record, view: PublicView, version: str) -> Finding:
    answer = view.texts.get(record.name, _NOT_ASKED)
    if isinstance(answer, LookupFailed):
        return Finding(record.name, record.type, State.UNKNOWN, record.value, text=f"the look-up failed: {answer.text}")
    # RFC 8461 section 3.1 and RFC 8460 section 3: others are passed over, and where not exactly one is left there is none.
    found = [each for each in answer if each.partition(";")[0].strip() == version]
    shown = " and ".join(found)
    if not found:
        return Finding(record.name, record.type, State.MISSING, record.value)
    if len(found) > 1:
        text = "of several records senders take none: leave one"
        return Finding(record.name, record.type, State.DIFFERS, record.value, shown, text)
    if _fields(found[0]) != _fields(record.value):
        return Finding(record.name, record.type, State.DIFFERS, record.value, shown)
    return Finding(record.name, record.type, State.PUBLISHED, record.value, shown)


def _fields(value: str) -> list[str]:
    """What stands between the semicolons: a last one, and blanks, make no difference."""
    return [each.strip() for each in value.split(";") if each.strip()]


def _policy(domain: DomainRecords, view: PublicView) -> Finding:
    expected = "\n".join(domain.policy.text)
    answer = view.files.get(domain.domain, FetchFailed("it was not fetched"))
    if isinstance(answer, FetchFailed):
        return Finding(domain.url, "file", State.MISSING, expected, text=answer.text)
    lines = tuple(each.rstrip() for each in answer.lines if each.strip())
    state = State.PUBLISHED if lines == domain.policy.text else State.DIFFERS
    return Finding(domain.url, "file", state, expected, "\n".join(lines))


def _mx(domain: DomainRecords, view: PublicView) -> Iterator[Finding]:
    """A policy that leaves out a host of the MX records keeps mail away from it (RFC 8461 section 4.1)."""
    answer = view.mx.get(domain.domain, _NOT_ASKED)
    if domain.policy.mode is StsMode.NONE:
        return
    listed = ", ".join(domain.policy.mx)
    if not isinstance(answer, MxRecords):
        why = answer.text if isinstance(answer, LookupFailed) else "the domain does not exist"
        yield Finding(domain.domain, "MX", State.UNKNOWN, listed, text=f"the look-up failed: {why}")
        return
    hosts = tuple(dict.fromkeys(record.host for record in answer.records))
    astray = [host for host in hosts if not is_listed(host, domain.policy.mx)]
    shown = ", ".join(hosts)
    if not hosts:
        yield Finding(domain.domain, "MX", State.MISSING, listed)
    elif astray:
        text = f"{', '.join(astray)} is not in the policy: name it as `mx` or `other_mx` under `publish`, or take the MX record away"
        yield Finding(domain.domain, "MX", State.DIFFERS, listed, shown, text)
    else:
        yield Finding(domain.domain, "MX", State.PUBLISHED, listed, shown)


def _tlsa(host: HostRecords, view: PublicView) -> Iterator[Finding]:
    answer = view.tlsa.get(host.host, _NOT_ASKED)
    if isinstance(answer, LookupFailed):
        text = f"the look-up failed: {answer.text}"
        yield from (Finding(each.name, each.type, State.UNKNOWN, each.value, text=text) for each in host.tlsa)
        return
    in_use = {tlsa_of(key) for key in host.keys if not key.is_next}
    every = tuple(dict.fromkeys(tlsa_of(key) for key in host.keys))
    for record in every:
        yield _one_tlsa(host.name, record, answer, is_next=record not in in_use)
    for other in answer.records:
        if other in every:
            continue
        if other in answer.matching:
            yield Finding(host.name, "TLSA", State.PUBLISHED, found=str(other))
        else:
            yield Finding(host.name, "TLSA", State.EXTRA, found=str(other), text=_STALE)
    if answer.records and view.validates and not answer.secure:
        text = "DNSSEC does not vouch for this zone, so no sender uses these records: sign it"
        yield Finding(host.name, "TLSA", State.DIFFERS, "DNSSEC-secure", "insecure", text)


_STALE = "no certificate of ours, present or next, satisfies it: take it out once no server shows what does"


def _one_tlsa(name: str, record: TlsaRecord, found: TlsaFound, *, is_next: bool) -> Finding:
    value = str(record)
    if record in found.records:
        return Finding(name, "TLSA", State.PUBLISHED, value, value)
    if is_next:
        text = "publish it, and wait for twice the record's TTL, before the next certificate is used"
    elif found.records and not found.in_use:
        text = "senders who hold to DANE refuse the certificate in use: publish it at once"
    else:
        text = ""
    return Finding(name, "TLSA", State.MISSING, value, text=text)
