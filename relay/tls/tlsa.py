"""Does the presented chain match one of these TLSA records? RFC 6698 section 2.1, RFC 7671 section 5, RFC 7672 section 3.1.

The records are known to be usable (`relay.policy.tlsa`) and DNSSEC-secure. DANE-EE is compared with the leaf alone: no date, name or
signature of it counts. DANE-TA is an anchor, in the chain or carried by the record, and a real path check leads from the leaf to it
(`relay.tls.trust`: signatures, dates, usages, strength). Names are not looked at: that is `relay.policy.verdict`'s.

Threats: a chain in which the published CA is shown, and has signed nothing of it; records that make us check paths for
seconds.
"""

import hashlib
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache
from itertools import islice
from types import MappingProxyType

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding, load_der_public_key
from OpenSSL import crypto

from relay.mail.plan import Tlsa
from relay.mail.published import TlsaRecord
from relay.mail.tls import PathResult, TlsEvidence, TlsFailure, Trusted, TrustedLeaf, Undecided, Untrusted
from relay.policy.tlsa import Matching, Selector, Usage, short
from relay.tls.facts import spki_of
from relay.tls.stores import Store
from relay.tls.trust import Purpose, check_path

_MOST_PATHS = (
    20  # checks for one connection, at 0.1 to 0.5 ms: many records and a long chain are cheap to publish and to show
)
_FOREVER = datetime.max.replace(tzinfo=UTC)
_DIGESTS = {Matching.SHA256: hashlib.sha256, Matching.SHA512: hashlib.sha512}


def check_tlsa(evidence: TlsEvidence, demands: Iterable[Tlsa], now: datetime) -> TlsEvidence:
    """The evidence with a result in `paths` for each demand, as of `now` (aware). Never raises for what was presented or published."""
    chain = tuple(each.der for each in evidence.chain)
    found = {demand.trust: match_chain(chain, demand.records, now) for demand in demands}
    return replace(evidence, paths=MappingProxyType({**evidence.paths, **found}))


def match_chain(chain: Sequence[bytes], records: Iterable[TlsaRecord], now: datetime) -> PathResult:
    """`chain` is DER, leaf first. One record that matches is enough (RFC 6698 section 4)."""
    if not chain:
        return Untrusted(TlsFailure.TLSA_INVALID, "no certificate was shown")
    if not all(chain):
        return Undecided("this is the record of a connection, its certificates are not at hand")
    leaf = chain[0]
    by_authority: list[TlsaRecord] = []
    for record in records:
        if record.usage == Usage.DANE_TA:
            by_authority.append(record)
        elif record.usage == Usage.DANE_EE and _matches(record, leaf):
            return TrustedLeaf(f"{short(record)} (DANE-EE)", _FOREVER)
    failures: list[Untrusted] = []
    anchors = ((record, der) for record in by_authority for der in _anchors(record, chain))
    for record, der in islice(anchors, _MOST_PATHS):
        result = _path(record, der, chain, now)
        if isinstance(result, Trusted):
            return result
        failures.append(result)
    if failures:
        return next((each for each in failures if each.failure is TlsFailure.CERTIFICATE_EXPIRED), failures[0])
    spki = spki_of(leaf)
    would = f", which would be 3 1 1 {hashlib.sha256(spki).hexdigest()}" if spki else ""
    return Untrusted(TlsFailure.TLSA_INVALID, f"none matches the certificate shown{would}")


def _matches(record: TlsaRecord, der: bytes) -> bool:
    return bool(der) and _associated(record, spki_of(der) if record.selector == Selector.SPKI else der)


def _associated(record: TlsaRecord, content: bytes) -> bool:
    """RFC 6698 section 2.1.3 and 2.1.4: the selected content, in full or as a digest."""
    if not content:
        return False
    if record.matching == Matching.FULL:
        return content.hex() == record.data
    digest = _DIGESTS.get(Matching(record.matching))
    return digest is not None and digest(content).hexdigest() == record.data


def _anchors(record: TlsaRecord, chain: Sequence[bytes]) -> list[bytes]:
    """The certificates, in DER, that a DANE-TA record may stand for. A leaf is nobody's anchor, its own neither: that would be DANE-EE."""
    leaf = chain[0]
    shown = [der for der in dict.fromkeys(chain[1:]) if der != leaf and _matches(record, der)]
    if shown or record.matching != Matching.FULL:
        return shown
    carried = bytes.fromhex(record.data)
    if record.selector == Selector.SPKI:
        return _for_key(carried, chain)
    return [carried] if carried != leaf else []


def _path(record: TlsaRecord, anchor: bytes, chain: Sequence[bytes], now: datetime) -> Trusted | Untrusted:
    """Each anchor by itself: where several have one name, OpenSSL settles for the first."""
    try:
        store = Store((crypto.load_certificate(crypto.FILETYPE_ASN1, anchor),), version=0)
    except crypto.Error:
        return Untrusted(TlsFailure.TLSA_INVALID, f"{short(record)} holds a certificate that cannot be read")
    result = check_path(store, chain, Purpose.SERVER, now)
    if isinstance(result, Trusted):
        return Trusted(f"{short(record)} (DANE-TA): {result.anchor}", result.until)
    expired = isinstance(result, Untrusted) and result.failure is TlsFailure.CERTIFICATE_EXPIRED
    failure = TlsFailure.CERTIFICATE_EXPIRED if expired else TlsFailure.TLSA_INVALID
    return Untrusted(failure, f"no sound path to what {short(record)} stands for: {result.text}")


def _for_key(spki: bytes, chain: Sequence[bytes]) -> list[bytes]:
    """A bare key as anchor ("2 1 0"), for each issuer that the chain names: certificates that say no more than whose key it is.

    RFC 7671 section 5.2.2: whether the key has really signed is for the path check, an anchor's own signature counts for nothing.
    """
    issuers: dict[bytes, x509.Name] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as in relay.tls.facts: oddities of a peer's certificates
        try:
            key = load_der_public_key(spki)
            for der in chain:
                issuer = x509.load_der_x509_certificate(der).issuer
                issuers[issuer.public_bytes()] = issuer
            return [_vouching(issuer, key) for issuer in issuers.values()]
        except Exception:  # noqa: BLE001 - hostile bytes, and the library names no complete list of its errors
            return []


def _vouching(subject: x509.Name, key: object) -> bytes:
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key)  # type: ignore[arg-type]  # any other kind of key raises
        .serial_number(1)
        .not_valid_before(datetime(1970, 1, 1, tzinfo=UTC))
        .not_valid_after(datetime(9999, 12, 31, tzinfo=UTC))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    )
    return builder.sign(_nobody(), None).public_bytes(Encoding.DER)


@cache
def _nobody() -> ed25519.Ed25519PrivateKey:
    return ed25519.Ed25519PrivateKey.generate()
