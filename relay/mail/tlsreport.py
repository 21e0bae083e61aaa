"""TLS reports (RFC 8460): what is counted about sessions, where reports go, and what others report about us.

Only the nouns. `relay.policy.tlsrpt` judges sessions, `relay.report.tlsrpt` writes, sends and reads reports, `relay.queue.ledger` keeps
what is to be kept.
"""

from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum

from relay.mail.published import PolicyKind
from relay.mail.tls import TlsFailure


@dataclass(frozen=True, slots=True)
class Policy:
    """The policy that sessions were judged by (RFC 8460 section 4.4). `strings` and `mx` are what it says, () where there is none."""

    kind: PolicyKind
    domain: str
    strings: tuple[str, ...] = ()
    mx: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Failing:
    """One way in which sessions failed a policy: failure-details of RFC 8460 section 4.4. What is "" is not known, or was summed up."""

    result: TlsFailure
    source: str = ""  # sending-mta-ip
    host: str = ""  # receiving-mx-hostname
    address: str = ""  # receiving-ip
    reason: str = ""  # failure-reason-code


@dataclass(frozen=True, slots=True)
class Judged:
    """One session under one policy. `failing` is None where the session was as the policy wants it."""

    policy: Policy
    failing: Failing | None = None


@dataclass(frozen=True, slots=True)
class Line:
    """What is counted together. `domain` is the one that the report is for: it may differ from the policy's."""

    day: date
    domain: str
    policy: Policy
    failing: Failing | None = None


@dataclass(frozen=True, slots=True)
class Counts:
    """All sessions of one day under one policy."""

    policy: Policy
    successes: int
    failures: tuple[tuple[Failing, int], ...] = ()

    @property
    def failed(self) -> int:
        return sum(count for _failing, count in self.failures)


@dataclass(frozen=True, slots=True)
class Summary:
    """The sessions of one day that are reported to one domain."""

    day: date
    domain: str
    successes: int
    failures: int


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which summaries: newest day first, those with most failures first within one. "" and None: any."""

    domain: str = ""
    day: date | None = None
    limit: int = 100


class PostState(StrEnum):
    """Where the report about one domain stands, for one address that it is to go to."""

    ASKING = "asking"  # the domain's TLSRPT record could not be looked up yet
    UNWANTED = "unwanted"  # it has none
    WAITING = "waiting"  # to be sent, or to be tried again
    QUEUED = "queued"  # a mail in our queue
    SENT = "sent"
    FAILED = "failed"  # given up

    @property
    def is_final(self) -> bool:
        return self in (PostState.UNWANTED, PostState.SENT, PostState.FAILED)


@dataclass(frozen=True, slots=True)
class Posting:
    """A report on its way. `to` is a `mailto:` or `https:` URI, "" while the record is not known. `message` is the id in our queue.

    `ends` is where the reported time ends: the day's end, or the moment at which somebody asked for a report of a day that was not over.
    `due` is the next try, `until` when it is given up.
    """

    day: date
    domain: str
    to: str
    state: PostState
    ends: datetime
    due: datetime
    until: datetime
    tries: int = 0
    message: str = ""
    text: str = ""


@dataclass(frozen=True, slots=True)
class Received:
    """A report that somebody sent us. `signer` is the domain whose DKIM signature it has, "" where none was asked for and none verifies.

    A failing's `result` here is the reporter's word, since the list of types may grow; numbers are sessions.
    """

    at: datetime
    organization: str
    contact: str
    report_id: str
    begins: datetime
    ends: datetime
    submitter: str
    signer: str
    policies: tuple["ReceivedPolicy", ...]

    @property
    def successes(self) -> int:
        return sum(each.successes for each in self.policies)

    @property
    def failures(self) -> int:
        return sum(each.failures for each in self.policies)


@dataclass(frozen=True, slots=True)
class ReceivedPolicy:
    """`failures` is the summary's number; `failing` need not add up to it (RFC 8460 section 4: types may overlap)."""

    kind: PolicyKind
    domain: str
    strings: tuple[str, ...]
    mx: tuple[str, ...]
    successes: int
    failures: int
    failing: tuple["ReceivedFailing", ...] = ()


@dataclass(frozen=True, slots=True)
class ReceivedFailing:
    result: str
    sessions: int
    source: str = ""
    host: str = ""
    helo: str = ""
    address: str = ""
    information: str = ""
    reason: str = ""
