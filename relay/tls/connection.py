"""One TLS connection: the shape of ssl.SSLObject over an OpenSSL.SSL.Connection with memory BIOs.

asyncio, uvloop and aiosmtplib drive it as they drive an SSLObject, so it behaves as one: want-read and end-of-file arrive as the ssl
module's exceptions, `read` gives b"" after a clean close, `unwrap` ends when both sides have said close_notify. What the peer
presented is read by `relay.tls.evidence`.

Threat: a truncated stream that looks finished. `closed_by_peer` tells a close_notify (RFC 8446 section 6.1) from a mere end of file.
"""

import ssl
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, TypeVar, overload

from OpenSSL import SSL, crypto
from OpenSSL._util import ffi, lib

from relay.tls.engine import Notes

if TYPE_CHECKING:
    from relay.tls.context import Context

P = ParamSpec("P")
T = TypeVar("T")

_RECORD = 16 * 1024  # plaintext in one record at most (RFC 8446 section 5.1), so one read never gives more
_FEED = 32 * 1024
_DRAIN = 32 * 1024
_HEADER = 5

# What may be left in OpenSSL's incoming BIO, which tells nobody: nothing, one record or the rest of it, anything.
_NOTHING, _ONE_RECORD, _ANYTHING = 0, 1, 2
_EOF_REASON = "unexpected eof while reading"


class TlsConnection(ssl.SSLObject):
    """Made by `relay.tls.context.Context.wrap_bio` and by nothing else.

    Small pieces go through the BIOs: those of OpenSSL never shrink, so what once went through at a time stays allocated.
    """

    # Only so that it counts as an SSLObject for type checkers and for whoever asks isinstance(); nothing of the base class is used.

    def __init__(
        self,
        context: "Context",
        engine: SSL.Context,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_hostname: str | None,
    ) -> None:
        self._context = context
        # OpenSSL may call the callbacks of the first context after SNI has put another in its place: it must live as long as we do.
        self._engine = engine
        self._incoming = incoming
        self._outgoing = outgoing
        self._server_hostname = server_hostname
        self._held = _NOTHING
        self._dry = False  # OpenSSL has given all that it was fed: it need not be asked for more
        self._eof = False
        self._notified = False
        self.offered_session = False
        self.notes = Notes()
        self.openssl = SSL.Connection(engine, None)
        self.openssl.set_app_data(self.notes)
        if context.server_side:
            self.openssl.set_accept_state()
        else:
            self.openssl.set_connect_state()

    # what the event loops call

    def do_handshake(self) -> None:
        """Raises ssl.SSLWantReadError until it is done, ssl.SSLError with OpenSSL's reason where it failed."""
        self._advance(self.openssl.do_handshake)

    def read(self, wanted: int = 1024, buffer: Any = None) -> Any:
        """Up to one record. bytes, or the count where a buffer was given; b"" or 0 after the peer's close_notify."""
        size = wanted if wanted < _RECORD else _RECORD
        if size < 1:
            return b"" if buffer is None else 0
        connection = self.openssl
        while True:
            if not self._held:
                self._feed()
                if self._dry:
                    raise ssl.SSLWantReadError(ssl.SSL_ERROR_WANT_READ, "want read")
            try:
                result = connection.recv(size) if buffer is None else connection.recv_into(buffer, size)
            except SSL.WantReadError:
                if self._more():
                    continue
                self._drain()
                self._dry = not self._eof
                raise ssl.SSLWantReadError(ssl.SSL_ERROR_WANT_READ, "want read") from None
            except SSL.ZeroReturnError:
                return self._ended(buffer)
            except SSL.Error as error:
                raise self._failed(error) from None
            if self._held == _ONE_RECORD and not connection.pending():
                self._held, self._dry = _NOTHING, True
            return result

    def write(self, data: Any) -> int:
        """All of `data`. Raises ssl.SSLError, or ssl.SSLWantReadError while the handshake is not done."""
        size = data.nbytes if isinstance(data, memoryview) else len(data)
        if size <= _RECORD:
            return self._write_piece(data) if size else 0
        sent = 0
        with memoryview(data).cast("B") as view:
            while sent < size:
                sent += self._write_piece(view[sent : sent + _RECORD])
        return sent

    def unwrap(self) -> None:
        """Says close_notify and waits for the peer's: ssl.SSLWantReadError until it is there."""
        # OpenSSL's first call says ours, its second waits for the peer's.
        self._notified = self._advance(self.openssl.shutdown) or self._advance(self.openssl.shutdown)

    def pending(self) -> int:
        """Bytes that can be read now, or a guess above 0 where that is not known.

        uvloop reads on only while this is not 0, so bytes that sit undecrypted in OpenSSL's BIO count, or the connection hangs.
        """
        return self.openssl.pending() or self._held

    # what it can tell

    @property
    def closed_by_peer(self) -> bool:
        """True where the peer said close_notify: what came before it is all there was."""
        return self._notified

    @property
    def context(self) -> ssl.SSLContext:
        return self._context

    @context.setter
    def context(self, _value: ssl.SSLContext) -> None:
        raise AttributeError("the certificate is chosen by SNI, a connection keeps its context")

    @property
    def server_side(self) -> bool:
        return self._context.server_side

    @property
    def server_hostname(self) -> str | None:
        """What the caller gave, whether it went out as SNI or not (an IP address does not)."""
        return self._server_hostname

    @property
    def session(self) -> None:  # type: ignore[override] # the ssl module's kind; `resumable` is ours
        return None

    @property
    def session_reused(self) -> bool:
        """True where the handshake resumed an earlier session. pyOpenSSL has the call and does not show it."""
        return bool(lib.SSL_session_reused(self.openssl._ssl))

    @property
    def resumable(self) -> SSL.Session | None:
        """A session for a later connection: TLS 1.3 only, and of use once the peer's ticket is here, with its first answer at the latest."""
        return self.openssl.get_session() if self.version() == "TLSv1.3" else None

    def version(self) -> str | None:
        """ "TLSv1.3" and so on, None before the handshake."""
        return self.openssl.get_protocol_version_name() if self.openssl.get_cipher_name() else None

    def cipher(self) -> tuple[str, str, int] | None:
        """Name, version and key bits, None before the handshake."""
        name, bits = self.openssl.get_cipher_name(), self.openssl.get_cipher_bits()
        return (name, self.openssl.get_protocol_version_name(), bits) if name and bits else None

    def compression(self) -> None:
        return None

    def shared_ciphers(self) -> None:
        return None

    def selected_alpn_protocol(self) -> None:
        return None

    def selected_npn_protocol(self) -> None:
        return None

    def get_channel_binding(self, cb_type: str = "tls-unique") -> None:
        return None

    @overload
    def getpeercert(self, binary_form: Literal[False] = False) -> dict[str, Any] | None: ...

    @overload
    def getpeercert(self, binary_form: Literal[True]) -> bytes | None: ...

    @overload
    def getpeercert(self, binary_form: bool) -> dict[str, Any] | bytes | None: ...

    def getpeercert(self, binary_form: bool = False) -> dict[str, Any] | bytes | None:
        """The leaf's DER. As a dictionary always empty: so the ssl module speaks of a certificate that nobody verified."""
        if not binary_form:
            return {}
        leaf = self.openssl.get_peer_certificate()
        return None if leaf is None else crypto.dump_certificate(crypto.FILETYPE_ASN1, leaf)

    # between OpenSSL's BIOs and the loop's

    def _feed(self) -> None:
        """Hands over what has arrived."""
        incoming = self._incoming
        if incoming.pending:
            data = incoming.read(_FEED)
            self.openssl.bio_write(data)
            self._dry = False
            single = len(data) > _HEADER and _HEADER + (data[3] << 8 | data[4]) == len(data)
            self._held = _ONE_RECORD if single else _ANYTHING
        elif incoming.eof:
            self._eof, self._dry = True, False
            self.openssl.bio_shutdown()

    def _more(self) -> bool:
        """OpenSSL has used up all it was given: is there more to give?"""
        self._held = _NOTHING
        return self._incoming.pending > 0 or (self._incoming.eof and not self._eof)

    def _drain(self) -> None:
        """Takes out what OpenSSL wants sent. Mostly that is nothing, which pyOpenSSL would say by an exception, with 32 KiB set aside before."""
        connection = self.openssl
        while size := lib.BIO_get_mem_data(connection._from_ssl, ffi.NULL):
            self._outgoing.write(connection.bio_read(min(size, _DRAIN)))

    def _write_piece(self, data: Any) -> int:
        try:
            sent = self.openssl.send(data)
        except SSL.WantReadError:
            self._drain()
            raise ssl.SSLWantReadError(ssl.SSL_ERROR_WANT_READ, "want read") from None
        except SSL.Error as error:
            raise self._failed(error) from None
        self._drain()
        return sent

    def _advance(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Handshake and shutdown: feeds as long as there is something to feed."""
        while True:
            if not self._held:
                self._feed()
            try:
                result = function(*args, **kwargs)
            except SSL.WantReadError:
                if self._more():
                    continue
                self._drain()
                raise ssl.SSLWantReadError(ssl.SSL_ERROR_WANT_READ, "want read") from None
            except SSL.Error as error:
                raise self._failed(error) from None
            if self._held:
                self._held = _ANYTHING  # it may have been done without the last record
            self._drain()
            return result

    def _ended(self, buffer: Any) -> bytes | int:
        self._notified = True
        self._held = _NOTHING
        if self.openssl.get_shutdown() & SSL.SENT_SHUTDOWN:
            raise ssl.SSLZeroReturnError(ssl.SSL_ERROR_ZERO_RETURN, "TLS connection has been closed (EOF)")
        return b"" if buffer is None else 0

    def _failed(self, error: SSL.Error) -> ssl.SSLError:
        """The ssl module's exception for one of pyOpenSSL's. The alert that goes with it waits in the outgoing BIO."""
        self._held = _NOTHING
        self._drain()
        return as_ssl_error(error)


def as_ssl_error(error: SSL.Error) -> ssl.SSLError:
    """With OpenSSL's reason as str(), and as `reason` in the ssl module's spelling (WRONG_VERSION_NUMBER)."""
    entries = error.args[0] if error.args and isinstance(error.args[0], list) else []
    # Errors of other libraries may stand before it: why a signature did not hold, where the peer needs only that it did not.
    text = next((reason for library, _function, reason in entries if library == "SSL routines"), "")
    text = text or (entries[-1][2] if entries else "") or "TLS failed"
    if isinstance(error, SSL.SysCallError) or text == _EOF_REASON:
        return ssl.SSLEOFError(ssl.SSL_ERROR_EOF, "the peer ended the connection without close_notify")
    failed = ssl.SSLError(ssl.SSL_ERROR_SSL, text)
    failed.library = "SSL"
    failed.reason = text.upper().replace(" ", "_")
    return failed
