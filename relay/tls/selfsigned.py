"""A key and a self-signed certificate for a first start. Nobody can verify it, but mail does not go in clear.

Never writes over anything: what an admin has put there stays.
"""

import os
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from relay.config.owner import give

_LIFE = timedelta(days=825)
_MAX_COMMON_NAME = 64  # RFC 5280 appendix A.1, ub-common-name


@dataclass(frozen=True, slots=True)
class CertificatePaths:
    certificate: Path
    key: Path


def create_self_signed(folder: Path, hostname: str, now: datetime) -> CertificatePaths:
    """Writes `HOSTNAME.pem` and `HOSTNAME.key` (mode 0600; 0640 as `give` says) into the folder, which is made where missing.

    Raises FileExistsError, having written nothing, where either is there already, and OSError where the folder cannot be written.
    """
    paths = CertificatePaths(folder / f"{hostname}.pem", folder / f"{hostname}.key")
    folder.mkdir(parents=True, exist_ok=True)
    for path in (paths.certificate, paths.key):
        if path.exists():
            raise FileExistsError(f"{path} is there already and is left as it is")
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = _certificate(key, hostname, now.astimezone(UTC))
    _write_new(paths.key, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), 0o600)
    _write_new(paths.certificate, certificate.public_bytes(Encoding.PEM), 0o644)
    return paths


def _certificate(key: ec.EllipticCurvePrivateKey, hostname: str, now: datetime) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, hostname[:_MAX_COMMON_NAME])])
    usage = x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
    both = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))  # a partner's clock may be behind ours
        .not_valid_after(now + _LIFE)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(hostname)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.ExtendedKeyUsage(both), critical=False)
        .sign(key, hashes.SHA256())
    )


def _write_new(path: Path, data: bytes, mode: int) -> None:
    """Whole or not at all, and never over another file: link() refuses where the name is taken."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.new")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            give(file.fileno(), path.parent)
            file.write(data)
        os.link(draft, path)
    finally:
        with suppress(FileNotFoundError):
            draft.unlink()
