"""Which TLSA records can be used to know an SMTP server, and why the others cannot (RFC 6698 section 2.1, RFC 7671, RFC 7672 section 3.1).

A record that cannot be used is as if it were not there, but the host has published something all the same: see `relay.policy.dane`.
Whether a usable one matches what a host presents is `relay.tls.tlsa`'s question.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum

from relay.mail.published import TlsaRecord


class Usage(IntEnum):
    """RFC 7218. PKIX-TA(0) and PKIX-EE(1) are left out: RFC 7672 section 3.1.3, no CA is agreed on between mail servers."""

    DANE_TA = 2
    DANE_EE = 3


class Selector(IntEnum):
    CERTIFICATE = 0
    SPKI = 1


class Matching(IntEnum):
    FULL = 0
    SHA256 = 1
    SHA512 = 2


_USAGES, _SELECTORS, _MATCHINGS = (frozenset(map(int, kind)) for kind in (Usage, Selector, Matching))
_LENGTHS: dict[int, int] = {Matching.SHA256: 32, Matching.SHA512: 64}
_SHOWN = 24  # hex digits
_SEQUENCE = 0x30


@dataclass(frozen=True, slots=True)
class Judged:
    """`trouble` is why the record is not used, "" where it is."""

    record: TlsaRecord
    trouble: str


def judge_records(records: Iterable[TlsaRecord]) -> tuple[Judged, ...]:
    """Every record with what it is good for, in the order given."""
    judged = tuple(Judged(record, _trouble(record)) for record in records)
    strongest: dict[tuple[int, int], int] = {}
    for each in judged:
        if not each.trouble:
            kind = (each.record.usage, each.record.selector)
            strongest[kind] = max(each.record.matching, strongest.get(kind, 0))
    return tuple(each if each.trouble else Judged(each.record, _outdone(each.record, strongest)) for each in judged)


def _trouble(record: TlsaRecord) -> str:
    """Why this record by itself cannot be used."""
    if record.usage not in _USAGES:
        return "PKIX usages say nothing in SMTP" if record.usage in (0, 1) else f"usage {record.usage} is not known"
    if record.selector not in _SELECTORS:
        return f"selector {record.selector} is not known"
    if record.matching not in _MATCHINGS:
        return f"matching type {record.matching} is not known"
    length = _LENGTHS.get(record.matching)
    if length is None:
        return "" if _is_der(record.data) else "its data is neither a certificate nor a key"
    return "" if len(record.data) == 2 * length else f"its data has {len(record.data) // 2} octets, not {length}"


def _is_der(data: str) -> bool:
    """One whole ASN.1 SEQUENCE, as certificates and keys are."""
    octets = bytes.fromhex(data)
    if len(octets) < 2 or octets[0] != _SEQUENCE:
        return False
    length, begin = octets[1], 2
    if length >= 0x80:
        count = length & 0x7F
        length, begin = int.from_bytes(octets[2 : 2 + count], "big"), 2 + count
    return begin + length == len(octets)


def _outdone(record: TlsaRecord, strongest: dict[tuple[int, int], int]) -> str:
    """RFC 7671 section 9: of several digests for one usage and selector only the strongest counts; what is published in full always does."""
    best = strongest[record.usage, record.selector]
    if record.matching in (Matching.FULL, best):
        return ""
    return f"a stronger digest is published beside it (matching type {best})"


def short(record: TlsaRecord) -> str:
    """The record for people: its data may be a whole certificate."""
    data = record.data if len(record.data) <= _SHOWN else f"{record.data[:_SHOWN]}..."
    return f"{record.usage} {record.selector} {record.matching} {data}"
