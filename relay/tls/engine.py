"""OpenSSL contexts as this relay needs them, through pyOpenSSL: versions, suites, certificates, and a callback that only takes notes.

Forward secrecy always: TLS 1.3, and the ECDHE suites below it. No compression, no renegotiation. No client resumes a session here: that
shows no certificate on the server's side, and what is not shown can not be judged (design section 5); `relay.tls.sessions` is for
deliveries. Who is trusted is decided after the handshake, in `relay.tls.trust` and `relay.policy.verdict`.
"""

import os
import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field

from OpenSSL import SSL

from relay.config.certificates import CertificateFiles
from relay.mail.tls import TLS_VERSIONS

MAX_ERRORS = 16
MAX_STAPLE = 32 * 1024  # bytes

_VERSIONS = dict(
    zip(TLS_VERSIONS, (SSL.TLS1_VERSION, SSL.TLS1_1_VERSION, SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION), strict=True)
)
_LOWEST = TLS_VERSIONS.index("TLSv1.2")

# RFC 9325 section 4.2 for what leads the list. The CBC suites at its end are for Exchange servers of 2012 with RSA keys.
_SUITES = b"ECDHE+AESGCM:ECDHE+CHACHA20:ECDHE+AESCCM:ECDHE+AES:!AESCCM8:!aNULL:!PSK"
# TLS 1.0 and 1.1 hash with SHA-1, which OpenSSL allows at security level 0 only.
_SUITES_BELOW_1_2 = _SUITES + b":@SECLEVEL=0"

_OPTIONS = (
    SSL.OP_NO_COMPRESSION
    | SSL.OP_NO_RENEGOTIATION
    | SSL.OP_NO_TICKET
    | SSL.OP_CIPHER_SERVER_PREFERENCE
    | SSL.OP_SINGLE_ECDH_USE
)

_Codes = SSL.X509VerificationCodes
# No anchors are loaded here, so OpenSSL never finds one; that says nothing about the peer.
_NO_ANCHOR = frozenset(
    {
        _Codes.ERR_UNABLE_TO_GET_ISSUER_CERT,
        _Codes.ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY,
        _Codes.ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE,
        _Codes.ERR_DEPTH_ZERO_SELF_SIGNED_CERT,
        _Codes.ERR_SELF_SIGNED_CERT_IN_CHAIN,
        _Codes.ERR_CERT_UNTRUSTED,
    }
)
_TOO_WEAK = {
    66: "key too small",
    67: "CA key too small",
    68: "signature digest too weak",
}  # OpenSSL's, not in pyOpenSSL's list


@dataclass(slots=True)
class Notes:
    """What OpenSSL had to say about the peer's chain during one handshake, and the OCSP answer that the peer stapled to it."""

    errors: list[str] = field(default_factory=list)
    staple: bytes = b""


def _words() -> dict[int, str]:
    names = {getattr(_Codes, name): name for name in vars(_Codes) if name.startswith("ERR_")}
    return _TOO_WEAK | {code: name.removeprefix("ERR_").replace("_", " ").lower() for code, name in names.items()}


_WORDS = _words()


def _take_note(connection: SSL.Connection, _certificate: object, error: int, depth: int, ok: int) -> bool:
    """Always goes on: a handshake that dies over a certificate sends the peer back to clear text, or never gets through."""
    notes = connection.get_app_data()
    if not ok and error not in _NO_ANCHOR and isinstance(notes, Notes) and len(notes.errors) < MAX_ERRORS:
        which = "leaf" if depth == 0 else f"certificate {depth + 1} of the chain"
        notes.errors.append(f"{which}: {_WORDS.get(error, f'verification error {error}')}")
    return True


def _take_staple(connection: SSL.Connection, staple: bytes, _data: object) -> bool:
    """RFC 6066 section 8. Always goes on, as `_take_note`: what it says is judged later."""
    notes = connection.get_app_data()
    if isinstance(notes, Notes) and len(staple) <= MAX_STAPLE:
        notes.staple = bytes(staple)
    return True


def server_engine(certificates: Sequence[CertificateFiles], *, minimum: str, ask_certificate: bool) -> SSL.Context:
    """A context that shows the one of `certificates`, each with another kind of key, that the client can check.

    Raises SSL.Error where OpenSSL refuses one, ValueError for a version it does not know.
    """
    engine = _engine(SSL.TLS_SERVER_METHOD, minimum)
    # Resuming where no session-id context is set breaks the client, so nothing is ever resumed and the context is set all the same.
    # TLS 1.3 clients still get two tickets, which lead nowhere: pyOpenSSL has no way to send none.
    engine.set_session_id(b"ironpost")
    for files in certificates:
        _load(engine, files)
    # No CA list goes with the question: clients with a certificate from elsewhere than the list would show none.
    engine.set_verify(SSL.VERIFY_PEER if ask_certificate else SSL.VERIFY_NONE, _take_note)
    return engine


def client_engine(certificates: Sequence[CertificateFiles], *, minimum: str) -> SSL.Context:
    """A context that shows the first of `certificates` where it is asked for one. Raises as `server_engine`."""
    engine = _engine(SSL.TLS_CLIENT_METHOD, minimum)
    for files in certificates[:1]:
        _load(engine, files)
    if TLS_VERSIONS.index(minimum) < _LOWEST:
        # Servers of that age do not know RFC 5746. We never renegotiate, so what it guards is theirs to lose.
        engine.set_options(SSL.OP_LEGACY_SERVER_CONNECT)
    engine.set_verify(SSL.VERIFY_PEER, _take_note)
    engine.set_ocsp_client_callback(_take_staple)  # called where a connection asks for a staple
    return engine


def bare_server_engine(*, minimum: str) -> SSL.Context:
    """A context without a certificate: every handshake with it fails, and says so to the client."""
    return _engine(SSL.TLS_SERVER_METHOD, minimum)


def _engine(method: int, minimum: str) -> SSL.Context:
    if minimum not in _VERSIONS:
        raise ValueError(f"{minimum!r} is not a TLS version: one of {', '.join(TLS_VERSIONS)}")
    engine = SSL.Context(method)
    engine.set_min_proto_version(_VERSIONS[minimum])
    engine.set_cipher_list(_SUITES if TLS_VERSIONS.index(minimum) >= _LOWEST else _SUITES_BELOW_1_2)
    engine.set_options(_OPTIONS)
    engine.set_mode(SSL.MODE_RELEASE_BUFFERS)  # an idle connection keeps no record buffers
    engine.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    return engine


def _load(engine: SSL.Context, files: CertificateFiles) -> None:
    """Adds a certificate. Through a file in memory, since only from a file does OpenSSL take a chain for this certificate alone."""
    pem = b"".join(ssl.DER_cert_to_PEM_cert(each).encode() for each in files.chain)
    with os.fdopen(os.memfd_create("chain"), "wb", closefd=True) as file:
        file.write(pem)
        file.flush()
        engine.use_certificate_chain_file(f"/proc/self/fd/{file.fileno()}")
    engine.use_privatekey(files.key)
    engine.check_privatekey()
