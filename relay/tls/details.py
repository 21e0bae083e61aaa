"""What one certificate of ours says in full, for those who must be told before it is changed (`relay.policy.holdings.Details`).

What of it cannot be read is left out; nothing here raises.
"""

import hashlib
from collections.abc import Iterable

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.x509.oid import AuthorityInformationAccessOID as Access
from cryptography.x509.oid import SignatureAlgorithmOID as Algorithm

from relay.policy.holdings import Details
from relay.tls.facts import ANY_USAGE, CLIENT_AUTH, SERVER_AUTH, facts_of

_CURVES = {"secp256r1": "P-256", "secp384r1": "P-384", "secp521r1": "P-521"}
_EDWARDS = {Algorithm.ED25519: "Ed25519", Algorithm.ED448: "Ed448"}
_ECDSA = (
    *(Algorithm.ECDSA_WITH_SHA1, Algorithm.ECDSA_WITH_SHA224, Algorithm.ECDSA_WITH_SHA256),
    *(Algorithm.ECDSA_WITH_SHA384, Algorithm.ECDSA_WITH_SHA512),
)
_MOST = 10  # addresses of one kind


def details_of(der: bytes) -> Details:
    facts = facts_of(der)
    # The old one is asked for to find a certificate again, not to trust it.
    sha1 = _colons(hashlib.sha1(der, usedforsecurity=False).hexdigest())
    sha256 = _colons(facts.certificate.sha256)
    try:
        parsed = x509.load_der_x509_certificate(der)
        extensions = parsed.extensions
    except ValueError:
        return Details(facts.certificate, "unreadable", "unreadable", "", sha1, sha256)
    usages = facts.usages
    return Details(
        certificate=facts.certificate,
        key=key_words(parsed),
        signature=_signature(parsed),
        serial=_colons(_even(f"{parsed.serial_number:x}")),
        sha1=sha1,
        sha256=sha256,
        crl=_crl(extensions),
        ocsp=_access(extensions, Access.OCSP),
        issuer_at=_access(extensions, Access.CA_ISSUERS),
        server=bool(usages & {ANY_USAGE, SERVER_AUTH}),
        client=bool(usages & {ANY_USAGE, CLIENT_AUTH}),
        is_ca=_is_ca(extensions),
    )


def key_words(parsed: x509.Certificate | x509.CertificateSigningRequest) -> str:
    """ "EC P-256", "RSA 3072", "Ed25519"."""
    try:
        key = parsed.public_key()
    except (ValueError, UnsupportedAlgorithm):
        return "unknown"
    if isinstance(key, rsa.RSAPublicKey):
        return f"RSA {key.key_size}"
    if isinstance(key, ec.EllipticCurvePublicKey):
        return f"EC {_CURVES.get(key.curve.name, key.curve.name)}"
    if isinstance(key, ed25519.Ed25519PublicKey):
        return "Ed25519"
    return "Ed448" if isinstance(key, ed448.Ed448PublicKey) else "unknown"


def _signature(parsed: x509.Certificate) -> str:
    algorithm = parsed.signature_algorithm_oid
    if algorithm in _EDWARDS:
        return _EDWARDS[algorithm]
    try:
        digest = parsed.signature_hash_algorithm
    except UnsupportedAlgorithm:
        return algorithm.dotted_string
    kind = "ECDSA" if algorithm in _ECDSA else "RSA-PSS" if algorithm == Algorithm.RSASSA_PSS else "RSA"
    return f"{kind} with {digest.name.upper().replace('SHA', 'SHA-')}" if digest is not None else kind


def _crl(extensions: x509.Extensions) -> tuple[str, ...]:
    try:
        points = extensions.get_extension_for_class(x509.CRLDistributionPoints).value
    except (x509.ExtensionNotFound, ValueError):
        return ()
    return _uris(name for point in points for name in point.full_name or ())


def _access(extensions: x509.Extensions, kind: x509.ObjectIdentifier) -> tuple[str, ...]:
    try:
        found = extensions.get_extension_for_class(x509.AuthorityInformationAccess).value
    except (x509.ExtensionNotFound, ValueError):
        return ()
    return _uris(each.access_location for each in found if each.access_method == kind)


def _uris(names: Iterable[x509.GeneralName]) -> tuple[str, ...]:
    found = (each.value for each in names if isinstance(each, x509.UniformResourceIdentifier))
    return tuple(each for each in found if each.isprintable())[:_MOST]


def _is_ca(extensions: x509.Extensions) -> bool:
    try:
        return extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (x509.ExtensionNotFound, ValueError):
        return False


def _even(text: str) -> str:
    return text if len(text) % 2 == 0 else f"0{text}"


def _colons(digits: str) -> str:
    return ":".join(digits[place : place + 2] for place in range(0, len(digits), 2)).upper()
