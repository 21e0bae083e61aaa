"""A small certificate authority that revokes: CRLs, OCSP answers, right and wrong ones, and a web server that gives them, or misbehaves.

Made with `cryptography` for the documents, plain asyncio for the server: no code of the relay's.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509 import ocsp
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID, NameOID

NOW = datetime.now(UTC).replace(microsecond=0)  # handshakes go by the machine's clock, whatever we pass
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
UNKNOWN_EXTENSION = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4.5"), b"\x05\x00")
NO_REV_AVAIL = x509.UnrecognizedExtension(x509.ObjectIdentifier("2.5.29.56"), b"\x05\x00")


def name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def point(*urls: str, **more: Any) -> x509.DistributionPoint:
    names = [x509.UniformResourceIdentifier(url) for url in urls]
    return x509.DistributionPoint(names, None, more.get("reasons"), more.get("crl_issuer"))


def uri(url: str) -> list[x509.GeneralName]:
    return [x509.UniformResourceIdentifier(url)]


@dataclass(frozen=True)
class Held:
    """A certificate with its key, and those above it up to the root."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
    above: tuple["Held", ...] = ()

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(Encoding.DER)

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)

    @property
    def serial(self) -> int:
        return self.certificate.serial_number

    @property
    def path(self) -> tuple[bytes, ...]:
        """DER, from the leaf to the anchor."""
        return (self.der, *(each.der for each in self.above))

    def write(self, folder: Path, stem: str) -> Path:
        """NAME.pem (with all but the root) and NAME.key, as the certificates folder has them."""
        folder.mkdir(parents=True, exist_ok=True)
        pem, key = folder / f"{stem}.pem", folder / f"{stem}.key"
        pem.write_bytes(self.pem + b"".join(each.pem for each in self.above[:-1]))
        key.touch(mode=0o600)
        key.write_bytes(self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        return pem


@dataclass(frozen=True)
class Wish:
    """What a certificate should be like."""

    names: Sequence[str] = ()
    crl: Sequence[str] = ()
    ocsp: Sequence[str] = ()
    points: Sequence[x509.DistributionPoint] = ()
    ca: bool = False
    extensions: Sequence[tuple[x509.ExtensionType, bool]] = ()
    before: datetime = NOW - DAY
    after: datetime = NOW + 90 * DAY
    serial: int = 0


PLAIN = Wish()


def make(subject: str, issuer: Held | None = None, wish: Wish = PLAIN, *, key: rsa.RSAPrivateKey | None = None) -> Held:
    """With an EC key of its own, unless `key` is given."""
    own = key or ec.generate_private_key(ec.SECP256R1())
    builder = (
        x509.CertificateBuilder()
        .subject_name(name(subject))
        .issuer_name(issuer.certificate.subject if issuer else name(subject))
        .public_key(own.public_key())
        .serial_number(wish.serial or x509.random_serial_number())
        .not_valid_before(wish.before)
        .not_valid_after(wish.after)
        .add_extension(x509.BasicConstraints(wish.ca, None), True)
    )
    if wish.names:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(each) for each in wish.names]), False)
    points = [*wish.points, *(point(url) for url in wish.crl)]
    if points:
        builder = builder.add_extension(x509.CRLDistributionPoints(points), False)
    if wish.ocsp:
        described = [
            x509.AccessDescription(AuthorityInformationAccessOID.OCSP, x509.UniformResourceIdentifier(url))
            for url in wish.ocsp
        ]
        builder = builder.add_extension(x509.AuthorityInformationAccess(described), False)
    for extension, critical in wish.extensions:
        builder = builder.add_extension(extension, critical)
    certificate = builder.sign((issuer.key if issuer else own), hashes.SHA256())
    return Held(certificate, own, (issuer, *issuer.above) if issuer else ())


def root(subject: str = "root") -> Held:
    return make(subject, wish=Wish(ca=True))


def responder(
    issuer: Held,
    *,
    usage: bool = True,
    nocheck: bool = True,
    wish: Wish = PLAIN,
    key: rsa.RSAPrivateKey | None = None,
) -> Held:
    """A delegated OCSP responder of the issuer's."""
    extensions: list[tuple[x509.ExtensionType, bool]] = list(wish.extensions)
    if usage:
        extensions.append((x509.ExtendedKeyUsage([ExtendedKeyUsageOID.OCSP_SIGNING]), False))
    if nocheck:
        extensions.append((x509.OCSPNoCheck(), False))
    return make("responder", issuer, Wish(extensions=extensions, before=wish.before, after=wish.after), key=key)


@dataclass(frozen=True)
class CrlWish:
    revoked: Sequence[int] = ()
    reason: x509.ReasonFlags | None = x509.ReasonFlags.key_compromise
    signer: Held | None = None
    issuer: x509.Name | None = None
    this_update: datetime = NOW - HOUR
    next_update: datetime = NOW + 7 * DAY
    extensions: Sequence[tuple[x509.ExtensionType, bool]] = ()
    pem: bool = False


GOOD_CRL = CrlWish()


def crl(issuer: Held, wish: CrlWish = GOOD_CRL) -> bytes:
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(wish.issuer or issuer.certificate.subject)
        .last_update(wish.this_update)
        .next_update(wish.next_update)
    )
    for serial in wish.revoked:
        entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(wish.this_update - HOUR)
        if wish.reason is not None:
            entry = entry.add_extension(x509.CRLReason(wish.reason), False)
        builder = builder.add_revoked_certificate(entry.build())
    for extension, critical in wish.extensions:
        builder = builder.add_extension(extension, critical)
    signed = builder.sign((wish.signer or issuer).key, hashes.SHA256())
    return signed.public_bytes(Encoding.PEM if wish.pem else Encoding.DER)


def scope(**more: Any) -> x509.IssuingDistributionPoint:
    values: dict[str, Any] = {
        "full_name": None,
        "relative_name": None,
        "only_contains_user_certs": False,
        "only_contains_ca_certs": False,
        "only_some_reasons": None,
        "indirect_crl": False,
        "only_contains_attribute_certs": False,
    }
    return x509.IssuingDistributionPoint(**(values | more))


@dataclass(frozen=True)
class OcspWish:
    """`responder` signs, the issuer itself where there is none. `forged`: the signature is not that of these bytes."""

    status: ocsp.OCSPCertStatus = ocsp.OCSPCertStatus.GOOD
    responder: Held | None = None
    forged: bool = False
    about: Held | None = None
    this_update: datetime = NOW - HOUR
    next_update: datetime | None = NOW + DAY
    extensions: Sequence[tuple[x509.ExtensionType, bool]] = ()
    by_key: bool = False
    enclosed: bool = True
    naming: hashes.HashAlgorithm = field(default_factory=hashes.SHA1)


GOOD_ANSWER = OcspWish()


def answer(leaf: Held, wish: OcspWish = GOOD_ANSWER) -> bytes:
    """The OCSP response about a certificate, DER."""
    about, issuer = wish.about or leaf, leaf.above[0]
    by = wish.responder or issuer
    revoked = wish.status is ocsp.OCSPCertStatus.REVOKED
    builder = (
        ocsp.OCSPResponseBuilder()
        .add_response(
            cert=about.certificate,
            issuer=issuer.certificate,
            algorithm=wish.naming,
            cert_status=wish.status,
            this_update=wish.this_update,
            next_update=wish.next_update,
            revocation_time=wish.this_update - HOUR if revoked else None,
            revocation_reason=x509.ReasonFlags.key_compromise if revoked else None,
        )
        .responder_id(
            ocsp.OCSPResponderEncoding.HASH if wish.by_key else ocsp.OCSPResponderEncoding.NAME, by.certificate
        )
    )
    if wish.responder is not None and wish.enclosed:
        builder = builder.certificates([wish.responder.certificate])
    for extension, critical in wish.extensions:
        builder = builder.add_extension(extension, critical)
    signed = builder.sign(by.key, hashes.SHA256())
    data, signature = signed.public_bytes(Encoding.DER), signed.signature
    return data.replace(signature, signature[:-1] + bytes([signature[-1] ^ 1])) if wish.forged else data


Handler = Callable[[asyncio.StreamWriter], Awaitable[None]]
Reply = bytes | Handler


def http(body: bytes, *, status: str = "200 OK", fields: str = "", length: bool = True) -> bytes:
    """`fields` are further header lines, each with its CRLF."""
    size = f"Content-Length: {len(body)}\r\n" if length else ""
    return f"HTTP/1.1 {status}\r\n{size}{fields}Connection: close\r\n\r\n".encode() + body


class WebHost:
    """On 127.0.0.1, in clear. `replies` by path; others get 404. While `gate` is closed answers wait; `arrived` is set by each request."""

    def __init__(self) -> None:
        self.replies: dict[str, Reply] = {}
        self.requests: list[tuple[str, str, bytes]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.arrived = asyncio.Event()
        self.port = 0
        self._server: asyncio.Server | None = None
        self._serving: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def open(self) -> None:
        """Again on the same port, after `close`."""
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
            for task in self._serving:
                task.cancel()
            await asyncio.gather(*self._serving, return_exceptions=True)
            await self._server.wait_closed()
            self._server = None

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    @property
    def named(self) -> str:
        """For `revocation_hosts`."""
        return f"127.0.0.1:{self.port}"

    def asked(self, path: str) -> int:
        return sum(each[1] == path for each in self.requests)

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            method, path, _version = head.split("\r\n", 1)[0].split(" ")
            lengths = [int(line[15:]) for line in head.split("\r\n") if line.lower().startswith("content-length:")]
            body = await reader.readexactly(lengths[0]) if lengths else b""
            self.requests.append((method, path, body))
            self.arrived.set()
            await self.gate.wait()
            reply = self.replies.get(path, http(b"", status="404 Not Found"))
            if isinstance(reply, bytes):
                writer.write(reply)
                await writer.drain()
            else:
                await reply(writer)
        except (OSError, asyncio.IncompleteReadError):
            pass  # the client has gone
        finally:
            writer.close()
