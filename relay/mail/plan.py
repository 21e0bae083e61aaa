"""What one delivery to one host must satisfy: a set of demands, each with its source (design: "a plan is a set of demands").

Only the nouns. `relay.policy.plan` chooses a plan, `relay.policy.verdict` judges evidence against it; an unknown demand fails closed.
"""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

from relay.mail.published import PolicyKind, TlsaRecord
from relay.mail.revocation import Revocation
from relay.mail.tls import TlsFailure


class Level(StrEnum):
    """How much TLS an outbound connector asks, weakest first."""

    OPPORTUNISTIC = "opportunistic"
    ENCRYPTION = "encryption"
    CERTIFICATE = "certificate"
    DOMAIN = "domain"

    @property
    def rank(self) -> int:
        return tuple(Level).index(self)


class Plaintext(StrEnum):
    """When an opportunistic delivery may go in clear, strictest first."""

    NEVER = "never"
    IF_NOT_OFFERED = "if-not-offered"
    IF_TLS_FAILS = "if-tls-fails"

    @property
    def rank(self) -> int:
        return tuple(Plaintext).index(self)


@dataclass(frozen=True, slots=True)
class Demand:
    """`source` is one of `connector NAME`, `default`, `exception`, `dane`, `mta-sts`, `requiretls`."""

    source: str


@dataclass(frozen=True, slots=True)
class Encryption(Demand):
    """TLS, with any certificate."""


@dataclass(frozen=True, slots=True)
class Pkix(Demand):
    """A chain to `trust` ("system" or a PEM file's path), and one of `names` in the leaf's SAN. No `names`: any name will do."""

    trust: str
    names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Pins(Demand):
    """The leaf's SPKI is one of `pins`."""

    pins: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TlsVersion(Demand):
    """Where there is TLS, at least this version of it."""

    minimum: str


@dataclass(frozen=True, slots=True)
class Tlsa(Demand):
    """One of the usable `records` matches the presented chain (RFC 7672 section 3). `names` count for usage DANE-TA(2) only.

    `base` is the TLSA base domain, whose records these are.
    """

    base: str
    records: tuple[TlsaRecord, ...]
    names: tuple[str, ...]

    @property
    def trust(self) -> str:
        """Where evidence has what came of these very records, in its `paths`."""
        digest = hashlib.sha256("\n".join(map(str, self.records)).encode()).hexdigest()
        return f"tlsa {self.base} {digest[:16]}"


@dataclass(frozen=True, slots=True)
class StsMx(Demand):
    """The MX host is one that the MTA-STS policy lists (RFC 8461 section 4.1)."""

    host: str
    patterns: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RequireTls(Demand):
    """The hop offers REQUIRETLS inside TLS (RFC 8689 section 4.2.1). `vouched` says who vouches for the host's name, "" where nobody does."""

    vouched: str


@dataclass(frozen=True, slots=True)
class Unrevoked(Demand):
    """No certificate of the path to `trust` is revoked. `mode` is PREFER or REQUIRE: whether it must have been found out."""

    trust: str
    mode: Revocation


@dataclass(frozen=True, slots=True)
class PolicyApplied:
    """A published policy as it concerns one host: for reports (RFC 8460), which judge it by itself, and for people.

    `domain` is the policy domain: the recipient's for MTA-STS, the TLSA base domain for DANE. `strings` are the policy's own lines, `mx`
    its host patterns. `demands` is what it asks; where `enforced` they are in the plan too, else (mode testing) only reported.
    `failure` says why the policy itself is of no use (sts-policy-fetch-error, tlsa-invalid), whatever a connection then shows.
    """

    kind: PolicyKind
    domain: str
    strings: tuple[str, ...] = ()
    mx: tuple[str, ...] = ()
    demands: frozenset[Demand] = frozenset()
    enforced: bool = True
    failure: TlsFailure | None = None


@dataclass(frozen=True, slots=True)
class TlsPlan:
    """`level` names the strongest demand of the connector, for people; `demands` is what is judged.

    `plaintext` counts only while no demand asks for TLS. `client_certificate` is a name in our certificates, "" for none.
    `until` is the moment (UTC) at which the exception that weakens this plan ends; None where no exception is in it.
    `published` are the policies found for the host, enforced or not.
    """

    level: Level
    plaintext: Plaintext
    demands: frozenset[Demand] = frozenset()
    client_certificate: str = ""
    until: datetime | None = None
    published: tuple[PolicyApplied, ...] = ()

    def adding(self, demands: Iterable[Demand]) -> "TlsPlan":
        """The plan with more demands. Union is the only way to combine: nothing published can take a demand away."""
        return replace(self, demands=self.demands | frozenset(demands))

    @property
    def requires_tls(self) -> bool:
        """True where clear text can never satisfy the plan. Every demand but a bare minimum version asks for TLS, unknown ones too."""
        return any(not isinstance(demand, TlsVersion) for demand in self.demands)

    @property
    def trusts(self) -> frozenset[str]:
        """The trust stores that evidence must have been checked against before it can be judged."""
        return frozenset(demand.trust for demand in self._judged if isinstance(demand, Pkix))

    @property
    def tlsa(self) -> frozenset[Tlsa]:
        """The demands whose TLSA records evidence must have been checked against before it can be judged."""
        return frozenset(demand for demand in self._judged if isinstance(demand, Tlsa))

    @property
    def revocation(self) -> frozenset[Unrevoked]:
        """The demands for which it must be found out whether the path is revoked. Empty for most plans, and then nothing is."""
        return frozenset(demand for demand in self.demands if isinstance(demand, Unrevoked))

    @property
    def _judged(self) -> Iterator[Demand]:
        """Every demand of the plan, and those that are judged for a report only."""
        yield from self.demands
        for policy in self.published:
            yield from policy.demands
