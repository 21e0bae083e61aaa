"""Where a certificate says that its revocation can be found out, and what of that is left out."""

import pytest
from cryptography import x509

from relay.tls.revocation.links import MOST_ADDRESSES, UnusableError, link_of
from tests.revoking import DAY, NO_REV_AVAIL, NOW, Wish, make, name, point, root

CA = root()
HTTP = "http://crl.example/a.crl"


def test_the_addresses_of_a_certificate() -> None:
    link = link_of(*make("leaf", CA, Wish(crl=[HTTP, "https://b.example/"], ocsp=["http://ocsp.example/"])).path)
    assert link.crl_urls == (HTTP, "https://b.example/")
    assert link.responders == ("http://ocsp.example/",)
    assert (link.exempt, link.left_out, link.is_ca) == ("", (), False)


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("ldap://x.example/cn=a", "ldap is not used"),
        ("file:///etc/passwd", "file is not used"),
        ("http://user@x.example/", "not an address"),
        ("http:///x", "not an address"),
        ("http://x.example:99999/", "not an address"),
        ("http://x.example/a b", "not an address"),
        ("http://x.example/" + "a" * 1000, "not an address"),
    ],
)
def test_addresses_that_are_left_out(url: str, why: str) -> None:
    link = link_of(*make("leaf", CA, Wish(crl=[url, HTTP], ocsp=[url])).path)
    assert link.crl_urls == (HTTP,)
    assert link.responders == ()
    assert all(why in each for each in link.left_out)
    assert len(link.left_out) == 2


def test_points_that_prove_nothing_are_left_out() -> None:
    indirect = point("http://i.example/", crl_issuer=[x509.DirectoryName(name("else"))])
    some = point("http://s.example/", reasons=frozenset([x509.ReasonFlags.key_compromise]))
    link = link_of(*make("leaf", CA, Wish(points=[indirect, some, point(HTTP)])).path)
    assert link.crl_urls == (HTTP,)
    assert ["indirect" in link.left_out[0], "some reasons" in link.left_out[1]] == [True, True]


def test_addresses_without_end_are_cut_short() -> None:
    many = [f"http://{number}.example/" for number in range(50)]
    link = link_of(*make("leaf", CA, Wish(crl=many, ocsp=many)).path)
    assert len(link.crl_urls) == len(link.responders) == MOST_ADDRESSES


def test_who_needs_no_answer() -> None:
    short = Wish(before=NOW, after=NOW + 7 * DAY)
    assert "seven days" in link_of(*make("leaf", CA, short).path).exempt
    assert link_of(*make("leaf", CA, Wish(before=NOW, after=NOW + 8 * DAY)).path).exempt == ""
    with_crl = Wish(before=NOW, after=NOW + 2 * DAY, crl=[HTTP])
    assert link_of(*make("leaf", CA, with_crl).path).exempt == ""
    assert "RFC 9608" in link_of(*make("leaf", CA, Wish(extensions=[(NO_REV_AVAIL, False)])).path).exempt


def test_a_crl_that_two_issuers_name_is_two() -> None:
    one, two = make("ca", CA, Wish(ca=True)), make("ca", CA, Wish(ca=True))
    keys = {link_of(*make("leaf", each, Wish(crl=[HTTP])).path[:2]).crl_key(HTTP) for each in (one, one, two)}
    assert len(keys) == 2


def test_what_cannot_be_read() -> None:
    with pytest.raises(UnusableError):
        link_of(b"nothing", CA.der)
