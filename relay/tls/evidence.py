"""What a TLS connection really was, as the nouns of `relay.mail.tls`: taken once after the handshake, judged elsewhere.

Nothing a peer presents makes this raise: a certificate that cannot be read is a fact like any other (`relay.tls.facts`).
"""

from OpenSSL import SSL, crypto

from relay.mail.tls import Certificate, TlsEvidence
from relay.tls.connection import TlsConnection
from relay.tls.facts import facts_of

MAX_CHAIN = 16


def evidence_of(ssl_object: object) -> TlsEvidence:
    """`ssl_object` is `transport.get_extra_info("ssl_object")` after the handshake. Raises TypeError where it is not one of ours."""
    if not isinstance(ssl_object, TlsConnection):
        raise TypeError(
            f"evidence comes from connections of relay.tls.context only, not from {type(ssl_object).__name__}"
        )
    connection = ssl_object.openssl
    presented = _presented(connection, server_side=ssl_object.server_side)
    errors = list(ssl_object.notes.errors)
    if len(presented) > MAX_CHAIN:
        errors.append(f"{len(presented)} certificates were shown, only the first {MAX_CHAIN} are looked at")
    return TlsEvidence(
        version=ssl_object.version() or "",
        cipher=connection.get_cipher_name() or "",
        group=connection.get_group_name() or "",
        sni=_sni(ssl_object),
        chain=tuple(
            parse_certificate(crypto.dump_certificate(crypto.FILETYPE_ASN1, each)) for each in presented[:MAX_CHAIN]
        ),
        errors=tuple(errors),
        resumed=ssl_object.session_reused,
        staple=ssl_object.notes.staple,
    )


def parse_certificate(der: bytes) -> Certificate:
    """Never raises; a certificate that cannot be read has no names, and its subject says why."""
    return facts_of(der).certificate


def _presented(connection: SSL.Connection, *, server_side: bool) -> list[crypto.X509]:
    """Leaf first. OpenSSL leaves the leaf out of the chain on the server's side."""
    chain = connection.get_peer_cert_chain() or []
    if not server_side:
        return chain
    leaf = connection.get_peer_certificate()
    return [] if leaf is None else [leaf, *chain]


def _sni(ssl_object: TlsConnection) -> str:
    """SSL_get_servername gives on either side what went over the wire."""
    return (ssl_object.openssl.get_servername() or b"").decode("ascii", "backslashreplace")
