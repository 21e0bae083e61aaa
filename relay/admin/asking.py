"""Questions before any mail is sent: `POST /explain`, `POST /probe`, `POST /connectors/validate`, `GET /check`. They change nothing.

A probe connects to hosts that the caller names, and a validation to a partner's, so both ask for more than reading.
"""

from dataclasses import dataclass
from typing import Any, Literal, Protocol

from pydantic import Field

from relay.admin.endpoint import Answer, Asked, Change, Endpoint, Json, Nothing, Question, Scope, Shape
from relay.admin.explained import ExplainedInbound, ExplainedOutbound, WouldBe
from relay.admin.parameters import ConnectorName, Domain, Text
from relay.admin.trace import Evidence, Plan


@dataclass(frozen=True, slots=True)
class Message:
    """A message that might come. All but `to` None: only the delivery is asked about."""

    to: str
    sender: str | None
    client_ip: str | None
    client_certificate: str | None
    tls_version: str | None


class Asking(Protocol):
    """What this topic asks of the relay. All may raise BadQuestionError and Unavailable."""

    async def explain(self, message: Message) -> Json:
        """In the shape of Explanation."""
        ...

    async def probe(self, target: str, about: str) -> Json:
        """In the shape of ProbeResult. `about`: whose mail it is about, "" where the target says it."""
        ...

    async def validate(self, connector: str, domain: str) -> Json:
        """In the shape of Validation. `domain` "": those that the connector names. Raises NotFoundError too."""
        ...

    async def check(self) -> Json:
        """In the shape of Checked."""
        ...


class ExplainQuestion(Question):
    to: Text
    """The recipient."""
    sender: Text | None = Field(default=None, alias="from")
    """The envelope sender; `<>` for the null sender."""
    client_ip: Text | None = None
    client_certificate: str | None = Field(default=None, max_length=100_000)
    """What the client shows: PEM, leaf first, then its chain."""
    tls_version: Text | None = None
    """TLSv1.3 unless given, or `none` for a client in clear."""


class ProbeQuestion(Question):
    target: Text
    """A recipient domain, or HOST:PORT."""
    about: Text = Field(default="", alias="for")
    """With HOST:PORT: the domain whose mail it is about."""


class ValidateQuestion(Question):
    connector: ConnectorName = Field(min_length=1)
    domain: Domain = ""
    """Outbound: only this domain of the partner."""


class Says(Shape):
    """What a published policy says of a host."""

    reason: str | None
    details: list[str]


class Explanation(Shape):
    """As `relay explain --json`."""

    inbound: ExplainedInbound | None
    """null where only the delivery was asked about."""
    outbound: list[ExplainedOutbound]
    """One entry, for the recipient."""


class Verdict(Shape):
    level: str
    standing: str
    text: str | None
    failure: str | None


class ProbedAddressShape(Shape):
    address: str
    seconds: float
    trouble: str | None
    offers: list[str] | None
    evidence: Evidence | None
    verdicts: list[Verdict]


class ProbedHost(Shape):
    host: str
    port: int
    trouble: str | None
    mx_secure: bool
    dane: Says
    mta_sts: Says
    plan: Plan | None
    withheld: WouldBe | None
    addresses: list[ProbedAddressShape]
    left_out: list[str]


class ProbeResult(Shape):
    """As `relay probe --json`."""

    domain: str
    connector: str
    passes: bool
    """Our policy would let mail go to one address at least."""
    unroutable: WouldBe | None
    hops: list[ProbedHost]


class ValidationStep(Shape):
    step: str
    target: str | None
    """What it was taken on: a host, an address; null for the connector itself."""
    result: Literal["ok", "warning", "failed", "skipped"]
    text: str
    remedy: str | None
    seconds: float | None


class Validation(Shape):
    """As `relay connectors validate --json`, but for the trace of a test message (POST /connectors/test sends one)."""

    connector: str
    direction: Literal["inbound", "outbound"]
    passes: bool
    """No step failed."""
    steps: list[ValidationStep]


class CheckedProblem(Shape):
    severity: str
    file: str
    line: int
    column: int
    key: str
    message: str
    allowed: str | None
    meant: str | None


class Checked(Shape):
    """As `relay check --json`."""

    file: str
    valid: bool
    problems: list[CheckedProblem]


def endpoints(relay: Asking) -> tuple[Endpoint[Any], ...]:
    async def explain(asked: Asked[ExplainQuestion]) -> Answer:
        given = asked.given
        message = Message(given.to, given.sender, given.client_ip, given.client_certificate, given.tls_version)
        return Answer(await relay.explain(message))

    async def probe(asked: Asked[ProbeQuestion]) -> Answer:
        target, about = asked.given.target, asked.given.about
        found = await relay.probe(target, about)
        return Answer(found, change=Change(f"{target} for {about}" if about else target))

    async def validate(asked: Asked[ValidateQuestion]) -> Answer:
        connector, domain = asked.given.connector, asked.given.domain
        found = await relay.validate(connector, domain)
        return Answer(found, change=Change(f"{connector} {domain}" if domain else connector))

    async def check(_asked: Asked[Nothing]) -> Answer:
        return Answer(await relay.check())

    explains = "Which connector governs a message, what its delivery must satisfy and why, and what would be refused."
    probes = "Say EHLO and STARTTLS to a partner's hosts; what each level would say of them. Sends no mail."
    validates = (
        "Try a connector step by step: files and rules, and every host of the partner. Sends no mail and never logs in."
    )
    none = {404: "No connector in force has that name."}
    checks = "Every error of the configuration file on disk, and what is legal but unwise."
    return (
        Endpoint("POST", "/explain", Scope.READ, explains, ExplainQuestion, Explanation, explain),
        Endpoint("POST", "/probe", Scope.OPERATE, probes, ProbeQuestion, ProbeResult, probe, action="probe"),
        Endpoint(
            "POST",
            "/connectors/validate",
            Scope.OPERATE,
            validates,
            ValidateQuestion,
            Validation,
            validate,
            action="validate",
            refusals=none,
        ),
        Endpoint("GET", "/check", Scope.READ, checks, Nothing, Checked, check),
    )
