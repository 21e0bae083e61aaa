"""One connection to a listener: an asyncio.Protocol that moves bytes between the peer and the session machine of `relay.smtp`.

Counts it, reads its PROXY header, makes handshakes, keeps time limits, closes. What is said about mail is `relay.inbound.dialog`'s.

An idle session has no task and no timer of its own. A message whose commit has begun is kept even when the client is gone by then: at
least once (RFC 1047).

Threat: peers that send slowly, never read, flood us, or talk before the handshake is done. A byte now and then extends no limit, only
a reply that we gave does; what came in clear never reaches the session behind the handshake (RFC 3207 section 5; CVE-2011-0411).
"""

import asyncio
from enum import Enum, auto
from typing import cast

from relay.config.models import ListenerKind
from relay.inbound.client import UNKNOWN, Client, socket_address
from relay.inbound.deadlines import NOT_FILED
from relay.inbound.dialog import Dialog
from relay.inbound.limits import Entry, Key, limit_key
from relay.inbound.port import Port
from relay.inbound.proxy import Incomplete, Proxied, ProxyError, parse_header
from relay.inbound.starttls import Primed, handshake_failure
from relay.mail.events import ConnectionRefused, SessionClosed, SessionOpened
from relay.mail.reply import Reply
from relay.policy.book import IpAddress, in_networks
from relay.smtp.events import Close, StartTls
from relay.tls.evidence import evidence_of

TIMEOUT = Reply(421, "4.4.2", "you took too long: closing connection")
STOPPING = Reply(421, "4.3.2", "shutting down: try again in a moment")

QUIT = "quit"
LOST = "lost"


class _State(Enum):
    NEW = auto()
    PROXY = auto()  # its header is awaited
    HANDSHAKE = auto()
    TALKING = auto()
    LINGERING = auto()  # all is said; the last reply is on its way
    ENDED = auto()


class Session(asyncio.Protocol):
    """Made by a listener for each connection."""

    __slots__ = (
        "_blocked",
        "_client",
        "_command_timeout",
        "_data_timeout",
        "_dialog",
        "_early",
        "_ended_by_peer",
        "_key",
        "_opened",
        "_paused",
        "_port",
        "_reason",
        "_state",
        "_transport",
        "deadline",
        "tick",
    )

    def __init__(self, port: Port) -> None:
        self._port = port
        self._state = _State.NEW
        self._transport: asyncio.Transport | None = None
        self._dialog: Dialog | None = None
        self._client: Client | None = None
        self._key: Key | None = None
        self._early = b""  # what came before there was a session to take it
        self._reason = LOST
        self._opened = self._command_timeout = self._data_timeout = 0.0
        self._blocked = self._paused = self._ended_by_peer = False
        self.deadline = 0.0
        self.tick = NOT_FILED

    # What the event loop calls ---------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        floor, terms = self._port.floor, self._port.terms()
        transport = cast(asyncio.Transport, transport)  # uvloop's have its methods, and another base class
        self._transport = transport
        self._opened = floor.loop.time()
        try:
            address = socket_address(transport.get_extra_info("peername"))
        except ValueError:
            transport.abort()  # gone already
            return
        self._client = Client(address)
        if floor.stopping:
            self._refuse(STOPPING)
            return
        entry = floor.connections.enter(terms.connections)
        if entry is not Entry.FREE:
            self._refuse(Reply(421, "4.7.0", entry.value))
            return
        floor.sessions.add(self)
        proxies = self._port.listener.proxy_protocol
        if proxies is None:
            self._enter(limit_key(address))
        elif in_networks(address, proxies.from_):
            self._state = _State.PROXY
            floor.deadlines.set(self, self._opened + floor.times.proxy_header)
        else:
            self._turn_away("a PROXY header is taken from the networks of `proxy_protocol` only")

    def data_received(self, data: bytes) -> None:
        match self._state:
            case _State.TALKING:
                if self._dialog is not None:
                    self._dialog.machine.receive(data)
                    self._run()
            case _State.PROXY:
                self._early += data
                self._read_proxy_header()
            case _State.HANDSHAKE:
                # Reading in clear is paused, so this came through TLS, just before the handshake's end was told to us.
                self._early += data
            case _:
                pass  # LINGERING: read, so that our last reply is not lost to a reset, and thrown away

    def eof_received(self) -> bool:
        """True keeps our side open: a client may close its own right after the final dot and still wait for the reply."""
        waiting = self._dialog is not None and self._state is _State.TALKING and self._dialog.machine.waiting
        if waiting and not self._has_tls:
            self._ended_by_peer = True
            return True
        return False

    def connection_lost(self, exc: BaseException | None) -> None:
        self._end()

    def pause_writing(self) -> None:
        """The peer does not read. Its input is not read either, and it has not long to come round."""
        self._blocked = True
        if self._state is _State.TALKING:
            floor = self._port.floor
            floor.deadlines.set(self, min(self.deadline, floor.loop.time() + floor.times.unread))
            self._flow()

    def resume_writing(self) -> None:
        self._blocked = False
        if self._state is _State.TALKING:
            self._set_deadline(progress=True)
            self._flow()

    def expired(self) -> None:
        """The deadline has passed (`Deadlines`)."""
        floor = self._port.floor
        match self._state:
            case _State.TALKING if self._dialog is not None and not self._blocked:
                if self._dialog.machine.waiting:  # for us, not for the peer
                    floor.deadlines.set(self, floor.loop.time() + self._command_timeout)
                else:
                    self.hang_up(TIMEOUT, "timeout")
            case _State.TALKING:
                self._reason = "our replies were not read"
                self._abort()
            case _State.PROXY:
                self._turn_away("no PROXY header in time")
            case _State.HANDSHAKE:  # `ssl_handshake_timeout` ends it
                floor.deadlines.set(self, floor.loop.time() + floor.times.handshake)
            case _:
                self._abort()

    # What the listener calls -----------------------------------------------------------------------------------------

    def stop(self) -> None:
        """The relay shuts down: idle sessions end now, the others after their message."""
        if self._state is _State.TALKING:
            self._run()
        elif self._state in (_State.PROXY, _State.HANDSHAKE):
            self._reason = "shutting down"
            self._abort()

    def hang_up(self, reply: Reply, reason: str) -> None:
        """Ends the session with a reply, whatever it is doing; a commit under way goes on."""
        if self._dialog is not None and self._state is _State.TALKING:
            self._dialog.hang_up(reply, reason)
            self._run()

    def cut_short(self) -> None:
        """There is no more time. Only what is being committed is let through: its client must hear what became of it."""
        if self._dialog is None or not self._dialog.committing:
            self.hang_up(STOPPING, "shutting down")

    def abort(self) -> None:
        """Ends it at once."""
        if self._state is not _State.ENDED:
            self._abort()

    # From accept to greeting -----------------------------------------------------------------------------------------

    def _refuse(self, reply: Reply) -> None:
        """Before anything costs: no TLS, no machine. In a stream that begins with TLS, no reply could be read."""
        if self._transport is None:
            return
        if self._port.listener.kind is not ListenerKind.SUBMISSIONS:
            self._transport.write(reply.encode())
        self._transport.close()
        self._tell_refused(reply.text)

    def _turn_away(self, reason: str) -> None:
        self._tell_refused(reason)
        self._abort()

    def _tell_refused(self, reason: str) -> None:
        self._state = _State.LINGERING
        self._reason = ""
        self._port.floor.services.emit(ConnectionRefused(self._port.name, self._name, reason))
        floor = self._port.floor
        floor.deadlines.set(self, floor.loop.time() + floor.times.linger)

    def _read_proxy_header(self) -> None:
        try:
            header = parse_header(self._early)
        except ProxyError as error:
            self._turn_away(f"bad PROXY header: {error}")
            return
        if isinstance(header, Incomplete) or self._client is None or self._client.address is None:
            return
        self._early = self._early[header.length :]
        proxy = self._client.address
        # LOCAL and UNKNOWN: no address, so no network's rights; limits count them for the proxy.
        address: IpAddress | None = header.address if isinstance(header, Proxied) else None
        self._client = Client(address)
        self._enter(limit_key(proxy if address is None else address))

    def _enter(self, key: Key) -> None:
        """The client is known."""
        floor, terms = self._port.floor, self._port.terms()
        entry = floor.connections.enter_client(key, terms.connections_per_ip)
        if entry is not Entry.FREE:
            self._refuse(Reply(421, "4.7.0", entry.value))
            return
        self._key = key
        if self._port.listener.kind is ListenerKind.SUBMISSIONS:
            first, self._early = self._early, b""
            self._begin_handshake(first)
        else:
            self._greet()

    def _greet(self) -> None:
        port, client = self._port, self._client
        if client is None or self._key is None:
            raise RuntimeError("a client is known before it is greeted")
        terms = port.terms()
        self._command_timeout, self._data_timeout = terms.command_timeout, terms.data_timeout
        self._dialog = Dialog(port, terms, client, self._key, self._run)
        self._state = _State.TALKING
        port.floor.services.emit(SessionOpened(port.name, self._name))
        self._dialog.machine.greet()
        self._take_early()

    def _take_early(self) -> None:
        early, self._early = self._early, b""
        if self._dialog is not None:
            self._dialog.machine.receive(early)
            self._set_deadline(progress=True)
            self._run()

    # TLS -------------------------------------------------------------------------------------------------------------

    def _begin_handshake(self, first: bytes) -> None:
        """`first` is what has been read of it already."""
        if self._transport is None:
            return
        floor = self._port.floor
        self._state = _State.HANDSHAKE
        self._transport.pause_reading()
        floor.deadlines.set(self, floor.loop.time() + floor.times.handshake)
        floor.spawn(self._handshake(self._transport, first))

    async def _handshake(self, clear: asyncio.Transport, first: bytes) -> None:
        floor, client = self._port.floor, self._client
        try:
            asks = self._port.asks_for_certificates
            context = self._port.context(ask_certificate=asks)
            transport = await floor.loop.start_tls(
                clear,
                self,
                Primed(context, first) if first else context,
                server_side=True,
                ssl_handshake_timeout=floor.times.handshake,
                ssl_shutdown_timeout=floor.times.linger,
            )
            # A client that left in between leaves no transport behind, or one without TLS.
            ssl_object = None if transport is None else transport.get_extra_info("ssl_object")
            if transport is None or ssl_object is None:
                raise ConnectionResetError
        except OSError as error:  # ssl.SSLError is one
            self._handshake_failed(clear, handshake_failure(error))
            return
        except Exception as error:  # noqa: BLE001 - a bug must cost this connection, not leave it open for ever
            self._port.floor.unexpected(error, "handshake")
            self._handshake_failed(clear, "unexpected error")
            return
        if self._state is not _State.HANDSHAKE or client is None:
            transport.abort()
            return
        self._transport, self._paused = transport, False
        client.evidence, client.asked = evidence_of(ssl_object), asks
        if self._dialog is None:
            self._greet()
            return
        self._state = _State.TALKING
        self._dialog.machine.tls_established()
        self._take_early()

    def _handshake_failed(self, clear: asyncio.Transport, reason: str) -> None:
        if self._state is _State.HANDSHAKE:  # else we ended it ourselves
            if self._dialog is None:
                self._tell_refused(reason)
            self._reason = reason
        clear.abort()
        self._end()  # after a failed handshake no event loop calls connection_lost

    @property
    def _has_tls(self) -> bool:
        return self._client is not None and self._client.evidence is not None

    # Talking ---------------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        """Works on what there is: input, or an answer that has just come."""
        dialog = self._dialog
        transport = self._transport
        if dialog is None or transport is None or self._state is not _State.TALKING or transport.is_closing():
            return
        event = dialog.advance()
        if event is None and self._port.floor.stopping and not dialog.busy:
            dialog.hang_up(STOPPING, "shutting down")
            event = dialog.advance()
        output = dialog.machine.take_output()
        if output:
            transport.write(output)
        if isinstance(event, Close):
            self._finish(event.reason)
        elif isinstance(event, StartTls):
            self._begin_handshake(b"")
        elif self._ended_by_peer and not dialog.machine.waiting:
            self._finish(LOST)
        else:
            self._set_deadline(progress=bool(output))
            self._flow()

    def _set_deadline(self, *, progress: bool) -> None:
        """`progress`: we gave a reply, so the next command has its time. Within a message only the limit for all of it counts."""
        if self._dialog is None or self._blocked:
            return
        floor, transaction = self._port.floor, self._dialog.transaction
        if transaction is not None and self._dialog.machine.in_message:
            if not transaction.deadline:
                transaction.deadline = floor.loop.time() + self._data_timeout
            floor.deadlines.set(self, transaction.deadline)
        elif progress:
            floor.deadlines.set(self, floor.loop.time() + self._command_timeout)

    def _flow(self) -> None:
        """Reads on only while there is room for what comes."""
        if self._transport is None or self._dialog is None:
            return
        pause = self._blocked or self._dialog.draining or self._dialog.machine.wants_pause
        if pause is not self._paused:
            self._paused = pause
            if pause:
                self._transport.pause_reading()
            else:
                self._transport.resume_reading()

    # The end ---------------------------------------------------------------------------------------------------------

    def _finish(self, reason: str) -> None:
        """Everything is said. Closing with input unread would reset the connection and could take our last reply with it."""
        transport, floor = self._transport, self._port.floor
        if transport is None or self._dialog is None:
            return
        self._state, self._reason = _State.LINGERING, reason
        self._dialog.drop()
        floor.deadlines.set(self, floor.loop.time() + floor.times.linger)
        if reason == QUIT or self._has_tls or self._ended_by_peer or transport.get_write_buffer_size():
            transport.close()
            return
        try:
            transport.write_eof()
        except OSError:  # the peer was faster
            transport.abort()
            return
        if self._paused:
            transport.resume_reading()

    def _abort(self) -> None:
        self._state = _State.LINGERING
        if self._transport is not None:
            self._transport.abort()

    def _end(self) -> None:
        """Once, when the connection is gone."""
        if self._state is _State.ENDED:
            return
        floor = self._port.floor
        self._state = _State.ENDED
        floor.deadlines.remove(self)
        if self._dialog is not None:
            self._dialog.drop()
            seconds = floor.loop.time() - self._opened
            tls = self._client.evidence.version if self._client is not None and self._client.evidence else ""
            floor.services.emit(SessionClosed(self._port.name, self._name, self._reason, seconds, tls))
        if self in floor.sessions:
            floor.sessions.discard(self)
            floor.connections.leave(self._key)
            floor.left()

    @property
    def _name(self) -> str:
        return UNKNOWN if self._client is None else str(self._client)
