import pytest

from relay.mail.tls import TlsFailure
from relay.report.remedy import explanation, remedy


@pytest.mark.parametrize("failure", TlsFailure)
def test_every_failure_has_a_remedy_and_an_explanation(failure: TlsFailure) -> None:
    text = remedy(failure, connector="contoso-out", partner="contoso.com", hop="mx.contoso.com:25")
    assert "contoso.com" in text
    assert "{" not in text.replace("{recipient_domain:", "")
    told = explanation(failure, connector="contoso-out", partner="contoso.com")
    assert "contoso.com" in told
    assert "{" not in told
    assert "  " not in text + told


def test_a_remedy_names_hop_partner_and_connector() -> None:
    text = remedy(
        TlsFailure.CERTIFICATE_HOST_MISMATCH, connector="contoso-out", partner="contoso.com", hop="mx.contoso.com:25"
    )
    assert text.startswith("mx.contoso.com:25 shows a certificate for other names")
    assert "add it to `names` of connector contoso-out" in text
    assert '{recipient_domain: contoso.com, allow: encryption, until: DATE, reason: "..."}' in text


def test_without_a_connector_or_a_hop() -> None:
    text = remedy(TlsFailure.TLS_VERSION_TOO_LOW, connector="default", partner="contoso.com")
    assert "the mail server of contoso.com speaks only" in text
    assert "`tls_version` of `defaults.outbound`" in text
    told = explanation(TlsFailure.STARTTLS_NOT_SUPPORTED, connector="default", partner="contoso.com")
    assert told == "contoso.com's mail server did not offer the encryption that this mail system requires."


@pytest.mark.parametrize("failure", [TlsFailure.CERTIFICATE_REVOKED, TlsFailure.PIN_MISMATCH])
def test_no_way_around_where_a_key_may_be_in_wrong_hands(failure: TlsFailure) -> None:
    assert "exceptions" not in remedy(failure, connector="a", partner="contoso.com")
