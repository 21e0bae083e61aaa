"""RFC 9525 section 6 as a table: what is wanted x what the certificate says."""

import pytest

from relay.policy.names import matching_name
from tests.unit.policy.builders import certificate


@pytest.mark.parametrize(
    ("wanted", "presented", "found"),
    [
        ("mail.contoso.com", "mail.contoso.com", "mail.contoso.com"),
        ("mail.contoso.com", "*.contoso.com", "*.contoso.com"),
        ("contoso.com", "*.contoso.com", ""),
        ("a.mail.contoso.com", "*.contoso.com", ""),
        ("mail.contoso.com", "*.com", ""),
        ("contoso.com", "*.com", ""),
        ("mail.contoso.com", "m*.contoso.com", ""),
        ("mail.contoso.com", "*", ""),
        ("mail.contoso.com", "mail.*.com", ""),
        ("*.contoso.com", "mail.contoso.com", "mail.contoso.com"),
        ("*.contoso.com", "*.contoso.com", "*.contoso.com"),
        ("*.contoso.com", "a.mail.contoso.com", ""),
        ("*.contoso.com", "contoso.com", ""),
        ("*.contoso.com", "*.mail.contoso.com", ""),
        ("*.contoso.com", "evilcontoso.com", ""),
        ("*.internal", "mail.internal", "mail.internal"),
        ("*.internal", "*.internal", "*.internal"),
        ("mail.internal", "*.internal", ""),
        ("192.0.2.1", "192.0.2.1", "192.0.2.1"),
        ("192.0.2.1", "192.0.2.2", ""),
        ("2001:db8::1", "2001:db8::1", "2001:db8::1"),
        ("mail.contoso.com", "mail.contoso.com.evil.example", ""),
    ],
)
def test_row(wanted: str, presented: str, found: str) -> None:
    assert matching_name([wanted], certificate(presented)) == found


def test_an_address_never_matches_a_dns_name_of_the_same_letters() -> None:
    leaf = certificate("mail.contoso.com", "192.0.2.1")
    assert matching_name(["192.0.2.9"], leaf) == ""
    assert matching_name(["other.example", "192.0.2.1"], leaf) == "192.0.2.1"


def test_nothing_wanted_matches_nothing() -> None:
    assert matching_name([], certificate("mail.contoso.com")) == ""


def test_a_certificate_without_names_matches_nothing() -> None:
    assert matching_name(["mail.contoso.com"], certificate()) == ""
