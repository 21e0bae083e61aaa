"""The HTTPS listener that serves our MTA-STS policies: https://mta-sts.DOMAIN/.well-known/mta-sts.txt (RFC 8461 section 3.3).

One request, one answer, and the connection is closed; the certificate is chosen by SNI from the same keyring as mail's. What a policy says
is `relay.policy.publish`'s, the parsing of HTTP is h11's. It is driven by hand, as the SMTP session is: a web server counts requests, and
here handshakes and half-sent headers must be counted too.

Threat: this port is open to the world beside the mail port. So all connections are few, each has a few seconds in all, and nothing that
a client sends is kept beyond one small header.
"""

import asyncio
import secrets
import ssl
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from email.utils import formatdate
from http import HTTPStatus
from typing import cast

import h11

from relay.clients.limits import Connections, Entry, Key, limit_key
from relay.config.models import Config
from relay.config.values import HostPort
from relay.inbound.client import socket_address
from relay.inbound.sockets import Door, ListenError, Own, Sockets
from relay.inbound.tlsstream import TlsStream
from relay.mail.events import Emit, ListenerReady, Unexpected
from relay.policy.book import RuleBook
from relay.policy.publish import policy_served_at
from relay.policy.stsfile import PATH
from relay.tls.context import Context, server_context
from relay.tls.keyring import Keyring

_HEADER = 8192  # octets of request line and header fields
_TEXT = "text/plain"  # RFC 8461 section 3.2


@dataclass(frozen=True, slots=True)
class PolicyLimits:
    """`seconds` are for all of a connection, handshake and answer included; `grace` for those under way when we stop."""

    connections: int = 200
    connections_per_ip: int = 20
    seconds: float = 15.0
    grace: float = 2.0


@dataclass(frozen=True, slots=True)
class Answer:
    status: HTTPStatus
    body: bytes
    fields: tuple[tuple[str, str], ...] = ()


_NOT_FOUND = Answer(HTTPStatus.NOT_FOUND, b"there is nothing here\n")
_NOT_ALLOWED = Answer(HTTPStatus.METHOD_NOT_ALLOWED, b"only GET and HEAD are answered\n", (("allow", "GET, HEAD"),))
_TOO_LARGE = Answer(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, b"the header is too large\n")


def answer(config: Config, method: str, target: str, host: str) -> Answer:
    """What a request gets. `target` and `host` as they came; a target in absolute form says the host itself (RFC 9112 section 3.2.2)."""
    if not target.startswith("/"):
        host, _slash, path = target.partition("://")[2].partition("/")
        target = f"/{path}"
    name = host.partition(":")[0].rstrip(".").lower()
    policy = policy_served_at(config, name) if target.partition("?")[0] == PATH else None
    if policy is None:
        return _NOT_FOUND
    return Answer(HTTPStatus.OK, policy) if method in ("GET", "HEAD") else _NOT_ALLOWED


@dataclass(frozen=True, slots=True)
class _Open:
    """A socket that listens, and where it was asked for."""

    asked: HostPort
    address: HostPort
    server: asyncio.Server


def policy_door(address: HostPort) -> Door:
    return Door(f"mta-sts {address}", address, "publish.https")


class PolicyServer:
    """Follows `publish.https` of the configuration that `book` gives. Nothing is open before the first `take`."""

    def __init__(
        self,
        book: Callable[[], RuleBook],
        keyring: Keyring | None,
        emit: Emit,
        limits: PolicyLimits | None = None,
        sockets: Sockets = Own(),  # noqa: B008 - it has no state
    ) -> None:
        self.book, self.limits = book, limits or PolicyLimits()
        self._sockets = sockets
        self.connections = Connections()
        self.sessions: set[_Session] = set()
        self._keyring, self._emit = keyring, emit
        self._context: Context | None = None
        self._open: tuple[_Open, ...] = ()
        self._empty = asyncio.Event()

    @property
    def addresses(self) -> tuple[HostPort, ...]:
        """Where it really listens, in the order of the configuration."""
        return tuple(each.address for each in self._open)

    async def prepare(self, *, claim: bool = True) -> tuple[_Open, ...]:
        """Opens what the present configuration asks for, without an effect on what is open. Raises ListenError. `take` or `drop` it.

        `claim` as in `Sockets.open`.
        """
        wanted = self.book().config.publish.https or ()
        prepared: list[_Open] = []
        try:
            for address in wanted:
                same = next((each for each in self._open if each.asked == address), None)
                prepared.append(same or await self._listen(address, claim=claim))
        except BaseException:
            self.drop(tuple(prepared))
            raise
        return tuple(prepared)

    async def _listen(self, address: HostPort, *, claim: bool) -> _Open:
        if self._keyring is None or not self._keyring.usable:
            raise ListenError(
                f"policies cannot be served on {address} without a certificate: put NAME.pem and NAME.key for mta-sts.DOMAIN into "
                "the folder of `certificates` (the folder is read when the relay starts)"
            )
        if self._context is None:
            self._context = server_context(self._keyring, ask_certificate=False)
        context, listening = self._context, self._sockets.open(policy_door(address), claim=claim)
        bound = HostPort(address.host, listening.getsockname()[1])
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: _Session(self, context), sock=listening, start_serving=False)
        return _Open(address, bound, server)

    async def take(self, prepared: tuple[_Open, ...]) -> None:
        """Serves on what was prepared, and nowhere else any more. Connections under way go on."""
        before, self._open = self._open, prepared
        for each in before:
            if each not in prepared:
                each.server.close()
        for each in prepared:
            if each not in before:
                await each.server.start_serving()
                self._emit(ListenerReady(policy_door(each.asked).name, str(each.address)))

    def drop(self, prepared: tuple[_Open, ...]) -> None:
        for each in prepared:
            if each not in self._open:
                each.server.close()

    async def close(self) -> None:
        """Takes no more connections; those that are open end at once, politely, or rudely after the grace."""
        await self.take(())
        for session in tuple(self.sessions):
            session.stop()
        if self.sessions:
            self._empty.clear()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._empty.wait(), self.limits.grace)
        for session in tuple(self.sessions):
            session.abort()

    def left(self, session: "_Session", key: Key | None) -> None:
        self.connections.leave(key)
        self.sessions.discard(session)
        if not self.sessions:
            self._empty.set()

    def unexpected(self, error: Exception) -> None:
        self._emit(Unexpected(secrets.token_hex(6), "policies", "".join(traceback.format_exception(error))))


class _Session(asyncio.Protocol):
    """One connection, one request."""

    def __init__(self, server: PolicyServer, context: Context) -> None:
        self._server = server
        self._tls = TlsStream(context)
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=_HEADER)
        self._secured = self._ended = False
        self._counted = False
        self._read = 0  # octets, decrypted
        self._key: Key | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport  # from `connection_made` on

    # What the event loop calls. A bug ends this connection and is told; the loop would only log it.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        try:
            self._enter()
        except Exception as error:  # noqa: BLE001 - see above
            self._fail(error)

    def data_received(self, data: bytes) -> None:
        try:
            self._received(data)
        except ssl.SSLError:
            self._transport.write(self._tls.take())  # the alert, so that the client knows too
            self._end()
        except Exception as error:  # noqa: BLE001 - see above
            self._fail(error)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._ended = True
        if self._deadline is not None:
            self._deadline.cancel()
        if self._counted:
            self._server.left(self, self._key)

    def stop(self) -> None:
        if not self._ended:
            if self._secured:
                self._transport.write(self._tls.close())
            self._end()

    def abort(self) -> None:
        self._ended = True
        self._transport.abort()

    def _enter(self) -> None:
        """Counted before the handshake: it costs more than all that follows."""
        server = self._server
        try:
            key = limit_key(socket_address(self._transport.get_extra_info("peername")))
        except ValueError:
            self.abort()  # gone already
            return
        if server.connections.enter(server.limits.connections) is not Entry.FREE:
            self.abort()
            return
        self._counted = True
        server.sessions.add(self)
        if server.connections.enter_client(key, server.limits.connections_per_ip) is not Entry.FREE:
            self.abort()
            return
        self._key = key
        self._deadline = asyncio.get_running_loop().call_later(server.limits.seconds, self.abort)

    def _received(self, data: bytes) -> None:
        if not self._secured:
            self._secured = self._tls.handshake(data)
            self._transport.write(self._tls.take())
            data = b""
        if self._secured:
            self._request(self._tls.decrypt(data))

    def _request(self, clear: bytes) -> None:
        self._read += len(clear)
        if self._read > _HEADER:  # h11 bounds only what is not finished yet
            self._say(_TOO_LARGE, is_head=False)
            return
        try:
            if clear:
                self._http.receive_data(clear)
            event = self._http.next_event()
        except h11.RemoteProtocolError as error:
            status = HTTPStatus(error.error_status_hint)
            self._say(Answer(status, b"this is no request that is understood here\n"), is_head=False)
            return
        if isinstance(event, h11.Request):
            host = next((value for name, value in event.headers if name == b"host"), b"")
            method, target, named = (each.decode("ascii", "replace") for each in (event.method, event.target, host))
            self._say(answer(self._server.book().config, method, target, named), is_head=method == "HEAD")
        elif self._tls.closed:
            self._end()

    def _say(self, what: Answer, *, is_head: bool) -> None:
        """h11 takes an answer even after a request that it could not read."""
        fields = [
            ("content-type", _TEXT),
            ("content-length", str(len(what.body))),
            ("date", formatdate(usegmt=True)),
            ("connection", "close"),
            *what.fields,
        ]
        head = h11.Response(status_code=what.status, reason=what.status.phrase.encode(), headers=fields)
        events: list[h11.Event] = [head] if is_head else [head, h11.Data(data=what.body)]
        said = b"".join(self._http.send(each) or b"" for each in events)
        self._transport.write(self._tls.encrypt(said))
        self._transport.write(self._tls.close())
        self._end()

    def _end(self) -> None:
        """What is written still goes out; the deadline holds for that too."""
        self._ended = True
        self._transport.close()

    def _fail(self, error: Exception) -> None:
        self._server.unexpected(error)
        self.abort()
