"""One connection to a listener: an asyncio.Protocol that moves bytes between the peer and the session machine of `relay.smtp`.

Counts it, reads its PROXY header, makes handshakes, keeps time limits, closes. What is said about mail is `relay.inbound.dialog`'s.

An idle session has no task and no timer of its own. A message whose commit has begun is kept even when the client is gone by then: at
least once (RFC 1047).

Threat: peers that send slowly, never read, flood us, or talk before the handshake is done. A byte now and then extends no limit, only
a reply that we gave does; what came in clear never reaches the session behind the handshake (RFC 3207 section 5; CVE-2011-0411).
"""

import asyncio
import ssl
from enum import Enum, auto
from typing import cast

from relay.clients.limits import Entry, limit_key
from relay.config.models import ListenerKind
from relay.inbound.client import Client, server_text, socket_address, socket_port
from relay.inbound.deadlines import NOT_FILED
from relay.inbound.dialog import UNEXPECTED, Dialog
from relay.inbound.port import Port, Terms
from relay.inbound.proxy import Incomplete, Proxied, ProxyError, parse_header
from relay.inbound.tlsstream import TlsStream, reason_of
from relay.mail.events import ConnectionRefused, SessionClosed, SessionOpened
from relay.mail.reply import Reply
from relay.policy.book import in_networks
from relay.smtp.events import Close
from relay.tls.evidence import evidence_of

TIMEOUT = Reply(421, "4.4.2", "you took too long: closing connection")
STOPPING = Reply(421, "4.3.2", "shutting down: try again in a moment")

QUIT = "quit"
LOST = "lost"
SHUTTING_DOWN = "shutting down"


class _State(Enum):
    NEW = auto()
    PROXY = auto()  # its header is awaited
    HANDSHAKE = auto()
    TALKING = auto()
    LINGERING = auto()  # all is said; the last reply is on its way
    ENDED = auto()


_TALKING = _State.TALKING  # looked up for every packet
_NOBODY = Client(None, "nobody")


class Session(asyncio.Protocol):
    """Made by a listener for each connection."""

    __slots__ = (
        "_blocked",
        "_client",
        "_counted",
        "_dialog",
        "_early",
        "_ended_by_peer",
        "_opened",
        "_paused",
        "_port",
        "_reason",
        "_state",
        "_terms",
        "_tls",
        "_transport",
        "deadline",
        "tick",
    )

    def __init__(self, port: Port) -> None:
        self._port = port
        self._terms: Terms = port.terms()
        self._state = _State.NEW
        self._transport: asyncio.Transport  # from `connection_made` on
        self._tls: TlsStream | None = None
        self._dialog: Dialog | None = None
        self._client = _NOBODY
        self._early = b""  # what came before there was a session to take it
        self._reason = LOST
        self._opened = 0.0
        self._blocked = self._counted = self._paused = self._ended_by_peer = False
        self.deadline = 0.0
        self.tick = NOT_FILED

    # What the event loop calls ---------------------------------------------------------------------------------------

    # Event loops log an exception where nobody looks, and uvloop leaves the connection open: a bug ends this connection, and is told.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's have its methods, and another base class
        try:
            self._accept()
        except Exception as error:  # noqa: BLE001 - see above
            self._fail(error)

    def data_received(self, data: bytes) -> None:
        try:
            self._received(data)
        except Exception as error:  # noqa: BLE001 - see above
            self._fail(error)

    def resume(self) -> None:
        """An answer that took its time has been given."""
        try:
            self._run()
        except Exception as error:  # noqa: BLE001 - see above
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        self._port.floor.unexpected(error, "session")
        self._reason = UNEXPECTED
        self._abort()

    def _accept(self) -> None:
        floor = self._port.floor
        self._opened = floor.loop.time()
        try:
            peername = self._transport.get_extra_info("peername")
            address = socket_address(peername)
            server = server_text(self._transport.get_extra_info("sockname"))
        except ValueError:
            self._abort()  # gone already
            return
        self._client = Client(address, limit_key(address), socket_port(peername), server)
        if floor.stopping:
            self._refuse(STOPPING)
            return
        entry = floor.connections.enter(self._terms.connections)
        if entry is not Entry.FREE:
            self._refuse(Reply(421, "4.7.0", entry.value))
            return
        floor.sessions.add(self)
        floor.came()
        proxies = self._port.listener.proxy_protocol
        if proxies is None:
            self._enter()
        elif in_networks(address, proxies.from_):
            self._state = _State.PROXY
            floor.deadlines.set(self, self._opened + floor.times.proxy_header)
        else:
            self._turn_away("a PROXY header is taken from the networks of `proxy_protocol` only")

    def _received(self, data: bytes) -> None:
        dialog = self._dialog
        if dialog is not None and self._state is _TALKING:
            if self._tls is not None:
                data = self._decrypted(self._tls, data)
            dialog.machine.receive(data)
            self._run()
        elif self._tls is not None and self._state is _State.HANDSHAKE:
            self._shake_hands(self._tls, data)
        elif self._state is _State.PROXY:
            self._early += data
            self._read_proxy_header()
        # LINGERING: it was read so that our last reply is not lost to a reset, and is thrown away

    def eof_received(self) -> bool:
        """True keeps our side open: a client may close its own right after the final dot and still wait for the reply."""
        if self._state is _TALKING and self._dialog is not None and self._dialog.machine.waiting:
            self._ended_by_peer = True
            return True
        return False

    def connection_lost(self, exc: BaseException | None) -> None:
        if self._state is _State.HANDSHAKE:
            self._reason = "TLS handshake failed: the client closed the connection"
            if self._dialog is None:
                self._tell_refused(self._reason)
        self._end()

    def pause_writing(self) -> None:
        """The peer does not read. Its input is not read either, and it has not long to come round."""
        self._blocked = True
        if self._dialog is not None and self._state is _TALKING:
            floor = self._port.floor
            floor.deadlines.set(self, min(self.deadline, floor.loop.time() + floor.times.unread))
            self._flow(self._dialog)

    def resume_writing(self) -> None:
        self._blocked = False
        if self._dialog is not None and self._state is _TALKING:
            self._set_deadline(self._dialog, progress=True)
            self._flow(self._dialog)

    def expired(self) -> None:
        """The deadline has passed (`Deadlines`)."""
        floor = self._port.floor
        if self._state is _TALKING and self._dialog is not None:
            if self._blocked:
                self._reason = "our replies were not read"
                self._abort()
            elif self._dialog.machine.waiting:  # for us, not for the peer
                floor.deadlines.set(self, floor.loop.time() + self._terms.command_timeout)
            else:
                self.hang_up(TIMEOUT, "timeout")
        elif self._state is _State.PROXY:
            self._turn_away("no PROXY header in time")
        elif self._state is _State.HANDSHAKE:
            self._handshake_failed("not done in time")
        else:
            self._abort()

    # What the listener calls -----------------------------------------------------------------------------------------

    @property
    def listener(self) -> str:
        return self._port.name

    def stop(self) -> None:
        """The relay shuts down: idle sessions end now, the others after their message."""
        if self._state is _TALKING:
            self.resume()
        elif self._state in (_State.PROXY, _State.HANDSHAKE):
            self._reason = SHUTTING_DOWN
            self._abort()

    def hang_up(self, reply: Reply, reason: str) -> None:
        """Ends the session with a reply, whatever it is doing; a commit under way goes on."""
        if self._dialog is not None and self._state is _TALKING:
            self._dialog.machine.hang_up(reply, reason)
            self.resume()

    def cut_short(self) -> None:
        """There is no more time. Only what is being committed is let through: its client must hear what became of it."""
        if self._dialog is None or not self._dialog.committing:
            self.hang_up(STOPPING, SHUTTING_DOWN)

    def abort(self) -> None:
        """Ends it at once."""
        if self._state is not _State.ENDED:
            self._abort()

    # From accept to greeting -----------------------------------------------------------------------------------------

    def _refuse(self, reply: Reply) -> None:
        """Before anything costs: no TLS, no machine. In a stream that begins with TLS, no reply could be read."""
        if self._port.listener.kind is not ListenerKind.SUBMISSIONS:
            self._transport.write(reply.encode())
        self._tell_refused(reply.text)
        self._let_go(at_once=True)

    def _turn_away(self, reason: str) -> None:
        self._tell_refused(reason)
        self._abort()

    def _tell_refused(self, reason: str) -> None:
        self._port.floor.services.emit(ConnectionRefused(self._port.name, self._client.text, reason))

    def _read_proxy_header(self) -> None:
        try:
            header = parse_header(self._early)
        except ProxyError as error:
            self._turn_away(f"bad PROXY header: {error}")
            return
        if isinstance(header, Incomplete):
            return
        self._early = self._early[header.length :]
        if isinstance(header, Proxied):
            self._client = Client(header.address, limit_key(header.address), header.port, str(header.server or ""))
        else:  # LOCAL and UNKNOWN: no address, so no network's rights; limits count them for the proxy
            self._client = Client(None, self._client.key)
        self._enter()

    def _enter(self) -> None:
        """The client is known."""
        entry = self._port.floor.connections.enter_client(self._client.key, self._terms.connections_per_ip)
        if entry is not Entry.FREE:
            self._refuse(Reply(421, "4.7.0", entry.value))
            return
        self._counted = True
        if self._port.listener.kind is ListenerKind.SUBMISSIONS:
            self._begin_handshake()
        else:
            self._greet()

    def _greet(self) -> None:
        port = self._port
        dialog = self._dialog = Dialog(port, self._terms, self._client, self.resume)
        port.floor.services.emit(SessionOpened(port.name, self._client.text))
        dialog.machine.greet()
        self._talk(dialog)

    def _talk(self, dialog: Dialog) -> None:
        """The first or, after STARTTLS, the second beginning."""
        self._state = _TALKING
        if self._early:
            dialog.machine.receive(self._early)
            self._early = b""
        self._run()

    # TLS -------------------------------------------------------------------------------------------------------------

    def _begin_handshake(self) -> None:
        """Every octet from here on is TLS, or breaks the handshake."""
        port, floor = self._port, self._port.floor
        self._state = _State.HANDSHAKE
        floor.deadlines.set(self, floor.loop.time() + floor.times.handshake)
        self._client.asked = port.asks_for_certificates
        tls = self._tls = TlsStream(port.context(ask_certificate=self._client.asked))
        early, self._early = self._early, b""
        if early:
            self._shake_hands(tls, early)

    def _shake_hands(self, tls: TlsStream, data: bytes) -> None:
        try:
            done = tls.handshake(data)
            self._transport.write(tls.take())
            if not done:
                return
            self._client.secured(evidence_of(tls.connection))
            self._early = tls.decrypt(b"")  # what the client said in the same packet
            self._ended_by_peer = tls.closed
        except ssl.SSLError as error:
            self._handshake_failed(reason_of(error))
            return
        if self._dialog is None:
            self._greet()
        else:
            self._dialog.machine.tls_established()
            self._set_deadline(self._dialog, progress=True)
            self._talk(self._dialog)

    def _handshake_failed(self, why: str) -> None:
        reason = f"TLS handshake failed: {why}"
        if self._dialog is None:
            self._tell_refused(reason)
        self._reason = reason
        if self._tls is not None:
            self._transport.write(self._tls.take())  # the alert, so that the peer knows too
        self._let_go()

    def _decrypted(self, tls: TlsStream, data: bytes) -> bytes:
        """What the machine gets. A stream that breaks ends here: what came before is answered no more."""
        try:
            clear = tls.decrypt(data)
        except ssl.SSLError as error:
            self._reason = f"TLS failed: {reason_of(error)}"
            self._transport.write(tls.take())
            self._let_go()
            return b""
        if answer := tls.take():
            self._transport.write(answer)
        self._ended_by_peer = self._ended_by_peer or tls.closed
        return clear

    # Talking ---------------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        """Works on what there is: input, or an answer that has just come."""
        dialog, transport = self._dialog, self._transport
        if dialog is None or self._state is not _TALKING or transport.is_closing():
            return
        event = dialog.advance()
        if self._port.floor.stopping and event is None and not dialog.busy:
            dialog.machine.hang_up(STOPPING, SHUTTING_DOWN)
            event = dialog.advance()
        output = dialog.machine.take_output()
        if output:
            transport.write(output if self._tls is None else self._tls.encrypt(output))
        if event is None:
            if self._ended_by_peer and not dialog.machine.waiting:
                self._finish(LOST)
                return
            self._set_deadline(dialog, progress=bool(output))
            if self._paused or dialog.draining or dialog.machine.wants_pause:
                self._flow(dialog)
        elif isinstance(event, Close):
            self._finish(event.reason)
        else:
            self._begin_handshake()

    def _set_deadline(self, dialog: Dialog, *, progress: bool) -> None:
        """`progress`: we gave a reply, so the next command has its time. Within a message only the limit for all of it counts."""
        if self._blocked:
            return
        floor, transaction = self._port.floor, dialog.transaction
        if transaction is not None and dialog.machine.in_message:
            if not transaction.deadline:
                transaction.deadline = floor.loop.time() + self._terms.data_timeout
            floor.deadlines.set(self, transaction.deadline)
        elif progress:
            floor.deadlines.set(self, floor.loop.time() + self._terms.command_timeout)

    def _flow(self, dialog: Dialog) -> None:
        """Reads on only while there is room for what comes."""
        pause = self._blocked or dialog.draining or dialog.machine.wants_pause
        if pause is not self._paused:
            self._paused = pause
            if pause:
                self._transport.pause_reading()
            else:
                self._transport.resume_reading()

    # The end ---------------------------------------------------------------------------------------------------------

    def _finish(self, reason: str) -> None:
        """Everything is said."""
        self._reason = reason
        if self._tls is not None:
            self._transport.write(self._tls.close())
        self._let_go(at_once=reason == QUIT or self._ended_by_peer)

    def _let_go(self, *, at_once: bool = False) -> None:
        """Closes our side, and the whole connection when the peer has closed its own, or soon after.

        Closing with input unread would make the kernel reset the connection, and could take our last reply with it.
        """
        transport, floor = self._transport, self._port.floor
        self._state = _State.LINGERING
        if self._dialog is not None:
            self._dialog.drop()
        if at_once or transport.is_closing():
            transport.close()  # the deadline stays what it was: one small reply finds room in the kernel
            return
        floor.deadlines.set(self, floor.loop.time() + floor.times.linger)
        try:
            transport.write_eof()
        except OSError:  # the peer was faster
            transport.abort()
            return
        if self._paused:
            transport.resume_reading()

    def _abort(self) -> None:
        self._state = _State.LINGERING
        self._transport.abort()

    def _end(self) -> None:
        """The connection is gone."""
        floor = self._port.floor
        self._state = _State.ENDED
        floor.deadlines.remove(self)
        if self._dialog is not None:
            self._dialog.drop()
            seconds = floor.loop.time() - self._opened
            evidence = self._client.evidence
            version = "" if evidence is None else evidence.version
            floor.services.emit(SessionClosed(self._port.name, self._client.text, self._reason, seconds, version))
        if self in floor.sessions:
            floor.sessions.discard(self)
            floor.connections.leave(self._client.key if self._counted else None)
            floor.left()
        # It knows us too: without the circle, memory is free at once and not at the collector's next full round.
        self._dialog = self._tls = None
