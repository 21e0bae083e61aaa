"""Throw-away certificates, right and wrong ones, and a way to let two TLS ends talk without sockets."""

import hashlib
import ipaddress
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from relay.config.certificates import PrivateKey
from relay.mail.published import TlsaRecord

NOW = datetime.now(UTC).replace(microsecond=0)  # handshakes go by the machine's clock, whatever we pass
DAY = timedelta(days=1)
SERVER_AUTH = ExtendedKeyUsageOID.SERVER_AUTH
CLIENT_AUTH = ExtendedKeyUsageOID.CLIENT_AUTH
EMAIL = ExtendedKeyUsageOID.EMAIL_PROTECTION


def clock() -> datetime:
    return NOW


@dataclass(frozen=True)
class Wish:
    """What a certificate should be like. The plain one is a good leaf."""

    subject: str = "leaf"
    names: Sequence[str] = ()
    ca: bool | None = False
    path_length: int | None = None
    before: datetime = NOW - 10 * DAY
    after: datetime = NOW + 100 * DAY
    usages: Sequence[x509.ObjectIdentifier] = ()
    key_usage: x509.KeyUsage | None = None
    constraints: x509.NameConstraints | None = None


@dataclass(frozen=True)
class Issued:
    """A certificate, its key, and who issued it, up to the root."""

    certificate: x509.Certificate
    key: PrivateKey
    issuers: tuple["Issued", ...] = ()

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(Encoding.DER)

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    @property
    def chain(self) -> tuple[bytes, ...]:
        """DER, leaf first, without the root."""
        return (self.der, *(each.der for each in self.issuers[:-1]))

    @property
    def chain_pem(self) -> bytes:
        return self.pem + b"".join(each.pem for each in self.issuers[:-1])

    def write(self, folder: Path, name: str) -> None:
        """NAME.pem and NAME.key, as the certificates folder has them."""
        (folder / f"{name}.pem").write_bytes(self.chain_pem)
        key = folder / f"{name}.key"
        key.write_bytes(self.key_pem)
        key.chmod(0o600)

    def issue(self, wish: Wish, key: PrivateKey | None = None) -> "Issued":
        return _sign(wish, key or new_key(), self)


def tlsa_record(usage: int, selector: int, matching: int, issued: Issued) -> TlsaRecord:
    """RFC 6698 section 2.1."""
    key = issued.key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    content = key if selector else issued.der
    data = (content, hashlib.sha256(content).digest(), hashlib.sha512(content).digest())[matching]
    return TlsaRecord(usage, selector, matching, data.hex())


def new_key() -> PrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


@cache  # slow to make
def rsa_key(bits: int) -> PrivateKey:
    return rsa.generate_private_key(65537, bits)


def self_signed(wish: Wish, key: PrivateKey | None = None) -> Issued:
    return _sign(wish, key or new_key(), None)


def root(subject: str = "root") -> Issued:
    return self_signed(Wish(subject, ca=True))


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)] if text else [])


def _sign(wish: Wish, key: PrivateKey, issuer: Issued | None) -> Issued:
    builder = (
        x509.CertificateBuilder()
        .subject_name(_name(wish.subject))
        .issuer_name(issuer.certificate.subject if issuer else _name(wish.subject))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(wish.before)
        .not_valid_after(wish.after)
    )
    if wish.names:
        builder = builder.add_extension(x509.SubjectAlternativeName([_general(each) for each in wish.names]), False)
    if wish.ca is not None:
        builder = builder.add_extension(x509.BasicConstraints(wish.ca, wish.path_length), True)
    if wish.usages:
        builder = builder.add_extension(x509.ExtendedKeyUsage(wish.usages), False)
    if wish.key_usage:
        builder = builder.add_extension(wish.key_usage, True)
    if wish.constraints:
        builder = builder.add_extension(wish.constraints, True)
    signer = issuer.key if issuer else key
    edwards = isinstance(signer, ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey)  # they bring their own hash
    certificate = builder.sign(signer, None if edwards else hashes.SHA256())
    return Issued(certificate, key, (issuer, *issuer.issuers) if issuer else ())


def key_usage(*, signature: bool = False, certificates: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=signature,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=certificates,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )


class End:
    """One end of a connection without a socket: an SSLObject and its two BIOs."""

    def __init__(self, context: ssl.SSLContext, *, server: bool, hostname: str | None = None) -> None:
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls: Any = context.wrap_bio(self.incoming, self.outgoing, server_side=server, server_hostname=hostname)
        self.done = False

    def step(self) -> None:
        """As far as the handshake gets with what is here."""
        if not self.done:
            try:
                self.tls.do_handshake()
            except ssl.SSLWantReadError:
                return
            self.done = True

    def give(self, other: "End") -> int:
        data = self.outgoing.read()
        other.incoming.write(data)
        return len(data)

    def read_all(self) -> bytes:
        """Everything that is here now."""
        parts: list[bytes] = []
        while True:
            try:
                part = self.tls.read(65536)
            except ssl.SSLWantReadError:
                return b"".join(parts)
            if not part:
                return b"".join(parts)
            parts.append(part)


class Pair:
    """A client and a server, wired together."""

    def __init__(self, server: ssl.SSLContext, client: ssl.SSLContext, hostname: str | None = "a.example") -> None:
        self.client = End(client, server=False, hostname=hostname)
        self.server = End(server, server=True)

    def move(self) -> None:
        """Whatever waits to be sent, both ways."""
        self.client.give(self.server)
        self.server.give(self.client)

    def shake(self) -> "Pair":
        """Raises ssl.SSLError where either end gives up."""
        for _round in range(10):
            self.client.step()
            self.client.give(self.server)
            self.server.step()
            self.server.give(self.client)
            if self.client.done and self.server.done:
                return self
        raise AssertionError("the handshake does not end")

    def talk(self) -> None:
        """A few bytes each way, to show that it works."""
        self.client.tls.write(b"EHLO client")
        self.move()
        assert self.server.read_all() == b"EHLO client"
        self.server.tls.write(b"250 server")
        self.move()
        assert self.client.read_all() == b"250 server"


def std_server(folder: Path, name: str) -> ssl.SSLContext:
    """A server of the ssl module."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / f"{name}.pem", folder / f"{name}.key")
    return context


def std_client() -> ssl.SSLContext:
    """A client of the ssl module that trusts anybody."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
