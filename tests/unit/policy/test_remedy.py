"""What the admin is told to do, per TLS failure."""

import pytest

from relay.mail.tls import TlsFailure
from relay.policy.remedy import remedy


@pytest.mark.parametrize("failure", TlsFailure)
def test_every_failure_has_a_remedy(failure: TlsFailure) -> None:
    text = remedy(failure, hop="mx.contoso.com:25", connector="contoso-out", domain="contoso.com")
    assert "contoso.com" in text
    assert "{" not in text.replace("{recipient_domain:", "")
    assert "  " not in text


def test_a_remedy_names_hop_partner_and_connector() -> None:
    text = remedy(
        TlsFailure.CERTIFICATE_HOST_MISMATCH, hop="mx.contoso.com:25", connector="contoso-out", domain="contoso.com"
    )
    assert text.startswith("mx.contoso.com:25 shows a certificate for other names")
    assert "add it to `names` of connector contoso-out" in text
    assert '{recipient_domain: contoso.com, allow: encryption, until: DATE, reason: "..."}' in text


def test_without_a_connector_or_a_hop() -> None:
    text = remedy(TlsFailure.TLS_VERSION_TOO_LOW, hop="", connector="default", domain="contoso.com")
    assert "the mail server of contoso.com speaks an older version" in text
    assert "`tls_version` of `defaults.outbound`" in text


@pytest.mark.parametrize("failure", TlsFailure)
def test_no_exception_is_advised_where_mail_does_not_wait(failure: TlsFailure) -> None:
    text = remedy(failure, hop="mx.contoso.com:25", connector="a", domain="contoso.com", waits=False)
    assert "exceptions" not in text
    assert text == text.strip()


@pytest.mark.parametrize("failure", [TlsFailure.CERTIFICATE_REVOKED, TlsFailure.PIN_MISMATCH])
def test_no_way_around_where_a_key_may_be_in_wrong_hands(failure: TlsFailure) -> None:
    assert "exceptions" not in remedy(failure, hop="", connector="a", domain="contoso.com")
