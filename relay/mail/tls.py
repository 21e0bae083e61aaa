"""Facts about one TLS connection, and the one vocabulary of ways in which it can fail a plan.

Nothing here checks anything: `relay.tls` collects the facts, `relay.policy.verdict` judges them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType

from relay.mail.revocation import Statuses

SYSTEM_TRUST = "system"

# Weakest first. OpenSSL spells them so too.
TLS_VERSIONS = ("TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3")


class TlsFailure(StrEnum):
    """Result types of RFC 8460 section 4.3, then our own."""

    STARTTLS_NOT_SUPPORTED = "starttls-not-supported"
    CERTIFICATE_HOST_MISMATCH = "certificate-host-mismatch"
    CERTIFICATE_EXPIRED = "certificate-expired"
    CERTIFICATE_NOT_TRUSTED = "certificate-not-trusted"
    VALIDATION_FAILURE = "validation-failure"
    TLSA_INVALID = "tlsa-invalid"
    DNSSEC_INVALID = "dnssec-invalid"
    DANE_REQUIRED = "dane-required"
    STS_POLICY_FETCH_ERROR = "sts-policy-fetch-error"
    STS_POLICY_INVALID = "sts-policy-invalid"
    STS_WEBPKI_INVALID = "sts-webpki-invalid"
    CERTIFICATE_REVOKED = "certificate-revoked"
    REVOCATION_UNAVAILABLE = "revocation-unavailable"
    PIN_MISMATCH = "pin-mismatch"
    TLS_VERSION_TOO_LOW = "tls-version-too-low"
    REQUIRETLS_NOT_SUPPORTED = "requiretls-not-supported"
    HANDSHAKE_FAILED = "handshake-failed"


@dataclass(frozen=True, slots=True)
class Certificate:
    """One presented certificate. `sha256` is hex over the DER; `spki_sha256` is a pin: "sha256:" and base64 (RFC 7469 section 2.4).

    `dns_names` (lower case) and `ip_names` come from the SAN only: the common name never counts (RFC 9525 section 6.3).
    """

    subject: str
    issuer: str
    dns_names: tuple[str, ...]
    ip_names: tuple[str, ...]
    not_before: datetime
    not_after: datetime
    sha256: str
    spki_sha256: str
    der: bytes = field(default=b"", repr=False)

    @property
    def names(self) -> tuple[str, ...]:
        return self.dns_names + self.ip_names


@dataclass(frozen=True, slots=True)
class Trusted:
    """A path from the leaf to an anchor of the trust store was found, valid now. `until`: when its first certificate ends.

    `path` is it in DER, from the leaf to the anchor.
    """

    anchor: str
    until: datetime
    path: tuple[bytes, ...] = field(default=(), repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class TrustedLeaf(Trusted):
    """The leaf itself, or its key, is what was asked for: its names and dates do not count (RFC 7671 section 5.1)."""


@dataclass(frozen=True, slots=True)
class Untrusted:
    failure: TlsFailure
    text: str


@dataclass(frozen=True, slots=True)
class Undecided:
    """The trust data could not be read. Neither a pass nor a refusal for good: try again later."""

    text: str


PathResult = Trusted | Untrusted | Undecided


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class TlsEvidence:
    """What a TLS connection really was. `chain` is what the peer presented, leaf first, whether it verifies or not.

    `paths` holds the result of a path check per trust that someone asked about: "system", a PEM file's absolute path, or `Tlsa.trust`.
    `errors` is OpenSSL's own opinion during the handshake, for diagnosis only. `sni` is "" where none was sent.
    `revocation` says of each trust that was asked about so whether the certificates of the path to it are revoked, the anchor apart.
    `staple` is the OCSP answer that came in the handshake, DER, until it has been looked at; b"" for none.
    `resumed`: the handshake resumed an earlier session, and the chain is what was presented then.
    Compared by identity: two connections are two pieces of evidence, however alike.
    """

    version: str
    cipher: str
    group: str
    sni: str = ""
    chain: tuple[Certificate, ...] = ()
    errors: tuple[str, ...] = ()
    paths: Mapping[str, PathResult] = field(default_factory=lambda: MappingProxyType({}))
    resumed: bool = False
    revocation: Mapping[str, Statuses] = field(default_factory=lambda: MappingProxyType({}))
    staple: bytes = field(default=b"", repr=False)

    @property
    def leaf(self) -> Certificate | None:
        """None where the peer showed no certificate (clients often do not)."""
        return self.chain[0] if self.chain else None
