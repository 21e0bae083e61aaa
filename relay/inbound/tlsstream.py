"""TLS for one connection as bytes in, bytes out: what the session puts between its socket and its machine.

Event loops have `start_tls` for this. Here it is done by hand, since that keeps 256 KiB of buffer for each connection under asyncio, loses
the alert that tells a peer why its handshake failed, needs a task and a timer handle for each handshake, and can not take the bytes that
came behind a PROXY header. The engine is `relay.tls`'s; nothing here knows sockets.
"""

import ssl
from contextlib import suppress

from relay.tls.connection import TlsConnection
from relay.tls.context import Context

_RECORD = 16384


class TlsStream:
    """`closed` says that the peer has said close_notify: it will send no more, but may still read (RFC 8446 section 6.1)."""

    __slots__ = ("_incoming", "_outgoing", "closed", "connection")

    def __init__(self, context: Context) -> None:
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.connection: TlsConnection = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self.closed = False

    def handshake(self, data: bytes) -> bool:
        """True when it is done. Raises ssl.SSLError; `take` has the alert then."""
        self._incoming.write(data)
        try:
            self.connection.do_handshake()
        except ssl.SSLWantReadError:
            return False
        return True

    def decrypt(self, data: bytes) -> bytes:
        """All that can be read now. Raises ssl.SSLError as `handshake`."""
        connection, incoming = self.connection, self._incoming
        if data:
            incoming.write(data)
        pieces = []
        while incoming.pending or connection.pending():
            try:
                piece = connection.read(_RECORD)
            except ssl.SSLWantReadError:
                break
            if not piece:
                self.closed = True
                break
            pieces.append(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def encrypt(self, data: bytes) -> bytes:
        """What goes to the socket for `data`."""
        self.connection.write(data)
        return self._outgoing.read()

    def close(self) -> bytes:
        """Our close_notify, and whatever else is still to be sent."""
        with suppress(ssl.SSLError):  # the peer's is not waited for
            self.connection.unwrap()
        return self._outgoing.read()

    def take(self) -> bytes:
        """What the engine wants sent by itself: handshake records, alerts, key updates."""
        return self._outgoing.read() if self._outgoing.pending else b""


def reason_of(error: ssl.SSLError) -> str:
    """OpenSSL's reason, for the log."""
    return str(error.args[1]) if len(error.args) > 1 else str(error)
