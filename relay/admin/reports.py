"""TLS reports (RFC 8460), sent and received: `GET /reports`, `/reports/show`, `/reports/received`, `POST /reports/send`."""

from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any, Protocol, Self

from pydantic import Field, model_validator

from relay.admin.endpoint import (
    Answer,
    Asked,
    BadQuestionError,
    Change,
    Endpoint,
    Json,
    NotFoundError,
    Question,
    Scope,
    Shape,
)
from relay.admin.parameters import Day, Domain, Moment, PageLimit


@dataclass(frozen=True, slots=True)
class ReportsQuery:
    """Which TLS reports. `domain` "" and `day` None: any."""

    domain: str = ""
    day: date | None = None
    limit: int = 100


class Reports(Protocol):
    """What this topic asks of the relay. All may raise Unavailable."""

    async def reports(self, query: ReportsQuery) -> Json:
        """In the shape of ReportList."""
        ...

    async def report(self, query: ReportsQuery) -> Json | None:
        """The JSON of RFC 8460 section 4.4 that goes to `query.domain`, so far where the day is not over; None where nothing was counted."""
        ...

    async def send_reports(self, query: ReportsQuery) -> Json:
        """In the shape of Sent. Without domain and day: all that waits."""
        ...

    async def received_reports(self, since: datetime | None, limit: int) -> Json:
        """What others report about us, newest first, in the shape of ReceivedList."""
        ...


class ReportsQuestion(Question):
    domain: Domain = ""
    day: Day = None
    limit: PageLimit = 100


class ReportQuestion(Question):
    domain: Domain = ""
    """Whom the report goes to. Must be given."""
    day: Day = None
    """Today, so far, where it is not given."""

    @model_validator(mode="after")
    def _says_which(self) -> Self:
        if not self.domain:
            raise ValueError("say which report: domain")
        return self


class SendQuestion(Question):
    """Nothing: all that waits; else one day's (yesterday's), of one domain or of all."""

    domain: Domain = ""
    day: Day = None


class ReceivedQuestion(Question):
    since: Moment = None
    limit: PageLimit = 100


class PostingShape(Shape):
    """A report on its way to one address."""

    to: str | None
    """null while the domain's TLSRPT record is not known."""
    state: str
    until: str
    next_try: str | None
    tries: int
    message: str | None
    text: str


class ReportState(Shape):
    day: str
    domain: str
    successes: int
    failures: int
    due: str | None
    to: list[PostingShape]


class ReportList(Shape):
    sending: bool
    reports: list[ReportState]
    uncounted: int
    """Sessions that there was no room to remember."""


class Report(Shape):
    """RFC 8460 section 4.4."""

    organization_name: str = Field(alias="organization-name")
    date_range: dict[str, str] = Field(alias="date-range")
    contact_info: str = Field(alias="contact-info")
    report_id: str = Field(alias="report-id")
    policies: list[dict[str, Any]]


class SentPosting(PostingShape):
    day: str
    domain: str


class Sent(Shape):
    states: dict[str, int]
    """How many reports stand where."""
    reports: list[SentPosting]


class ReceivedFailure(Shape):
    result: str
    sessions: int
    sending_ip: str | None
    mx: str | None
    helo: str | None
    receiving_ip: str | None
    information: str | None
    reason: str | None


class ReceivedPolicyShape(Shape):
    policy: str
    domain: str
    strings: list[str]
    mx: list[str]
    successes: int
    failures: int
    failing: list[ReceivedFailure]


class ReceivedReport(Shape):
    received_at: str
    organization: str
    contact: str
    report_id: str
    begins: str
    ends: str
    submitter: str
    signed_by: str | None
    successes: int
    failures: int
    policies: list[ReceivedPolicyShape]


class ReceivedList(Shape):
    received: list[ReceivedReport]


_ANY = "Sessions counted by day and domain, newest day first, and where the report about each stands."
_ONE = "The report that would go to a domain (RFC 8460 section 4.4)."
_SEND = "Send now what waits for its time; with a domain or a day, that day's reports, even a second time."
_RECEIVED = "What others report about their sessions to us, newest first."


def endpoints(relay: Reports) -> tuple[Endpoint[Any], ...]:
    async def reports(asked: Asked[ReportsQuestion]) -> Answer:
        given = asked.given
        return Answer(await relay.reports(ReportsQuery(given.domain, given.day, given.limit)))

    async def report(asked: Asked[ReportQuestion]) -> Answer:
        given = asked.given
        found = await relay.report(ReportsQuery(given.domain, given.day))
        if found is None:
            raise NotFoundError(f"no session was counted for {given.domain} on that day")
        return Answer(found)

    async def send(asked: Asked[SendQuestion]) -> Answer:
        given = asked.given
        refuse_unfinished(given, datetime.now(UTC).date())
        done = await relay.send_reports(ReportsQuery(given.domain, given.day))
        what = " ".join(filter(None, (given.domain, given.day.isoformat() if given.day else ""))) or "all"
        return Answer(done, change=Change(what, sum(done["states"].values()), after=done["states"]))

    async def received(asked: Asked[ReceivedQuestion]) -> Answer:
        return Answer(await relay.received_reports(asked.given.since, asked.given.limit))

    no_report = {404: "Nothing was counted for that domain on that day."}
    return (
        Endpoint("GET", "/reports", Scope.READ, _ANY, ReportsQuestion, ReportList, reports),
        Endpoint("GET", "/reports/show", Scope.READ, _ONE, ReportQuestion, Report, report, refusals=no_report),
        Endpoint("GET", "/reports/received", Scope.READ, _RECEIVED, ReceivedQuestion, ReceivedList, received),
        Endpoint("POST", "/reports/send", Scope.OPERATE, _SEND, SendQuestion, Sent, send, action="send-reports"),
    )


def refuse_unfinished(given: SendQuestion, today: date) -> None:
    """A report of a day that is not over goes again, whole: for one domain that is a trial, for all a nuisance. Raises BadQuestionError."""
    if given.day is not None and (given.day > today or (given.day == today and not given.domain)):
        raise BadQuestionError(
            "day: it is not over; the report of one domain, named, can be sent before the end of today"
        )
