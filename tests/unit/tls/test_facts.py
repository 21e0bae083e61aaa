"""What a certificate says, and that no bytes make the reader raise."""

import base64
import hashlib
from datetime import UTC, datetime

import pytest
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.config.certificates import PrivateKey
from relay.tls.evidence import parse_certificate
from relay.tls.facts import ANY_USAGE, CLIENT_AUTH, MAX_NAMES, SERVER_AUTH, SMALL, Facts, facts_of, pin_of
from tests.unit.tls import odd, pki
from tests.unit.tls.pki import DAY, NOW, Wish, key_usage, new_key, root, rsa_key, self_signed

LEAF = root("the root").issue(Wish("the leaf", names=["A.example", "*.b.example", "192.0.2.1", "2001:DB8::1"]))


def spki(key: PrivateKey) -> str:
    der = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return "sha256:" + base64.b64encode(hashlib.sha256(der).digest()).decode()


def test_a_good_certificate() -> None:
    certificate = parse_certificate(LEAF.der)
    assert certificate.subject == "CN=the leaf"
    assert certificate.issuer == "CN=the root"
    assert certificate.dns_names == ("a.example", "*.b.example")
    assert certificate.ip_names == ("192.0.2.1", "2001:db8::1")
    assert certificate.not_before == NOW - 10 * DAY
    assert certificate.not_after == NOW + 100 * DAY
    assert certificate.sha256 == hashlib.sha256(LEAF.der).hexdigest()
    assert certificate.spki_sha256 == spki(LEAF.key)
    assert certificate.der == LEAF.der


@pytest.mark.parametrize("key", [new_key(), rsa_key(2048), ed25519.Ed25519PrivateKey.generate()])
def test_pin_is_over_the_key_as_it_stands(key: PrivateKey) -> None:
    assert pin_of(root().issue(Wish(), key).der) == spki(key)
    assert pin_of(odd.changed(self_signed(Wish()), odd.version_1)) != ""


def facts(wish: Wish, key: PrivateKey | None = None) -> Facts:
    return facts_of(root().issue(wish, key).der)


def test_usages() -> None:
    assert facts(Wish()).usages == {ANY_USAGE}
    assert facts(Wish(usages=[pki.SERVER_AUTH, pki.CLIENT_AUTH])).usages == {SERVER_AUTH, CLIENT_AUTH}
    assert facts(Wish(usages=[pki.EMAIL])).usages.isdisjoint({ANY_USAGE, SERVER_AUTH, CLIENT_AUTH})


def test_signs() -> None:
    assert facts(Wish()).signs
    assert facts(Wish(key_usage=key_usage(signature=True))).signs
    assert not facts(Wish(key_usage=key_usage(certificates=True))).signs


def test_what_is_weak() -> None:
    good = facts(Wish())
    assert (good.weak_key, good.weak_signature, good.trouble) == ("", "", "")
    assert facts(Wish(), rsa_key(1024)).weak_key == "RSA key of 1024 bits"
    assert facts(Wish(), rsa_key(2048)).weak_key == ""
    assert facts(Wish(), ec.generate_private_key(ec.SECP192R1())).weak_key == "key on the curve secp192r1"
    assert facts_of(odd.changed(LEAF, odd.signed_with_sha1)).weak_signature == "signature with SHA1"
    assert facts_of(odd.changed(LEAF, odd.unknown_key)).weak_key == "key of a kind that cannot be checked"
    assert (
        facts_of(odd.changed(LEAF, odd.unknown_signature)).weak_signature
        == "signature of a kind that cannot be checked"
    )
    assert facts_of(DSA).weak_key == "DSA key"


def _dsa() -> bytes:
    """A certificate for a DSA key, which the builder does not make any more."""
    key = dsa.generate_private_key(2048).public_key()
    der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return odd.changed(LEAF, lambda fields: [*fields[:6], der, *fields[7:]])


DSA = _dsa()


@pytest.mark.parametrize("name", odd.ALL)
def test_odd_certificates_are_facts(name: str) -> None:
    """With the warnings that the library has for some of them as errors, as everywhere in these tests."""
    der = odd.changed(LEAF, odd.ALL[name])
    found = facts_of(der)
    certificate = found.certificate
    assert certificate.sha256 == hashlib.sha256(der).hexdigest()
    assert certificate.spki_sha256 == (pin_of(der) if name == "unknown key" else spki(LEAF.key))
    if name == "absurd dates":
        assert certificate.subject.startswith("unreadable certificate (")
        assert certificate.not_after == datetime(1970, 1, 1, tzinfo=UTC)
        assert found.trouble == "it cannot be read"
        assert not found.usages
    else:
        assert certificate.subject == "CN=the leaf"
    if name == "broken extension":
        assert (certificate.names, found.trouble) == ((), "its extensions cannot be read")
    if name == "NUL in a name":
        assert certificate.names == ("fine.example",)
    if name == "version 1":
        assert certificate.names == ()


def test_subject_without_control_characters_and_cut() -> None:
    der = self_signed(Wish("evil\nname\x1b[0m")).der
    assert parse_certificate(der).subject == "CN=evil?name?[0m"
    # RFC 5280 ends a common name at 64 characters; nothing else does.
    long = odd.changed(LEAF, lambda fields: [*fields[:5], odd.long_name(5000), *fields[6:]])
    assert len(parse_certificate(long).subject) == 300


def test_names_beyond_the_bound_are_not_looked_at_and_not_remembered() -> None:
    der = root().issue(Wish(names=[f"n{number}.example" for number in range(10_000)])).der
    assert len(der) > SMALL
    found = facts_of(der)
    assert found.certificate.dns_names == tuple(f"n{number}.example" for number in range(MAX_NAMES))
    assert facts_of(der) is not found
    assert facts_of(LEAF.der) is facts_of(LEAF.der)


@given(st.binary(max_size=300))
@settings(max_examples=150, deadline=None)
def test_any_bytes(junk: bytes) -> None:
    found = facts_of(junk)
    assert found.certificate.names == ()
    assert not found.usages


@given(st.integers(0, len(LEAF.der) - 1), st.integers(0, 255))
@settings(max_examples=200, deadline=None)
def test_any_changed_byte(position: int, value: int) -> None:
    der = bytearray(LEAF.der)
    der[position] = value
    found = facts_of(bytes(der))
    assert found.certificate.sha256 == hashlib.sha256(der).hexdigest()


@pytest.mark.parametrize(
    "junk",
    [b"", b"\x30", b"\x30\x84", b"\x30\x84\xff\xff\xff\xff", LEAF.der[:100], b"\x30\x03\x30\x01\x02"],
    ids=["empty", "tag only", "no length", "too long", "cut off", "nested"],
)
def test_no_pin_where_there_is_no_key(junk: bytes) -> None:
    assert pin_of(junk) == ""


def test_pin_needs_a_sequence() -> None:
    der = odd.changed(LEAF, lambda fields: [*fields[:6], odd.element(0x04, b"abc"), *fields[7:]])
    assert pin_of(der) == ""
