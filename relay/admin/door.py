"""The admin API by network: HTTPS connections with limits, and who it is that calls.

uvicorn does the HTTP (`relay.asgi`), TLS is `relay.tls`'s, so a renewed certificate is shown from the next connection on. A caller shows a
bearer token, or a client certificate that is judged here and not by the handshake: a path to `clients.ca`, and one of `clients.names`.

Threat: this port may be reached by strangers. Connections are counted before the handshake, which costs more than all that follows; a
request has a time within which it must have come, and an answer one within which it must be taken.
"""

import asyncio
import ipaddress
import ssl
from asyncio import Transport
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any, cast

import h11
from starlette.requests import Request
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from relay.admin.accounts import Accounts, TooManyFailuresError, client_key
from relay.admin.api import NotRecognisedError
from relay.admin.endpoint import Caller, Scope
from relay.asgi import bind_tcp, serving
from relay.clients.limits import Connections, Entry, Key
from relay.config.models import AdminClients, AdminScope
from relay.config.values import HostPort
from relay.mail.tls import Certificate, TlsEvidence, Trusted
from relay.policy.names import matching_name
from relay.tls.context import Context
from relay.tls.evidence import evidence_of
from relay.tls.trust import Purpose, TrustStores


@dataclass(frozen=True, slots=True)
class DoorLimits:
    """`header` and `request`: seconds for the header, and for the whole of a request. `answer`: seconds for which a caller may leave an answer
    unread."""

    connections: int = 150
    connections_per_ip: int = 20
    handshake: float = 10.0
    header: float = 10.0
    request: float = 120.0
    answer: float = 60.0


@dataclass(frozen=True, slots=True)
class Door:
    """What all connections share. `context` is None in clear."""

    context: Context | None
    limits: DoorLimits = DoorLimits()
    connections: Connections = field(default_factory=Connections)
    securing: set[Transport] = field(default_factory=set)
    """Connections whose handshake is not over."""


@asynccontextmanager
async def network_door(address: HostPort, app: ASGIApp, door: Door) -> AsyncIterator[HostPort]:
    """Serve `app` while the block runs; gives the address really bound. OSError where it cannot be had."""
    sock = bind_tcp(address.host, address.port)
    bound = HostPort(address.host, sock.getsockname()[1])
    try:
        async with serving(app, sock, partial(DoorProtocol, door)):
            yield bound
    finally:
        for transport in tuple(door.securing):
            transport.abort()


class DoorProtocol(H11Protocol):
    """One connection. `scope["state"]["evidence"]` is its TlsEvidence, None in clear."""

    def __init__(self, door: Door, **options: Any) -> None:
        super().__init__(**options)
        self._door = door
        self._raw: Transport | None = None
        self._counted = False
        self._key: Key | None = None
        self._ready = False
        self._early = bytearray()
        self._securing: asyncio.Task[None] | None = None
        self._due: asyncio.TimerHandle | None = None
        self._unread: asyncio.TimerHandle | None = None

    # The connection.

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]  # as uvicorn declares it
        self._raw = transport
        door, limits = self._door, self._door.limits
        peer = transport.get_extra_info("peername")
        if not peer or door.connections.enter(limits.connections) is not Entry.FREE:
            transport.abort()
            return
        self._counted = True
        key = client_key(str(peer[0]))
        if door.connections.enter_client(key, limits.connections_per_ip) is not Entry.FREE:
            transport.abort()
            return
        self._key = key
        if door.context is None:
            self._begin(transport, None)
        else:
            door.securing.add(transport)
            # Begun here and now, not when a task gets its turn. Threat: what somebody on the way sends in clear before the handshake would
            # be read by us meanwhile, and taken for what the client said inside TLS; and an early ClientHello would be lost.
            handshake = _Begun(
                self.loop.start_tls(
                    transport, self, door.context, server_side=True, ssl_handshake_timeout=door.limits.handshake
                )
            )
            self._securing = self.loop.create_task(self._secure(transport, handshake))

    async def _secure(self, transport: Transport, handshake: "_Begun") -> None:
        try:
            secured = await handshake
        except (OSError, ssl.SSLError, asyncio.CancelledError):
            transport.abort()
            self._leave()
            return
        finally:
            self._door.securing.discard(transport)
        if secured is None or secured.is_closing():
            self._leave()
            return
        self._begin(secured, evidence_of(secured.get_extra_info("ssl_object")))

    def _begin(self, transport: Transport, evidence: TlsEvidence | None) -> None:
        self.app_state = {**self.app_state, "evidence": evidence}
        super().connection_made(transport)
        self._ready = True
        self._watch_request()
        if self._early:
            early, self._early = bytes(self._early), bytearray()
            self.data_received(early)

    def connection_lost(self, exc: Exception | None) -> None:
        self._leave()
        if self._securing is not None:
            self._securing.cancel()
        for timer in (self._due, self._unread):
            if timer is not None:
                timer.cancel()
        if self._ready:
            super().connection_lost(exc)

    def _leave(self) -> None:
        if self._counted:
            self._counted = False
            self._door.connections.leave(self._key)

    # Its time limits.

    def data_received(self, data: bytes) -> None:
        if not self._ready:
            self._early += data  # what came with the end of the handshake
            return
        super().data_received(data)
        self._watch_request()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._watch_request()  # a part of the next request may be here already

    def _watch_request(self) -> None:
        """A request must come, and once it has begun it must end."""
        state = self.conn.their_state
        is_whole = state not in (h11.IDLE, h11.SEND_BODY)
        if is_whole:
            self._set_due(None)
        elif state is h11.SEND_BODY:
            if self.cycle is not None and not getattr(self.cycle, "body_is_timed", False):
                self.cycle.body_is_timed = True  # type: ignore[attr-defined]  # once for each request
                self._set_due(self._door.limits.request)
        elif self._due is None:
            self._set_due(self._door.limits.header)

    def _set_due(self, seconds: float | None) -> None:
        if self._due is not None:
            self._due.cancel()
            self._due = None
        if seconds is not None:
            self._due = self.loop.call_later(seconds, self._give_up)

    def pause_writing(self) -> None:
        if self._ready:
            super().pause_writing()
        if self._unread is None:
            self._unread = self.loop.call_later(self._door.limits.answer, self._give_up)

    def resume_writing(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None
        if self._ready:
            super().resume_writing()

    def _give_up(self) -> None:
        transport = self.transport or self._raw
        if transport is not None:
            transport.abort()


class _Begun:
    """A coroutine that has run up to where it first waits; awaiting this goes on from there."""

    def __init__(self, coroutine: Coroutine[Any, Any, Transport | None]) -> None:
        self._coroutine = coroutine
        self._waits: Any = coroutine.send(None)

    def __await__(self) -> Generator[Any, Any, Transport | None]:
        waits = self._waits
        while True:
            try:
                given = yield waits
            except BaseException as error:  # noqa: BLE001 - handed on to where it belongs
                step = partial(self._coroutine.throw, error)
            else:
                step = partial(self._coroutine.send, given)
            try:
                waits = step()
            except StopIteration as end:
                return cast("Transport | None", end.value)


# Who calls.


@dataclass(frozen=True, slots=True)
class Doorman:
    """Recognises callers by network. `accounts` and `clients` are None where there are none. `seen` hears who was recognised."""

    accounts: Accounts | None
    clients: AdminClients | None
    trust: TrustStores
    clock: Callable[[], datetime]
    seen: Callable[[Caller], Awaitable[None]]

    async def identify(self, request: Request) -> Caller:
        """Raises NotRecognisedError."""
        address = caller_address(request)
        try:
            caller = await self._by_token(request, address) or await self._by_certificate(request, address)
        except TooManyFailuresError as error:
            raise NotRecognisedError(str(error), 429) from None
        if caller is None:
            raise NotRecognisedError(self._wanted())
        await self.seen(caller)
        return caller

    async def _by_token(self, request: Request, address: str) -> Caller | None:
        given = request.headers.get("authorization")
        if given is None:
            return None
        scheme, _blank, token = given.partition(" ")
        if scheme.lower() != "bearer" or self.accounts is None:
            raise NotRecognisedError(self._wanted())
        caller = await self.accounts.by_token(token.strip(), address)
        if caller is None:
            raise NotRecognisedError("there is no such token (any more): `relay token NAME` makes one")
        return caller

    async def _by_certificate(self, request: Request, address: str) -> Caller | None:
        evidence = request.scope.get("state", {}).get("evidence")
        if self.clients is None or evidence is None or not evidence.chain:
            return None
        checked = self.trust.check(evidence, [self.clients.ca], Purpose.CLIENT, self.clock())
        path = checked.paths[self.clients.ca]
        found = named(self.clients.names, evidence.chain[0])
        if isinstance(path, Trusted) and found is not None:
            name, scope = found
            return Caller(name, Scope(scope.value), "certificate", address)
        why = "its names are not among `admin.clients.names`" if isinstance(path, Trusted) else path.text
        if self.accounts is not None:
            await self.accounts.failed("", "certificate", address, f"certificate: {why}"[:300])
        raise NotRecognisedError(f"the client certificate does not count here: {why}")

    def _wanted(self) -> str:
        ways = [
            "`Authorization: Bearer TOKEN` (`relay token NAME` makes one)" if self.accounts is not None else "",
            "a client certificate that `admin.clients` names" if self.clients is not None else "",
        ]
        return "say who you are: " + ", or ".join(filter(None, ways))


def named(names: Mapping[str, AdminScope], certificate: Certificate) -> tuple[str, AdminScope] | None:
    """Who a trusted certificate is: an exact name before a wildcard, in the order of the configuration. None where it is nobody."""
    for pattern in sorted(names, key=lambda each: each.startswith("*.")):
        if found := matching_name([pattern], certificate):
            return found, names[pattern]
    return None


def caller_address(request: Request) -> str:
    """Where a request comes from; an IPv4 address that came by an IPv6 socket as what it is."""
    host = request.client.host if request.client is not None else ""
    try:
        found = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return str(mapped or found)
