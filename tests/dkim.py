"""A DKIM key made for tests, and the record that publishes it."""

import base64
from dataclasses import dataclass
from functools import lru_cache

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)


@dataclass(frozen=True)
class DkimKey:
    """`pem` is PKCS #8, `pkcs1` what older programs write."""

    pem: str
    pkcs1: str
    public: str

    def record(self, tags: str = "v=DKIM1; k=rsa; s=tlsrpt;") -> str:
        return f"{tags} p={self.public}"


@lru_cache
def dkim_key(bits: int = 2048) -> DkimKey:
    """The same for all tests of a process: making one takes long."""
    key = rsa.generate_private_key(65537, bits)
    public = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return DkimKey(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode(),
        key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()).decode(),
        base64.b64encode(public).decode(),
    )
