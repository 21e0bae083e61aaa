"""The shape of `tlsrpt` in connectors.yaml: TLS reports (RFC 8460), sent and received."""

from enum import StrEnum
from typing import Annotated, Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from pydantic import ValidationInfo

from relay.config.connectors import Model
from relay.config.files import Expanded, Secret, SecretOrigin, consulted, locate, read_text
from relay.config.values import Domain, Mailbox, NonEmpty, Selector, Switch, Text

_SHORTEST = 1024  # bits: RFC 8301 section 3.2 lets no signer use less
_LARGEST = 64 * 2**10


class PrivateKey(Secret):
    """An RSA key in PEM. `bits` is its size; `reveal()` gives the PEM."""

    __slots__ = ("bits",)

    def __init__(self, value: str, origin: SecretOrigin, path: Any = None, bits: int = 0) -> None:
        super().__init__(value, origin, path)
        self.bits = bits

    @classmethod
    def parse(cls, value: Any, info: ValidationInfo) -> "PrivateKey":
        """All of `file:PATH`, or the text itself (from `${NAME}`)."""
        if isinstance(value, PrivateKey):
            return value
        if isinstance(value, str) and value.startswith("file:"):
            path = consulted(locate(value.removeprefix("file:"), info), info)
            text, origin = read_text(path, "the key", _LARGEST), SecretOrigin.FILE
            return cls(text, origin, path, _bits(text, str(path)))
        if not isinstance(value, Expanded):
            raise ValueError("write file:PATH of a PEM file, or ${NAME} for an environment variable")
        return cls(value, SecretOrigin.ENVIRONMENT, None, _bits(value, "the text"))


def _bits(text: str, what: str) -> int:
    """The size of the key. Its text never stands in the error."""
    try:
        key = load_pem_private_key(text.encode(), None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, RSAPrivateKey):
        raise ValueError(f"cannot read the key in {what}: write an RSA key in PEM, without a password on it")
    if key.key_size < _SHORTEST:
        raise ValueError(f"cannot read the key in {what}: it has {key.key_size} bits, make one of 2048")
    return key.key_size


class Dkim(Model):
    domain: Domain
    """Who signs: the domain of `sender` and `contact`, or one above it."""
    selector: Selector
    """The public key is in the TXT record SELECTOR._domainkey.DOMAIN, with `s=tlsrpt` in it."""
    key: PrivateKey
    """`file:PATH` of an RSA key in PEM."""


class Unsigned(StrEnum):
    IGNORE = "ignore"
    ACCEPT = "accept"


class Tlsrpt(Model):
    send: Switch = Switch.ON
    """Daily reports to the domains that ask for them."""
    organization: Text | None = None
    """Who reports, in words. Default: `hostname`."""
    contact: Mailbox | None = None
    """Whom a reader of our reports can ask. Default: `postmaster`."""
    sender: Mailbox | None = None
    """What our reports come from. Default: `contact`."""
    dkim: Dkim | None = None
    """Signs reports that go by mail: receivers ignore unsigned ones."""
    mailbox: Annotated[tuple[Mailbox, ...], NonEmpty] | None = None
    """Addresses that take in what others report about us; they need not exist anywhere else."""
    unsigned: Unsigned = Unsigned.IGNORE
    """What becomes of a report without a valid DKIM signature of its sender: `ignore` it (RFC 8460), or `accept` it all the same."""
