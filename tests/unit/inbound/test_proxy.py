"""PROXY headers as haproxy and others write them, cut anywhere, and everything that is not one."""

import ipaddress
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.inbound.proxy import (
    INCOMPLETE,
    MAX_V1,
    MAX_V2,
    SIGNATURE,
    Incomplete,
    Proxied,
    ProxyError,
    Unknown,
    crc32c,
    parse_header,
)

V4 = (
    ipaddress.IPv4Address("203.0.113.7").packed
    + ipaddress.IPv4Address("10.0.0.1").packed
    + struct.pack("!HH", 4711, 25)
)
V6 = (
    ipaddress.IPv6Address("2001:db8::7").packed
    + ipaddress.IPv6Address("2001:db8::1").packed
    + struct.pack("!HH", 4711, 25)
)


def v2(command: int = 0x21, family: int = 0x11, body: bytes = V4, size: int | None = None) -> bytes:
    return SIGNATURE + struct.pack("!BBH", command, family, len(body) if size is None else size) + body


def tlv(kind: int, value: bytes) -> bytes:
    return struct.pack("!BH", kind, len(value)) + value


def with_crc(body: bytes, change: int = 0) -> bytes:
    blank = v2(body=body + tlv(0x03, bytes(4)))
    return blank[:-4] + struct.pack("!I", crc32c(blank) ^ change)


LONGEST_V1 = (
    b"PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe 65535 65534\r\n"
)

CLIENTS = {
    "v1 tcp4": (b"PROXY TCP4 203.0.113.7 10.0.0.1 4711 25\r\n", "203.0.113.7", 4711),
    "v1 tcp6": (b"PROXY TCP6 2001:db8::7 2001:db8::1 4711 25\r\n", "2001:db8::7", 4711),
    "v1 longest": (LONGEST_V1, "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", 65535),
    "v1 mapped": (b"PROXY TCP6 ::ffff:203.0.113.7 ::1 1 25\r\n", "203.0.113.7", 1),
    "v1 port 0": (b"PROXY TCP4 203.0.113.7 10.0.0.1 0 25\r\n", "203.0.113.7", 0),
    "v2 inet": (v2(), "203.0.113.7", 4711),
    "v2 inet6": (v2(family=0x21, body=V6), "2001:db8::7", 4711),
    "v2 mapped": (
        v2(family=0x21, body=ipaddress.IPv6Address("::ffff:203.0.113.7").packed + V6[16:]),
        "203.0.113.7",
        4711,
    ),
    "v2 tlvs": (
        v2(body=V4 + tlv(0x02, b"mx.example.com") + tlv(0x20, b"\1" * 5) + tlv(0x04, b"")),
        "203.0.113.7",
        4711,
    ),
    "v2 crc": (with_crc(V4 + tlv(0x02, b"mx.example.com")), "203.0.113.7", 4711),
    "v2 largest": (v2(body=V4 + tlv(0xE0, bytes(MAX_V2 - 16 - 12 - 3))), "203.0.113.7", 4711),
}

UNKNOWN = {
    "v1 unknown": b"PROXY UNKNOWN\r\n",
    "v1 unknown with more": b"PROXY UNKNOWN ffff:f::1 whatever 65535 65535\r\n",
    "v2 local": v2(command=0x20, family=0x00, body=b""),
    "v2 local with addresses": v2(command=0x20),
    "v2 local of an unknown family": v2(command=0x20, family=0xFF, body=b"junk"),
    "v2 unspec": v2(family=0x00, body=b""),
    "v2 unix": v2(family=0x31, body=bytes(216)),
}

BAD = {
    "smtp": b"EHLO client.example\r\n",
    "tls": bytes.fromhex("160301"),
    "v1 word": b"PROXY UDP4 203.0.113.7 10.0.0.1 4711 25\r\n",
    "v1 without family": b"PROXY \r\n",
    "v1 too few": b"PROXY TCP4 203.0.113.7 10.0.0.1 4711\r\n",
    "v1 too many": b"PROXY TCP4 203.0.113.7 10.0.0.1 4711 25 26\r\n",
    "v1 two spaces": b"PROXY TCP4  203.0.113.7 10.0.0.1 4711 25\r\n",
    "v1 wrong family": b"PROXY TCP4 2001:db8::7 2001:db8::1 4711 25\r\n",
    "v1 bad destination": b"PROXY TCP4 203.0.113.7 10.0.0.256 4711 25\r\n",
    "v1 leading zero": b"PROXY TCP4 203.0.113.7 10.0.0.1 04711 25\r\n",
    "v1 large port": b"PROXY TCP4 203.0.113.7 10.0.0.1 4711 65536\r\n",
    "v1 sign": b"PROXY TCP4 203.0.113.7 10.0.0.1 +4711 25\r\n",
    "v1 zone": b"PROXY TCP6 fe80::1%eth0 ::1 4711 25\r\n",
    "v1 not ascii": "PROXY TCP4 203.0.113.٧ 10.0.0.1 4711 25\r\n".encode(),
    "v1 endless": b"PROXY TCP4 " + b"1" * MAX_V1,
    "v1 one too long": b"PROXY UNKNOWN " + b"1" * (MAX_V1 - 15) + b"\r\n",
    "v2 version 1": v2(command=0x11),
    "v2 command 2": v2(command=0x22),
    "v2 udp": v2(family=0x12),
    "v2 family": v2(family=0x41),
    "v2 short addresses": v2(body=V4[:-1]),
    "v2 beyond our bound": v2(size=MAX_V2 - 16 + 1),
    "v2 cut tlv": v2(body=V4 + b"\x02\x00"),
    "v2 tlv beyond the end": v2(body=V4 + b"\x02\x00\x05abcd"),
    "v2 wrong crc": with_crc(V4, change=1),
    "v2 crc of the wrong size": v2(body=V4 + tlv(0x03, b"abc")),
}


@pytest.mark.parametrize(("data", "address", "port"), CLIENTS.values(), ids=CLIENTS.keys())
def test_client(data: bytes, address: str, port: int) -> None:
    expected = Proxied(ipaddress.ip_address(address), port, len(data))
    assert parse_header(data) == expected
    assert parse_header(bytearray(data + b"EHLO x\r\n\x03")) == expected


@pytest.mark.parametrize("data", UNKNOWN.values(), ids=UNKNOWN.keys())
def test_unknown_client(data: bytes) -> None:
    assert parse_header(data + b"EHLO x\r\n") == Unknown(len(data))


@pytest.mark.parametrize(
    "data", [case[0] for case in CLIENTS.values()] + list(UNKNOWN.values()), ids=[*CLIENTS, *UNKNOWN]
)
def test_every_cut_waits_for_more(data: bytes) -> None:
    step = max(1, len(data) // 200)
    assert all(parse_header(data[:cut]) is INCOMPLETE for cut in range(0, len(data), step))
    assert parse_header(data[:-1]) is INCOMPLETE


@pytest.mark.parametrize("data", BAD.values(), ids=BAD.keys())
def test_bad_header(data: bytes) -> None:
    with pytest.raises(ProxyError):
        parse_header(data)


def test_refused_as_soon_as_it_is_hopeless() -> None:
    with pytest.raises(ProxyError):
        parse_header(b"PROXZ")
    with pytest.raises(ProxyError):
        parse_header(b"\r\n\r\nQ")


def test_crc32c_of_the_standard() -> None:
    assert crc32c(bytes(32)) == 0x8A9136AA  # RFC 3720 appendix B.4
    assert crc32c(b"123456789") == 0xE3069283


@given(
    st.binary(max_size=300)
    | st.binary(max_size=100).map(lambda tail: SIGNATURE + tail)
    | st.binary().map(lambda t: b"PROXY " + t)
)
def test_any_bytes(data: bytes) -> None:
    try:
        found = parse_header(data)
    except ProxyError:
        return
    assert isinstance(found, Incomplete) or 0 < found.length <= len(data)
