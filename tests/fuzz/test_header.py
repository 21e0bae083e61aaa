"""The header scan and the From: field under fuzzing: reads do not matter, nothing raises, and the standard library agrees on the domain."""

import email.policy
from email.headerregistry import AddressHeader
from email.parser import BytesHeaderParser

from hypothesis import given, settings
from hypothesis import strategies as st

from relay.mail.address import normalise_domain
from relay.smtp.from_field import read_from
from relay.smtp.header import HeaderScan

fuzz = settings(max_examples=200, deadline=None)

LINES = [
    b"From: a@example.org", b"from : A <b@example.com>", b"Received: x", b"RECEIVED : y", b" folded", b"\tfolded", b"", b"Subject: \xc3\xa9",
    b"junk", b"TLS-Required: No", b"tls-required : ", b" no", b"Message-ID: <x@y>", b"From:", b"  ",
    b"From: =?utf-8?q?a=40b.example?= <c@d.example>",
]  # fmt: skip
headers = st.lists(st.sampled_from(LINES), max_size=10).map(b"\r\n".join)

PIECES = [
    "a@example.org", "<b@example.com>", "b@example.com", '"', "(", ")", "\\", ",", ";", ":", " ", "Alice", '"Bob @ X"',
    "=?utf-8?q?x=40y.example?=", "<", ">", "@", "é", ".", "=?", "?=", "[192.0.2.1]", "\t", "(c)", "a", "example.org",
]  # fmt: skip
values = st.lists(st.sampled_from(PIECES), max_size=8).map("".join)
# Mostly right, with a piece of trouble somewhere.
space = st.sampled_from(["", " ", "\t", "(c)", " (c (d)) ", "x", ",", "\\"])
name = st.sampled_from(
    ["", "Alice ", '"Doe, A." ', "=?utf-8?q?M=C3=BCller?= ", "J. Q. ", '"a@example.org" ', "(x)", "é "]
)
local = st.sampled_from(["a", "a.b", '"a b"', '"a@b"', "a+b", "é", "=?utf-8?q?x?="])
domain = st.sampled_from(
    ["example.org", "EXAMPLE.org.", "sub.example.org", "example", "x_y.example", "[192.0.2.1]", "a..b"]
)
bare = st.tuples(space, local, st.just("@"), domain, space).map("".join)
angled = st.tuples(name, st.just("<"), local, st.just("@"), domain, st.just(">"), space).map("".join)


@fuzz
@given(headers, st.lists(st.integers(1, 40), max_size=30), st.integers(10, 200))
def test_header_scan_does_not_depend_on_reads(header: bytes, sizes: list[int], limit: int) -> None:
    whole, split = HeaderScan(limit), HeaderScan(limit)
    whole.feed(header)
    position = 0
    for size in [*sizes, len(header)]:
        split.feed(header[position : position + size])
        position += size
    whole.finish()
    split.finish()
    assert whole.header == split.header
    assert (whole.received, whole.message_id, whole.too_long) == (split.received, split.message_id, split.too_long)
    assert whole.from_domain() == split.from_domain()
    assert whole.tls_required_no == split.tls_required_no
    assert len(whole.header) <= limit


@fuzz
@given(st.one_of(values.map(str.encode), st.binary(max_size=60)))
def test_any_from_field_has_one_domain_or_none(value: bytes) -> None:
    found = read_from(value)
    assert bool(found.domain) is not bool(found.problem)


@fuzz
@given(st.one_of(bare, angled, values))
def test_where_we_read_a_domain_the_standard_library_reads_the_same(value: str) -> None:
    found = read_from(value.encode())
    if not found.domain:
        assert found.problem
        return
    parser = BytesHeaderParser(policy=email.policy.SMTPUTF8)
    try:
        field = parser.parsebytes(b"From: " + value.encode() + b"\r\n\r\n")["From"]
    except (AttributeError, IndexError):  # the library stumbles over odd display names such as `."" `
        return
    assert isinstance(field, AddressHeader)
    theirs = [each.domain.encode("utf-8", "surrogateescape").decode() for each in field.addresses]
    assert [normalise_domain(each) for each in theirs] == [found.domain]
