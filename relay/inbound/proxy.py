"""PROXY protocol, versions 1 and 2: who the client behind a load balancer is (haproxy, doc/proxy-protocol.txt).

Bytes in, a value out; which networks may send a header, and how long one may take, is the listener's affair. TLVs are skipped, since
nothing here acts on them, but a CRC32C TLV that does not hold refuses the header.

Threat: a header is a claim about the client's address, so it is never looked for on a connection that the listener does not
trust, and a header that is not well formed ends the connection: falling back to the proxy's own address would hand its networks'
rights to strangers (section 2: "the receiver must not try to guess").
"""

import ipaddress
import re
import struct
from dataclasses import dataclass, field

from relay.config.values import HostPort
from relay.policy.book import IpAddress

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
MAX_V1 = 107  # section 2.1: the longest line, CRLF included
MAX_V2 = 16 + 8192  # the length field allows 64 KiB; addresses with a client certificate in a TLV need a few

_V1_START = b"PROXY "
_PORT = re.compile(r"(?:0|[1-9][0-9]{0,4})\Z")
_CRC32C = 0x03


class ProxyError(ValueError):
    """Not a PROXY header; str() says why, for the log."""


@dataclass(frozen=True, slots=True)
class Incomplete:
    """A header may still become of these bytes: more are needed."""


@dataclass(frozen=True, slots=True)
class Unknown:
    """LOCAL or UNKNOWN: the connection is the proxy's own (a health check), or its client has no IP address. It has no network's rights."""

    length: int


@dataclass(frozen=True, slots=True)
class Proxied:
    """The client, as the proxy saw it. `length` counts the header's octets; the session's bytes begin behind them.

    `server` is what the client connected to.
    """

    address: IpAddress
    port: int
    length: int
    server: HostPort | None = field(default=None, compare=False)


Header = Unknown | Proxied

INCOMPLETE = Incomplete()


def unmapped(address: IpAddress) -> IpAddress:
    """An IPv4 client that arrived as ::ffff:a.b.c.d is an IPv4 client (RFC 4291 section 2.5.5.2)."""
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def parse_header(data: bytes | bytearray) -> Header | Incomplete:
    """The header at the beginning of `data`, the first bytes of a connection. Raises ProxyError as soon as none can come of them."""
    if data[: len(SIGNATURE)] == SIGNATURE[: len(data)]:
        return _version_2(data) if len(data) >= 16 else INCOMPLETE
    if data[: len(_V1_START)] == _V1_START[: len(data)]:
        return _version_1(data)
    raise ProxyError("the connection does not begin with a PROXY header")


def _version_1(data: bytes | bytearray) -> Header | Incomplete:
    end = data.find(b"\r\n", 0, MAX_V1)
    if end < 0:
        if len(data) >= MAX_V1:
            raise ProxyError("a version 1 header is longer than 107 octets")
        return INCOMPLETE
    line = bytes(data[:end])
    fields = line.decode("ascii", "replace").split(" ")
    if fields[1] == "UNKNOWN":  # section 2.1: whatever follows it is ignored
        return Unknown(end + 2)
    if len(fields) != 6 or fields[1] not in ("TCP4", "TCP6"):
        raise ProxyError(f"a version 1 header says {line[:MAX_V1]!r}")
    try:
        kind = ipaddress.IPv4Address if fields[1] == "TCP4" else ipaddress.IPv6Address
        source, destination = kind(fields[2]), kind(fields[3])
    except ValueError:
        raise ProxyError(f"a version 1 header has addresses that are not {fields[1]}: {line!r}") from None
    if not all(_PORT.match(port) and int(port) < 65536 for port in fields[4:]):
        raise ProxyError(f"a version 1 header has bad ports: {line!r}")
    server = HostPort(str(unmapped(destination)), int(fields[5]))
    return Proxied(_plain(source), int(fields[4]), end + 2, server)


def _plain(address: IpAddress) -> IpAddress:
    if isinstance(address, ipaddress.IPv6Address) and address.scope_id is not None:
        raise ProxyError("a header names an IPv6 address with a zone")
    return unmapped(address)


# Section 2.2: family and transport in one octet -> octets of the address block, and of one address in it (0: not an IP address).
_FAMILIES = {0x00: (0, 0), 0x11: (12, 4), 0x21: (36, 16), 0x31: (216, 0)}


def _version_2(data: bytes | bytearray) -> Header | Incomplete:
    version_command, family, size = struct.unpack_from("!BBH", data, 12)
    if version_command >> 4 != 2:
        raise ProxyError(f"a binary header has version {version_command >> 4}, not 2")
    command = version_command & 0x0F
    if command > 1:
        raise ProxyError(f"a version 2 header has the unknown command {command}")
    total = 16 + size
    if total > MAX_V2:
        raise ProxyError(f"a version 2 header of {total} octets is beyond {MAX_V2}")
    if command == 1 and family not in _FAMILIES:
        raise ProxyError(f"a version 2 header has family and transport {family:#04x}, which SMTP does not run on")
    if len(data) < total:
        return INCOMPLETE
    # Section 2.2: for LOCAL the receiver discards family and addresses, so their length is whatever the proxy says.
    block, width = _FAMILIES.get(family, (0, 0)) if command == 1 else (0, 0)
    if size < block:
        raise ProxyError(f"a version 2 header has {size} octets where its addresses need {block}")
    if command == 1:
        _check_tlvs(bytes(data[:total]), 16 + block)
    if width == 0:
        return Unknown(total)
    source, destination = (_packed(bytes(data[at : at + width])) for at in (16, 16 + width))
    port, server = struct.unpack_from("!HH", data, 16 + 2 * width)
    return Proxied(source, port, total, HostPort(str(destination), server))


def _packed(raw: bytes) -> IpAddress:
    return unmapped(ipaddress.IPv4Address(raw) if len(raw) == 4 else ipaddress.IPv6Address(raw))


def _check_tlvs(header: bytes, at: int) -> None:
    """Walks the TLVs to the end of the header; one that runs beyond it, or a checksum that does not hold, refuses it."""
    while at < len(header):
        if at + 3 > len(header):
            raise ProxyError("a version 2 header ends within a TLV")
        kind, size = struct.unpack_from("!BH", header, at)
        if at + 3 + size > len(header):
            raise ProxyError("a version 2 header has a TLV that runs beyond its end")
        if kind == _CRC32C:
            _check_crc(header, at + 3, size)
        at += 3 + size


def _check_crc(header: bytes, at: int, size: int) -> None:
    """Section 2.2.3: the sum is over the whole header with the sum's own octets zero."""
    if size != 4:
        raise ProxyError("a version 2 header has a CRC32C TLV of the wrong size")
    (stated,) = struct.unpack_from("!I", header, at)
    if crc32c(header[:at] + bytes(4) + header[at + 4 :]) != stated:
        raise ProxyError("a version 2 header fails its CRC32C checksum")


def _crc_table() -> tuple[int, ...]:
    table = []
    for byte in range(256):
        value = byte
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return tuple(table)


_TABLE = _crc_table()


def crc32c(data: bytes) -> int:
    """CRC-32C, Castagnoli (RFC 3720 section 12.1)."""
    value = 0xFFFFFFFF
    for byte in data:
        value = _TABLE[(value ^ byte) & 0xFF] ^ value >> 8
    return value ^ 0xFFFFFFFF
