"""DKIM (RFC 6376, 8301, 8463) as far as TLS reports need it: signing ours, verifying those of others. No I/O: keys are fetched by the caller.

RFC 8460 section 3: a report by mail has a valid signature of the reporting domain, never with `l=`, or it is ignored.
Why not a library: docs/decisions/dkim.md.

Threat: what is verified is a stranger's message. Each step takes time in proportion to its length, and nothing but a reason comes out.
"""

import base64
import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_der_public_key, load_pem_private_key

from relay.mail.address import AddressError, normalise_domain

MOST = 5  # signatures that are looked at, as many as other verifiers do
_FIELDS = 1000
_SHORTEST_KEY = 1024  # bits (RFC 8301 section 3.2)
_ALGORITHMS = ("rsa-sha256", "ed25519-sha256")  # RFC 8301 section 3.1: never rsa-sha1
_SERVICES = frozenset({"*", "email", "tlsrpt"})

_SPACE = re.compile(rb"[ \t\r\n]+")
_BLANK = re.compile(rb"[ \t]+")
_EMPTY_B = re.compile(rb"(\A|;)([ \t\r\n]*b[ \t\r\n]*=)[^;]*")
_SELECTOR = re.compile(r"[A-Za-z0-9_-]{1,63}(?:\.[A-Za-z0-9_-]{1,63}){0,5}\Z")

Field = tuple[bytes, bytes]  # name as written, value with its folds


@dataclass(frozen=True, slots=True)
class Parsed:
    """A message: its fields in order, and its body."""

    fields: tuple[Field, ...]
    body: bytes

    def values(self, name: bytes) -> list[bytes]:
        """Of all fields of that name (lower case), unfolded."""
        return [_SPACE.sub(b" ", value).strip() for each, value in self.fields if _lower(each) == name]


@dataclass(frozen=True, slots=True)
class Signature:
    """A DKIM-Signature field that could be valid. `key_name` is where its public key is."""

    domain: str
    selector: str
    algorithm: str
    header_relaxed: bool
    body_relaxed: bool
    signed: tuple[bytes, ...]
    body_hash: bytes
    value: bytes
    field: Field
    user_domain: str
    expires: int | None

    @property
    def key_name(self) -> str:
        return f"{self.selector.lower()}._domainkey.{self.domain}"


def parse(message: bytes) -> Parsed | None:
    """None where the header is none. Line ends are CRLF."""
    head, _, body = message.partition(b"\r\n\r\n")
    fields: list[list[bytes]] = []
    for line in head.split(b"\r\n"):
        if line[:1] in (b" ", b"\t"):
            if not fields:
                return None
            fields[-1].append(line)
            continue
        if b":" not in line or len(fields) >= _FIELDS:
            return None
        fields.append([line])
    parted = (b"\r\n".join(lines).partition(b":") for lines in fields)
    return Parsed(tuple((name, value) for name, _, value in parted), body)


def signatures(message: Parsed) -> list[Signature]:
    """The first that are well-formed, topmost first."""
    fields = [each for each in message.fields if _lower(each[0]) == b"dkim-signature"][:MOST]
    return [found for found in map(_signature, fields) if found is not None]


def _signature(field: Field) -> Signature | None:
    tags = _tags(field[1].decode("ascii", "replace"))
    if tags is None or tags.get("v") != "1" or tags.get("a") not in _ALGORITHMS or "l" in tags:
        return None
    header, _, body = tags.get("c", "simple/simple").partition("/")
    if header not in ("simple", "relaxed") or body not in ("", "simple", "relaxed"):
        return None
    signed = tuple(each.strip().lower().encode() for each in tags.get("h", "").split(":"))
    selector, expires = tags.get("s", ""), tags.get("x")
    if b"from" not in signed or len(signed) > _FIELDS or not _SELECTOR.match(selector):
        return None
    if expires is not None and not (expires.isascii() and expires.isdigit() and len(expires) <= 12):
        return None
    try:
        domain = normalise_domain(tags.get("d", ""))
        user_domain = normalise_domain(tags["i"].rpartition("@")[2]) if "i" in tags else domain
        hashed, value = _unbase64(tags.get("bh", "")), _unbase64(tags.get("b", ""))
    except (AddressError, ValueError):
        return None
    if user_domain != domain and not user_domain.endswith(f".{domain}"):
        return None
    return Signature(
        *(
            domain,
            selector,
            tags["a"],
            header == "relaxed",
            body == "relaxed",
            signed,
            hashed,
            value,
            field,
            user_domain,
        ),
        expires=None if expires is None else int(expires),
    )


def verify(signature: Signature, message: Parsed, records: Sequence[str], now: datetime) -> str:
    """ "" where the signature holds, else why not. `records` are the TXT records at its `key_name`."""
    if signature.expires is not None and signature.expires < now.timestamp():
        return "the signature has expired"
    if len(records) != 1:  # RFC 6376 section 3.6.2.2
        return "there is no such key" if not records else "there are several keys of that name"
    key = _public_key(records[0], signature)
    if isinstance(key, str):
        return key
    if len(message.values(b"from")) != 1:
        return "the message has not exactly one From field"
    if hashlib.sha256(_body(message.body, relaxed=signature.body_relaxed)).digest() != signature.body_hash:
        return "the body was changed"
    data = _signed_data(message.fields, signature.signed, signature.field, relaxed=signature.header_relaxed)
    try:
        if isinstance(key, Ed25519PublicKey):
            key.verify(signature.value, hashlib.sha256(data).digest())  # RFC 8463 section 3
        else:
            key.verify(signature.value, data, PKCS1v15(), SHA256())
    except InvalidSignature:
        return "the signature does not fit the message"
    return ""


def _public_key(record: str, signature: Signature) -> RSAPublicKey | Ed25519PublicKey | str:
    """The key of a record (RFC 6376 section 3.6.1), or why it is of no use."""
    tags = _tags(record)
    if tags is None or tags.get("v", "DKIM1") != "DKIM1":
        return "the key record is malformed"
    kind = signature.algorithm.partition("-")[0]
    hashes, services, flags = (
        _listed(tags.get(each, default)) for each, default in (("h", "sha256"), ("s", "*"), ("t", ""))
    )
    if tags.get("k", "rsa") != kind or "sha256" not in hashes or not services & _SERVICES:
        return "the key is not for this"
    if "y" in flags or ("s" in flags and signature.user_domain != signature.domain):
        return "the key is for tests only, or not for a subdomain"
    if not tags.get("p"):
        return "the key was revoked"
    try:
        data = _unbase64(tags["p"])
        if kind == "ed25519":
            return Ed25519PublicKey.from_public_bytes(data)
        key = load_der_public_key(data)
    except (ValueError, UnsupportedAlgorithm):
        return "the key cannot be read"
    if isinstance(key, RSAPublicKey) and key.key_size >= _SHORTEST_KEY:
        return key
    return f"the key is no RSA key of at least {_SHORTEST_KEY} bits"


def sign(message: bytes, domain: str, selector: str, key: str, fields: Iterable[str], at: datetime) -> bytes:
    """The DKIM-Signature field with its CRLF, to put in front. `key` is an RSA key in PEM; `fields` are the names to sign, all of them there.

    From is named twice, so that no second one can be added. Raises ValueError for a key that is none.
    """
    parsed, private = parse(message), _private(key)
    if parsed is None or not isinstance(private, RSAPrivateKey):
        raise ValueError("there is no header to sign, or no RSA key to sign it with")
    names = [*(each.lower() for each in fields), "from"]
    body_hash = base64.b64encode(hashlib.sha256(_body(parsed.body, relaxed=True)).digest()).decode()
    head = (
        f" v=1; a=rsa-sha256; c=relaxed/relaxed; d={domain}; s={selector};\r\n t={int(at.timestamp())};\r\n"
        f" h={':'.join(names)};\r\n bh={body_hash};\r\n b="
    ).encode("ascii")
    name = b"DKIM-Signature"
    data = _signed_data(parsed.fields, [each.encode() for each in names], (name, head), relaxed=True)
    value = base64.b64encode(private.sign(data, PKCS1v15(), SHA256()))
    folded = b"\r\n ".join(value[start : start + 72] for start in range(0, len(value), 72))
    return name + b":" + head + folded + b"\r\n"


def _private(key: str) -> object:
    """Without the checks that loading makes, which take longer than the signature: the configuration has checked it."""
    return load_pem_private_key(key.encode("ascii"), None, unsafe_skip_rsa_key_validation=True)


def _signed_data(fields: Sequence[Field], names: Sequence[bytes], signature: Field, *, relaxed: bool) -> bytes:
    """RFC 6376 section 3.7: the named fields, from the bottom up where one is named again, and the signature's own with its b= empty."""
    places: dict[bytes, list[Field]] = {}
    for each in fields:
        places.setdefault(_lower(each[0]), []).append(each)
    chosen = [places[name].pop() for name in names if places.get(name)]
    own = (signature[0], _EMPTY_B.sub(rb"\1\2", signature[1], count=1) if b"b" in signature[1] else signature[1])
    return b"".join(_header(each, relaxed=relaxed) + b"\r\n" for each in chosen) + _header(own, relaxed=relaxed)


def _header(field: Field, *, relaxed: bool) -> bytes:
    """RFC 6376 section 3.4.1, 3.4.2; without the CRLF at its end."""
    name, value = field
    if not relaxed:
        return name + b":" + value
    return _lower(name) + b":" + _SPACE.sub(b" ", value).strip(b" ")


def _body(body: bytes, *, relaxed: bool) -> bytes:
    """RFC 6376 section 3.4.3, 3.4.4."""
    lines = body.split(b"\r\n")
    if relaxed:
        lines = [_BLANK.sub(b" ", line.rstrip(b" \t")) for line in lines]
    while lines and not lines[-1]:
        lines.pop()
    if not lines:
        return b"" if relaxed else b"\r\n"
    return b"\r\n".join(lines) + b"\r\n"


def _tags(text: str) -> dict[str, str] | None:
    """RFC 6376 section 3.2; None where it is no such list, or says a thing twice."""
    found: dict[str, str] = {}
    parts = text.split(";")
    if not parts[-1].strip():
        parts.pop()
    for part in parts:
        name, equals, value = part.partition("=")
        name = name.strip(" \t\r\n")
        if not equals or not name or name in found:
            return None
        found[name] = value.strip(" \t\r\n")
    return found


def _listed(text: str) -> frozenset[str]:
    return frozenset(each.strip() for each in text.split(":"))


def _lower(name: bytes) -> bytes:
    return name.strip(b" \t").lower()


def _unbase64(text: str) -> bytes:
    """Raises ValueError."""
    return base64.b64decode("".join(text.split()), validate=True)
