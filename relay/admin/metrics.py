"""Counters and gauges for Prometheus: `GET /metrics`, as `observe` serves it."""

from typing import Any, Protocol

from relay.admin.endpoint import Answer, Asked, Content, Endpoint, Nothing, Scope

MEDIA_TYPE = "text/plain; version=1.0.0; charset=utf-8"


class Metrics(Protocol):
    """What this topic asks of the relay."""

    async def metrics(self) -> bytes:
        """In Prometheus' text format. Never raises: what cannot be read is left out."""
        ...


def endpoints(relay: Metrics) -> tuple[Endpoint[Any], ...]:
    async def metrics(_asked: Asked[Nothing]) -> Answer:
        return Answer(Content(MEDIA_TYPE, await relay.metrics()))

    summary = "Counters and gauges, for Prometheus."
    return (Endpoint("GET", "/metrics", Scope.READ, summary, Nothing, MEDIA_TYPE, metrics),)
