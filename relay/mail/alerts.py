"""What an operator is told without asking: a concern that begins, one that lasts, one that is over.

Only the nouns. `relay.policy.alerts` decides what is told and when, `relay.report.alerts` says it by mail and by webhook.
"""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class AlertKind(StrEnum):
    """What it is about. The words stand in the webhook's JSON: they are never changed, only added to."""

    PARTNER = "partner-unsafe"
    """Mail waits since its partner cannot be reached as safely as it must be."""
    EXCEPTION = "exception-ends"
    CERTIFICATE = "certificate"
    PARTNER_CERTIFICATE = "partner-certificate"
    QUEUE = "queue-old"
    DANE = "dane-off"
    MTA_STS = "mta-sts-stale"
    CONFIGURATION = "configuration-waiting"
    STORE = "store-trouble"
    WORKER = "worker-dies"
    TEST = "test"
    MORE = "more"
    """Others that are not shown one by one."""


class Severity(StrEnum):
    INFO = "info"
    WARNING = "warning"
    CRITICAL = "critical"


class NoticeState(StrEnum):
    RAISED = "raised"
    REPEATED = "repeated"
    CLEARED = "cleared"


AlertKey = tuple[AlertKind, str]


@dataclass(frozen=True, slots=True)
class Concern:
    """Something that an operator should see to. `subject` tells it from others of its kind: a domain, the name of a certificate.

    `stage` grows as it gets worse: each is told anew. `repeats`: it is told again while it lasts. `about` is the message that showed it,
    "" if none. Texts are for people, and may hold what strangers said.
    """

    kind: AlertKind
    subject: str
    title: str
    text: str
    remedy: str = ""
    severity: Severity = Severity.WARNING
    stage: int = 0
    repeats: bool = True
    about: str = ""

    @property
    def key(self) -> AlertKey:
        return self.kind, self.subject


@dataclass(frozen=True, slots=True)
class Relief:
    """A concern is over. `text` says what became of it."""

    kind: AlertKind
    subject: str
    text: str

    @property
    def key(self) -> AlertKey:
        return self.kind, self.subject


@dataclass(frozen=True, slots=True)
class Notice:
    """One thing to tell. `id` is the same however often it is tried, `since` when the concern began."""

    id: str
    state: NoticeState
    kind: AlertKind
    subject: str
    severity: Severity
    title: str
    text: str
    remedy: str
    since: datetime
    at: datetime
