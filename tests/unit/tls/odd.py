"""Certificates that no library would make: a good one taken apart, changed, put together and signed again."""

from collections.abc import Callable

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from tests.unit.tls.pki import Issued

_SHA1 = bytes.fromhex("300906072a8648ce3d0401")  # SEQUENCE { ecdsa-with-SHA1 }
_VERSION, _SERIAL, _VALIDITY, _EXTENSIONS = 0, 1, 4, -1
Fields = list[bytes]


def element(tag: int, *parts: bytes) -> bytes:
    content = b"".join(parts)
    if len(content) < 128:
        return bytes([tag, len(content)]) + content
    length = len(content).to_bytes((len(content).bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(length)]) + length + content


def split(der: bytes) -> Fields:
    """The elements that stand one after the other in `der`."""
    found = []
    while der:
        length, begin = der[1], 2
        if length & 0x80:
            begin += length & 0x7F
            length = int.from_bytes(der[2:begin], "big")
        found.append(der[: begin + length])
        der = der[begin + length :]
    return found


def inside(der: bytes) -> Fields:
    (whole,) = split(der)
    begin = 2 + (whole[1] & 0x7F if whole[1] & 0x80 else 0)
    return split(whole[begin:])


def changed(issued: Issued, change: Callable[[Fields], Fields]) -> bytes:
    """DER of the certificate with other fields in its TBSCertificate, signed by its issuer (or itself)."""
    tbs, _algorithm, _signature = inside(issued.der)
    fields = change(inside(tbs))
    sha1 = _SHA1 in fields
    signer = issued.issuers[0].key if issued.issuers else issued.key
    assert isinstance(signer, ec.EllipticCurvePrivateKey)
    new = element(0x30, *fields)
    signature = signer.sign(new, ec.ECDSA(hashes.SHA1() if sha1 else hashes.SHA256()))  # noqa: S303 - made to be refused
    return element(0x30, new, fields[algorithm_at(fields)], element(0x03, b"\0", signature))


def algorithm_at(fields: Fields) -> int:
    """Where the signature algorithm stands, which the outer SEQUENCE repeats: version 1 has no version field."""
    return 2 if fields[0][0] == 0xA0 else 1


def version_1(fields: Fields) -> Fields:
    return fields[1:_EXTENSIONS]


def negative_serial(fields: Fields) -> Fields:
    return [fields[_VERSION], element(0x02, b"\xfb"), *fields[2:]]


def signed_with_sha1(fields: Fields) -> Fields:
    return [*fields[:2], _SHA1, *fields[3:]]


def absurd_dates(fields: Fields) -> Fields:
    never = element(0x30, element(0x18, b"00000000000000Z"), element(0x18, b"99999999999999Z"))
    return [*fields[:_VALIDITY], never, *fields[_VALIDITY + 1 :]]


def broken_extensions(fields: Fields) -> Fields:
    """A SAN that is not one."""
    san = element(0x30, element(0x06, bytes.fromhex("551d11")), element(0x04, b"\x30\x03\x82\x7fx"))
    return [*fields[:_EXTENSIONS], element(0xA3, element(0x30, san))]


def nul_in_name(fields: Fields) -> Fields:
    names = element(0x30, element(0x82, b"good.example\0.evil.example"), element(0x82, b"fine.example"))
    san = element(0x30, element(0x06, bytes.fromhex("551d11")), element(0x04, names))
    return [*fields[:_EXTENSIONS], element(0xA3, element(0x30, san))]


def latin_name(fields: Fields) -> Fields:
    """A DNS name with a byte beyond ASCII, which OpenSSL takes and others do not."""
    names = element(0x30, element(0x82, b"m\xfcller.example"))
    san = element(0x30, element(0x06, bytes.fromhex("551d11")), element(0x04, names))
    return [*fields[:_EXTENSIONS], element(0xA3, element(0x30, san))]


def unknown_key(fields: Fields) -> Fields:
    """A public key of an algorithm that nobody knows."""
    nobody = element(0x30, element(0x30, element(0x06, b"\x2a\x03\x04")), element(0x03, b"\0abc"))
    return [*fields[:6], nobody, *fields[7:]]


ALL = {
    "version 1": version_1,
    "negative serial": negative_serial,
    "SHA-1": signed_with_sha1,
    "absurd dates": absurd_dates,
    "broken extension": broken_extensions,
    "NUL in a name": nul_in_name,
    "Latin-1 in a name": latin_name,
    "unknown key": unknown_key,
}


def unknown_signature(fields: Fields) -> Fields:
    """Says that it was signed with an algorithm that nobody knows."""
    return [*fields[:2], element(0x30, element(0x06, b"\x2a\x03\x04")), *fields[3:]]


def long_name(size: int) -> bytes:
    value = element(0x30, element(0x06, bytes.fromhex("550403")), element(0x0C, b"x" * size))
    return element(0x30, element(0x31, value))
