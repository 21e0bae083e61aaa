import pytest

from relay.mail.tls import TlsFailure
from relay.report.explanation import explanation


@pytest.mark.parametrize("failure", TlsFailure)
def test_every_failure_has_an_explanation(failure: TlsFailure) -> None:
    told = explanation(failure, connector="contoso-out", partner="contoso.com")
    assert "contoso.com" in told
    assert "{" not in told
    assert "  " not in told


def test_without_a_connector() -> None:
    told = explanation(TlsFailure.STARTTLS_NOT_SUPPORTED, connector="default", partner="contoso.com")
    assert told == "contoso.com's mail server did not offer the encryption that this mail system requires."
