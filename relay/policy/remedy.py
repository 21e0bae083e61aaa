"""What an admin can do about mail that TLS keeps waiting: for the log (`tls-withheld`), `relay queue show` and its JSON alike.

One row per TlsFailure; a test holds the table complete. A remedy never advises to lower a level for good: where mail cannot wait, it names
the entry under `exceptions` that ends by itself.
"""

from collections.abc import Mapping
from typing import Any

from relay.config.models import DEFAULT
from relay.mail.tls import TlsFailure as F

_REMEDIES: Mapping[F, str] = {
    F.STARTTLS_NOT_SUPPORTED: (
        "{hop} does not offer STARTTLS. Ask {partner} to switch TLS on there, or route to a host that has it. "
        "{exception_plaintext}"
    ),
    F.HANDSHAKE_FAILED: (
        "{hop} offers TLS and the handshake breaks: something on the way may be interfering. Try it from elsewhere "
        "(openssl s_client -starttls smtp -connect {hop}), ask {partner} what changed, and compare protocol versions."
        " {exception_plaintext}"
    ),
    F.CERTIFICATE_HOST_MISMATCH: (
        "{hop} shows a certificate for other names (relay trace shows which). Ask {partner} whether the host or the "
        "certificate is wrong; if the new name is right, add it to `names` of {connector}. {exception_encryption}"
    ),
    F.CERTIFICATE_EXPIRED: (
        "{hop} shows a certificate that is out of date (relay trace shows its dates). Check this machine's clock, "
        "then ask {partner} to renew it. {exception_encryption}"
    ),
    F.CERTIFICATE_NOT_TRUSTED: (
        "{hop} shows a certificate whose issuer is not trusted, or not the whole chain (relay trace shows it). Get "
        "the CA's certificate from {partner} by a safe way and name it as `ca` of {connector}. {exception_encryption}"
    ),
    F.CERTIFICATE_REVOKED: (
        "The CA has revoked the certificate that {hop} shows: its key may be in wrong hands. Ask {partner} for a new "
        "one; do not go around this."
    ),
    F.REVOCATION_UNAVAILABLE: (
        "Whether the certificate of {hop} is revoked could not be found out (relay trace shows why). Run relay certs check"
        " {hop}: it says which CRL and OCSP addresses must be reachable from here, and which host and port to open. "
        "{exception_encryption}"
    ),
    F.PIN_MISMATCH: (
        "{hop} shows a key that is not pinned (relay trace shows its spki_sha256). Confirm the new key with {partner}"
        " by telephone, add it to `pins` of {connector}, and run relay reload. If they know nothing of a new key, "
        "somebody is in between."
    ),
    F.TLS_VERSION_TOO_LOW: (
        "{hop} speaks an older version of TLS than is asked. Ask {partner} to enable a newer one (TLS 1.3, or 1.2 at least); until then "
        "`tls_version` of {connector} may name the version they have."
    ),
    F.VALIDATION_FAILURE: (
        "The certificate of {hop} could not be judged, or the MTA-STS policy of {partner} does not list {hop} (relay explain says which). "
        "Run relay check: a file named by `ca` or `trust` may be missing or unreadable. If it is the policy, tell {partner}: it says that "
        "mail must wait."
    ),
    F.REQUIRETLS_NOT_SUPPORTED: (
        "The message asks for TLS all the way (REQUIRETLS) and {hop} cannot promise it. Only its sender can decide to"
        " send without."
    ),
    F.TLSA_INVALID: (
        "The TLSA record published for {hop} does not match its certificate. Tell {partner}: mail from every DANE "
        "sender is stuck."
    ),
    F.DNSSEC_INVALID: (
        "The DNSSEC signatures for {partner} do not verify. Check your validating resolver with another signed "
        "domain, then tell {partner}."
    ),
    F.DANE_REQUIRED: (
        "{partner} has no usable TLSA record though one is required. Tell them, or check the resolver named under "
        "`dns`."
    ),
    F.STS_POLICY_FETCH_ERROR: (
        "The MTA-STS policy of {partner} could not be fetched. Check that HTTPS to mta-sts.{partner} works from here,"
        " then tell them."
    ),
    F.STS_POLICY_INVALID: (
        "The MTA-STS policy of {partner} is not valid, or is not one to be enforced though {connector} requires one. Tell them."
    ),
    F.STS_WEBPKI_INVALID: (
        "The certificate of mta-sts.{partner} is not valid, so their policy cannot be read. Tell them."
    ),
}

_EXCEPTION = (
    "If mail cannot wait, write under `exceptions`: "
    '{{recipient_domain: {partner}, allow: {allow}, until: DATE, reason: "..."}}; it ends by itself.'
)


def remedy(failure: F, *, hop: str, connector: str, domain: str, waits: bool = True) -> str:
    """One sentence or several. `domain` is the recipient's, `hop` "host:port" or "" where none was reached. `waits`: mail does; where it
    goes all the same, nothing is said of exceptions."""
    names = {
        "connector": "`defaults.outbound`" if connector == DEFAULT else f"connector {connector}",
        "partner": domain,
        "hop": hop or f"the mail server of {domain}",
    }
    for allow in ("plaintext", "encryption"):
        names[f"exception_{allow}"] = _EXCEPTION.format(partner=domain, allow=allow) if waits else ""
    return _REMEDIES[failure].format(**names).rstrip()


def remedy_for(recipient: Mapping[str, Any]) -> str:
    """What the admin can do for a recipient, as `relay queue` lists it, that TLS keeps waiting; "" where TLS is not the reason."""
    last = recipient.get("last") or {}
    failure = last.get("failure")
    if failure not in set(F):
        return ""
    domain = recipient["address"].rpartition("@")[2]
    connector = recipient.get("connector") or "default"
    return remedy(F(failure), hop=last.get("hop") or "", connector=connector, domain=domain)
