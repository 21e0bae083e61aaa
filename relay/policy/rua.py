"""A domain's TLSRPT record, `_smtp._tls.DOMAIN`: where it wants reports to go (RFC 8460 section 3). Strict: what is not well-formed is none.

Threat: the record is a stranger's. It can name any mailbox and any web server: so only as many as `MOST`, only names (never an IP address
in a URL), nothing in front of or behind the host, and no header fields of a `mailto:` URI. Where a name leads is looked at when
something is sent there (`relay.report.post`).
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes, urlsplit

from relay.mail.address import Address, AddressError, normalise_domain, parse_mailbox

MOST = 10
_LONGEST = 1000

_BEGINS = re.compile(r"v=TLSRPTv1[ \t]*;")
_FIELD = re.compile(r"([A-Za-z0-9][A-Za-z0-9_.-]{0,31})=([!-:<>-~]+)\Z")
_RUA = re.compile(r"rua=([ -:<-~\t]*)\Z")
_NAMED = re.compile(
    r"\.[a-z][a-z0-9-]*\Z"
)  # ends in a letter's label: 127.0.0.1, 0x7f.1 and localhost are no names of others
_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[!-~]+\Z")


@dataclass(frozen=True, slots=True)
class MailTo:
    uri: str
    address: Address


@dataclass(frozen=True, slots=True)
class Https:
    """`host` is a normalised name, `target` the path and query."""

    uri: str
    host: str
    port: int
    target: str


Destination = MailTo | Https


@dataclass(frozen=True, slots=True)
class Destinations:
    """Each once, in the record's order."""

    found: tuple[Destination, ...]


@dataclass(frozen=True, slots=True)
class NoRecord:
    """The domain does not ask for reports, or not in a way that we can follow; `reason` says which."""

    reason: str


def read_records(texts: Iterable[str]) -> Destinations | NoRecord:
    """From the TXT records of `_smtp._tls.DOMAIN`, each with its strings joined."""
    records = [each for each in texts if _BEGINS.match(each)]
    if len(records) != 1:
        # RFC 8460 section 3: others are discarded; where not one is left, the domain does not implement TLSRPT.
        return NoRecord("it has no TLSRPT record" if not records else f"it has {len(records)} TLSRPT records")
    fields = [each.strip(" \t") for each in records[0].split(";")[1:]]
    if fields[-1] == "":
        fields.pop()
    rua: list[str] = []
    for field in fields:
        named = _RUA.match(field)
        if named:
            rua.append(named[1])
        elif not _FIELD.match(field):  # a well-formed one is an extension that we do not know, and is ignored
            return NoRecord(f"its TLSRPT record is malformed at {field[:40]!r}")
    if len(rua) != 1:
        return NoRecord("its TLSRPT record has no rua" if not rua else "its TLSRPT record has more than one rua")
    return _destinations([each.strip(" \t") for each in rua[0].split(",")])


def _destinations(uris: Sequence[str]) -> Destinations | NoRecord:
    found: dict[object, Destination] = {}
    for uri in uris:
        if not _URI.match(uri) or len(uri) > _LONGEST:
            return NoRecord(f"its TLSRPT record is malformed at {uri[:40]!r}")
        destination = read_uri(uri)
        if destination is not None:
            found.setdefault(destination.address if isinstance(destination, MailTo) else destination.uri, destination)
    if not found:
        return NoRecord("its TLSRPT record names nowhere that a report can go: mailto: and https: are possible")
    return Destinations(tuple(found.values())[:MOST])


def read_uri(uri: str) -> Destination | None:
    """None for what we cannot or will not send to: another scheme, an address or host that is none."""
    scheme, _, rest = uri.partition(":")
    try:
        if scheme.lower() == "mailto":
            return _mailto(uri, rest)
        if scheme.lower() == "https":
            return _https(uri)
    except (AddressError, ValueError):
        pass
    return None


def _mailto(uri: str, rest: str) -> MailTo | None:
    """RFC 6068. What follows a question mark are header fields: not ours to write."""
    address = parse_mailbox(unquote_to_bytes(rest.partition("?")[0]).decode("utf-8"))
    return None if address.domain.startswith("[") else MailTo(uri, address)


def _https(uri: str) -> Https | None:
    parts = urlsplit(uri)
    if parts.username is not None or parts.password is not None or parts.fragment or not parts.hostname:
        return None
    host, port = normalise_domain(parts.hostname), 443 if parts.port is None else parts.port
    if not _NAMED.search(host) or not port:
        return None
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Https(uri, host, port, target)
