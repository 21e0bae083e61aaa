"""Who a mail server of our own is told that the client was, and in which words: by XCLIENT (Postfix, XCLIENT_README) or by a PROXY header
(haproxy, doc/proxy-protocol.txt, version 2).

Values in, bytes out. What the reverse DNS of an address says is looked up by others. Threats: a client's words must not become attributes of
their own (xtext, RFC 1891 section 5), and a client that we know nothing of must not be taken for us, with our rights at the hop.
"""

import ipaddress
import struct
from dataclasses import dataclass

from relay.config.connectors import ForwardClient, OutboundConnector
from relay.config.values import HostPort
from relay.mail.envelope import LOCAL, Accepted
from relay.policy.book import IpAddress

UNAVAILABLE = "[UNAVAILABLE]"
TEMPUNAVAIL = "[TEMPUNAVAIL]"

_LONGEST = 255  # octets of one value; Postfix takes no more
_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
_LOCAL, _PROXY = 0x20, 0x21  # version 2, and the command
_TCP4, _TCP6 = 0x11, 0x21


@dataclass(frozen=True, slots=True)
class ReverseName:
    """What DNS says of an address: `name` is confirmed by a look-up of it that leads back, `claimed` need not be. A host name, UNAVAILABLE
    or TEMPUNAVAIL each, as Postfix would find by itself."""

    name: str = UNAVAILABLE
    claimed: str = UNAVAILABLE


@dataclass(frozen=True, slots=True)
class OnBehalfOf:
    """The client of a message. `address` None: not known. `is_ourselves`: we wrote the message. `login` "" where it did not log in."""

    how: ForwardClient
    address: IpAddress | None = None
    port: int = 0
    helo: str = ""
    is_esmtp: bool = True
    login: str = ""
    server: HostPort | None = None
    names: ReverseName = ReverseName()
    is_ourselves: bool = False


def on_behalf_of(connector: OutboundConnector, accepted: Accepted) -> OnBehalfOf | None:
    """None where a delivery is in our own name: nothing is forwarded, or by XCLIENT nothing has to be, since the message is ours."""
    how = connector.forward_client
    if how is ForwardClient.OFF:
        return None
    if accepted.protocol == LOCAL:
        return ourselves(connector)
    return OnBehalfOf(
        how,
        _address(accepted.client),
        accepted.client_port,
        accepted.helo,
        accepted.protocol != "SMTP",
        accepted.auth,
        _server(accepted.server),
    )


def ourselves(connector: OutboundConnector) -> OnBehalfOf | None:
    """For what we do in our own name. A hop that waits for a PROXY header gets one all the same."""
    how = connector.forward_client
    return OnBehalfOf(how, is_ourselves=True) if how is ForwardClient.PROXY else None


def _address(text: str) -> IpAddress | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def _server(text: str) -> HostPort | None:
    try:
        return HostPort.parse(text, name=False)
    except ValueError:
        return None


def spoken_helo(client: OnBehalfOf | None, own: str) -> str:
    """The name for EHLO: the client's own, which the hop then holds against the client's address; `own` where it is no word for a command."""
    said = client.helo if client is not None else ""
    usable = said.isascii() and said.isprintable() and " " not in said and len(said) <= _LONGEST
    return said if said and usable else own


def xclient_attributes(client: OnBehalfOf, offered: frozenset[str]) -> str:
    """The attributes that the hop offers, with a value for each that we know of: what it keeps from nobody else cannot stay behind."""
    server = client.server
    values = {
        "ADDR": _literal(client.address),
        "PORT": str(client.port) if client.port else "",
        "NAME": client.names.name,
        "REVERSE_NAME": client.names.claimed,
        "PROTO": "ESMTP" if client.is_esmtp else "SMTP",
        "HELO": client.helo,
        "LOGIN": client.login,
        "DESTADDR": _literal(_address(server.host)) if server is not None else "",
        "DESTPORT": str(server.port) if server is not None else "",
    }
    return " ".join(f"{key}={_value(value)}" for key, value in values.items() if key in offered)


def _literal(address: IpAddress | None) -> str:
    if address is None:
        return ""
    return f"IPV6:{address}" if address.version == 6 else str(address)


def _value(text: str) -> str:
    if text in (UNAVAILABLE, TEMPUNAVAIL):
        return text
    encoded = xtext(text)
    return encoded if 0 < len(encoded) <= _LONGEST else UNAVAILABLE


def xtext(text: str) -> str:
    """RFC 1891 section 5. Brackets are encoded too: a client that says `EHLO [UNAVAILABLE]` said that, and is not unavailable."""
    plain = (byte for byte in text.encode("utf-8", "replace"))
    return "".join(chr(byte) if 33 <= byte <= 126 and byte not in b"+=[]" else f"+{byte:02X}" for byte in plain)


def proxy_header(client: OnBehalfOf, hop: HostPort) -> bytes:
    """The binary header that begins a connection to `hop` (an address). Our own mail is LOCAL: the hop sees the connection as it is.

    A client without a known address is 0.0.0.0, which no network's rights go to; as LOCAL it would have ours.
    """
    if client.is_ourselves:
        return _SIGNATURE + struct.pack("!BBH", _LOCAL, 0, 0)
    source = client.address or ipaddress.IPv4Address(0)
    kind: type[ipaddress.IPv4Address] | type[ipaddress.IPv6Address] = type(source)
    server = client.server if client.server is not None else hop
    target = next((each for each in (_address(server.host), _address(hop.host)) if isinstance(each, kind)), kind(0))
    block = source.packed + target.packed + struct.pack("!HH", client.port, server.port)
    return _SIGNATURE + struct.pack("!BBH", _PROXY, _TCP4 if source.version == 4 else _TCP6, len(block)) + block
