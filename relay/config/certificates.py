"""The certificates folder: which certificates and keys it holds, and what is wrong with it.

`NAME.pem` holds a leaf and then its chain, with the key in `NAME.key` or in the same PEM. `NAME.next.pem` (with `NAME.next.key`) is what
will take its place: it is published before (`relay publish`) and shown to nobody until `relay certs next NAME --commit`. Files that hold
only CA certificates are somebody else's and are passed over; so are sub-folders. Nothing here raises for what a file holds: each trouble is a
Problem that names file and remedy. Choosing by SNI and reloading are `relay.tls.keyring`'s.

Threat: a private key that others on the machine can read, and a key that shows up in a log; keys here have no printed form.
"""

import base64
import binascii
import os
import re
import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey

MAX_FILE = 2**20  # bytes; a leaf with its chain and key has a few thousand
MIN_RSA_BITS = 2048
NEXT = ".next"
HAS_ENDED, WILL_BEGIN = "the certificate ended on", "the certificate begins on"
_CURVES = ("secp256r1", "secp384r1", "secp521r1")  # RFC 8446 section 4.2.3: the ones TLS 1.3 can sign with
_BEGIN = b"-----BEGIN "
_SEQUENCE = b"\x30"  # how DER and PKCS #12 begin
_DER_REMEDY = "it may be DER or PKCS #12: convert it to PEM (openssl x509 -inform DER, openssl pkcs12 -nodes)"
_NEW_KEY = "have it issued again for a key of EC P-256 or RSA 2048: relay certs request makes one"
_BLOCK = re.compile(rb"-----BEGIN ([A-Z0-9 ]{1,40})-----[ \t]*\r?\n(.*?)-----END \1-----", re.DOTALL)
_CERTIFICATE_LABELS = (b"CERTIFICATE", b"X509 CERTIFICATE")


class PemError(ValueError):
    """Not the PEM it should be; str() says why, in words fit for the admin. `remedy` where it is another than for any such file, else ""."""

    def __init__(self, text: str, remedy: str = "") -> None:
        super().__init__(text)
        self.remedy = remedy


@dataclass(frozen=True, slots=True)
class Pem:
    """The blocks of one file. `certificates` as DER, in order; `keys` as PEM, each with its own BEGIN and END; `mode` as of stat()."""

    certificates: tuple[bytes, ...]
    keys: tuple[bytes, ...] = field(repr=False)
    mode: int


def read_pem(path: Path, limit: int = MAX_FILE) -> Pem:
    """All blocks of a PEM file. Raises PemError where it cannot be read, is too large, holds no block or is cut off."""
    try:
        with path.open("rb") as file:
            data, mode = file.read(limit + 1), os.fstat(file.fileno()).st_mode
    except OSError as error:
        raise PemError(f"cannot be read: {error.strerror or error}") from None
    if len(data) > limit:
        raise PemError(f"is larger than {limit} bytes")
    blocks = list(_BLOCK.finditer(data))
    if len(blocks) != data.count(_BEGIN):
        # A file that is being written right now looks like this; what is there of it must not be taken for the whole.
        raise PemError(
            "is cut off: a BEGIN line has no matching END line", "write the whole file, then rename it to this name"
        )
    if not blocks:
        raise PemError(
            "is not a PEM file" if data.strip() else "is empty", _DER_REMEDY if data[:1] == _SEQUENCE else ""
        )
    return Pem(
        tuple(_der(block[2]) for block in blocks if block[1] in _CERTIFICATE_LABELS),
        tuple(block[0] + b"\n" for block in blocks if block[1].endswith(b"PRIVATE KEY")),
        mode,
    )


def _der(body: bytes) -> bytes:
    try:
        return base64.b64decode(b"".join(body.split()), validate=True)
    except binascii.Error:
        raise PemError("holds a certificate that is not base64") from None


class Severity(StrEnum):
    ERROR = "error"
    """The certificate is not used."""
    WARNING = "warning"
    """It is used, or it is none of ours."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with one file, and what to do about it."""

    severity: Severity
    file: Path
    text: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.file}: {self.text}; {self.remedy}"


@dataclass(frozen=True, slots=True)
class CertificateFiles:
    """One certificate of ours with its key. `name` is the file's stem; `names` the SAN's, lower case, DNS names before addresses.

    `chain` is DER, leaf first. `key` matches the leaf.
    """

    name: str
    names: tuple[str, ...]
    not_before: datetime
    not_after: datetime
    chain: tuple[bytes, ...] = field(repr=False)
    key: PrivateKey = field(repr=False)

    @property
    def leaf(self) -> bytes:
        return self.chain[0]

    @property
    def is_next(self) -> bool:
        """True for one that waits to take another's place."""
        return self.name.endswith(NEXT)

    @property
    def replaces(self) -> str:
        """The name that it will have once it is renamed; its own where it is in use."""
        return self.name.removesuffix(NEXT)

    def valid_at(self, moment: datetime) -> bool:
        return self.not_before <= moment <= self.not_after


@dataclass(frozen=True, slots=True)
class Folder:
    """What a certificates folder holds, in the order of the file names. `next` are not in use: nobody is shown one, nothing finds one."""

    certificates: tuple[CertificateFiles, ...] = ()
    problems: tuple[Problem, ...] = ()
    next: tuple[CertificateFiles, ...] = ()

    def by_name(self, name: str) -> CertificateFiles | None:
        """As `find_certificate`."""
        return find_certificate(self.certificates, name)


def covers(names: Iterable[str], host: str) -> bool:
    """True where one of a certificate's names is `host` or a wildcard for it: one left-most label (RFC 9525 section 6.3)."""
    _label, dot, parent = host.partition(".")
    wildcard = f"*.{parent}" if dot else host
    return any(name in (host, wildcard) for name in names)


def find_certificate(certificates: Sequence[CertificateFiles], name: str) -> CertificateFiles | None:
    """The certificate that `client_certificate: NAME` means: the file of that name, else one whose SAN says it, else a wildcard's.

    Where several say it, the one that ends last. None where there is no such certificate.
    """
    by_file = next((each for each in certificates if each.name == name), None)
    if by_file is not None:
        return by_file
    host = name.lower()
    for candidates in (
        [each for each in certificates if host in each.names],
        [each for each in certificates if covers(each.names, host)],
    ):
        if candidates:
            return max(candidates, key=lambda each: each.not_after)
    return None


def read_folder(path: Path, now: datetime) -> Folder:
    """The certificates of a folder. `now` (aware) tells which have ended. Never raises; a missing folder is a Problem."""
    try:
        files = sorted(each for each in path.iterdir() if not each.name.startswith("."))
    except OSError as error:
        text = f"the certificates folder cannot be read: {error.strerror or error}"
        problem = Problem(Severity.ERROR, path, text, "create it, or name another in `certificates`")
        return Folder((), (problem,))
    certificates: list[CertificateFiles] = []
    problems: list[Problem] = []
    for file in files:
        if file.suffix == ".pem":
            result = _read_one(file, now)
            certificates.extend(result.certificates)
            problems.extend(result.problems)
        elif file.suffix == ".key" and not file.with_suffix(".pem").exists():
            if file.stem.endswith(NEXT) and file.with_suffix(".csr").exists():
                continue  # `relay certs request` made it, and its certificate is on the way
            remedy = f"put its certificate into {file.stem}.pem"
            problems.append(Problem(Severity.WARNING, file, "a key without a certificate", remedy))
        elif file.suffix in (".crt", ".cer"):
            remedy = f"certificates here are PEM files called NAME.pem: rename it to {file.stem}.pem, or link to it by that name"
            problems.append(Problem(Severity.WARNING, file, "is not looked at", remedy))
    in_use = tuple(each for each in certificates if not each.is_next)
    return Folder(in_use, tuple(problems), tuple(each for each in certificates if each.is_next))


def _read_one(file: Path, now: datetime, key_file: Path | None = None) -> Folder:
    """The key is in the same file, or in `key_file`: by default the one of its name."""
    key_file = key_file or file.with_suffix(".key")
    try:
        pem = read_pem(file)
        if not pem.certificates:
            raise PemError("holds no certificate")
        leaf, *_chain = [x509.load_der_x509_certificate(each) for each in pem.certificates]
        names, public_key = san_names(leaf), leaf.public_key()
    except PemError as error:
        return _error(file, str(error), error.remedy or "write the leaf certificate, then its chain, in PEM")
    except (ValueError, UnsupportedAlgorithm) as error:
        return _error(file, f"holds a certificate that cannot be read: {error}", "have it issued again")
    if not pem.keys and not key_file.exists():
        return _without_key(file, key_file, leaf)
    source = file if pem.keys else key_file
    try:
        key_pem = pem if pem.keys else read_pem(key_file)
        key = _read_key(key_pem.keys)
    except PemError as error:
        return _error(source, str(error), error.remedy or "put the certificate's unencrypted private key there, in PEM")
    if key.public_key() != public_key:
        remedy = "put the leaf first, then its chain, and the key that it was issued for"
        return _error(source, f"the key does not match the first certificate of {file.name}", remedy)
    found = CertificateFiles(
        name=file.stem,
        names=names,
        not_before=leaf.not_valid_before_utc,
        not_after=leaf.not_valid_after_utc,
        chain=pem.certificates,
        key=key,
    )
    problems = list(_warnings(file, found, now))
    if key_pem.mode & stat.S_IRWXO:
        text = "everybody on this machine can read the key"
        problems.append(Problem(Severity.WARNING, source, text, f"chmod 600 {source}"))
    return Folder((found,), tuple(problems))


def read_pair(file: Path, key: Path, now: datetime) -> CertificateFiles:
    """One certificate with its key, wherever they are. Raises PemError saying what is wrong and what to do."""
    found = _read_one(file, now, key)
    if not found.certificates:
        raise PemError(str(found.problems[0]) if found.problems else f"{file} is a CA's certificate without a key")
    return found.certificates[0]


def _error(file: Path, text: str, remedy: str) -> Folder:
    return Folder((), (Problem(Severity.ERROR, file, text, remedy),))


def _without_key(file: Path, key_file: Path, leaf: x509.Certificate) -> Folder:
    """A CA's certificate needs no key here: it is what a `ca:` points at."""
    try:
        is_ca = leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        is_ca = False
    if is_ca:
        return Folder()
    remedy = f"put its key into {key_file.name}, or move it into a sub-folder if it is a partner's"
    return Folder((), (Problem(Severity.WARNING, file, "a certificate without its key is not used", remedy),))


def _read_key(blocks: Sequence[bytes]) -> PrivateKey:
    if not blocks:
        raise PemError("holds no private key")
    if len(blocks) > 1:
        raise PemError("holds more than one private key")
    try:
        key = load_pem_private_key(blocks[0], None)
    except TypeError:
        text = "the key is encrypted, and a relay that starts by itself has no password for it"
        raise PemError(
            text, "take the password off (openssl pkey -in KEY -out NAME.key) and keep the file at mode 0600"
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        raise PemError("holds a private key that cannot be read") from None
    if isinstance(key, rsa.RSAPrivateKey):
        if key.key_size < MIN_RSA_BITS:
            raise PemError(
                f"the RSA key has {key.key_size} bits, {MIN_RSA_BITS} are the least that peers accept", _NEW_KEY
            )
        return key
    if isinstance(key, ec.EllipticCurvePrivateKey):
        if key.curve.name not in _CURVES:
            raise PemError(f"the key is on the curve {key.curve.name}, which TLS peers do not know", _NEW_KEY)
        return key
    if isinstance(key, ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey):
        return key
    raise PemError("the key is of a kind that TLS cannot use", _NEW_KEY)


def san_names(certificate: x509.Certificate) -> tuple[str, ...]:
    """DNS names, then IP addresses, of the SAN; empty without one. Raises ValueError where an extension cannot be read."""
    try:
        san = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    dns = (name.lower() for name in san.get_values_for_type(x509.DNSName))
    return (*dns, *(str(address) for address in san.get_values_for_type(x509.IPAddress)))


def _warnings(file: Path, found: CertificateFiles, now: datetime) -> Iterable[Problem]:
    if not found.names:
        # RFC 9525 section 6.3: the common name never counts.
        text, remedy = (
            "the certificate has no subject alternative name, so no peer can verify it",
            "have it issued again",
        )
        yield Problem(Severity.WARNING, file, text, remedy)
    if now > found.not_after:
        text = f"{HAS_ENDED} {found.not_after.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
        yield Problem(Severity.WARNING, file, text, "renew it; peers that verify refuse it now")
    elif now < found.not_before:
        text = f"{WILL_BEGIN} {found.not_before.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
        yield Problem(Severity.WARNING, file, text, "check the clock of this machine, or wait")
