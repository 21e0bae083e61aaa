"""What happened to a message that TLS kept from being delivered, for its sender, who knows nothing of TLS. Values only.

One row per TlsFailure; a test holds the table complete. What an admin can do about it is `relay.policy.remedy`.
"""

from collections.abc import Mapping

from relay.config.models import DEFAULT
from relay.mail.tls import TlsFailure as F

_EXPLANATIONS: Mapping[F, str] = {
    F.STARTTLS_NOT_SUPPORTED: "{partner}'s mail server did not offer the encryption that {connector} requires.",
    F.HANDSHAKE_FAILED: (
        "The encrypted connection to {partner}'s mail server could not be set up, and {connector} does not let the "
        "message go without."
    ),
    F.CERTIFICATE_HOST_MISMATCH: (
        "{partner}'s mail server showed a certificate for another name than the one that {connector} requires."
    ),
    F.CERTIFICATE_EXPIRED: (
        "{partner}'s mail server showed a certificate that is out of date; {connector} requires a valid one."
    ),
    F.CERTIFICATE_NOT_TRUSTED: (
        "{partner}'s mail server showed a certificate from an issuer that {connector} does not trust."
    ),
    F.CERTIFICATE_REVOKED: (
        "{partner}'s mail server showed a certificate that its issuer has revoked; {connector} requires a valid one."
    ),
    F.REVOCATION_UNAVAILABLE: (
        "Whether {partner}'s mail server's certificate is still valid could not be found out as {connector} requires."
    ),
    F.PIN_MISMATCH: "{partner}'s mail server showed another key than the one that {connector} expects.",
    F.TLS_VERSION_TOO_LOW: (
        "{partner}'s mail server offered only an outdated version of encryption; {connector} requires a newer one."
    ),
    F.VALIDATION_FAILURE: "The identity of {partner}'s mail server could not be checked as {connector} requires.",
    F.REQUIRETLS_NOT_SUPPORTED: (
        "The message asks for encryption all the way (REQUIRETLS), and {partner}'s mail server cannot promise it."
    ),
    F.TLSA_INVALID: (
        "{partner} publishes in DNS which certificate its mail servers have (DANE), and the server showed another one."
    ),
    F.DNSSEC_INVALID: (
        "{partner} signs its DNS, and the signatures did not verify, so its mail servers could not be found safely."
    ),
    F.DANE_REQUIRED: "The certificate that {partner} should publish in DNS (DANE) was not found there.",
    F.STS_POLICY_FETCH_ERROR: (
        "{partner} publishes rules for encryption to its mail servers (MTA-STS), and they could not be fetched."
    ),
    F.STS_POLICY_INVALID: (
        "{partner} publishes rules for encryption to its mail servers (MTA-STS), and they could not be met."
    ),
    F.STS_WEBPKI_INVALID: (
        "{partner} publishes rules for encryption to its mail servers (MTA-STS), and their origin could not be "
        "verified."
    ),
}


def explanation(failure: F, *, connector: str, partner: str) -> str:
    """One sentence. `partner` is the recipient domain; the connector is named, so that an admin who is sent this finds it."""
    asks = "this mail system" if connector == DEFAULT else f"connector {connector}"
    return _EXPLANATIONS[failure].format(partner=partner, connector=asks)
