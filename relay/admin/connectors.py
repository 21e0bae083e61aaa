"""A test message to a partner, on the real way: `POST /connectors/test`. Its trace tells what became of it."""

from typing import Any, Protocol

from pydantic import Field, field_validator

from relay.admin.endpoint import Answer, Asked, Change, Endpoint, Json, Question, Scope, Shape
from relay.admin.parameters import ConnectorName, Mailbox
from relay.mail.address import Address, parse_mailbox


class Trying(Protocol):
    """What this topic asks of the relay. May raise Unavailable."""

    async def test_connector(self, connector: str, to: Address) -> Json:
        """Queues a small message for `to`: {message, connector}. Unavailable where another connector governs its domain."""
        ...


class TrialQuestion(Question):
    connector: ConnectorName = Field(min_length=1)
    to: Mailbox = Field(min_length=1)
    """Whom the test message is for: a mailbox whose mail this connector governs."""

    @field_validator("to")
    @classmethod
    def _one_mailbox(cls, to: str) -> str:
        if to == "<>" or to.startswith("@"):
            raise ValueError("an address, such as alice@contoso.com")
        return to


class Trial(Shape):
    message: str
    """The message's id: GET /trace?id= says what became of it."""
    connector: str


def endpoints(relay: Trying) -> tuple[Endpoint[Any], ...]:
    async def test(asked: Asked[TrialQuestion]) -> Answer:
        given = asked.given
        done = await relay.test_connector(given.connector, parse_mailbox(given.to))
        return Answer(done, change=Change(f"{given.connector} {given.to}"))

    return (
        Endpoint(
            "POST",
            "/connectors/test",
            Scope.OPERATE,
            "Queue a small test message that a connector delivers.",
            TrialQuestion,
            Trial,
            test,
            action="test-connector",
        ),
    )
