"""OCSP answers: by the issuer and its delegates, and all that must not be believed."""

from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.mail.revocation import By, State
from relay.tls.revocation.links import UnusableError, link_of
from relay.tls.revocation.ocsp import MAX_ANSWER, question, read_answer, status
from tests.revoking import DAY, HOUR, NOW, UNKNOWN_EXTENSION, OcspWish, Wish, answer, make, responder, root

ROOT = root()
CA = make("ca", ROOT, Wish(ca=True))
OTHER_CA = make("ca", ROOT, Wish(ca=True))  # of the same name, with another key
LEAF = make("leaf", CA, Wish(ocsp=["http://ocsp.example/"]))
SIBLING = make("leaf", CA)
LINK = link_of(*LEAF.path[:2])
DELEGATE = responder(CA)
REVOKED = ocsp.OCSPCertStatus.REVOKED


def test_the_question_names_the_certificate_and_has_no_nonce() -> None:
    request = ocsp.load_der_ocsp_request(question(LINK))
    assert request.serial_number == LEAF.serial
    assert request.hash_algorithm.name == "sha1"
    assert len(request.extensions) == 0


@pytest.mark.parametrize(
    "wish",
    [
        OcspWish(),
        OcspWish(by_key=True),
        OcspWish(responder=DELEGATE),
        OcspWish(responder=DELEGATE, by_key=True),
        OcspWish(naming=hashes.SHA256()),
        OcspWish(extensions=[(UNKNOWN_EXTENSION, False)]),
        OcspWish(next_update=None),
        OcspWish(next_update=NOW - timedelta(minutes=4)),
        OcspWish(this_update=NOW + timedelta(minutes=4)),
    ],
    ids=range(9),
)
def test_what_is_believed(wish: OcspWish) -> None:
    found = status(read_answer(answer(LEAF, wish), LINK, NOW), LINK, By.OCSP, "http://ocsp.example/")
    assert (found.state, found.by, found.this_update) == (State.GOOD, By.OCSP, wish.this_update)


def test_revoked_says_when_and_why() -> None:
    found = status(read_answer(answer(LEAF, OcspWish(REVOKED)), LINK, NOW), LINK, By.STAPLED, "")
    assert (found.state, found.reason, found.revoked_at) == (State.REVOKED, "keyCompromise", NOW - 2 * HOUR)


def test_unknown_is_not_good() -> None:
    found = read_answer(answer(LEAF, OcspWish(ocsp.OCSPCertStatus.UNKNOWN)), LINK, NOW)
    assert found.state is State.UNKNOWN
    with pytest.raises(UnusableError, match="does not know"):
        status(found, LINK, By.OCSP, "")


@pytest.mark.parametrize(
    ("wish", "why"),
    [
        (OcspWish(responder=OTHER_CA), "signature"),
        (OcspWish(forged=True), "signature"),
        (OcspWish(about=SIBLING), "another certificate"),
        (OcspWish(responder=DELEGATE, forged=True), "signature"),
        (OcspWish(responder=DELEGATE, enclosed=False), "somebody else"),
        (OcspWish(responder=responder(CA, usage=False)), "may answer"),
        (OcspWish(responder=make("sibling", CA, Wish(names=["a.example"]))), "may answer"),
        (OcspWish(responder=responder(CA, nocheck=False)), "nocheck"),
        (OcspWish(responder=responder(OTHER_CA)), "not signed by the issuer"),
        (OcspWish(responder=responder(ROOT)), "another issuer"),
        (OcspWish(responder=responder(CA, wish=Wish(after=NOW - HOUR))), "out of date"),
        (OcspWish(responder=responder(CA, wish=Wish(before=NOW + HOUR))), "out of date"),
        (
            OcspWish(
                responder=responder(
                    CA,
                    wish=Wish(
                        extensions=[(x509.KeyUsage(False, False, True, False, False, False, False, False, False), True)]
                    ),
                )
            ),
            "may not sign",
        ),
        (OcspWish(extensions=[(UNKNOWN_EXTENSION, True)]), "critical extension"),
        (OcspWish(this_update=NOW - DAY, next_update=NOW - timedelta(minutes=6)), "ended"),
        (OcspWish(this_update=NOW - 25 * HOUR, next_update=None), "ended"),
        (OcspWish(this_update=NOW + timedelta(minutes=6)), "clock"),
    ],
    ids=lambda each: each.replace(" ", "-") if isinstance(each, str) else "",
)
def test_what_says_nothing(wish: OcspWish, why: str) -> None:
    with pytest.raises(UnusableError, match=why):
        read_answer(answer(LEAF, wish), LINK, NOW)


def test_an_answer_about_the_same_number_of_another_issuer() -> None:
    twin = make("leaf", OTHER_CA, Wish(serial=LEAF.serial))
    with pytest.raises(UnusableError, match="another certificate"):
        read_answer(answer(twin), LINK, NOW)


@pytest.mark.parametrize("said", [each for each in ocsp.OCSPResponseStatus if each.name != "SUCCESSFUL"])
def test_a_responder_that_does_not_answer(said: ocsp.OCSPResponseStatus) -> None:
    data = ocsp.OCSPResponseBuilder.build_unsuccessful(said)
    with pytest.raises(UnusableError, match="responder says"):
        read_answer(data.public_bytes(Encoding.DER), LINK, NOW)


def test_what_is_no_answer() -> None:
    good = answer(LEAF)
    for data in (b"", b"<html>", good[:-1], LEAF.der, bytes(MAX_ANSWER + 1)):
        with pytest.raises(UnusableError):
            read_answer(data, LINK, NOW)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200), st.integers(min_value=0, max_value=300))
def test_any_bytes_are_an_answer_or_unusable(noise: bytes, at: int) -> None:
    good = answer(LEAF)
    for data in (noise, good[:at] + noise + good[at + len(noise) :]):
        try:
            found = read_answer(data, LINK, NOW)
        except UnusableError:
            continue
        assert found.state is State.GOOD  # the bytes that were changed are outside of what is signed


# RSASSA-PSS, which the library neither writes nor reads in an OCSP answer: put together from its parts.


def der(tag: int, *parts: bytes) -> bytes:
    content = b"".join(parts)
    length = bytes([len(content)]) if len(content) < 128 else b"\x82" + len(content).to_bytes(2, "big")
    return bytes([tag]) + length + content


def oid(dotted: str) -> bytes:
    numbers = [int(each) for each in dotted.split(".")]
    content = bytes([numbers[0] * 40 + numbers[1]])
    for number in numbers[2:]:
        septets = [number & 0x7F]
        while number := number >> 7:
            septets.insert(0, number & 0x7F | 0x80)
        content += bytes(septets)
    return der(6, content)


SHA1, MGF1 = oid("1.3.14.3.2.26"), oid("1.2.840.113549.1.1.8")
SHA2 = {256: oid("2.16.840.1.101.3.4.2.1"), 384: oid("2.16.840.1.101.3.4.2.2"), 512: oid("2.16.840.1.101.3.4.2.3")}
SHA3 = oid("2.16.840.1.101.3.4.2.8")


def hashed(name: bytes, *, null: bool = True) -> bytes:
    return der(0x30, name, b"\x05\x00" if null else b"")


def parameters(digest: bytes, mask: bytes, salt: int = 32, *more: bytes) -> bytes:
    """RSASSA-PSS-params. `digest` is a hash's AlgorithmIdentifier, `mask` that within MGF1."""
    number = der(0x02, salt.to_bytes(salt.bit_length() // 8 + 1, "big", signed=True))
    length = der(0xA2, number) if salt != 20 else b""  # which DER leaves out
    return der(0x30, der(0xA0, digest), der(0xA1, der(0x30, MGF1, mask)), length, *more)


RSA_KEY = rsa.generate_private_key(65537, 2048)
RSA_CA = make("rsa ca", ROOT, Wish(ca=True), key=RSA_KEY)
RSA_LEAF = make("leaf", RSA_CA, Wish(ocsp=["http://ocsp.example/"]))
RSA_LINK = link_of(*RSA_LEAF.path[:2])


def pss_answer(params: bytes, how: hashes.HashAlgorithm, salt: int = 32) -> bytes:
    data = ocsp.load_der_ocsp_response(answer(RSA_LEAF)).tbs_response_bytes
    signature = RSA_KEY.sign(data, padding.PSS(padding.MGF1(how), salt), how)
    basic = der(0x30, data, der(0x30, oid("1.2.840.113549.1.1.10"), params), der(0x03, b"\x00", signature))
    inside = der(0x30, oid("1.3.6.1.5.5.7.48.1.1"), der(0x04, basic))
    return der(0x30, b"\x0a\x01\x00", der(0xA0, inside))


@pytest.mark.parametrize("null", [True, False])
@pytest.mark.parametrize("salt", [0, 20, 32, 222])
@pytest.mark.parametrize(("bits", "how"), [(256, hashes.SHA256()), (384, hashes.SHA384())])
def test_pss_is_believed(bits: int, how: hashes.HashAlgorithm, salt: int, null: bool) -> None:
    name = hashed(SHA2[bits], null=null)
    if salt > 256 - how.digest_size - 2:
        salt = 256 - how.digest_size - 2  # the most that the key has room for
    found = read_answer(pss_answer(parameters(name, name, salt), how, salt), RSA_LINK, NOW)
    assert found.state is State.GOOD


GOOD_256 = hashed(SHA2[256])


@pytest.mark.parametrize(
    ("params", "text"),
    [
        (parameters(hashed(SHA1), hashed(SHA1)), "no OCSP answer"),
        (parameters(hashed(SHA3), hashed(SHA3)), "another hash than SHA-2"),
        (parameters(GOOD_256, hashed(SHA3)), "another hash than SHA-2"),
        (parameters(GOOD_256, hashed(SHA2[512])), "two different ones"),
        (der(0x30), "another hash than SHA-2"),
        (b"", "another hash than SHA-2"),
        (b"\x05\x00", "no OCSP answer"),
        (der(0x30, der(0xA0, GOOD_256)), "two different ones"),
        (parameters(GOOD_256, GOOD_256, 31), "signature is not by"),
        (parameters(GOOD_256, GOOD_256, -1), "no OCSP answer"),
        (parameters(GOOD_256, GOOD_256, 513), "signature is not by|no OCSP answer"),
        (parameters(GOOD_256, GOOD_256, 32, der(0xA3, b"\x02\x01\x02")), "a way that is not used"),
        (parameters(GOOD_256, GOOD_256, 32, der(0xA4, b"\x02\x01\x01")), "no OCSP answer"),
    ],
    ids=range(13),
)
def test_pss_with_other_parameters_is_not_believed(params: bytes, text: str) -> None:
    with pytest.raises(UnusableError, match=text):
        read_answer(pss_answer(params, hashes.SHA256()), RSA_LINK, NOW)


def test_pss_by_an_elliptic_curve_s_key_is_not_believed() -> None:
    wrong = link_of(LEAF.der, CA.der)
    with pytest.raises(UnusableError):
        read_answer(pss_answer(parameters(GOOD_256, GOOD_256), hashes.SHA256()), wrong, NOW)


def test_pss_of_other_bytes_is_not_believed() -> None:
    good = pss_answer(parameters(GOOD_256, GOOD_256), hashes.SHA256())
    with pytest.raises(UnusableError, match="signature is not by"):
        read_answer(good[:-1] + bytes([good[-1] ^ 1]), RSA_LINK, NOW)


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_no_bytes_in_the_place_of_pss_parameters_do_more_than_fail(data: st.DataObject) -> None:
    good = parameters(GOOD_256, GOOD_256)
    at = data.draw(st.integers(0, len(good) - 1))
    spoilt = good[:at] + data.draw(st.binary(max_size=6)) + good[at + data.draw(st.integers(0, 4)) :]
    try:
        found = read_answer(pss_answer(spoilt, hashes.SHA256()), RSA_LINK, NOW)
    except UnusableError:
        return
    assert found.state is State.GOOD
