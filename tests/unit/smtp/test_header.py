"""The header scan: where the section ends, what is counted, and which From: is beyond doubt."""

import pytest

from relay.smtp.header import HeaderScan


def scan(message: bytes, size: int = 0, limit: int = 2**20) -> HeaderScan:
    """`size`: octets a feed, 0 for all at once."""
    found = HeaderScan(limit)
    for start in range(0, len(message), size or len(message) or 1):
        found.feed(message[start : start + (size or len(message))])
    found.finish()
    return found


MESSAGE = (
    b"Received: from a by b\r\n\twith ESMTP\r\nreceived: from b by c\r\nReceived \t: from c by d\r\nX-Received: not one\r\n"
    b"Received-SPF: not one\r\nMessage-ID:\r\n <id@example.org>\r\nMessage-ID: <second@example.org>\r\nFrom: A <a@example.org>\r\n"
    b"\r\nReceived: in the body\r\n\r\nFrom: b@example.com\r\n"
)


@pytest.mark.parametrize("size", [0, 1, 2, 3, 7, 64])
def test_what_is_in_the_header_and_nothing_else(size: int) -> None:
    found = scan(MESSAGE, size)
    assert found.complete
    assert (found.received, found.message_id, found.header_from()) == (3, "<id@example.org>", "example.org")
    assert found.header == MESSAGE[: MESSAGE.index(b"\r\n\r\n") + 2]
    assert not found.eight_bit
    assert not found.too_long


@pytest.mark.parametrize("size", [0, 1])
@pytest.mark.parametrize(
    ("message", "header"),
    [
        (b"", b""),
        (b"\r\n", b""),
        (b"\r\nReceived: body\r\n\r\n", b""),
        (b"Received: x\r\n", b"Received: x\r\n"),
        (b"Received: x", b"Received: x"),
        (b"Received: x\r\n\r\n", b"Received: x\r\n"),
        (b"\r\n\r\n", b""),
    ],
)
def test_where_the_section_ends(message: bytes, header: bytes, size: int) -> None:
    found = scan(message, size)
    assert found.header == header
    assert found.received == header.count(b"Received")


@pytest.mark.parametrize("size", [0, 1, 5])
@pytest.mark.parametrize(("length", "too_long"), [(100, False), (101, True), (5000, True)])
def test_the_limit(length: int, too_long: bool, size: int) -> None:
    field = b"From: a@example.org\r\n"
    header = field + b"X: " + b"x" * (length - len(field) - 5) + b"\r\n"
    found = scan(header + b"\r\nbody\r\n", size, limit=100)
    assert found.too_long is too_long
    assert len(found.header) == 100
    assert found.header_from() == ("" if too_long else "example.org")
    assert ("too long" in found.from_domain().problem) is too_long


def test_what_is_kept_is_bounded() -> None:
    found = HeaderScan(1000)
    for _ in range(100):
        found.feed(b"x" * 500)
        assert len(found._collected) <= 1004
    assert found.too_long


def test_asking_early_is_asking_about_nothing() -> None:
    found = HeaderScan()
    found.feed(b"Received: x\r\n")
    assert (found.complete, found.received, found.message_id) == (False, 0, "")
    found.feed(b"\r\n")
    assert found.received == 1


@pytest.mark.parametrize(
    ("field", "message_id"),
    [
        (b"Message-ID: <a@b>\r\n", "<a@b>"),
        (b"X: y\r\nMESSAGE-ID:<a@b>\r\n", "<a@b>"),
        (b"X: y\r\nMessage-Id:\r\n\t<a@\r\n b>\r\nY: z\r\n", "<a@b>"),
        (b"Message-ID: <a\xff@b>", "<a@b>"),
        (b"Message-ID:\r\n", ""),
        (b"Message-ID: " + b"x" * 900 + b"\r\n", "x" * 512),
        (b"X-Message-ID: <a@b>\r\n", ""),
        (b"X: message-id: <a@b>\r\n", ""),
    ],
)
def test_message_id(field: bytes, message_id: str) -> None:
    assert scan(field).message_id == message_id


@pytest.mark.parametrize("size", [0, 1, 3])
@pytest.mark.parametrize(
    ("field", "said"),
    [
        (b"TLS-Required: No\r\n", True),
        (b"tls-required:no\r\n", True),
        (b"X: y\r\nTLS-REQUIRED :\t NO \t\r\nY: z\r\n", True),
        (b"TLS-Required:\r\n No\r\n", True),
        (b"TLS-Required: No\r\n \r\n", True),
        (b"TLS-Required: No", True),
        # another value, or none
        (b"TLS-Required: Yes\r\n", False),
        (b"TLS-Required:\r\n", False),
        (b"TLS-Required: No, really\r\n", False),
        (b"TLS-Required: No\r\n Yes\r\n", False),
        (b"TLS-Required: N\r\n o\r\n", False),
        (b'TLS-Required: "No"\r\n', False),
        (b"TLS-Required: =?utf-8?q?No?=\r\n", False),
        (b"TLS-Required: No\xa0\r\n", False),
        # RFC 8689 section 3 has white space there, and no comments
        (b"TLS-Required: No (for a test)\r\n", False),
        (b"TLS-Required: (No) No\r\n", False),
        # several, even where they agree
        (b"TLS-Required: No\r\nTLS-Required: No\r\n", False),
        (b"TLS-Required: No\r\nX: y\r\ntls-required : Yes\r\n", False),
        # other fields
        (b"X-TLS-Required: No\r\n", False),
        (b"TLS-Required-By: No\r\n", False),
        (b"Subject: TLS-Required: No\r\n", False),
        (b"Subject: x\r\n TLS-Required: No\r\n", False),
        (b"Subject: x\r\n\r\nTLS-Required: No\r\n", False),
        (b"", False),
    ],
)
def test_tls_required_no(field: bytes, said: bool, size: int) -> None:
    assert scan(field, size).tls_required_no is said


def test_tls_required_no_counts_only_in_a_header_that_was_seen_whole() -> None:
    assert not scan(b"TLS-Required: No\r\nX: " + b"x" * 200, limit=100).tls_required_no
    assert not scan(b"TLS-Required: No\r\n" * 100_000).tls_required_no


def test_eight_bit_header() -> None:
    assert scan(b"Subject: Gr\xc3\xbc\xc3\x9fe\r\n\r\nbody\r\n").eight_bit
    assert not scan(b"Subject: Hello\r\n\r\nGr\xc3\xbc\xc3\x9fe\r\n").eight_bit


@pytest.mark.parametrize(
    ("header", "domain"),
    [
        (b"From: a@example.org\r\n", "example.org"),
        (b"FROM:a@example.org\r\n", "example.org"),
        (b"From : a@example.org\r\n", "example.org"),
        (b"From\t: a@example.org\r\n", "example.org"),
        (b"From:\r\n a@example.org\r\n", "example.org"),
        (b"From: A\r\n =?utf-8?q?B?=\r\n\t<a@example.org>\r\nTo: x\r\n y\r\n", "example.org"),
        (b"From: a@example.org", "example.org"),
        # several, in any disguise
        (b"From: a@example.org\r\nFrom: a@example.org\r\n", ""),
        (b"From: a@example.org\r\nfrom : b@example.com\r\n", ""),
        (b"From: a@example.org\r\nTo: x\r\nFROM\t:b@example.com\r\n", ""),
        # none
        (b"", ""),
        (b"Sender: a@example.org\r\nResent-From: a@example.org\r\nX-From: a@example.org\r\n", ""),
        (b"From:\r\n", ""),
        # lines that one parser reads past and another stops at
        (b"From: a@example.org\r\n \r\nFrom: b@example.com\r\n", ""),
        (b"From: a@example.org\r\nno field\r\nTo: x\r\n", ""),
        (b" From: a@example.org\r\n", ""),
        (b"X: y\r\nFrom\xa0: a@example.org\r\nFrom: b@example.com\r\n", ""),
        (b"From a@example.org Mon Jan  1 00:00:00 2026\r\nFrom: a@example.org\r\n", ""),
        (b">From: b@example.com\r\nFrom : a@example.org\r\n", "example.org"),
        (b": b@example.com\r\nFrom: a@example.org\r\n", ""),
        (b"From x: b@example.com\r\nFrom: a@example.org\r\n", ""),
    ],
)
def test_header_from(header: bytes, domain: str) -> None:
    found = scan(header + b"\r\n" if header.endswith(b"\r\n") else header)
    assert found.header_from() == domain
    assert bool(found.from_domain().problem) is not bool(domain)


def test_work_on_a_hostile_header_is_bounded() -> None:
    folded = scan(b"From: a@example.org\r\n" + b" \tx\r\n" * 200_000)
    assert folded.from_domain().problem == "the header has too many lines"
    assert (
        scan(b"From: a@example.org\r\n" + b" " * 9000 + b"(x)\r\n" + b"X: y\r\n" * 5000).from_domain().problem
        == "the From: field is too long"
    )
    assert scan(b"Message-ID:" + b"\r\n x" * 200_000).message_id == "x" * 256
