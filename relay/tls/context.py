"""The ssl.SSLContext that every listener and every delivery uses: its connections are OpenSSL's through pyOpenSSL (design section 5).

Event loops make TLS connections through `wrap_bio` only, so that is what it replaces; the base class's own settings act on nothing.
A server context follows its keyring: what `Keyring.reload` takes in holds for the next connection.

Threat: a server name that is no name. Whatever a client sends as SNI (RFC 6066 section 3) finds a certificate or the default.
"""

import ipaddress
import ssl
from collections.abc import Callable, Sequence
from typing import Self

from OpenSSL import SSL

from relay.config.certificates import CertificateFiles
from relay.tls.connection import TlsConnection
from relay.tls.engine import bare_server_engine, client_engine, server_engine
from relay.tls.keyring import Keyring, Keys

_MAX_SERVER_NAME = 255


class Context(ssl.SSLContext):
    """For `loop.start_tls`, `create_server(ssl=)`, `create_connection(ssl=)` and aiosmtplib. Made by the two functions below.

    A failed handshake raises ssl.SSLError, never for what a certificate says or does not say.
    """

    server_side: bool
    _engine: Callable[[], SSL.Context]
    _session: SSL.Session | None
    _staple: bool
    _spare: list["Context"]

    def __new__(
        cls,
        engine: Callable[[], SSL.Context],
        *,
        server_side: bool,
        staple: bool = False,
    ) -> Self:
        context = super().__new__(cls, ssl.PROTOCOL_TLS_SERVER if server_side else ssl.PROTOCOL_TLS_CLIENT)
        context._engine, context.server_side, context._session = engine, server_side, None
        context._staple, context._spare = staple, []
        return context

    def resuming(self, session: SSL.Session) -> "Context":
        """The same for one connection that offers to resume a session; where the peer does not want to, the handshake is a whole one.

        The base class takes a fifth of a handshake to make: those whose connection has been made are used again.
        """
        if self._spare:
            context = self._spare.pop()
        else:
            context = Context(self._engine, server_side=False, staple=self._staple)
            context._spare = self._spare
        context._session = session
        return context

    def wrap_bio(
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = False,
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> TlsConnection:
        """A new connection. `server_hostname` (A-labels or an address) goes out as SNI where it is a name. Raises ValueError
        where it cannot be one."""
        if server_side is not self.server_side:
            raise ValueError("a server's context is for servers and a client's for clients")
        name = server_hostname.decode("ascii", "replace") if isinstance(server_hostname, bytes) else server_hostname
        connection = TlsConnection(self, self._engine(), incoming, outgoing, name)
        if name and not server_side and not _is_address(name):
            connection.openssl.set_tlsext_host_name(_sni(name))
        if self._staple:
            connection.openssl.request_ocsp()
        if self._session is not None:
            connection.openssl.set_session(self._session)
            connection.offered_session = True
            self._session = None
            self._spare.append(self)
        return connection


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _sni(name: str) -> bytes:
    """RFC 6066 section 3: ASCII, no trailing dot."""
    host = name.rstrip(".")
    if not host.isascii() or not 0 < len(host) <= _MAX_SERVER_NAME or "\0" in host:
        raise ValueError(f"{name[:80]!r} cannot be sent as a server name: write it as A-labels")
    return host.encode("ascii")


def server_context(
    keyring: Keyring, *, ask_certificate: bool, minimum: str = "TLSv1.2", only: str | None = None
) -> Context:
    """For a listener. Clients are asked for a certificate only with `ask_certificate`, and then whatever they show will do. `only` names the
    one certificate that is shown, whatever SNI says.

    Without any certificate in the keyring every handshake fails; look at `keyring.usable` before STARTTLS is offered.
    """
    return Context(_ServerEngines(keyring, ask_certificate, minimum, only).current, server_side=True)


def client_context(
    *, minimum: str = "TLSv1.2", client_certificate: CertificateFiles | None = None, staple: bool = False
) -> Context:
    """For deliveries. `staple` asks the server for an OCSP answer about its certificate (RFC 6066 section 8).

    Costs about as much as a handshake to make, so keep one for each set of arguments.
    """
    engine = client_engine(() if client_certificate is None else (client_certificate,), minimum=minimum)
    return Context(lambda: engine, server_side=False, staple=staple)


class _ServerEngines:
    """One OpenSSL context per certificate, or set of them with different kinds of key; made anew when the keyring's certificates are others
    than before."""

    def __init__(self, keyring: Keyring, ask_certificate: bool, minimum: str, only: str | None) -> None:
        self._keyring = keyring
        self._ask_certificate = ask_certificate
        self._minimum = minimum
        self._only = only
        self._keys = keyring.keys
        self._first = self._build(self._keys)

    def current(self) -> SSL.Context:
        if self._keys is not self._keyring.keys:
            self._keys = self._keyring.keys
            self._first = self._build(self._keys)
        return self._first

    def _build(self, keys: Keys) -> SSL.Context:
        if not keys.certificates:
            return bare_server_engine(minimum=self._minimum)
        if self._only is not None:
            files = self._keyring.by_name(self._only)
            if files is None:
                return bare_server_engine(minimum=self._minimum)
            return server_engine((files,), minimum=self._minimum, ask_certificate=self._ask_certificate)
        engines: dict[tuple[str, ...], SSL.Context] = {}

        def engine(certificates: Sequence[CertificateFiles]) -> SSL.Context:
            names = tuple(files.name for files in certificates)
            if names not in engines:
                engines[names] = server_engine(
                    certificates, minimum=self._minimum, ask_certificate=self._ask_certificate
                )
            return engines[names]

        def choose(connection: SSL.Connection) -> None:
            # Called without SNI too. May not raise: OpenSSL would end the handshake, and a name is no reason for that.
            chosen = engine(self._keyring.pick_from(keys, connection.get_servername() or b""))
            if connection.get_context() is not chosen:
                connection.set_context(chosen)

        first = engine(self._keyring.pick_from(keys, b""))
        first.set_tlsext_servername_callback(choose)
        return first
