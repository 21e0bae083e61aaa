"""Mail addresses and domains as they are compared everywhere: lower-case A-labels without a trailing dot.

Parses the paths of MAIL and RCPT (RFC 5321 section 4.1.2, RFC 6531 section 3.3). Knows nothing of which domains are ours.
Domains go through IDNA 2008 (RFC 5891, UTS 46 mapping, non-transitional): the standard library's codec speaks IDNA 2003, where
"straße.de" becomes "strasse.de", a different owner's domain.
"""

import ipaddress
import re
from dataclasses import dataclass
from functools import lru_cache

import idna

_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_ASCII_DOMAIN = re.compile(rf"{_LABEL}(?:\.{_LABEL})*\.?\Z")
_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~\-\u0080-\U0010FFFF.]"
_ATOMS = re.compile(rf"{_ATOM}+\Z")
_QUOTED = re.compile(r'"((?:[^"\\\x00-\x1f\x7f]|\\[\x20-\x7e])*)"\Z')
_COMMON = re.compile(rf"<?([A-Za-z0-9!#$%&'*+/=?^_`{{|}}~.\-]{{1,64}})@({_LABEL}(?:\.{_LABEL})*)>?\Z")
_QUOTED_PAIR = re.compile(r"\\(.)")

MAX_LOCAL = 255  # octets. RFC 5321 section 4.5.3.1.1 says 64; VERP and BATV senders go beyond it
MAX_DOMAIN = 255
MAX_PATH = 512


class AddressError(ValueError):
    """Not an address; str() says why, in words fit for an SMTP reply."""


@dataclass(frozen=True, slots=True)
class Address:
    """A mailbox. `local` as given (needless quotes dropped); `domain` normalised, "[192.0.2.1]" for a literal, "" for a bare postmaster.

    The null reverse-path is NULL, whose parts are both empty.
    """

    local: str
    domain: str

    @property
    def is_null(self) -> bool:
        return not self.local and not self.domain

    @property
    def is_literal(self) -> bool:
        return self.domain.startswith("[")

    @property
    def is_postmaster(self) -> bool:
        return self.local.lower() == "postmaster"

    @property
    def needs_smtputf8(self) -> bool:
        """True where only an SMTPUTF8 hop can carry it: the domain always fits as A-labels, the local part may not (RFC 6531)."""
        return not self.local.isascii()

    def __str__(self) -> str:
        return f"{self.local}@{self.domain}" if self.domain else self.local


NULL = Address("", "")


@lru_cache(maxsize=4096)
def normalise_domain(text: str) -> str:
    """`text` as lower-case A-labels without trailing dot. Raises AddressError on anything that is not a host name (RFC 5890, RFC 1035)."""
    ascii_only = text.isascii()
    if ascii_only and (len(text) > MAX_DOMAIN or not _ASCII_DOMAIN.match(text)):
        raise AddressError(f"{text[:80]!r} is not a domain name")
    domain = text.lower().rstrip(".") if ascii_only else text
    if not ascii_only or "xn--" in domain:
        try:
            domain = idna.encode(domain, uts46=True, transitional=False).decode().lower().rstrip(".")
        except (idna.IDNAError, UnicodeError) as error:
            raise AddressError(f"{text[:80]!r} is not a valid internationalised domain name") from error
        if not _ASCII_DOMAIN.match(domain):
            raise AddressError(f"{text[:80]!r} is not a domain name")
    if not domain or len(domain) > MAX_DOMAIN - 2:
        raise AddressError(f"{text[:80]!r} is not a domain name")
    return domain


def _literal(text: str) -> str:
    """An address literal (RFC 5321 section 4.1.3) in one spelling."""
    inner = text[1:-1]
    try:
        if inner[:5].lower() == "ipv6:":
            return f"[IPv6:{ipaddress.IPv6Address(inner[5:])}]"
        return f"[{ipaddress.IPv4Address(inner)}]"
    except ValueError as error:
        raise AddressError(f"{text[:80]!r} is not an address literal") from error


def _local(text: str) -> str:
    if len(text.encode("utf-8", "surrogatepass")) > MAX_LOCAL:
        raise AddressError("the local part is too long")
    quoted = _QUOTED.match(text)
    if quoted:
        inner = _QUOTED_PAIR.sub(r"\1", quoted[1])
        # "bob"@x and bob@x are one mailbox (RFC 5321 section 4.1.2); recipient lists must not see two.
        return inner if _ATOMS.match(inner) and ".." not in inner and inner.strip(".") == inner else text
    if not _ATOMS.match(text):
        raise AddressError(f"{text[:80]!r} is not a valid local part")
    return text


def parse_mailbox(text: str) -> Address:
    """`local@domain`, without angle brackets. Raises AddressError."""
    local, at, domain = text.rpartition("@")
    if not at or not local or not domain:
        raise AddressError(f"{text[:80]!r} is not local-part@domain")
    return Address(_local(local), _literal(domain) if domain.startswith("[") else normalise_domain(domain))


def parse_path(text: str) -> Address:
    """A reverse-path or forward-path, angle brackets and all: `<>`, `<postmaster>`, `<@a,@b:bob@c>` (the route is dropped, RFC 5321 appendix C).

    Raises AddressError. A path without its brackets is taken too, since many devices send it so.
    """
    common = _COMMON.match(text)
    if common and (text[0] == "<") == (text[-1] == ">"):
        return Address(common[1], normalise_domain(common[2]))
    if len(text) > MAX_PATH:
        raise AddressError("the path is too long")
    if text.startswith("<") != text.endswith(">") or not text:
        raise AddressError("a path is written <local-part@domain>")
    inner = text[1:-1] if text.startswith("<") else text
    if not inner and text:
        return NULL
    if inner.startswith("@"):
        _route, colon, inner = inner.partition(":")
        if not colon:
            raise AddressError("a source route ends with a colon")
    if inner.lower() == "postmaster":
        return Address(inner, "")
    return parse_mailbox(inner)
