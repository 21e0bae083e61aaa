"""OCSP answers: by the issuer and its delegates, and all that must not be believed."""

from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
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
