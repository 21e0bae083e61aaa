"""DKIM, with dkimpy as the oracle: what it signs we find valid, what we sign it does, and neither takes a changed message."""

import base64
import hashlib
import time
from collections.abc import Sequence
from datetime import UTC, datetime

import dkim as dkimpy
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.report.tlsrpt.dkim import _SHORTEST_KEY, MOST, _signed_data, parse, sign, signatures, verify
from tests.dkim import dkim_key

NOW = datetime(2026, 11, 26, tzinfo=UTC)
HEADER = b"From: A <a@example.com>\r\nSubject:  x  y\r\n\tz \r\nTo: b@b.example\r\nX: 1\r\nX: 2\r\n"
BODY = b"hello   there \t\r\n\r\n \r\nx\r\n\r\n\r\n"
MESSAGE = HEADER + b"\r\n" + BODY
CANON = [(a, b) for a in (b"relaxed", b"simple") for b in (b"relaxed", b"simple")]


def oracle(
    message: bytes = MESSAGE,
    canon: tuple[bytes, bytes] = CANON[0],
    headers: Sequence[bytes] = (b"from", b"subject", b"x", b"x", b"none"),
    **more: object,
) -> bytes:
    """The message with dkimpy's signature in front."""
    signature: bytes = dkimpy.sign(
        message,
        b"s",
        b"example.com",
        dkim_key().pkcs1.encode(),
        canonicalize=canon,
        include_headers=list(headers),
        tlsrpt=True,
        **more,
    )
    return signature + message


def check(message: bytes, records: Sequence[str] = (), now: datetime = NOW) -> str:
    """What is wrong with its first signature."""
    parsed = parse(message)
    assert parsed is not None
    (signature, *_) = signatures(parsed)
    return verify(signature, parsed, list(records) or [dkim_key().record()], now)


@pytest.mark.parametrize("canon", CANON)
@pytest.mark.parametrize("body", [BODY, b"", b"\r\n", b"\r\n\r\n", b"no line end", b" \t\r\n", b"a\r\n \r\n"])
def test_what_dkimpy_signs_is_valid(canon: tuple[bytes, bytes], body: bytes) -> None:
    assert check(oracle(HEADER + b"\r\n" + body, canon)) == ""


@pytest.mark.parametrize("canon", CANON)
@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        (b"hello", b"hallo", "the body was changed"),
        (b"Subject:  x", b"Subject:  w", "the signature does not fit the message"),
        (b"X: 1", b"X: 3", "the signature does not fit the message"),
        (b"From: A", b"From: B", "the signature does not fit the message"),
        (b"From: A", b"From: B <b@b.example>\r\nFrom: A", "the message has not exactly one From field"),
        (b"X: 1", b"None: 1\r\nX: 1", "the signature does not fit the message"),
    ],
)  # fmt: skip
def test_what_was_changed_is_not(canon: tuple[bytes, bytes], old: bytes, new: bytes, reason: str) -> None:
    assert check(oracle(canon=canon).replace(old, new)) == reason


def test_changes_that_relaxed_forgives_and_simple_does_not() -> None:
    for canon, expected in ((CANON[0], ""), (CANON[3], "the signature does not fit the message")):
        assert check(oracle(canon=canon).replace(b"Subject:  x", b"SUBJECT: x")) == expected
    assert check(oracle(canon=CANON[0]).replace(b"there \t\r\n", b"there\r\n")) == ""
    assert check(oracle(canon=CANON[1]).replace(b"there \t\r\n", b"there\r\n")) == "the body was changed"


def test_a_field_named_twice_is_taken_from_the_bottom_up() -> None:
    signed = oracle(headers=(b"from", b"x"))
    assert check(signed.replace(b"X: 1", b"X: 9")) == ""
    assert check(signed.replace(b"X: 2", b"X: 9")) != ""


@pytest.mark.parametrize(
    ("records", "reason"),
    [
        ([], "there is no such key"),
        (["v=DKIM1", "v=DKIM1"], "there are several keys of that name"),
        (["nonsense"], "the key record is malformed"),
        (["v=DKIM2; p=x"], "the key record is malformed"),
        (["v=DKIM1; p=x; p=y"], "the key record is malformed"),
        (["v=DKIM1; p="], "the key was revoked"),
        (["v=DKIM1"], "the key was revoked"),
        (["v=DKIM1; k=ed25519; p=x"], "the key is not for this"),
        (["v=DKIM1; h=sha1; p=x"], "the key is not for this"),
        (["v=DKIM1; s=other; p=x"], "the key is not for this"),
        (["v=DKIM1; t=y; p=x"], "the key is for tests only, or not for a subdomain"),
        (["v=DKIM1; p=!"], "the key cannot be read"),
        (["v=DKIM1; p=AAAA"], "the key cannot be read"),
        ([dkim_key(1024).record()], "the signature does not fit the message"),
    ],
)  # fmt: skip
def test_keys_that_are_of_no_use(records: list[str], reason: str) -> None:
    parsed = parse(oracle())
    assert parsed is not None
    assert verify(signatures(parsed)[0], parsed, records, NOW) == reason


@pytest.mark.parametrize(
    "tags", ["v=DKIM1;", "k=rsa;", "v=DKIM1; s=*;", "v=DKIM1; s=email:tlsrpt;", "v=DKIM1; t=s; n=x;"]
)
def test_records_that_are_fine(tags: str) -> None:
    assert check(oracle(), [dkim_key().record(tags)]) == ""


def test_a_key_of_another_kind() -> None:
    elliptic = Ed25519PrivateKey.generate().public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    record = f"v=DKIM1; p={base64.b64encode(elliptic).decode()}"
    assert check(oracle(), [record]) == f"the key is no RSA key of at least {_SHORTEST_KEY} bits"


def test_a_signature_that_has_expired() -> None:
    signed = sign(MESSAGE, "example.com", "s", dkim_key().pem, ["from"], NOW)
    with_end = signed.replace(b" t=", b" x=").replace(str(int(NOW.timestamp())).encode(), b"1795651200")
    parsed = parse(with_end + MESSAGE)
    assert parsed is not None
    (signature,) = signatures(parsed)
    assert signature.expires == 1795651200
    assert (
        verify(signature, parsed, [dkim_key().record()], datetime(2030, 1, 1, tzinfo=UTC))
        == "the signature has expired"
    )
    assert (
        verify(signature, parsed, [dkim_key().record()], datetime(2026, 11, 1, tzinfo=UTC))
        != "the signature has expired"
    )


def field(**tags: str) -> bytes:
    usual = {"v": "1", "a": "rsa-sha256", "d": "example.com", "s": "s", "h": "from", "bh": "AAAA", "b": "AAAA"}
    told = usual | tags
    told["b"] = told.pop("b")  # at the end
    return ("DKIM-Signature: " + "; ".join(f"{name}={value}" for name, value in told.items())).encode()


@pytest.mark.parametrize(
    "tags",
    [
        {"v": "2"},
        {"a": "rsa-sha1"},  # RFC 8301
        {"l": "10"},  # RFC 8460 section 3
        {"c": "strict"},
        {"c": "relaxed/strict"},
        {"h": "to:subject"},
        {"h": ":".join(["from"] * 2000)},
        {"s": ""},
        {"s": "a b"},
        {"s": "../x"},
        {"d": "a b"},
        {"d": ""},
        {"i": "@other.example"},
        {"i": "@"},
        {"x": "never"},
        {"x": "9" * 20},
        {"b": "!"},
        {"bh": "!"},
    ],
)
def test_fields_that_cannot_be_valid_are_passed_over(tags: dict[str, str]) -> None:
    parsed = parse(field(**tags) + b"\r\n" + MESSAGE)
    assert parsed is not None
    assert signatures(parsed) == []


def test_fields_that_could_be() -> None:
    subdomain = parse(field(i="joe@mail.example.com", c="relaxed") + b"\r\n" + MESSAGE)
    assert subdomain is not None
    (signature,) = signatures(subdomain)
    assert signature.user_domain == "mail.example.com"
    assert (signature.header_relaxed, signature.body_relaxed) == (True, False)
    assert signature.key_name == "s._domainkey.example.com"
    assert verify(signature, subdomain, [dkim_key().record("v=DKIM1; t=s;")], NOW).startswith("the key is for tests")
    many = parse(b"\r\n".join([field()] * 20) + b"\r\n" + MESSAGE)
    assert many is not None
    assert len(signatures(many)) == MOST
    malformed = parse(b"DKIM-Signature: v=1; v=1\r\n" + field() + b"\r\n" + MESSAGE)
    assert malformed is not None
    assert len(signatures(malformed)) == 1


@pytest.mark.parametrize("head", [b" folded first\r\nFrom: a\r\n", b"no colon\r\n", b"X: y\r\n" * 1001])
def test_headers_that_are_none(head: bytes) -> None:
    assert parse(head + b"\r\nbody") is None


def test_ed25519() -> None:
    """RFC 8463: the hash of the data is what is signed."""
    key = Ed25519PrivateKey.generate()
    body_hash = base64.b64encode(hashlib.sha256(BODY.rstrip(b"\r\n") + b"\r\n").digest()).decode()
    unsigned = field(a="ed25519-sha256", c="simple", bh=body_hash, b="").split(b":", 1)
    parsed = parse(MESSAGE)
    assert parsed is not None
    data = _signed_data(parsed.fields, [b"from"], (unsigned[0], unsigned[1]), relaxed=False)
    value = base64.b64encode(key.sign(hashlib.sha256(data).digest()))
    message = unsigned[0] + b":" + unsigned[1] + value + b"\r\n" + MESSAGE
    public = base64.b64encode(key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)).decode()
    record = f"v=DKIM1; k=ed25519; p={public}"
    assert check(message, [record]) == ""
    assert check(message.replace(b"A <a@", b"B <a@"), [record]) == "the signature does not fit the message"


def test_dkimpy_takes_what_we_sign() -> None:
    signed = sign(MESSAGE, "example.com", "s", dkim_key().pem, ["From", "Subject"], NOW) + MESSAGE
    assert max(map(len, signed.split(b"\r\n"))) < 998
    assert dkimpy.DKIM(signed, tlsrpt=True).verify(0, dnsfunc=lambda _name, timeout=5: dkim_key().record().encode())
    assert check(signed) == ""
    # A second From field, under which ours would still be valid if it were named once.
    assert check(b"From: m@example.com\r\n" + signed) == "the message has not exactly one From field"


def test_what_cannot_be_signed() -> None:
    with pytest.raises(ValueError, match="no header"):
        sign(b"no header", "example.com", "s", dkim_key().pem, ["from"], NOW)


def test_hostile_messages_take_no_longer_than_they_are_long() -> None:
    """dkimpy takes hours for the first of these."""
    signature = oracle().split(b"From:")[0]
    hostile = (
        signature + b"From: a@example.com\r\n\r\n" + b" " * 3_000_000 + b"x",
        signature + b"From: a@example.com\r\n\r\n" + b"\r\n" * 1_500_000 + b"x",
        signature + b"From: a@example.com\r\nX:" + b"\r\n y" * 500_000 + b"\r\n\r\nx",
        field(b="A" + " " * 1_000_000) + b"\r\nFrom: a@example.com\r\n\r\nx",
        field(h="from:" + " " * 1_000_000) + b"\r\nFrom: a@example.com\r\n\r\nx",
        b"DKIM-Signature: " + b";" * 1_000_000 + b"\r\nFrom: a@example.com\r\n\r\nx",
    )
    begun = time.process_time()
    for message in hostile:
        parsed = parse(message)
        for each in signatures(parsed) if parsed is not None else []:
            assert parsed is not None
            verify(each, parsed, [dkim_key().record()], NOW)
    assert time.process_time() - begun < 30  # seconds; an hour and more where a step is quadratic


@settings(deadline=None)
@given(st.binary(max_size=300), st.text(max_size=100))
def test_any_bytes_give_an_answer(data: bytes, record: str) -> None:
    for message in (
        data,
        field() + b"\r\n" + data,
        b"DKIM-Signature: " + data + b"\r\nFrom: a@b.example\r\n\r\n" + data,
    ):
        parsed = parse(message)
        for each in signatures(parsed) if parsed is not None else []:
            assert parsed is not None
            assert verify(each, parsed, [record], NOW)
