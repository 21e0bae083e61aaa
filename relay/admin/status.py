"""How the relay is: `GET /status`."""

from typing import Any, Literal, Protocol

from relay.admin.endpoint import Answer, Asked, Endpoint, Json, Nothing, Scope, Shape


class Status(Protocol):
    """What this topic asks of the relay. May raise Unavailable."""

    async def status(self) -> Json:
        """In the shape of RelayStatus."""
        ...


class QueueCounts(Shape):
    waiting: int
    """Recipients whose next attempt is due later."""
    delivering: int
    held: int
    messages: int
    """Messages with at least one recipient that is not decided."""
    oldest: float
    """Age of the oldest of them, in seconds."""
    bytes: int
    """Of the queue on disk."""
    free: int
    """Bytes left on that disk."""


class Waiting(Shape):
    waiting: list[str]
    """Why the file on disk is not what is in force; empty where it is."""


class Worker(Shape):
    worker: int
    pid: int


class OneWay(Shape):
    domain: str
    """Of a partner, as its connector names it."""
    connector: str
    """Which holds it to TLS."""
    missing: Literal["inbound", "outbound"]
    """The direction that nothing holds to TLS."""


class RelayStatus(Shape):
    version: str
    hostname: str
    pid: int
    started_at: str
    ready: bool
    """Mail is taken."""
    troubles: list[str]
    configuration: Waiting
    listeners: dict[str, str]
    """Where each listener of the configuration really is."""
    connections: dict[str, int]
    """Open inbound connections, by listener."""
    workers: list[Worker]
    certificates: dict[str, float]
    """Days left, by name."""
    queue: QueueCounts
    one_way: list[OneWay]
    """Partners that are held to TLS in one direction only."""


def endpoints(relay: Status) -> tuple[Endpoint[Any], ...]:
    async def status(_asked: Asked[Nothing]) -> Answer:
        return Answer(await relay.status())

    return (Endpoint("GET", "/status", Scope.READ, "Who this is and how it is.", Nothing, RelayStatus, status),)
