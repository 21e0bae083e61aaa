"""The kinds of value: what they take, what they make of it, and what they say where they do not take it."""

import base64
import ipaddress
import re
from datetime import date, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.config.values import (
    HostPort,
    duration_text,
    parse_address,
    parse_certificate_name,
    parse_count,
    parse_date,
    parse_domain,
    parse_duration,
    parse_flag,
    parse_name,
    parse_network,
    parse_only_true,
    parse_pattern,
    parse_pin,
    parse_rate,
    parse_size,
    parse_text,
)
from relay.mail.address import Address

EMPTY_SPKI = "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="
EMPTY_HEX = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

TAKEN: tuple[tuple[Any, Any, Any], ...] = (
    (parse_size, 0, 0),
    (parse_size, "50MiB", 50 * 2**20),
    (parse_size, "500 KB", 500_000),
    (parse_size, "1.5kib", 1536),
    (parse_size, "7", 7),
    (parse_size, 2**60, 2**60),
    (parse_count, 7, 7),
    (parse_count, " 7 ", 7),
    (parse_flag, True, True),
    (parse_flag, "false", False),
    (parse_only_true, "true", True),
    (parse_text, " us ", "us"),
    (parse_name, "contoso-out.2", "contoso-out.2"),
    (parse_date, "2028-02-29", date(2028, 2, 29)),
    (parse_date, date(2028, 2, 29), date(2028, 2, 29)),
    (parse_duration, "1h30m", timedelta(minutes=90)),
    (parse_duration, "500ms", timedelta(milliseconds=500)),
    (parse_duration, "5 d", timedelta(days=5)),
    (parse_duration, "0s", timedelta(0)),
    (parse_duration, timedelta(1), timedelta(1)),
    (parse_rate, "600/m", 10.0),
    (parse_rate, "100 / s", 100.0),
    (parse_network, "203.0.113.7", ipaddress.ip_network("203.0.113.7/32")),
    (parse_network, "2001:db8::/32", ipaddress.ip_network("2001:db8::/32")),
    (parse_network, "::/0", ipaddress.ip_network("::/0")),
    (parse_network, ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("10.0.0.0/8")),
    (parse_domain, "Contoso.COM.", "contoso.com"),
    (parse_domain, "straße.de", "xn--strae-oqa.de"),
    (parse_domain, "_mta.x1.example", "_mta.x1.example"),
    (parse_pattern, "*", "*"),
    (parse_pattern, "*.Contoso.com", "*.contoso.com"),
    (parse_certificate_name, "2001:DB8::1", "2001:db8::1"),
    (parse_certificate_name, "*.contoso.com", "*.contoso.com"),
    (parse_pin, f"sha256:{EMPTY_SPKI}", f"sha256:{EMPTY_SPKI}"),
    (parse_pin, f"SHA256: {EMPTY_HEX}", f"sha256:{EMPTY_SPKI}"),
    (parse_pin, "sha256:" + ":".join(EMPTY_HEX[i : i + 2] for i in range(0, 64, 2)).upper(), f"sha256:{EMPTY_SPKI}"),
    (parse_address, "Bob@Contoso.com", Address("Bob", "contoso.com")),
    (parse_address, Address("bob", "contoso.com"), Address("bob", "contoso.com")),
)

REFUSED: tuple[tuple[Any, Any, str], ...] = (
    (parse_size, -1, "write a size"),
    (parse_size, True, "write a size"),
    (parse_size, "50 MBytes", "write a size"),
    (parse_size, "9" * 400, "write a size"),
    (parse_size, "9999999999GiB", "more than any disk holds"),
    (parse_size, 2**61, "write a size"),
    (parse_size, "٣", "write a size"),
    (parse_count, True, "whole number"),
    (parse_count, 1.0, "whole number"),
    (parse_count, "1e3", "whole number"),
    (parse_count, "9" * 5000, "whole number"),
    (parse_flag, "yes", "write true or false"),
    (parse_flag, 1, "write true or false"),
    (parse_only_true, False, "leave the key out"),
    (parse_text, 7, "needs quotes"),
    (parse_text, "  ", "write some text"),
    (parse_name, "contoso out", "write a name"),
    (parse_name, "", "write a name"),
    (parse_name, "a" * 65, "write a name"),
    (parse_name, "name\n", "write a name"),
    (parse_date, "2027-02-30", "there is no day 2027-02-30"),
    (parse_date, "2027-2-3", "is not a date"),
    (parse_date, 20270203, "write a day"),
    (parse_date, "9999-12-31", "is no end"),
    (parse_duration, 5, "with its unit"),
    (parse_duration, "5", "with its unit"),
    (parse_duration, "5d!", "with its unit"),
    (parse_duration, "", "with its unit"),
    (parse_duration, "999999999999w", "longer than a year"),
    (parse_duration, "366d", "longer than a year"),
    (parse_rate, "0/s", "write a rate"),
    (parse_rate, "1.5/s", "write a rate"),
    (parse_rate, 100, "write a rate"),
    (parse_network, "10.0.0.1/8", "did you mean 10.0.0.0/8, or the single address 10.0.0.1?"),
    (parse_network, "10.0.0.0/33", "is not a network"),
    (parse_network, 10, "write a network"),
    (parse_network, "::ffff:10.0.0.1", "write the IPv4 network"),
    (parse_domain, "10.1.2.3", "is an IP address"),
    (parse_domain, "*.contoso.com", "no wildcard"),
    (parse_domain, "con toso", "is not a domain name"),
    (parse_domain, "a" * 300, "is not a domain name"),
    (parse_domain, None, "write a domain"),
    (parse_pattern, "*contoso.com", "a star stands only for"),
    (parse_pattern, "a.*.com", "a star stands only for"),
    (parse_certificate_name, "*", "would accept any certificate"),
    (parse_certificate_name, "*.com", 'every domain under "com"'),
    (parse_pin, "sha1:qqqq", "write a pin"),
    (parse_pin, EMPTY_SPKI, "write a pin"),
    (parse_pin, "sha256:!!", "write a pin"),
    (parse_pin, "sha256:" + "z" * 64, "write a pin"),
    (parse_pin, "sha256:YWJj", "3 bytes instead of 32"),
    (parse_address, "bob", "is not local-part@domain"),
    (parse_address, 7, "write an address"),
)  # fmt: skip


@pytest.mark.parametrize(("parse", "value", "expected"), TAKEN)
def test_taken(parse: Any, value: Any, expected: Any) -> None:
    assert parse(value) == expected


@pytest.mark.parametrize(("parse", "value", "message"), REFUSED)
def test_refused(parse: Any, value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        parse(value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("mail.contoso.com:2525", HostPort("mail.contoso.com", 2525)),
        ("mail.contoso.com", HostPort("mail.contoso.com", 25)),
        ("192.0.2.1:25", HostPort("192.0.2.1", 25)),
        ("[2001:DB8::1]:25", HostPort("2001:db8::1", 25)),
        ("[2001:db8::1]", HostPort("2001:db8::1", 25)),
    ],
)
def test_hosts_and_ports(text: str, expected: HostPort) -> None:
    assert HostPort.parse(text, default_port=25) == expected
    assert HostPort.parse(str(expected)) == expected
    assert expected.is_address is (expected.host[0].isdigit())


@pytest.mark.parametrize(
    "text", ["2001:db8::1", "[mail.contoso.com]:25", "a:b", "a:99999", "a:", "", ":25", "a:٢٥", 25]
)
def test_what_is_no_host_and_port(text: object) -> None:
    with pytest.raises(ValueError, match=r"write host:port|a port is a number|is not a domain name|write a domain"):
        HostPort.parse(text, default_port=25)


def test_a_listener_has_an_address_and_a_port() -> None:
    for text in ("localhost:25", "127.0.0.1", "300.1.1.1:25"):
        with pytest.raises(ValueError, match="write address:port"):
            HostPort.parse(text, name=False)


@given(st.integers(0, 2**60))
def test_a_number_of_bytes_is_itself(size: int) -> None:
    assert parse_size(size) == parse_size(str(size)) == parse_size(f"{size}B") == size


@given(st.integers(0, 10**6), st.sampled_from(["KiB", "MiB", "GiB", "KB", "MB", "GB"]))
def test_units_multiply(number: int, unit: str) -> None:
    assert parse_size(f"{number}{unit}") == number * parse_size(f"1{unit}")


@given(
    st.timedeltas(timedelta(0), timedelta(days=365)).map(
        lambda span: timedelta(milliseconds=span // timedelta(milliseconds=1))
    )
)
def test_durations_are_written_so_that_they_are_read_back(span: timedelta) -> None:
    assert parse_duration(duration_text(span)) == span


@given(st.binary(min_size=32, max_size=32))
def test_a_pin_in_hex_and_in_base64_is_one_pin(digest: bytes) -> None:
    pin = parse_pin("sha256:" + base64.b64encode(digest).decode())
    assert parse_pin("sha256:" + digest.hex()) == pin
    assert parse_pin(pin) == pin


LABEL = st.from_regex(r"[a-z]([a-z0-9-]{0,10}[a-z0-9])?", fullmatch=True).filter(lambda each: "xn--" not in each)


@given(st.lists(LABEL, min_size=1, max_size=5), st.booleans())
def test_patterns_are_read_back_as_they_are(labels: list[str], wildcard: bool) -> None:
    pattern = ("*." if wildcard else "") + ".".join(labels)
    assert parse_pattern(pattern) == parse_pattern(pattern.upper() + ".") == pattern


@given(st.text())
def test_no_text_makes_anything_but_a_value_error(text: str) -> None:
    told = set()
    for parse in {each[0] for each in TAKEN}:
        try:
            parse(text)
        except ValueError as error:
            told.add(str(error))
    assert "" not in told
