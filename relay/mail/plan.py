"""What one delivery to one host must satisfy: a set of demands, each with its source (design: "a plan is a set of demands").

Only the nouns. `relay.policy.plan` chooses a plan, `relay.policy.verdict` judges evidence against it.
A published policy (DANE, MTA-STS, REQUIRETLS) joins by adding a demand type here and its judgement there; an unknown one fails closed.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum


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
class TlsPlan:
    """`level` names the strongest demand of the connector, for people; `demands` is what is judged.

    `plaintext` counts only while no demand asks for TLS. `client_certificate` is a name in our certificates, "" for none.
    `until` is the moment (UTC) at which the exception that weakens this plan ends; None where no exception is in it.
    """

    level: Level
    plaintext: Plaintext
    demands: frozenset[Demand] = frozenset()
    client_certificate: str = ""
    until: datetime | None = None

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
        return frozenset(demand.trust for demand in self.demands if isinstance(demand, Pkix))
