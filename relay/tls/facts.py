"""What one certificate says, read from its DER: names, dates, pins, usages and how strong it is.

Decides nothing. Whatever bytes a peer presents become facts: a certificate that cannot be read is one with no names, so nothing
that asks for a name accepts it. Names beyond the first MAX_NAMES are not looked at.

Threat: a certificate made to be slow, large or unreadable (RFC 5280 is broken in every way by real ones too). Sizes are bounded by
TLS itself (OpenSSL takes 100 KiB of certificates from a peer), the cache holds small ones only.
"""

import base64
import hashlib
import ipaddress
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import TypeVar

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import dsa, ec, rsa

from relay.config.certificates import MIN_RSA_BITS
from relay.mail.tls import Certificate

MAX_NAMES = 1000
MAX_SUBJECT = 300  # characters
SMALL = 8 * 1024  # bytes of DER; larger certificates are never remembered
_MIN_CURVE_BITS = 224  # as strong as RSA 2048 (NIST SP 800-57 part 1, table 2)
_WEAK_DIGESTS = ("md5", "sha1")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

ANY_USAGE = "2.5.29.37.0"
SERVER_AUTH = "1.3.6.1.5.5.7.3.1"
CLIENT_AUTH = "1.3.6.1.5.5.7.3.2"

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Facts:
    """A certificate and what a path check needs beyond it.

    `usages` are the OIDs of its extended key usage, ANY_USAGE where it has none (RFC 5280 section 4.2.1.12). `signs` says that its
    key may sign a handshake. `weak_key` and `weak_signature` say what is too weak about it, `trouble` what of it cannot be read, so that
    it cannot be relied on; "" where nothing is.
    """

    certificate: Certificate
    usages: frozenset[str]
    signs: bool
    weak_key: str
    weak_signature: str
    trouble: str = ""


def facts_of(der: bytes) -> Facts:
    """Never raises. Small certificates are read once and then remembered."""
    return _remembered(der) if len(der) <= SMALL else _read(der)


def _read(der: bytes) -> Facts:
    with warnings.catch_warnings():
        # The library warns of each oddity; a peer's certificate is no fault of our code.
        warnings.simplefilter("ignore")
        try:
            return _read_with_library(der, x509.load_der_x509_certificate(der))
        except Exception as error:  # noqa: BLE001 - hostile bytes, and the library names no complete list of its errors
            return _unreadable(der, error)


_remembered = lru_cache(maxsize=1024)(_read)


def _unreadable(der: bytes, error: Exception) -> Facts:
    text = _printable(f"unreadable certificate ({error or type(error).__name__})")
    certificate = Certificate(text, text, (), (), _EPOCH, _EPOCH, hashlib.sha256(der).hexdigest(), pin_of(der), der)
    return Facts(certificate, frozenset(), signs=False, weak_key="", weak_signature="", trouble="it cannot be read")


def _read_with_library(der: bytes, parsed: x509.Certificate) -> Facts:
    try:
        extensions, trouble = parsed.extensions, ""
    except Exception:  # noqa: BLE001 - see _read
        extensions, trouble = x509.Extensions([]), "its extensions cannot be read"
    dns_names, ip_names = _names(extensions)
    certificate = Certificate(
        subject=_or_else(lambda: _name(parsed.subject), "unreadable subject"),
        issuer=_or_else(lambda: _name(parsed.issuer), "unreadable issuer"),
        dns_names=dns_names,
        ip_names=ip_names,
        not_before=parsed.not_valid_before_utc,
        not_after=parsed.not_valid_after_utc,
        sha256=hashlib.sha256(der).hexdigest(),
        spki_sha256=pin_of(der),
        der=der,
    )
    return Facts(
        certificate=certificate,
        usages=_usages(extensions),
        signs=_signs(extensions),
        weak_key=_weak_key(parsed),
        weak_signature=_weak_signature(parsed),
        trouble=trouble,
    )


def _or_else(read: Callable[[], T], otherwise: T) -> T:
    """One bad field must not hide the others. The library reads each field only when asked for it."""
    try:
        return read()
    except Exception:  # noqa: BLE001 - see _read
        return otherwise


def _printable(text: str) -> str:
    return "".join(each if each.isprintable() else "?" for each in text[:MAX_SUBJECT])


def _name(name: x509.Name) -> str:
    return _printable(name.rfc4514_string())


def _names(extensions: x509.Extensions) -> tuple[tuple[str, ...], tuple[str, ...]]:
    try:
        san = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return (), ()
    dns: list[str] = []
    addresses: list[str] = []
    for name in list(san)[:MAX_NAMES]:
        if isinstance(name, x509.DNSName):
            # A name with spaces or control characters can match nothing and would only confuse whoever reads it.
            if name.value.isascii() and name.value.isprintable() and " " not in name.value:
                dns.append(name.value.lower())
        elif isinstance(name, x509.IPAddress) and isinstance(name.value, ipaddress.IPv4Address | ipaddress.IPv6Address):
            addresses.append(str(name.value))
    return tuple(dns), tuple(addresses)


def _usages(extensions: x509.Extensions) -> frozenset[str]:
    try:
        usages = extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return frozenset({ANY_USAGE})
    return frozenset(usage.dotted_string for usage in usages)


def _signs(extensions: x509.Extensions) -> bool:
    """RFC 5280 section 4.2.1.3. Key encipherment and agreement are old names for the same job; OpenSSL takes them too."""
    try:
        usage = extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        return True
    return usage.digital_signature or usage.key_encipherment or usage.key_agreement


def _weak_key(parsed: x509.Certificate) -> str:
    try:
        key = parsed.public_key()
    except (ValueError, UnsupportedAlgorithm):
        return "key of a kind that cannot be checked"
    if isinstance(key, rsa.RSAPublicKey) and key.key_size < MIN_RSA_BITS:
        return f"RSA key of {key.key_size} bits"
    if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.key_size < _MIN_CURVE_BITS:
        return f"key on the curve {key.curve.name}"
    if isinstance(key, dsa.DSAPublicKey):
        return "DSA key"
    return ""


def _weak_signature(parsed: x509.Certificate) -> str:
    try:
        digest = parsed.signature_hash_algorithm
    except UnsupportedAlgorithm:
        return "signature of a kind that cannot be checked"
    return f"signature with {digest.name.upper()}" if digest is not None and digest.name in _WEAK_DIGESTS else ""


def pin_of(der: bytes) -> str:
    """The RFC 7469 section 2.4 pin: base64 of the SHA-256 over the SPKI exactly as it stands in the certificate; "" where none is found.

    Read by hand, since decoding a key and encoding it again may give other bytes than the peer's.
    """
    spki = spki_of(der)
    return "sha256:" + base64.b64encode(hashlib.sha256(spki).digest()).decode() if spki else ""


def spki_of(der: bytes) -> bytes:
    """The SubjectPublicKeyInfo exactly as it stands in the certificate; empty where none is found."""
    try:
        return _spki(der)
    except (IndexError, ValueError):
        return b""


def _spki(der: bytes) -> bytes:
    """RFC 5280 section 4.1: the field of TBSCertificate after version, serialNumber, signature, issuer, validity and subject."""
    _tag, inside, _end = element(der, 0)
    _tag, position, _end = element(der, inside)
    tag, _inside, end = element(der, position)
    if tag == 0xA0:  # the version, which version 1 leaves out
        position = end
    for _field in ("serialNumber", "signature", "issuer", "validity", "subject"):
        position = element(der, position)[2]
    tag, _inside, end = element(der, position)
    if tag != 0x30:
        raise ValueError("not a SEQUENCE")
    return der[position:end]


def element(der: bytes, position: int) -> tuple[int, int, int]:
    """Of DER: tag, where the content begins and where the element ends. Raises IndexError or ValueError beyond the bytes' end."""
    length, begin = der[position + 1], position + 2
    if length >= 0x80:  # long form: the low bits say how many octets hold the length
        octets = length & 0x7F
        length, begin = int.from_bytes(der[begin : begin + octets], "big"), begin + octets
    if begin + length > len(der):
        raise ValueError("longer than what holds it")
    return der[position], begin, begin + length
