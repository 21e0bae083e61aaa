"""What the recorded evidence adds up to: `GET /security/overview`, `/security/shares`, `/security/partners`, `/security/troubled`,
`/security/report`, `/connectors/suggest`.

`counted_to` in an answer: attempts and messages up to that time are in it. Times are cut to the hour (to the day where they are older than
35 days); the default is the last 24 hours, of the report yesterday (UTC).
"""

from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from typing import Annotated, Any, Literal, Protocol, Self

from pydantic import Field, model_validator

from relay.admin.endpoint import Answer, Asked, Endpoint, Json, Nothing, Question, Scope, Shape
from relay.admin.parameters import Between, Day, Domain, Moment
from relay.mail.tally import Way


@dataclass(frozen=True, slots=True)
class Span:
    """From, and up to; None for the default."""

    since: datetime | None = None
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class PartnersQuery:
    """`domain` "": all."""

    span: Span = Span()
    domain: str = ""
    limit: int = 100


@dataclass(frozen=True, slots=True)
class SuggestQuery:
    days: int = 30
    min_messages: int = 20


class Security(Protocol):
    """What this topic asks of the relay. All may raise Unavailable, and BadQuestionError for a span that cannot be had."""

    async def overview(self, span: Span, step: str) -> Json:
        """In the shape of OverviewShape."""
        ...

    async def shares(self, span: Span, way: Way) -> Json:
        """In the shape of SharesShape."""
        ...

    async def partners(self, query: PartnersQuery) -> Json:
        """In the shape of PartnersShape."""
        ...

    async def troubled(self) -> Json:
        """In the shape of TroubledShape."""
        ...

    async def security_report(self, span: Span, domain: str) -> Json:
        """In the shape of SecurityReport."""
        ...

    async def suggest(self, query: SuggestQuery) -> Json:
        """In the shape of SuggestionsShape."""
        ...


class SpanQuestion(Question):
    since: Moment = None
    until: Moment = None

    @property
    def span(self) -> Span:
        return Span(self.since, self.until)


class OverviewQuestion(SpanQuestion):
    step: Literal["hour", "day"] = "hour"


class SharesQuestion(SpanQuestion):
    direction: Literal["in", "out"] = "out"


class PartnersQuestion(SpanQuestion):
    domain: Domain = ""
    limit: Annotated[int, Between(1, 5000)] = 100
    """Rows at most; as many as the report has."""


class ReportSpanQuestion(SpanQuestion):
    day: Day = None
    """Instead of `since` and `until`: one day, UTC."""
    domain: Domain = ""

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if self.day is not None and (self.since is not None or self.until is not None):
            raise ValueError("give day, or since and until, not both")
        return self

    @property
    def wanted(self) -> Span:
        if self.day is None:
            return self.span
        begins = datetime.combine(self.day, time(), UTC)
        return Span(begins, begins + timedelta(days=1))


class SuggestQuestion(Question):
    days: Annotated[int, Between(1, 100)] = 30
    """How far back; no more than 100 days of certificates are kept."""
    min_messages: Annotated[int, Between(1, 1_000_000)] = 20
    """Fewer messages are too few to tell from."""


class Point(Shape):
    accepted: int
    """Messages."""
    delivered: int
    """Recipients, as `deferred` and `bounced`, by attempt: one that is tried five times is deferred five times."""
    deferred: int
    bounced: int
    refused: int
    """Commands and connections that we refused."""


class PointAt(Point):
    at: str


class OverviewShape(Shape):
    since: str
    until: str
    step: str
    points: list[PointAt]
    totals: Point
    counted_to: str


class ShareOf(Shape):
    name: str
    """"none" for mail in clear."""
    messages: int
    share: float
    """From 0 to 1."""


class Shares(Shape):
    direction: Literal["in", "out"]
    messages: int
    version: list[ShareOf]
    cipher: list[ShareOf]
    group: list[ShareOf]
    verified: list[ShareOf]
    """none, encrypted (nobody looked at the certificate), pkix, pkix+name, mta-sts, dane, pins, client-certificate."""


class SharesShape(Shares):
    since: str
    until: str
    counted_to: str


class Weakest(Shape):
    version: str
    cipher: str
    group: str
    verified: str


class Partner(Shape):
    domain: str
    """The recipients' where `direction` is out, the sender's where it is in ("<>": none); "(other)" sums up what was too much for an hour."""
    direction: Literal["in", "out"]
    connectors: list[str]
    messages: int
    """Accepted or delivered."""
    recipients: int
    clear: int
    versions: dict[str, int]
    verified: dict[str, int]
    asked: dict[str, int]
    weakest: Weakest | None
    deferred: int
    bounced: int
    failures: dict[str, int]
    """Attempts by TLS failure."""
    first_seen: str | None
    last_seen: str | None


class PartnersShape(Shape):
    since: str
    until: str
    partners: list[Partner]
    more: bool
    counted_to: str


class Trouble(Shape):
    domain: str
    connector: str
    failure: str | None
    reason: Literal["tls", "unreachable"]
    since: str
    recipients: int
    """All that wait for the domain."""
    hop: str
    text: str
    remedy: str


class TroubledShape(Shape):
    at: str
    troubled: list[Trouble]
    more: bool
    """There are more domains with waiting mail than were looked at."""


class DemandRow(Shape):
    connector: str
    direction: Literal["in", "out"]
    asked: str
    domains: int
    messages: int
    clear: int
    verified: dict[str, int]
    failures: dict[str, int]


class ExceptionRow(Shape):
    recipient_domain: str
    allow: str
    until: str
    """Its last day."""
    reason: str
    running: bool


class ClearRow(Shape):
    domain: str
    direction: Literal["in", "out"]
    connector: str
    messages: int
    why: str


class RefusalRow(Shape):
    what: Literal["command", "connection"]
    listener: str
    command: str
    connector: str
    code: int
    status: str
    count: int


class SecurityReport(Shape):
    hostname: str
    version: str
    made_at: str
    time_zone: str
    since: str
    until: str
    counted_to: str
    domain: str | None
    totals: dict[str, Any]
    shares: dict[str, Shares]
    """By direction."""
    partners: list[Partner]
    demands: list[DemandRow]
    """What each connector asked, and what was had."""
    exceptions: list[ExceptionRow]
    clear: list[ClearRow]
    """Mail that went in clear, and what allowed it."""
    refusals: list[RefusalRow]
    troubled: list[Trouble]
    left_out: list[str]
    """What is not in it, in words."""


class SeenCertificate(Shape):
    subject: str
    issuer: str
    names: list[str]
    not_after: str
    spki_sha256: str
    trusted: bool | None
    """By the trust of now, at the time when it was shown last; null where its bytes were not kept."""
    text: str
    messages: int


class Suggestion(Shape):
    domain: str
    direction: Literal["in", "out"]
    now: str | None
    suggested: str | None
    """A level, "inbound" for an inbound connector, or null."""
    names: list[str]
    tls_version: str
    why: str
    limit: str
    """What keeps it from a higher level."""
    how: Literal["new", "edit", "none"]
    connector: str
    """The one to add, or to edit."""
    drop: list[str]
    """Keys that the connector to edit has and that have to go with this level."""
    messages: int
    hosts: list[str]
    certificates: list[SeenCertificate]


class SuggestionsShape(Shape):
    since: str
    until: str
    days: int
    min_messages: int
    suggestions: list[Suggestion]
    yaml: str = Field(default="")
    counted_to: str


_OVERVIEW = "Messages in, recipients delivered, deferred and bounced, refusals, hour by hour or day by day."
_SHARES = "Mail in transit by TLS version, cipher, key-exchange group, and how the other side was verified."
_PARTNERS = "One row for each partner and direction, the busiest first."
_TROUBLED = "Partners whose mail waits because of TLS, or since no host of theirs can be reached; with the remedy."
_REPORT = "The security report of a day (yesterday, UTC) or a span, of all partners or one."
_SUGGEST = "Which level could be asked of whom without having lost a message, as connectors to paste."


def endpoints(relay: Security) -> tuple[Endpoint[Any], ...]:
    async def overview(asked: Asked[OverviewQuestion]) -> Answer:
        return Answer(await relay.overview(asked.given.span, asked.given.step))

    async def shares(asked: Asked[SharesQuestion]) -> Answer:
        return Answer(await relay.shares(asked.given.span, Way(asked.given.direction)))

    async def partners(asked: Asked[PartnersQuestion]) -> Answer:
        given = asked.given
        return Answer(await relay.partners(PartnersQuery(given.span, given.domain, given.limit)))

    async def troubled(_asked: Asked[Nothing]) -> Answer:
        return Answer(await relay.troubled())

    async def report(asked: Asked[ReportSpanQuestion]) -> Answer:
        return Answer(await relay.security_report(asked.given.wanted, asked.given.domain))

    async def suggest(asked: Asked[SuggestQuestion]) -> Answer:
        return Answer(await relay.suggest(SuggestQuery(asked.given.days, asked.given.min_messages)))

    read = Scope.READ
    return (
        Endpoint("GET", "/security/overview", read, _OVERVIEW, OverviewQuestion, OverviewShape, overview),
        Endpoint("GET", "/security/shares", read, _SHARES, SharesQuestion, SharesShape, shares),
        Endpoint("GET", "/security/partners", read, _PARTNERS, PartnersQuestion, PartnersShape, partners),
        Endpoint("GET", "/security/troubled", read, _TROUBLED, Nothing, TroubledShape, troubled),
        Endpoint("GET", "/security/report", read, _REPORT, ReportSpanQuestion, SecurityReport, report),
        Endpoint("GET", "/connectors/suggest", read, _SUGGEST, SuggestQuestion, SuggestionsShape, suggest),
    )
