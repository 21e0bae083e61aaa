"""One CRL (RFC 5280 section 5): read, signature checked, a certificate looked up. No I/O, no clock.

Only complete CRLs by the certificate's own issuer count: an indirect one, one for some reasons, or a delta is no proof of anything, and says so.

Threats: a CRL of somebody else, or about other certificates than ours (scope, RFC 5280 section 6.3.3); an old one shown again; one of 300,000
entries. Looking into such a one entry by entry takes 20 ms in which nothing else runs, so its bytes are searched for the serial number
first (2 ms, and mostly that is the end of it): a DER number has one spelling only.
"""

import hashlib
import warnings
from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.serialization import Encoding

from relay.mail.revocation import By, CertificateStatus, State
from relay.tls.facts import element
from relay.tls.revocation.links import Link, UnusableError, out_of_date

MAX_CRL = 20 * 2**20
SKEW = timedelta(minutes=5)
NO_END = timedelta(days=1)
"""How long an answer counts that does not say when the next one comes."""
_WEAK = ("md5", "sha1")
_INTEGER = 0x02
_KNOWN = (x509.AuthorityKeyIdentifier, x509.CRLNumber, x509.IssuingDistributionPoint, x509.DeltaCRLIndicator)


@dataclass(frozen=True, slots=True, eq=False)
class Crl:
    """A CRL whose signature is the issuer's. `scope` is its issuing distribution point, None where it is about all certificates."""

    der: bytes
    this_update: datetime
    ends: datetime
    scope: x509.IssuingDistributionPoint | None


def read_crl(data: bytes, issuer: x509.Certificate) -> Crl:
    """DER, or PEM. Raises UnusableError. A large one takes 50 ms: not for an event loop."""
    if len(data) > MAX_CRL:
        raise UnusableError(f"the CRL is larger than {MAX_CRL} bytes")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return _read(data, issuer)
        except UnusableError:
            raise
        except Exception as error:  # noqa: BLE001 - hostile bytes, and the library names no complete list of its errors
            raise UnusableError(f"what is there is no CRL: {str(error)[:200] or type(error).__name__}") from None


def _read(data: bytes, issuer: x509.Certificate) -> Crl:
    pem = data.lstrip().startswith(b"-----BEGIN")
    crl = x509.load_pem_x509_crl(data) if pem else x509.load_der_x509_crl(data)
    if crl.issuer != issuer.subject:
        raise UnusableError(f"the CRL is by {crl.issuer.rfc4514_string()[:200]}, not by the certificate's issuer")
    _may_sign(issuer)
    digest = crl.signature_hash_algorithm
    if digest is not None and digest.name in _WEAK:
        raise UnusableError(f"the CRL is signed with {digest.name.upper()}, which is too weak")
    der = crl.public_bytes(Encoding.DER) if pem else data
    if not _is_signed(crl, der, issuer):
        raise UnusableError("the CRL's signature is not by the certificate's issuer")
    scope = _scope(crl)
    this_update, next_update = crl.last_update_utc, crl.next_update_utc
    ends = next_update if next_update is not None else this_update + NO_END
    return Crl(der, this_update, ends, scope)


def _is_signed(crl: x509.CertificateRevocationList, der: bytes, issuer: x509.Certificate) -> bool:
    """The library would write what is signed anew, for 100 ms in which nothing else runs; so it is cut out, and hashed with the lock let go."""
    key, how, digest = issuer.public_key(), crl.signature_algorithm_parameters, crl.signature_hash_algorithm
    is_rsa = isinstance(key, rsa.RSAPublicKey) and isinstance(how, padding.PKCS1v15)
    if digest is None or not (is_rsa or isinstance(key, ec.EllipticCurvePublicKey)):
        return crl.is_signature_valid(key)  # type: ignore[arg-type]  # other kinds of key raise
    begin, end = _signed_part(der)
    found = hashlib.new(digest.name, memoryview(der)[begin:end]).digest()
    try:
        if isinstance(key, rsa.RSAPublicKey):
            key.verify(crl.signature, found, padding.PKCS1v15(), Prehashed(digest))
        elif isinstance(key, ec.EllipticCurvePublicKey) and isinstance(how, ec.ECDSA):
            key.verify(crl.signature, found, ec.ECDSA(Prehashed(digest)))
        else:
            return False
    except InvalidSignature:
        return False
    return True


def _signed_part(der: bytes) -> tuple[int, int]:
    """Where TBSCertList begins and ends (RFC 5280 section 5.1.1). The algorithm within it must be the one beside it (section 5.1.1.2)."""
    _tag, begin, _end = element(der, 0)
    _tag, inside, end = element(der, begin)
    tag, _inside, after = element(der, inside)
    algorithm = after if tag == _INTEGER else inside  # the version, which version 1 leaves out
    if der[algorithm : element(der, algorithm)[2]] != der[end : element(der, end)[2]]:
        raise UnusableError("the CRL names two different ways in which it is signed")
    return begin, end


def _may_sign(issuer: x509.Certificate) -> None:
    """RFC 5280 section 6.3.3 (f)."""
    try:
        usage = issuer.extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        return
    if not usage.crl_sign:
        raise UnusableError("the issuer's key may not sign CRLs")


def _scope(crl: x509.CertificateRevocationList) -> x509.IssuingDistributionPoint | None:
    """RFC 5280 section 5.2: a CRL with a critical extension that we do not know says nothing."""
    scope: x509.IssuingDistributionPoint | None = None
    for extension in crl.extensions:
        value = extension.value
        if isinstance(value, x509.DeltaCRLIndicator):
            raise UnusableError("it is a delta CRL, which is not the whole list")
        if isinstance(value, x509.IssuingDistributionPoint):
            scope = value
        elif extension.critical and not isinstance(value, _KNOWN):
            raise UnusableError(
                f"the CRL has a critical extension that is not known here ({extension.oid.dotted_string})"
            )
    if scope is not None and (scope.indirect_crl or scope.only_some_reasons or scope.only_contains_attribute_certs):
        raise UnusableError("the CRL is indirect, for some reasons only, or about attribute certificates")
    return scope


def look_up(crl: Crl, link: Link, url: str, now: datetime) -> CertificateStatus:
    """What the CRL, fetched from `url`, says of the certificate at `now` (aware). Raises UnusableError where that is nothing."""
    late = out_of_date(crl.this_update, crl.ends, now, SKEW)
    if late:
        raise UnusableError(f"the CRL does not count now: {late}")
    _in_scope(crl, link, url)
    entry = _entry(crl, link.certificate.serial_number)
    state = State.GOOD if entry is None else State.REVOKED
    return CertificateStatus(
        subject=link.subject,
        serial=link.serial,
        state=state,
        by=By.CRL,
        url=url,
        revoked_at=None if entry is None else entry.revocation_date_utc,
        reason="" if entry is None else _reason(entry),
        this_update=crl.this_update,
        next_update=crl.ends,
    )


def _in_scope(crl: Crl, link: Link, url: str) -> None:
    """RFC 5280 section 6.3.3 (b)."""
    scope = crl.scope
    if scope is None:
        return
    if scope.only_contains_user_certs and link.is_ca:
        raise UnusableError("the CRL is about end-entity certificates only, and this is a CA's")
    if scope.only_contains_ca_certs and not link.is_ca:
        raise UnusableError("the CRL is about CA certificates only")
    if scope.relative_name is not None:
        raise UnusableError("the CRL names its distribution point in a way that is not compared here")
    if scope.full_name is None:
        return
    said = {each.value for each in scope.full_name if isinstance(each, x509.UniformResourceIdentifier)}
    asked = next((point.names for point in link.points if url in point.urls), frozenset[str]())
    if not said & asked:
        raise UnusableError("the CRL is for another distribution point")


def _entry(crl: Crl, serial: int) -> x509.RevokedCertificate | None:
    if serial > 0 and crl.der.find(_der_number(serial)) < 0:
        return None
    return x509.load_der_x509_crl(crl.der).get_revoked_certificate_by_serial_number(serial)


def _der_number(number: int) -> bytes:
    """A positive INTEGER (X.690 section 8.3)."""
    content = number.to_bytes(number.bit_length() // 8 + 1, "big")
    return bytes((_INTEGER, len(content))) + content if len(content) < 0x80 else b""


def _reason(entry: x509.RevokedCertificate) -> str:
    try:
        return str(entry.extensions.get_extension_for_class(x509.CRLReason).value.reason.value)
    except Exception:  # noqa: BLE001 - none given, or none that can be read: revoked all the same
        return ""
