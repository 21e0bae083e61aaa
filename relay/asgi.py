"""An ASGI application on a bound socket, in the event loop that is already running: what `admin` and `observe` serve HTTP with.

uvicorn does the HTTP. Of its server only the parts are used that belong to one listener: no signal handlers are installed, nothing
calls sys.exit, the socket is bound by the caller (so a taken port is the caller's OSError, and port 0 can be asked for its number), and several
can run in one process. TLS and access control are the caller's business.
"""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

_GRACE = 2.0  # seconds for requests that are running when we stop


def bind_tcp(host: str, port: int) -> socket.socket:
    """A listening socket on an IP address; port 0 takes a free one. OSError, naming the address, where it cannot be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        shown = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        raise OSError(error.errno, f"cannot listen on {shown}: {error.strerror}") from error


@asynccontextmanager
async def serving(
    app: ASGIApp, sock: socket.socket, http: Callable[..., H11Protocol] = H11Protocol
) -> AsyncIterator[None]:
    """Serve `app` on `sock`, which is bound, until the block ends; closes it then. `http` may note who the peer is."""
    config = uvicorn.Config(
        app,
        http=http,  # type: ignore[arg-type]  # it is only called
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # whoever is nearest could write any address there, and so be another client for each try
        limit_concurrency=200,
        timeout_keep_alive=15,
    )
    config.load()
    server = uvicorn.Server(config)
    server.lifespan = config.lifespan_class(config)
    await server.startup(sockets=[sock])
    ticking = asyncio.create_task(server.main_loop())
    try:
        yield
    finally:
        ticking.cancel()
        await asyncio.gather(ticking, return_exceptions=True)
        await _stop(server, sock)


async def _stop(server: uvicorn.Server, sock: socket.socket) -> None:
    """As `Server.shutdown`, without its fixed waits: idle connections are closed at once, running requests get a moment."""
    for each in server.servers:
        each.close()
    sock.close()
    for connection in list(server.server_state.connections):
        connection.shutdown()
    running = list(server.server_state.tasks)
    if running:
        _done, late = await asyncio.wait(running, timeout=_GRACE)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)
