"""CRLs: what is believed, what is not, and that finding a serial number by its bytes finds what the library finds."""

import random
from datetime import timedelta
from typing import Any

import pytest
from cryptography import x509
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.mail.revocation import By, State
from relay.tls.revocation.crl import MAX_CRL, look_up, read_crl
from relay.tls.revocation.links import UnusableError, link_of
from tests.revoking import (
    DAY,
    HOUR,
    NOW,
    UNKNOWN_EXTENSION,
    CrlWish,
    Held,
    Wish,
    crl,
    make,
    name,
    point,
    root,
    scope,
    uri,
)

URL = "http://crl.example/a.crl"
ROOT = root()
CA = make("ca", ROOT, Wish(ca=True, crl=["http://crl.example/root.crl"]))
LEAF = make("leaf", CA, Wish(crl=[URL]))
OTHER = make("ca", ROOT, Wish(ca=True))  # of the same name, with another key


def status(wish: CrlWish, leaf: Held = LEAF, url: str = URL, **more: Any) -> Any:
    link = link_of(*leaf.path[:2])
    found = read_crl(more.get("data") or crl(leaf.above[0], wish), link.issuer)
    return look_up(found, link, url, more.get("now", NOW))


@pytest.mark.parametrize("pem", [False, True])
def test_a_certificate_that_is_not_listed_is_good(pem: bool) -> None:
    found = status(CrlWish(revoked=[1, 2, LEAF.serial + 1], pem=pem))
    assert (found.state, found.by, found.url) == (State.GOOD, By.CRL, URL)
    assert (found.this_update, found.next_update) == (NOW - HOUR, NOW + 7 * DAY)


def test_one_that_is_listed_is_revoked_and_says_when_and_why() -> None:
    found = status(CrlWish(revoked=[1, LEAF.serial, 2]))
    assert (found.state, found.reason, found.revoked_at) == (State.REVOKED, "keyCompromise", NOW - 2 * HOUR)
    assert "revoked on" in found.text
    bare = status(CrlWish(revoked=[LEAF.serial], reason=None))
    assert (bare.state, bare.reason) == (State.REVOKED, "")


@pytest.mark.parametrize(
    ("wish", "why"),
    [
        (CrlWish(signer=OTHER), "signature"),
        (CrlWish(issuer=name("somebody else")), "not by the certificate's issuer"),
        (CrlWish(extensions=[(UNKNOWN_EXTENSION, True)]), "critical extension"),
        (CrlWish(extensions=[(x509.DeltaCRLIndicator(1), True)]), "delta"),
        (CrlWish(extensions=[(scope(only_contains_user_certs=True, indirect_crl=True), True)]), "indirect"),
        (
            CrlWish(extensions=[(scope(only_some_reasons=frozenset([x509.ReasonFlags.key_compromise])), True)]),
            "some reasons",
        ),
        (CrlWish(extensions=[(scope(only_contains_attribute_certs=True), True)]), "attribute"),
        (CrlWish(extensions=[(scope(only_contains_ca_certs=True), True)]), "CA certificates only"),
        (CrlWish(extensions=[(scope(full_name=uri("http://crl.example/b.crl")), True)]), "another distribution point"),
        (CrlWish(next_update=NOW - timedelta(minutes=6)), "ended"),
        (CrlWish(this_update=NOW + timedelta(minutes=6)), "clock"),
    ],
    ids=lambda each: each if isinstance(each, str) else "",
)
def test_what_says_nothing(wish: CrlWish, why: str) -> None:
    with pytest.raises(UnusableError, match=why):
        status(wish)


def test_clocks_may_differ_by_five_minutes() -> None:
    assert status(CrlWish(next_update=NOW - timedelta(minutes=4))).state is State.GOOD
    assert status(CrlWish(this_update=NOW + timedelta(minutes=4))).state is State.GOOD


def test_an_unknown_extension_that_is_not_critical_is_nothing() -> None:
    wish = CrlWish(extensions=[(UNKNOWN_EXTENSION, False), (x509.CRLNumber(7), False)])
    assert status(wish).state is State.GOOD


def test_scopes_that_take_the_certificate_in() -> None:
    assert status(CrlWish(extensions=[(scope(full_name=uri(URL)), True)])).state is State.GOOD
    assert status(CrlWish(extensions=[(scope(only_contains_user_certs=True), True)])).state is State.GOOD
    for_users = CrlWish(extensions=[(scope(only_contains_user_certs=True), True)])
    with pytest.raises(UnusableError, match="end-entity"):
        status(for_users, leaf=CA, url="http://crl.example/root.crl")


def test_a_point_with_several_names_may_be_named_by_any() -> None:
    leaf = make("leaf", CA, Wish(points=[point("ldap://crl.example/x", URL)]))
    wish = CrlWish(extensions=[(scope(full_name=uri("ldap://crl.example/x")), True)])
    assert status(wish, leaf=leaf).state is State.GOOD


def test_an_issuer_whose_key_may_not_sign_crls() -> None:
    usage = x509.KeyUsage(True, False, False, False, False, True, False, False, False)
    issuer = make("ca", ROOT, Wish(ca=True, extensions=[(usage, True)]))
    with pytest.raises(UnusableError, match="may not sign CRLs"):
        status(CrlWish(), leaf=make("leaf", issuer, Wish(crl=[URL])))


def test_what_is_no_crl() -> None:
    for data in (b"", b"<html>", b"-----BEGIN X509 CRL-----", crl(CA)[:-1], LEAF.der, b"\x30\x80" * 1000):
        with pytest.raises(UnusableError):
            read_crl(data, CA.certificate)
    with pytest.raises(UnusableError, match="larger"):
        read_crl(bytes(MAX_CRL + 1), CA.certificate)


SERIALS = st.integers(min_value=1, max_value=2**159 - 1) | st.sampled_from(
    [1, 127, 128, 255, 256, 2**63, 2**127, 2**158]
)


@settings(max_examples=60, deadline=None)
@given(asked=SERIALS, listed=st.lists(SERIALS, max_size=8), among=st.booleans())
def test_found_by_its_bytes_is_found_by_the_library(asked: int, listed: list[int], among: bool) -> None:
    serials = [*listed, asked] if among else [each for each in listed if each != asked]
    random.Random(asked).shuffle(serials)
    leaf = make("leaf", CA, Wish(crl=[URL], serial=asked))
    data = crl(CA, CrlWish(revoked=serials))
    known = x509.load_der_x509_crl(data).get_revoked_certificate_by_serial_number(asked)
    assert (status(CrlWish(), leaf=leaf, data=data).state is State.REVOKED) == (known is not None) == among


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=300), st.integers(min_value=0, max_value=200))
def test_any_bytes_are_a_crl_or_unusable(noise: bytes, at: int) -> None:
    good = crl(CA)
    for data in (noise, good[:at] + noise + good[at + len(noise) :]):
        try:
            read_crl(data, CA.certificate)
        except UnusableError:
            continue
        assert data == good
