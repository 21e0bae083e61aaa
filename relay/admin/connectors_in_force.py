"""Connectors as they are in force, with what is known of them just now: `GET /connectors`, `GET /connectors/{name}`."""

from collections.abc import Sequence
from typing import Any, Literal, Protocol

from relay.admin.endpoint import Answer, Asked, Endpoint, Json, NotFoundError, Nothing, Question, Scope, Shape
from relay.admin.parameters import ConnectorName
from relay.admin.trace import Evidence


class Connectors(Protocol):
    """What this topic asks of the relay. All may raise Unavailable."""

    async def connectors(self) -> Sequence[Json]:
        """In the shape of ConnectorState, in the order of the configuration; then what acts where none matches."""
        ...

    async def connector(self, name: str) -> Json | None:
        """In the shape of ConnectorDetail."""
        ...


class ConnectorQuestion(Question):
    name: ConnectorName


class LastUse(Shape):
    at: str
    hop: str | None
    """Where mail went; null for an inbound connector."""
    state: Literal["accepted", "delivered", "deferred", "bounced"]
    """What it came to; "accepted" for an inbound connector."""
    failure: str | None
    """The TLS failure that withheld it (RFC 8460 section 4.3, or one of ours)."""
    evidence: Evidence | None
    """null in clear."""


class ConnectorState(Shape):
    name: str
    direction: str
    level: str | None
    """null for an inbound connector."""
    plaintext: str | None
    domains: list[str]
    """The patterns that it matches: of recipients outbound, of senders inbound."""
    waiting: int | None
    """Recipients in the queue that it governs; null for an inbound connector."""
    held: int | None
    last: LastUse | None
    """Its newest use among the last few thousand messages and attempts."""


class ConnectorDetail(ConnectorState):
    settings: dict[str, Any]
    """Its keys as connectors.yaml has them, with defaults. Secrets are not shown."""


class ConnectorList(Shape):
    connectors: list[ConnectorState]


def endpoints(relay: Connectors) -> tuple[Endpoint[Any], ...]:
    async def connectors(_asked: Asked[Nothing]) -> Answer:
        return Answer({"connectors": list(await relay.connectors())})

    async def connector(asked: Asked[ConnectorQuestion]) -> Answer:
        found = await relay.connector(asked.given.name)
        if found is None:
            raise NotFoundError(f"no connector in force is called {asked.given.name}")
        return Answer(found)

    all_of_them = "All connectors in force, with queue counts and newest evidence."
    none = {404: "No connector in force has that name."}
    return (
        Endpoint("GET", "/connectors", Scope.READ, all_of_them, Nothing, ConnectorList, connectors),
        Endpoint(
            "GET",
            "/connectors/{name}",
            Scope.READ,
            "One connector, with its settings.",
            ConnectorQuestion,
            ConnectorDetail,
            connector,
            refusals=none,
        ),
    )
