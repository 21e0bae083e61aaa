"""What an admin can do about mail that waits because of TLS. Words for people; decides nothing."""

from relay.mail.tls import TlsFailure

_WEAKER = "if it must go out unprotected meanwhile, add an entry under `exceptions` for {domain}, which ends by itself"
_REMEDIES = {
    TlsFailure.STARTTLS_NOT_SUPPORTED: "{hop} does not offer STARTTLS: ask its admin to switch TLS on; " + _WEAKER,
    TlsFailure.HANDSHAKE_FAILED: (
        "{hop} offers STARTTLS and then breaks it; somebody on the way may be doing that. Look with "
        "`openssl s_client -starttls smtp -connect {hop}`; if the server itself is at fault and its admin cannot mend it, "
        "`plaintext: if-tls-fails` at level opportunistic, or an entry under `exceptions` for {domain}, lets mail through in clear"
    ),
    TlsFailure.CERTIFICATE_HOST_MISMATCH: (
        "the certificate of {hop} has another name: check it with the partner, then put the right one under `names` of connector {connector}"
    ),
    TlsFailure.CERTIFICATE_EXPIRED: "the certificate of {hop} is not valid now: ask its admin to renew it, and check our clock; "
    + _WEAKER,
    TlsFailure.CERTIFICATE_NOT_TRUSTED: (
        "the certificate of {hop} does not lead to the `ca` (or `trust`) of connector {connector}: check with the partner which CA issues it"
    ),
    TlsFailure.CERTIFICATE_REVOKED: "the certificate of {hop} was revoked: ask its admin for a new one; " + _WEAKER,
    TlsFailure.PIN_MISMATCH: (
        "{hop} has a key that is not pinned: ask the partner by another way whether it is theirs, then add its pin to connector {connector}"
    ),
    TlsFailure.TLS_VERSION_TOO_LOW: "{hop} speaks an older TLS than connector {connector} asks: ask its admin to update it; "
    + _WEAKER,
    TlsFailure.VALIDATION_FAILURE: "the certificate of {hop} could not be judged: see the text of the deferral, and `relay check`",
}
_ELSE = (
    "{hop} does not satisfy what connector {connector} or the domain's own policy asks: see the text of the deferral; "
    + _WEAKER
)


def remedy(failure: TlsFailure, *, hop: str, connector: str, domain: str) -> str:
    return _REMEDIES.get(failure, _ELSE).format(hop=hop or "the hop", connector=connector, domain=domain)
