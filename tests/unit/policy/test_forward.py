"""Who a mail server inside is told that the client was: the very bytes."""

import ipaddress
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.config.connectors import ForwardClient, OutboundConnector
from relay.config.values import HostPort
from relay.inbound.proxy import Incomplete, Proxied, Unknown, parse_header
from relay.mail.envelope import LOCAL, Accepted
from relay.policy.forward import (
    TEMPUNAVAIL,
    OnBehalfOf,
    ReverseName,
    on_behalf_of,
    proxy_header,
    spoken_helo,
    xclient_attributes,
    xtext,
)

POSTFIX = frozenset(["NAME", "ADDR", "PROTO", "HELO", "REVERSE_NAME", "PORT", "LOGIN", "DESTADDR", "DESTPORT"])
V4, V6 = ipaddress.ip_address("192.0.2.7"), ipaddress.ip_address("2001:db8::7")
SERVER = HostPort("198.51.100.1", 25)
CLIENT = OnBehalfOf(
    ForwardClient.XCLIENT,
    V4,
    40025,
    "mail.a.example",
    True,
    "",
    SERVER,
    ReverseName("mail.a.example", "mail.a.example"),
)
HOP = HostPort("10.0.0.5", 2525)


def connector(how: str) -> OutboundConnector:
    values = {
        "name": "inner",
        "direction": "outbound",
        "match": {"recipient_domains": ["example.com"]},
        "route": {"smart_hosts": ["mail.internal"]},
        "forward_client": how,
    }
    return OutboundConnector.model_validate(values)


def accepted(client: str = "192.0.2.7", protocol: str = "ESMTPS", auth: str = "") -> Accepted:
    return Accepted(
        datetime.now(UTC),
        client,
        "mail.a.example",
        "mx 0.0.0.0:25",
        protocol,
        auth=auth,
        client_port=40025,
        server="198.51.100.1:25",
    )


@pytest.mark.parametrize(
    ("client", "expected"),
    [
        (
            CLIENT,
            "ADDR=192.0.2.7 PORT=40025 NAME=mail.a.example REVERSE_NAME=mail.a.example PROTO=ESMTP HELO=mail.a.example "
            "LOGIN=[UNAVAILABLE] DESTADDR=198.51.100.1 DESTPORT=25",
        ),
        (
            OnBehalfOf(ForwardClient.XCLIENT, V6, 0, "[IPv6:::1]", False, "joe=x@a.example"),
            "ADDR=IPV6:2001:db8::7 PORT=[UNAVAILABLE] NAME=[UNAVAILABLE] REVERSE_NAME=[UNAVAILABLE] PROTO=SMTP "
            "HELO=+5BIPv6:::1+5D LOGIN=joe+3Dx@a.example DESTADDR=[UNAVAILABLE] DESTPORT=[UNAVAILABLE]",
        ),
        (
            OnBehalfOf(ForwardClient.XCLIENT, None, helo="x", names=ReverseName(TEMPUNAVAIL, "claimed.example")),
            "ADDR=[UNAVAILABLE] PORT=[UNAVAILABLE] NAME=[TEMPUNAVAIL] REVERSE_NAME=claimed.example PROTO=ESMTP HELO=x "
            "LOGIN=[UNAVAILABLE] DESTADDR=[UNAVAILABLE] DESTPORT=[UNAVAILABLE]",
        ),
    ],
)
def test_every_attribute_that_postfix_offers_gets_a_value(client: OnBehalfOf, expected: str) -> None:
    assert xclient_attributes(client, POSTFIX) == expected


def test_only_what_the_hop_offers_is_said() -> None:
    assert xclient_attributes(CLIENT, frozenset({"ADDR", "HELO", "SOMETHING"})) == "ADDR=192.0.2.7 HELO=mail.a.example"


def test_a_value_that_is_too_long_is_unavailable() -> None:
    long = replace(CLIENT, helo="a" * 256, login="+" * 86)
    assert xclient_attributes(long, frozenset({"HELO", "LOGIN"})) == "HELO=[UNAVAILABLE] LOGIN=[UNAVAILABLE]"


@given(st.text(max_size=80))
def test_no_words_of_a_client_become_an_attribute(text: str) -> None:
    line = xclient_attributes(replace(CLIENT, helo=text, login=text), frozenset({"HELO", "LOGIN"}))
    helo, login = line.split(" ")
    assert helo.count("=") == login.count("=") == 1
    assert line.isascii()
    assert line.isprintable()


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=80))
def test_xtext_can_be_read_back(text: str) -> None:
    encoded = xtext(text)
    out, place = bytearray(), 0
    while place < len(encoded):
        if encoded[place] == "+":
            out.append(int(encoded[place + 1 : place + 3], 16))
            place += 3
        else:
            out.append(ord(encoded[place]))
            place += 1
    assert out.decode() == text


@pytest.mark.parametrize(
    ("how", "client", "expected"),
    [
        ("off", accepted(), None),
        ("off", accepted(protocol=LOCAL), None),
        ("xclient", accepted(protocol=LOCAL), None),
        ("proxy", accepted(protocol=LOCAL), OnBehalfOf(ForwardClient.PROXY, is_ourselves=True)),
        (
            "proxy",
            accepted("unknown"),
            OnBehalfOf(ForwardClient.PROXY, None, 40025, "mail.a.example", True, "", SERVER),
        ),
        (
            "xclient",
            accepted("2001:db8::7", "SMTP"),
            OnBehalfOf(ForwardClient.XCLIENT, V6, 40025, "mail.a.example", False, "", SERVER),
        ),
        (
            "xclient",
            accepted(protocol="ESMTPSA", auth="joe"),
            OnBehalfOf(ForwardClient.XCLIENT, V4, 40025, "mail.a.example", True, "joe", SERVER),
        ),
    ],
)
def test_on_whose_behalf_a_delivery_is(how: str, client: Accepted, expected: OnBehalfOf | None) -> None:
    assert on_behalf_of(connector(how), client) == expected


@pytest.mark.parametrize(
    ("helo", "expected"),
    [
        ("mail.a.example", "mail.a.example"),
        ("[192.0.2.7]", "[192.0.2.7]"),
        ("", "us"),
        ("a b", "us"),
        ("é", "us"),
        ("a" * 256, "us"),
    ],
)
def test_the_name_for_ehlo_is_the_client_s_where_it_can_be_said(helo: str, expected: str) -> None:
    assert spoken_helo(replace(CLIENT, helo=helo), "us") == expected
    assert spoken_helo(None, "us") == "us"


@pytest.mark.parametrize(
    ("address", "server", "hop", "seen", "to"),
    [
        (V4, SERVER, HOP, "192.0.2.7", "198.51.100.1:25"),
        (V4, None, HOP, "192.0.2.7", "10.0.0.5:2525"),
        (V6, HostPort("2001:db8::1", 25), HOP, "2001:db8::7", "[2001:db8::1]:25"),
        (V6, SERVER, HOP, "2001:db8::7", "[::]:25"),
        (V4, HostPort("2001:db8::1", 25), HostPort("::1", 2525), "192.0.2.7", "0.0.0.0:25"),
        (None, SERVER, HOP, "0.0.0.0", "198.51.100.1:25"),  # nobody's network, and above all not ours
    ],
)
def test_a_proxy_header_says_who_the_client_is(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address | None,
    server: HostPort | None,
    hop: HostPort,
    seen: str,
    to: str,
) -> None:
    client = OnBehalfOf(ForwardClient.PROXY, address, 40025, server=server)
    header = proxy_header(client, hop)
    found = parse_header(header)
    assert isinstance(found, Proxied)
    assert (str(found.address), found.port, found.length, str(found.server)) == (seen, 40025, len(header), to)
    assert all(isinstance(parse_header(header[:size]), Incomplete) for size in range(len(header)))


def test_our_own_mail_is_local() -> None:
    header = proxy_header(OnBehalfOf(ForwardClient.PROXY, is_ourselves=True), HOP)
    assert parse_header(header) == Unknown(len(header))
