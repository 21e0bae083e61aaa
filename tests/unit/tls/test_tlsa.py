"""Presented chains against TLSA records, as a table: RFC 7671 section 5, and every way to look right and not be it."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from relay.mail.plan import Tlsa
from relay.mail.published import TlsaRecord
from relay.mail.tls import PathResult, TlsEvidence, TlsFailure, Trusted, TrustedLeaf, Undecided, Untrusted
from relay.tls.evidence import parse_certificate
from relay.tls.tlsa import check_tlsa, match_chain
from tests.unit.tls import odd
from tests.unit.tls.pki import (
    CLIENT_AUTH,
    DAY,
    EMAIL,
    NOW,
    SERVER_AUTH,
    Issued,
    Wish,
    new_key,
    root,
    rsa_key,
    self_signed,
)
from tests.unit.tls.pki import tlsa_record as record

ROOT, OTHER = root("root"), root("other")
INTERMEDIATE = ROOT.issue(Wish("intermediate", ca=True))
LEAF = INTERMEDIATE.issue(Wish("mx", names=["mx.contoso.com"]))
EXPIRED = INTERMEDIATE.issue(Wish("mx", names=["mx.contoso.com"], after=NOW - DAY))
EARLY = INTERMEDIATE.issue(Wish("mx", before=NOW + DAY))
NAMELESS = self_signed(Wish("x"))
ENDED_CA = ROOT.issue(Wish("ended", ca=True, after=NOW - DAY))
TLSA_INVALID, CERTIFICATE_EXPIRED = TlsFailure.TLSA_INVALID, TlsFailure.CERTIFICATE_EXPIRED


KINDS = [(selector, matching) for selector in (0, 1) for matching in (0, 1, 2)]


@pytest.mark.parametrize(("selector", "matching"), KINDS)
def test_dane_ee_is_the_leaf(selector: int, matching: int) -> None:
    result = match_chain(LEAF.chain, [record(3, selector, matching, LEAF)], NOW)
    assert isinstance(result, TrustedLeaf)
    assert result.anchor.startswith(f"3 {selector} {matching} ")
    assert result.anchor.endswith("(DANE-EE)")
    assert result.until > NOW + 10_000 * DAY


@pytest.mark.parametrize(("selector", "matching"), KINDS)
@pytest.mark.parametrize("anchor", [INTERMEDIATE, ROOT], ids=["intermediate", "root"])
def test_dane_ta_is_an_issuer_in_the_chain(selector: int, matching: int, anchor: Issued) -> None:
    chain = (*LEAF.chain, ROOT.der)
    result = match_chain(chain, [record(2, selector, matching, anchor)], NOW)
    assert type(result) is Trusted
    assert result.anchor.startswith(f"2 {selector} {matching} ")
    assert result.anchor.endswith(f"(DANE-TA): {anchor.certificate.subject.rfc4514_string()}")
    assert result.until == LEAF.certificate.not_valid_after_utc


@pytest.mark.parametrize(
    ("chain", "anchor", "selector"),
    [
        (LEAF.chain, ROOT, 0),
        (LEAF.chain, ROOT, 1),
        ((LEAF.der,), INTERMEDIATE, 0),
        ((LEAF.der,), INTERMEDIATE, 1),
    ],
)
def test_an_anchor_that_the_record_carries_need_not_be_shown(
    chain: tuple[bytes, ...], anchor: Issued, selector: int
) -> None:
    assert type(match_chain(chain, [record(2, selector, 0, anchor)], NOW)) is Trusted
    digest = match_chain(chain, [record(2, selector, 1, anchor)], NOW)
    assert isinstance(digest, Untrusted), "a digest carries nothing"
    assert digest.failure is TLSA_INVALID


@dataclass(frozen=True)
class Row:
    """`result`: "ee", "ta", or a failure with a piece of its text."""

    chain: tuple[bytes, ...]
    records: tuple[TlsaRecord, ...]
    result: str | TlsFailure
    text: str = ""


def odd_leaf(how: Callable[[list[bytes]], list[bytes]]) -> tuple[bytes, ...]:
    return (odd.changed(LEAF, how), *LEAF.chain[1:])


def forged() -> Row:
    """Shows the published CA behind a leaf that names it as issuer, and was signed by somebody else."""
    false_ca = Issued(INTERMEDIATE.certificate, new_key(), INTERMEDIATE.issuers)
    leaf = false_ca.issue(Wish("mx", names=["mx.contoso.com"]))
    return Row((leaf.der, INTERMEDIATE.der, ROOT.der), (record(2, 1, 1, INTERMEDIATE),), TLSA_INVALID, "no sound path")


SELF_CA = self_signed(Wish("mx", names=["mx.contoso.com"], ca=True))
WEAK = INTERMEDIATE.issue(Wish("mx"), rsa_key(1024))
PURPOSE = INTERMEDIATE.issue(Wish("mx", usages=[EMAIL]))
CLIENT = INTERMEDIATE.issue(Wish("mx", usages=[CLIENT_AUTH]))
BY_ENDED = ENDED_CA.issue(Wish("mx"))
NEXT = replace(LEAF, key=new_key())
ROWS = {
    # DANE-EE: nothing but the leaf counts
    "ee, expired": Row(EXPIRED.chain, (record(3, 1, 1, EXPIRED),), "ee"),
    "ee, not valid yet": Row(EARLY.chain, (record(3, 1, 1, EARLY),), "ee"),
    "ee, no name, signed by itself": Row(NAMELESS.chain, (record(3, 0, 1, NAMELESS),), "ee"),
    "ee, weak key": Row(WEAK.chain, (record(3, 1, 1, WEAK),), "ee"),
    "ee, for mail users": Row(PURPOSE.chain, (record(3, 1, 1, PURPOSE),), "ee"),
    "ee, no issuer shown": Row((LEAF.der,), (record(3, 1, 1, LEAF),), "ee"),
    "ee, a chain that fits nobody": Row((LEAF.der, OTHER.der), (record(3, 1, 1, LEAF),), "ee"),
    "ee, unreadable and named whole": Row(
        (b"\x30\x03abc",), (TlsaRecord(3, 0, 1, hashlib.sha256(b"\x30\x03abc").hexdigest()),), "ee"
    ),
    "ee, signed with SHA-1": Row(odd_leaf(odd.signed_with_sha1), (record(3, 1, 1, LEAF),), "ee"),
    "ee, of version 1": Row(odd_leaf(odd.version_1), (record(3, 1, 1, LEAF),), "ee"),
    "ee, broken extensions": Row(odd_leaf(odd.broken_extensions), (record(3, 1, 1, LEAF),), "ee"),
    "ee, another key": Row(LEAF.chain, (record(3, 1, 1, OTHER),), TLSA_INVALID, "which would be 3 1 1 "),
    "ee, the issuer's key": Row(LEAF.chain, (record(3, 1, 1, INTERMEDIATE),), TLSA_INVALID, "none matches"),
    "ee, certificate's digest as the key's": Row(
        LEAF.chain, (replace(record(3, 0, 1, LEAF), selector=1),), TLSA_INVALID, "none matches"
    ),
    "ee, unreadable, by its key": Row((b"\x30\x03abc",), (record(3, 1, 1, LEAF),), TLSA_INVALID, "none matches"),
    "ee, rollover": Row(LEAF.chain, (record(3, 1, 1, NEXT), record(3, 1, 1, LEAF)), "ee"),
    "ee beside a ta that does not fit": Row(LEAF.chain, (record(2, 1, 1, OTHER), record(3, 1, 1, LEAF)), "ee"),
    "ta beside an ee that does not fit": Row(LEAF.chain, (record(3, 1, 1, OTHER), record(2, 1, 1, INTERMEDIATE)), "ta"),
    # DANE-TA: a whole path check
    "ta, any purpose that serves": Row(
        INTERMEDIATE.issue(Wish("mx", usages=[SERVER_AUTH])).chain, (record(2, 1, 1, INTERMEDIATE),), "ta"
    ),
    "ta, order of the chain": Row((LEAF.der, ROOT.der, INTERMEDIATE.der), (record(2, 1, 1, ROOT),), "ta"),
    "ta, rollover": Row(LEAF.chain, (record(2, 1, 1, OTHER), record(2, 1, 1, INTERMEDIATE)), "ta"),
    "ta, rollover of bare keys": Row(
        LEAF.chain, (record(2, 1, 0, replace(ROOT, key=new_key())), record(2, 1, 0, ROOT)), "ta"
    ),
    "ta, expired": Row(EXPIRED.chain, (record(2, 1, 1, INTERMEDIATE),), CERTIFICATE_EXPIRED, "expired"),
    "ta, expired, to a bare key": Row(EXPIRED.chain, (record(2, 1, 0, ROOT),), CERTIFICATE_EXPIRED, "expired"),
    "ta, not valid yet": Row(EARLY.chain, (record(2, 1, 1, INTERMEDIATE),), CERTIFICATE_EXPIRED, "not yet valid"),
    "ta, its own date has passed": Row(BY_ENDED.chain, (record(2, 1, 1, ENDED_CA),), CERTIFICATE_EXPIRED, "expired"),
    "ta, shown and has signed nothing": Row(
        (LEAF.der, INTERMEDIATE.der, OTHER.der), (record(2, 1, 1, OTHER),), TLSA_INVALID, "no sound path"
    ),
    "ta, forged": forged(),
    "ta, a bare key that has signed nothing": Row(LEAF.chain, (record(2, 1, 0, OTHER),), TLSA_INVALID, "no sound path"),
    "ta, a carried certificate that has signed nothing": Row(
        LEAF.chain, (record(2, 0, 0, OTHER),), TLSA_INVALID, "no sound path"
    ),
    "ta, the leaf": Row(LEAF.chain, (record(2, 1, 1, LEAF),), TLSA_INVALID, "none matches"),
    "ta, a leaf that is its own issuer": Row(
        (SELF_CA.der, SELF_CA.der), (record(2, 1, 1, SELF_CA), record(2, 0, 0, SELF_CA)), TLSA_INVALID, "none matches"
    ),
    "ta, a leaf without the right to sign": Row(
        (LEAF.issue(Wish("below")).der, *LEAF.chain), (record(2, 1, 1, LEAF),), TLSA_INVALID, "no sound path"
    ),
    "ta, signed with SHA-1": Row(odd_leaf(odd.signed_with_sha1), (record(2, 1, 1, INTERMEDIATE),), TLSA_INVALID, "too weak"),
    "ta, broken extensions": Row(odd_leaf(odd.broken_extensions), (record(2, 1, 1, INTERMEDIATE),), TLSA_INVALID, "no sound path"),
    "ta, an odd serial number, to a bare key": Row(odd_leaf(odd.negative_serial), (record(2, 1, 0, ROOT),), "ta"),
    "ta, weak key": Row(WEAK.chain, (record(2, 1, 1, INTERMEDIATE),), TLSA_INVALID, "too weak"),
    "ta, for mail users": Row(PURPOSE.chain, (record(2, 1, 1, INTERMEDIATE),), TLSA_INVALID, "extended key usage"),
    "ta, for clients only": Row(CLIENT.chain, (record(2, 1, 1, INTERMEDIATE),), TLSA_INVALID, "extended key usage"),
    "ta, a key that is none": Row(LEAF.chain, (TlsaRecord(2, 1, 0, "3003020101"),), TLSA_INVALID, "none matches"),
    "ta, a certificate that is none": Row(LEAF.chain, (TlsaRecord(2, 0, 0, "3003020101"),), TLSA_INVALID, "cannot be read"),
    "ta, an unreadable leaf": Row((b"\x30\x03abc", ROOT.der), (record(2, 1, 1, ROOT),), TLSA_INVALID, "cannot be read"),
    "ta, an unreadable leaf to a bare key": Row((b"\x30\x03abc",), (record(2, 1, 0, ROOT),), TLSA_INVALID, "none matches"),
    # odd
    "nothing shown": Row((), (record(3, 1, 1, LEAF),), TLSA_INVALID, "no certificate was shown"),
    "no records": Row(LEAF.chain, (), TLSA_INVALID, "none matches"),
    "pkix usages": Row(LEAF.chain, (record(1, 1, 1, LEAF), record(0, 1, 1, ROOT)), TLSA_INVALID, "none matches"),
}  # fmt: skip


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS.keys())
def test_row(row: Row) -> None:
    result = match_chain(row.chain, row.records, NOW)
    assert kind(result) == row.result
    if isinstance(result, Untrusted):
        assert row.text in result.text


def kind(result: PathResult) -> str | TlsFailure:
    if isinstance(result, Untrusted):
        return result.failure
    return "ee" if isinstance(result, TrustedLeaf) else "ta" if isinstance(result, Trusted) else "undecided"


def test_a_record_of_a_connection_is_not_judged_again() -> None:
    assert isinstance(match_chain((b"",), [record(3, 1, 1, LEAF)], NOW), Undecided)


def test_the_time_is_that_of_the_check() -> None:
    records = [record(2, 1, 1, INTERMEDIATE)]
    end: datetime = LEAF.certificate.not_valid_after_utc
    assert kind(match_chain(LEAF.chain, records, end - DAY)) == "ta"
    assert kind(match_chain(LEAF.chain, records, end + DAY)) is CERTIFICATE_EXPIRED


def test_evidence_has_a_result_for_each_demand_and_keeps_the_others() -> None:
    system = Untrusted(TlsFailure.CERTIFICATE_NOT_TRUSTED, "x")
    evidence = TlsEvidence("TLSv1.3", "", "", chain=tuple(map(parse_certificate, LEAF.chain)), paths={"system": system})
    good = Tlsa("dane", "mx.contoso.com", (record(3, 1, 1, LEAF),), ("mx.contoso.com",))
    bad = replace(good, records=(record(3, 1, 1, OTHER),))
    checked = check_tlsa(evidence, [good, bad], NOW)
    assert kind(checked.paths[good.trust]) == "ee"
    assert kind(checked.paths[bad.trust]) is TLSA_INVALID
    assert checked.paths["system"] is system
    assert good.trust.startswith("tlsa mx.contoso.com ")


def test_a_key_on_another_curve_carried_bare() -> None:
    ca = root("p384")
    ca = self_signed(Wish("p384", ca=True), ec.generate_private_key(ec.SECP384R1()))
    leaf = ca.issue(Wish("mx"))
    assert kind(match_chain(leaf.chain, [record(2, 1, 0, ca)], NOW)) == "ta"


def test_the_number_of_path_checks_is_bounded() -> None:
    """Threat: a domain with many records, all of them anchors for whatever its server shows."""
    wrong = [record(2, 1, 0, self_signed(Wish("x"))) for _ in range(30)]
    assert kind(match_chain(LEAF.chain, [record(2, 1, 0, ROOT), *wrong], NOW)) == "ta"
    assert kind(match_chain(LEAF.chain, [*wrong, record(2, 1, 0, ROOT)], NOW)) is TLSA_INVALID
