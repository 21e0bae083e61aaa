"""What a hop said it can do, from its last EHLO. After STARTTLS only what it says inside TLS counts (RFC 3207 section 4.2)."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Offer:
    """`size_limit` is 0 where there is none or it is not known. `auth` are the mechanisms, lower case."""

    starttls: bool = False
    pipelining: bool = False  # RFC 2920
    chunking: bool = False  # RFC 3030
    eight_bit: bool = False  # RFC 6152
    smtputf8: bool = False  # RFC 6531
    dsn: bool = False  # RFC 3461
    requiretls: bool = False  # RFC 8689
    size: bool = False  # RFC 1870
    size_limit: int = 0
    auth: frozenset[str] = frozenset()
    xclient: frozenset[str] = frozenset()  # Postfix's XCLIENT: the attributes that it takes from us

    @classmethod
    def of(cls, extensions: Mapping[str, str], auth: Iterable[str]) -> "Offer":
        """From EHLO keywords (lower case) and their parameters."""
        limit = extensions.get("size", "").strip()
        return cls(
            starttls="starttls" in extensions,
            pipelining="pipelining" in extensions,
            chunking="chunking" in extensions,
            eight_bit="8bitmime" in extensions,
            smtputf8="smtputf8" in extensions,
            dsn="dsn" in extensions,
            requiretls="requiretls" in extensions,
            size="size" in extensions,
            size_limit=int(limit) if limit.isascii() and limit.isdigit() and len(limit) <= 20 else 0,
            auth=frozenset(auth),
            xclient=frozenset(extensions.get("xclient", "").upper().split()),
        )


NOTHING = Offer()
"""What a server that only knows HELO can do."""
