"""Is a certificate still good, or has its issuer taken it back? The nouns: CRLs (RFC 5280 section 5) and OCSP (RFC 6960) give the answers.

`relay.tls.revocation` finds them out, `relay.policy` says what follows.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class Revocation(StrEnum):
    """What a connector makes of it, weakest first. `prefer`: revoked fails, what cannot be found out passes and is told."""

    OFF = "off"
    PREFER = "prefer"
    REQUIRE = "require"

    @property
    def rank(self) -> int:
        return tuple(Revocation).index(self)


class State(StrEnum):
    GOOD = "good"
    REVOKED = "revoked"
    UNKNOWN = "unknown"


class By(StrEnum):
    """Who said so. NOBODY: there is nothing that could say it, or no answer that counts."""

    STAPLED = "stapled"
    OCSP = "ocsp"
    CRL = "crl"
    NOBODY = ""


@dataclass(frozen=True, slots=True)
class CertificateStatus:
    """One certificate of a verified path. `serial` is lower-case hex, `why` says why it is unknown, or why good needs no answer.

    `url` is where the answer came from, "" for a staple. `next_update` is when the answer ends, whatever it says itself of that.
    """

    subject: str
    serial: str
    state: State
    by: By = By.NOBODY
    url: str = ""
    why: str = ""
    revoked_at: datetime | None = None
    reason: str = ""
    this_update: datetime | None = None
    next_update: datetime | None = None

    @property
    def text(self) -> str:
        """For people, without the certificate's name."""
        if self.state is State.REVOKED:
            when = f" on {self.revoked_at:%Y-%m-%d %H:%M} UTC" if self.revoked_at else ""
            reason = f" ({self.reason})" if self.reason else ""
            return f"revoked{when}{reason}, says {self.by.value}"
        if self.state is State.UNKNOWN:
            return f"not checked: {self.why}"
        return f"good, says {self.by.value}" if self.by is not By.NOBODY else f"good: {self.why}"


Statuses = tuple[CertificateStatus, ...]


def first_of(statuses: Sequence[CertificateStatus], state: State) -> CertificateStatus | None:
    return next((each for each in statuses if each.state is state), None)


def ends_of(statuses: Sequence[CertificateStatus]) -> datetime | None:
    """When the first of the answers ends; None where none does."""
    return min((each.next_update for each in statuses if each.next_update is not None), default=None)


class Kind(StrEnum):
    OCSP = "ocsp"
    CRL = "crl"


@dataclass(frozen=True, slots=True)
class RevocationKept:
    """An answer as the store keeps it. `key` stands for what it is an answer to; `certificate` (b"" for a CRL) and `issuer` are DER: with
    them it can be fetched again, and judged again.

    `this_update` and `ends` are the answer's own. `fetched`, `refresh` (when to fetch it anew) and `used` are ours. All times in UTC.
    `data` is the answer itself, DER; empty where only the rest was asked for.
    """

    key: str
    kind: Kind
    url: str
    certificate: bytes
    issuer: bytes
    this_update: datetime
    ends: datetime
    fetched: datetime
    refresh: datetime
    used: datetime
    data: bytes = b""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Something to be fetched. `body` is posted where there is one, as `kind` (a media type). `limit` in bytes, `seconds` for all of it."""

    url: str
    limit: int
    seconds: float
    body: bytes = b""
    kind: str = ""


class NotFetchedError(Exception):
    """It cannot be had. str() says why; `hint` what an admin can do about it, "" where that is nothing."""

    def __init__(self, text: str, hint: str = "") -> None:
        super().__init__(text)
        self.hint = hint
