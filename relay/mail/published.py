"""What domains publish about how they are to be reached: DANE (RFC 6698, 7672), MTA-STS (RFC 8461), and where reports go (RFC 8460).

Only the nouns. `relay.dns` looks them up, `relay.policy` decides what follows from them.
"""

from dataclasses import dataclass
from enum import StrEnum


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


class PolicyKind(StrEnum):
    """policy-type of RFC 8460 section 4.2."""

    TLSA = "tlsa"
    STS = "sts"
    NONE = "no-policy-found"
