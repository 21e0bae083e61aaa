"""The `observe` listener: /metrics for Prometheus, /healthz (the process is alive), /readyz (it takes mail). Read-only, no access control.

What the answers are made of comes from `Observed`, which `relay.app` implements. A look-up that fails or hangs is an answer too: not ready,
gauges missing. Threat: whoever reaches it learns volumes and connector names, so the configuration's default address is loopback.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Protocol, TypeVar

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from relay.asgi import bind_tcp, serving
from relay.config.values import HostPort
from relay.observe.metrics import CountKey, Metrics, Readings

T = TypeVar("T")

_PATIENCE = 5.0  # seconds; a probe gives up after about as long


class Observed(Protocol):
    """What the listener asks of the relay. `readings` and `troubles` may raise; that is told as an answer."""

    async def readings(self) -> Readings:
        """The gauges, as they are now."""
        ...

    async def totals(self) -> Mapping[CountKey, float] | None:
        """What all processes of the relay have counted; None where there is one only."""
        ...

    async def troubles(self) -> Sequence[str]:
        """Why the relay cannot take mail now, in words; empty where it can."""
        ...


def application(metrics: Metrics, observed: Observed) -> Starlette:
    """The ASGI application, without a listener."""

    async def show_metrics(_request: Request) -> Response:
        return Response(await rendered(metrics, observed), media_type=CONTENT_TYPE_LATEST)

    async def healthy(_request: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def ready(_request: Request) -> Response:
        try:
            reasons = list(await _soon(observed.troubles))
        except TimeoutError:
            reasons = [f"no answer within {_PATIENCE:.0f} seconds"]
        except Exception as error:  # noqa: BLE001 - a relay that cannot say how it is, is not ready
            reasons = [f"the state cannot be read ({type(error).__name__})"]
        return JSONResponse({"ready": not reasons, "reasons": reasons}, status_code=503 if reasons else 200)

    return Starlette(
        routes=[
            Route("/metrics", show_metrics, methods=["GET"]),
            Route("/healthz", healthy, methods=["GET"]),
            Route("/readyz", ready, methods=["GET"]),
        ]
    )


async def rendered(metrics: Metrics, observed: Observed) -> bytes:
    """In Prometheus' text format."""
    try:
        readings = await _soon(observed.readings)
    except Exception:  # noqa: BLE001 - the counters are most wanted when the store is in trouble; readings_ok 0 says it
        readings = None
    return metrics.render(readings, await observed.totals())


async def _soon(ask: Callable[[], Awaitable[T]]) -> T:
    async with asyncio.timeout(_PATIENCE):
        return await ask()


@asynccontextmanager
async def observe_listener(address: HostPort, metrics: Metrics, observed: Observed) -> AsyncIterator[HostPort]:
    """Listen while the block runs; gives the address really bound (port 0 becomes a free one). OSError where it cannot be had."""
    sock = bind_tcp(address.host, address.port)
    bound = HostPort(address.host, sock.getsockname()[1])
    async with serving(application(metrics, observed), sock):
        yield bound
