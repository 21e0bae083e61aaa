"""One OCSP answer (RFC 6960; profile of RFC 5019): the question made, the answer read and judged. No I/O, no clock.

The question names the certificate by SHA-1, as every responder takes it (RFC 5019 section 2.1.1; nothing rests on its strength), without a
nonce: answers are made in advance and shared. An answer counts where the issuer has signed it, or somebody to whom it delegated just that.

Threats: an answer for another certificate, by somebody else, by a delegate whose own certificate has been revoked, or one of last year;
"unknown" taken for "good".
"""

import hashlib
import warnings
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID, SignatureAlgorithmOID

from relay.mail.revocation import By, CertificateStatus, State
from relay.tls.facts import element, facts_of, spki_of
from relay.tls.revocation.crl import NO_END, SKEW
from relay.tls.revocation.links import Link, UnusableError, out_of_date
from relay.tls.revocation.pss import pss_of

MAX_ANSWER = 64 * 1024
_DIGESTS = (hashes.SHA256, hashes.SHA384, hashes.SHA512)  # what may sign
_NAMING = {"sha1": hashlib.sha1, "sha256": hashlib.sha256, "sha384": hashlib.sha384, "sha512": hashlib.sha512}
_MOST_CERTIFICATES = 8
_MOST_ANSWERS = 64


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """What the responder says of one certificate. `state` UNKNOWN is its own word: it knows of no such certificate."""

    der: bytes
    state: State
    this_update: datetime
    ends: datetime
    revoked_at: datetime | None = None
    reason: str = ""


def question(link: Link) -> bytes:
    """The request, DER (RFC 6960 section 4.1.1). Raises UnusableError."""
    try:
        builder = ocsp.OCSPRequestBuilder().add_certificate(link.certificate, link.issuer, hashes.SHA1())  # noqa: S303 - see above
        return builder.build().public_bytes(Encoding.DER)
    except Exception as error:  # noqa: BLE001 - a key of a kind that the library does not know, a number out of range
        raise UnusableError(f"no OCSP question can be made of the certificate: {error}") from None


def read_answer(data: bytes, link: Link, now: datetime) -> Answer:
    """Raises UnusableError. Takes half a millisecond."""
    if len(data) > MAX_ANSWER:
        raise UnusableError(f"the OCSP answer is larger than {MAX_ANSWER} bytes")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return _read(data, link, now)
        except UnusableError:
            raise
        except Exception as error:  # noqa: BLE001 - hostile bytes, and the library names no complete list of its errors
            text = str(error)[:200] or type(error).__name__
            raise UnusableError(f"what is there is no OCSP answer: {text}") from None


def _read(data: bytes, link: Link, now: datetime) -> Answer:
    response = ocsp.load_der_ocsp_response(data)
    if response.response_status is not ocsp.OCSPResponseStatus.SUCCESSFUL:
        raise UnusableError(f"the OCSP responder says {response.response_status.name.lower().replace('_', ' ')}")
    for extension in response.extensions:
        if extension.critical:
            raise UnusableError(
                f"the OCSP answer has a critical extension that is not known here ({extension.oid.dotted_string})"
            )
    single = _about(response, link)
    _signed(response, link, now)
    this_update, next_update = single.this_update_utc, single.next_update_utc
    answer = Answer(
        data,
        _STATES[single.certificate_status],
        this_update,
        next_update if next_update is not None else this_update + NO_END,
        single.revocation_time_utc,
        "" if single.revocation_reason is None else str(single.revocation_reason.value),
    )
    in_time(answer, now)
    return answer


_STATES = {
    ocsp.OCSPCertStatus.GOOD: State.GOOD,
    ocsp.OCSPCertStatus.REVOKED: State.REVOKED,
    ocsp.OCSPCertStatus.UNKNOWN: State.UNKNOWN,
}


def in_time(answer: Answer, now: datetime) -> None:
    """Raises UnusableError where the answer does not count at `now`."""
    late = out_of_date(answer.this_update, answer.ends, now, SKEW)
    if late:
        raise UnusableError(f"the OCSP answer does not count now: {late}")


def status(answer: Answer, link: Link, by: By, url: str) -> CertificateStatus:
    """Raises UnusableError for "unknown", which is no answer (RFC 6960 section 2.2)."""
    if answer.state is State.UNKNOWN:
        raise UnusableError("the OCSP responder does not know the certificate")
    return CertificateStatus(
        subject=link.subject,
        serial=link.serial,
        state=answer.state,
        by=by,
        url=url,
        revoked_at=answer.revoked_at,
        reason=answer.reason,
        this_update=answer.this_update,
        next_update=answer.ends,
    )


def _about(response: ocsp.OCSPResponse, link: Link) -> ocsp.OCSPSingleResponse:
    """RFC 6960 section 3.2 (1)."""
    for count, single in enumerate(response.responses):
        if count >= _MOST_ANSWERS:
            break
        naming = _NAMING.get(single.hash_algorithm.name)
        if (
            naming is not None
            and single.serial_number == link.certificate.serial_number
            and single.issuer_name_hash == naming(link.issuer.subject.public_bytes()).digest()
            and single.issuer_key_hash == naming(_key_bits(link.issuer)).digest()
        ):
            return single
    raise UnusableError("the OCSP answer is about another certificate")


def _key_bits(certificate: x509.Certificate) -> bytes:
    """The subjectPublicKey without tag, length and unused bits: what key hashes are made of (RFC 6960 section 4.1.1).

    SubjectPublicKeyInfo is a SEQUENCE of the algorithm and a BIT STRING, whose first octet counts unused bits.
    """
    info = spki_of(certificate.public_bytes(Encoding.DER))
    _tag, algorithm, _end = element(info, 0)
    _tag, _inside, key = element(info, algorithm)
    _tag, bits, end = element(info, key)
    return info[bits + 1 : end]


def _signed(response: ocsp.OCSPResponse, link: Link, now: datetime) -> None:
    """By the issuer, or by its delegate (RFC 6960 section 4.2.2.2)."""
    if _is(response, link.issuer):
        if _holds(response, link.issuer):
            return
        raise UnusableError("the OCSP answer's signature is not by the certificate's issuer")
    for delegate in response.certificates[:_MOST_CERTIFICATES]:
        if _is(response, delegate):
            _delegated(delegate, link.issuer, now)
            if not _holds(response, delegate):
                raise UnusableError("the OCSP answer's signature is not by the responder that it names")
            return
    raise UnusableError("the OCSP answer is signed by somebody else than the certificate's issuer or its delegate")


def _is(response: ocsp.OCSPResponse, certificate: x509.Certificate) -> bool:
    """The responder that the answer names is this one: by name, or by the SHA-1 of its key."""
    if response.responder_name is not None:
        return response.responder_name == certificate.subject
    return response.responder_key_hash == hashlib.sha1(_key_bits(certificate)).digest()  # noqa: S324 - a name, no proof


def _delegated(delegate: x509.Certificate, issuer: x509.Certificate, now: datetime) -> None:
    """Raises UnusableError where the issuer has not given this certificate the right to answer, or no more."""
    if delegate.issuer != issuer.subject:
        raise UnusableError("the OCSP responder's certificate is by another issuer")
    try:
        delegate.verify_directly_issued_by(issuer)
    except Exception:  # noqa: BLE001 - signature, algorithm, kind of key
        raise UnusableError("the OCSP responder's certificate is not signed by the issuer") from None
    if not delegate.not_valid_before_utc <= now <= delegate.not_valid_after_utc:
        raise UnusableError("the OCSP responder's certificate is out of date")
    extensions = delegate.extensions
    try:
        usages = extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        raise UnusableError("the OCSP responder's certificate does not say that it may answer") from None
    if ExtendedKeyUsageOID.OCSP_SIGNING not in usages:
        raise UnusableError("the OCSP responder's certificate does not say that it may answer")
    try:
        extensions.get_extension_for_class(x509.OCSPNoCheck)
    except x509.ExtensionNotFound:
        # RFC 6960 section 4.2.2.2.1: else it would have to be checked for revocation itself, by an answer like this one.
        raise UnusableError("the OCSP responder's certificate may itself be revoked (it has no nocheck)") from None
    facts = facts_of(delegate.public_bytes(Encoding.DER))
    if facts.trouble or facts.weak_key or facts.weak_signature or not _may_sign(extensions):
        raise UnusableError("the OCSP responder's certificate is too weak, or its key may not sign")


def _may_sign(extensions: x509.Extensions) -> bool:
    try:
        usage = extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        return True
    return usage.digital_signature or usage.content_commitment


def _holds(response: ocsp.OCSPResponse, signer: x509.Certificate) -> bool:
    key, (how, digest) = signer.public_key(), _signed_how(response)
    data, signature = response.tbs_response_bytes, response.signature
    if digest is not None and not isinstance(digest, _DIGESTS):
        raise UnusableError(f"the OCSP answer is signed with {digest.name.upper()}, which is too weak")
    try:
        match key:
            case rsa.RSAPublicKey() if digest is not None:
                key.verify(signature, data, how, digest)
            case ec.EllipticCurvePublicKey() if digest is not None:
                key.verify(signature, data, ec.ECDSA(digest))
            case ed25519.Ed25519PublicKey() | ed448.Ed448PublicKey():
                key.verify(signature, data)
            case _:
                raise UnusableError("the OCSP answer is signed in a way that cannot be checked")
    except InvalidSignature:
        return False
    return True


def _signed_how(response: ocsp.OCSPResponse) -> tuple[padding.AsymmetricPadding, hashes.HashAlgorithm | None]:
    if response.signature_algorithm_oid == SignatureAlgorithmOID.RSASSA_PSS:
        return pss_of(response.public_bytes(Encoding.DER))
    return padding.PKCS1v15(), response.signature_hash_algorithm
