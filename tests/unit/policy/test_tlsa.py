"""Which TLSA records can be used: RFC 7672 section 3.1 and the digest agility of RFC 7671 section 9."""

import pytest

from relay.mail.published import TlsaRecord
from relay.policy.tlsa import judge_records, short

SHA256, SHA512 = "ab" * 32, "cd" * 64
DER, LONG_DER = "3003020101", "308200820480" + "00" * 0x80


def record(text: str) -> TlsaRecord:
    usage, selector, matching, *data = text.split()
    known = {"sha256": SHA256, "sha512": SHA512, "der": DER, "longder": LONG_DER, "short": "ab" * 31, "": ""}
    word = data[0] if data else ""
    return TlsaRecord(int(usage), int(selector), int(matching), known.get(word, word))


@pytest.mark.parametrize(
    ("text", "trouble"),
    [
        *((f"{usage} {selector} {kind}", "") for usage in (2, 3) for selector in (0, 1)
          for kind in ("0 der", "0 longder", "1 sha256", "2 sha512")),
        *((f"{usage} {selector} 1 sha256", "PKIX usages say nothing in SMTP") for usage in (0, 1) for selector in (0, 1)),
        ("4 1 1 sha256", "usage 4 is not known"),
        ("255 1 1 sha256", "usage 255 is not known"),
        ("3 2 1 sha256", "selector 2 is not known"),
        ("3 1 3 sha256", "matching type 3 is not known"),
        ("3 1 1 short", "its data has 31 octets, not 32"),
        ("3 1 1 sha512", "its data has 64 octets, not 32"),
        ("3 1 2 sha256", "its data has 32 octets, not 64"),
        ("3 1 1", "its data has 0 octets, not 32"),
        ("3 1 0", "its data is neither a certificate nor a key"),
        ("3 1 0 30", "its data is neither a certificate nor a key"),
        ("3 1 0 sha256", "its data is neither a certificate nor a key"),
        ("3 1 0 3003020102ff", "its data is neither a certificate nor a key"),
        ("3 1 0 3082", "its data is neither a certificate nor a key"),
        ("3 1 0 30ff", "its data is neither a certificate nor a key"),
    ],
)  # fmt: skip
def test_one_record(text: str, trouble: str) -> None:
    (judged,) = judge_records([record(text)])
    assert (judged.record, judged.trouble) == (record(text), trouble)


@pytest.mark.parametrize(
    ("records", "used"),
    [
        ("3 1 1 sha256, 3 1 2 sha512", "3 1 2"),
        ("3 1 2 sha512, 3 1 1 sha256", "3 1 2"),
        ("3 1 0 der, 3 1 1 sha256, 3 1 2 sha512", "3 1 0, 3 1 2"),
        ("3 1 0 der, 3 1 1 sha256", "3 1 0, 3 1 1"),
        ("3 0 1 sha256, 3 1 2 sha512", "3 0 1, 3 1 2"),  # other selector, other choice
        ("2 1 1 sha256, 3 1 2 sha512", "2 1 1, 3 1 2"),
        ("3 1 1 sha256, 3 1 2 sha256", "3 1 1"),  # a malformed strong one outdoes nobody
        ("3 1 1 sha256, 3 1 3 sha512", "3 1 1"),
        ("1 1 2 sha512, 3 1 1 sha256", "3 1 1"),
        ("3 1 1 sha256, 3 1 1 sha256", "3 1 1, 3 1 1"),  # rollover: both are good
    ],
)
def test_digest_agility(records: str, used: str) -> None:
    judged = judge_records(record(each.strip()) for each in records.split(","))
    kept = [f"{each.record.usage} {each.record.selector} {each.record.matching}" for each in judged if not each.trouble]
    assert ", ".join(kept) == used


def test_why_the_weaker_digest_is_left_aside() -> None:
    weaker, _ = judge_records([record("3 1 1 sha256"), record("3 1 2 sha512")])
    assert weaker.trouble == "a stronger digest is published beside it (matching type 2)"


def test_a_record_for_people_is_short() -> None:
    assert short(record("3 0 0 longder")) == "3 0 0 308200820480000000000000..."
    assert short(record("3 0 0 der")) == "3 0 0 3003020101"
