"""How an OCSP answer is signed where that is RSASSA-PSS (RFC 4055 section 3.1): the library checks such parameters and does not tell them.

Threat: parameters that leave the choice of a weak hash, or of another one within, to whoever made the answer. So only SHA-2 is known here, the
same one for both, and each of its spellings is compared as a whole.
"""

import itertools

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding

from relay.tls.facts import element
from relay.tls.revocation.links import UnusableError

_SHA2 = bytes.fromhex("06 09 60 86 48 01 65 03 04 02")  # and an octet that says which (RFC 4055 section 2.1)
_KINDS: tuple[tuple[int, hashes.HashAlgorithm], ...] = (
    (1, hashes.SHA256()),
    (2, hashes.SHA384()),
    (3, hashes.SHA512()),
)
_MGF1 = bytes.fromhex("06 09 2a 86 48 86 f7 0d 01 01 08")
_SEQUENCE, _HASH, _MASK, _SALT = 0x30, 0xA0, 0xA1, 0xA2
_USUAL_SALT = 20  # where it is left out


def _of(tag: int, content: bytes) -> bytes:
    """DER of less than 128 bytes."""
    return bytes((tag, len(content))) + content


def _spellings(last: int) -> list[bytes]:
    """The first two parameters. A hash's own are NULL or left out (RFC 4055 section 2.1)."""
    names = [_of(_SEQUENCE, _SHA2 + bytes([last]) + null) for null in (b"\x05\x00", b"")]
    pairs = itertools.product(names, names)
    return [_of(_HASH, outer) + _of(_MASK, _of(_SEQUENCE, _MGF1 + inner)) for outer, inner in pairs]


_KNOWN = {spelling: kind for last, kind in _KINDS for spelling in _spellings(last)}


def pss_of(response: bytes) -> tuple[padding.PSS, hashes.HashAlgorithm]:
    """By the signatureAlgorithm of an OCSPResponse that says RSASSA-PSS and that the library has read. Raises UnusableError."""
    given = _parameters(response)
    for spelling, digest in _KNOWN.items():
        if given.startswith(spelling):
            return padding.PSS(padding.MGF1(digest), _salt(given[len(spelling) :])), digest
    raise UnusableError("the OCSP answer is signed with RSASSA-PSS and another hash than SHA-2, or two different ones")


def _parameters(response: bytes) -> bytes:
    """What RSASSA-PSS-params hold (RFC 6960 section 4.2.1, RFC 4055 section 3.1); b"" where there are none."""
    _tag, begin, _end = element(response, 0)
    _tag, _begin, status = element(response, begin)
    _tag, begin, _end = element(response, status)  # [0]
    _tag, begin, _end = element(response, begin)  # ResponseBytes
    _tag, _begin, kind = element(response, begin)
    _tag, begin, _end = element(response, kind)  # the octets that hold a BasicOCSPResponse
    _tag, begin, _end = element(response, begin)
    _tag, _begin, data = element(response, begin)
    _tag, begin, end = element(response, data)  # signatureAlgorithm
    _tag, _begin, name = element(response, begin)
    if name == end:
        return b""
    _tag, begin, end = element(response, name)
    return response[begin:end]


def _salt(rest: bytes) -> int:
    """A trailer field is never there: there is one only, and DER leaves out what is usual."""
    if not rest:
        return _USUAL_SALT
    tag, begin, end = element(rest, 0)
    if tag != _SALT or end != len(rest):
        raise UnusableError("the OCSP answer is signed with RSASSA-PSS in a way that is not used")
    _tag, number, end = element(rest, begin)
    return int.from_bytes(rest[number:end], "big")
