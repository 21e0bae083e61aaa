"""What somebody should see to, and a test of how it is told: `GET /alerts`, `POST /alerts/test`."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal, Protocol

from pydantic import Field

from relay.admin.endpoint import Answer, Asked, Change, Endpoint, Json, Nothing, Question, Scope, Shape
from relay.mail.alerts import AlertKind, Severity

Way = Literal["mail", "webhook"]


class Alerting(Protocol):
    """What this topic asks of the relay."""

    async def alerts(self) -> Json:
        """As `ActiveAlerts`."""
        ...

    async def test_alerts(self, ways: Sequence[str]) -> Json:
        """As `Tested`, of those ways, or of all that are configured. Raises Unavailable where one is not."""
        ...


class Active(Shape):
    kind: AlertKind
    """What it is about; more may come."""
    subject: str
    """What tells it from others of its kind: a domain, a connector, the name of a certificate."""
    severity: Severity
    title: str
    detail: str
    remedy: str | None
    """What to do about it."""
    message: str | None
    """The id of the message that showed it."""
    since: str
    seen: str
    """The last sign of it."""
    told: str | None
    """When it was told last; null where it has not lasted long enough yet."""
    away: str | None
    """Since when there is no sign of it; it comes and goes, and is over once it has been away for hours. Null while it lasts."""


class ActiveAlerts(Shape):
    alerts: list[Active]
    """The worst first."""
    ways: list[Way]
    """How they are told by the configuration in force; empty: nobody is told."""
    waiting: dict[Way, int]
    """How many are still to be sent."""


class TestQuestion(Question):
    __test__ = False  # no test of pytest's

    ways: Annotated[tuple[Way, ...], Field(max_length=2)] = ()
    """Only these; none: all that are configured."""


class Sent(Shape):
    error: str | None
    """Why it could not be handed over."""
    message: str | None
    """The mail's id in the queue."""


class Tested(Shape):
    mail: Sent | None = None
    webhook: Sent | None = None


def endpoints(relay: Alerting) -> tuple[Endpoint[Any], ...]:
    async def active(_asked: Asked[Nothing]) -> Answer:
        return Answer(await relay.alerts())

    async def test(asked: Asked[TestQuestion]) -> Answer:
        done = await relay.test_alerts(tuple(dict.fromkeys(asked.given.ways)))
        return Answer(done, change=Change(", ".join(done), len(done)))

    return (
        Endpoint("GET", "/alerts", Scope.READ, "What somebody should see to now.", Nothing, ActiveAlerts, active),
        Endpoint(
            "POST",
            "/alerts/test",
            Scope.OPERATE,
            "Send a test alert by every way that is configured, or by those named.",
            TestQuestion,
            Tested,
            test,
            action="test-alerts",
        ),
    )
