"""The recorded lives of messages: `GET /trace`."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Literal, Protocol, Self

from pydantic import Field, model_validator

from relay.admin.endpoint import Answer, Asked, Endpoint, Json, Question, Scope, Shape
from relay.admin.parameters import Between, Mailbox, MessageId, Moment, Text
from relay.admin.queue import MessageHead

MAX_TRACES = 200


@dataclass(frozen=True, slots=True)
class TraceQuery:
    """All that is given must hold; "" and None are not given. `recipient` and `sender` are an address, or "@domain"; `before` is the
    id of a message that all are older than."""

    id: str = ""
    recipient: str = ""
    sender: str = ""
    message_id: str = ""
    since: datetime | None = None
    limit: int = 100
    before: str = ""


class Traces(Protocol):
    """What this topic asks of the relay. May raise Unavailable."""

    async def trace(self, query: TraceQuery) -> Sequence[Json]:
        """In the shape of Trace, newest first, at most `query.limit`."""
        ...


class TraceQuestion(Question):
    """At least one of id, to, from, message_id and since; all that are given must hold."""

    id: MessageId = ""
    to: Mailbox = ""
    """A recipient's address, or "@domain"."""
    sender: Mailbox = Field(default="", alias="from")
    """The envelope sender's address, or "@domain"; `<>` for the null sender."""
    message_id: Text = ""
    """The Message-ID field, with or without its angle brackets."""
    since: Moment = None
    limit: Annotated[int, Between(1, MAX_TRACES)] = 100
    """Traces at most."""
    before: MessageId = ""
    """Only older ones than this: the last id of the page before."""

    @model_validator(mode="after")
    def _says_which(self) -> Self:
        if not (self.id or self.to or self.sender or self.message_id or self.since):
            raise ValueError("say which messages: id, to, from, message_id or since")
        return self

    @property
    def wanted(self) -> TraceQuery:
        return TraceQuery(self.id, self.to, self.sender, self.message_id, self.since, self.limit, self.before)


class Certificate(Shape):
    subject: str
    issuer: str
    names: list[str]
    not_before: str
    not_after: str
    sha256: str
    spki_sha256: str


class Evidence(Shape):
    """What a TLS connection really was."""

    version: str
    cipher: str
    group: str
    sni: str
    resumed: bool = False
    chain: list[Certificate]
    errors: list[str]
    verified_by: dict[str, dict[str, str]]
    """By trust store: its `anchor`, or the `failure` and `text` of why there is no path to one, or why it is `undecided`."""


class Plan(Shape):
    """What the delivery had to satisfy."""

    level: str
    plaintext: str
    demands: list[dict[str, Any]]
    """Each has `demand` and `source`, and what that demand asks."""
    client_certificate: str | None
    until: str | None = None
    """When the exception that made it ends."""
    published: list[dict[str, Any]] = Field(default=[])
    """The DANE and MTA-STS policies that were found."""


class OutcomeShape(Shape):
    recipient: str
    state: Literal["delivered", "deferred", "bounced"]
    code: int
    status: str
    text: str
    failure: str | None


class AttemptShape(Shape):
    at: str
    hop: str
    address: str
    connector: str
    plan: Plan | None
    evidence: Evidence | None
    """null in clear."""
    seconds: float
    outcomes: list[OutcomeShape]


class AcceptedShape(Shape):
    """How the message came."""

    at: str
    client: str
    client_port: int | None
    """null where it is not known, as for messages of an older version."""
    server: str | None
    """What the client connected to, as address:port; null likewise."""
    helo: str
    listener: str
    protocol: str
    connector: str | None
    auth: str | None
    may_relay: bool
    tls: Evidence | None


class Trace(MessageHead):
    accepted: AcceptedShape
    attempts: list[AttemptShape]


class TracesShape(Shape):
    traces: list[Trace]


def endpoints(relay: Traces) -> tuple[Endpoint[Any], ...]:
    async def trace(asked: Asked[TraceQuestion]) -> Answer:
        return Answer({"traces": list(await relay.trace(asked.given.wanted))})

    summary = "The lives of messages, newest first: accepted how, tried where and with which evidence, what came of it."
    return (Endpoint("GET", "/trace", Scope.READ, summary, TraceQuestion, TracesShape, trace),)
