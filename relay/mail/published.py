"""What domains publish about how they are to be reached: DANE (RFC 6698, 7672), MTA-STS (RFC 8461), and where reports go (RFC 8460).

Only the nouns. `relay.dns` looks them up, `relay.policy` decides what follows from them.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from relay.mail.tls import TlsFailure

SHORTEST_LIFE = timedelta(minutes=1)
"""No policy is fetched more often, so none may end sooner: between two fetches mail would go as though there were none."""


class Use(StrEnum):
    """What a connector makes of a published policy: take it where there is one, insist on one, or leave it out."""

    AUTO = "auto"
    REQUIRE = "require"
    OFF = "off"


@dataclass(frozen=True, slots=True, order=True)
class TlsaRecord:
    """One TLSA record (RFC 6698 section 2.1). `data` is the certificate association data, lower-case hex."""

    usage: int
    selector: int
    matching: int
    data: str

    def __str__(self) -> str:
        return f"{self.usage} {self.selector} {self.matching} {self.data}"


class StsMode(StrEnum):
    """RFC 8461 section 3.2."""

    ENFORCE = "enforce"
    TESTING = "testing"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class StsPolicy:
    """A policy file (RFC 8461 section 3.2). `mx` are its patterns, normalised; `max_age` in seconds; `id` from the TXT record.

    `text` is the file's lines as received, for reports.
    """

    mode: StsMode
    mx: tuple[str, ...]
    max_age: int
    id: str
    text: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class StsFetched:
    """A policy and when it was last fetched (UTC)."""

    policy: StsPolicy
    at: datetime

    @property
    def ends(self) -> datetime:
        return self.at + max(timedelta(seconds=self.policy.max_age), SHORTEST_LIFE)


@dataclass(frozen=True, slots=True)
class StsTrouble:
    """Why a domain's policy could not be had. `failure` is one of the STS_ ones.

    `announced`: the domain has a record that says there is one, so that sessions with it fail in its TLS reports (RFC 8460 section 4.3.2.2).
    """

    failure: TlsFailure
    text: str
    announced: bool = True


@dataclass(frozen=True, slots=True)
class StsFound:
    """What a domain publishes, as far as it is known. `fetched` is its policy in force, whatever happened to the latest try to fetch it.

    `trouble` is what the latest try came to where it failed. Neither: the domain publishes nothing.
    """

    fetched: StsFetched | None = None
    trouble: StsTrouble | None = None


@dataclass(frozen=True, slots=True)
class StsUnknown:
    """Whether a policy is in force cannot be told: what is kept of it cannot be read. `text` says why."""

    text: str


@dataclass(frozen=True, slots=True)
class StsKept:
    """A policy as the store keeps it. `refresh`: when to try to fetch it next; `used`: when mail last asked for it. Times in UTC."""

    domain: str
    fetched: StsFetched
    refresh: datetime
    used: datetime


class PolicyKind(StrEnum):
    """policy-type of RFC 8460 section 4.2."""

    TLSA = "tlsa"
    STS = "sts"
    NONE = "no-policy-found"
