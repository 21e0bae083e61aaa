"""Two things that handshakes on an open connection need beyond `loop.start_tls`."""

import ssl

from relay.tls.connection import TlsConnection
from relay.tls.context import Context


class Primed(ssl.SSLContext):
    """A context for one handshake whose first bytes have been read from the socket already, behind a PROXY header.

    An event loop hands over what comes from the socket and nothing else, but it makes its connection through `wrap_bio`.
    """

    _context: Context
    _data: bytes

    def __new__(cls, context: Context, data: bytes) -> "Primed":
        primed = super().__new__(cls, ssl.PROTOCOL_TLS_SERVER)
        primed._context, primed._data = context, data
        return primed

    def wrap_bio(
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = False,
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> TlsConnection:
        incoming.write(self._data)
        return self._context.wrap_bio(incoming, outgoing, server_side, server_hostname, session)


def handshake_failure(error: BaseException) -> str:
    """Why a handshake failed, for the log."""
    if isinstance(error, ssl.SSLError):
        return f"TLS handshake failed: {error.reason or error}"
    if isinstance(error, ConnectionAbortedError):  # how event loops say that `ssl_handshake_timeout` has passed
        return "TLS handshake failed: not done in time"
    return "TLS handshake failed: the client closed the connection"
