"""A report as a mail (RFC 8460 section 5.3), as the standard library and dkimpy read it."""

import email
import email.policy
import gzip
import json
from datetime import UTC, datetime

import dkim
import pytest

from relay.mail.address import Address
from relay.mail.envelope import Body, Notify
from relay.report.tlsrpt.document import packed, report
from relay.report.tlsrpt.mail import Key, Mail, compose
from tests.dkim import dkim_key
from tests.unit.report.tlsrpt.builders import ABOUT, COUNTS, REPORTER

AT = datetime(2026, 11, 26, 1, 2, 3, tzinfo=UTC)
TO = Address("reports", "b.example")
DOCUMENT = report(REPORTER, ABOUT, COUNTS)


def composed(to: Address = TO, *, key: bool = True) -> Mail:
    signing = Key("example.com", "r2026", lambda: dkim_key().pem) if key else None
    return compose(REPORTER, ABOUT, to, packed(DOCUMENT), AT, signing)


def test_what_the_standard_library_finds_in_it() -> None:
    mail = composed(key=False)
    message = email.message_from_bytes(mail.content, policy=email.policy.default)
    assert not message.defects
    assert message.get_content_type() == "multipart/report"
    assert message.get_param("report-type") == "tlsrpt"
    assert message["TLS-Report-Domain"] == "b.example"
    assert message["TLS-Report-Submitter"] == "example.com"
    assert message["TLS-Required"] == "No"
    assert message["From"] == "tls@example.com"
    assert message["To"] == "reports@b.example"
    assert message["Message-ID"] == mail.message_id
    assert message["Subject"] == (
        "Report Domain: b.example Submitter: example.com Report-ID: <2026-11-25.b.example@relay.example.com>"
    )
    words, file = message.iter_parts()
    assert words.get_content_type() == "text/plain"
    assert "example.com about b.example" in words.get_content()
    assert file.get_content_type() == "application/tlsrpt+gzip"
    assert file.get_content_disposition() == "attachment"
    assert str(file.get_filename()).startswith("example.com!b.example!17955648")
    payload = file.get_payload(decode=True)
    assert isinstance(payload, bytes)
    assert json.loads(gzip.decompress(payload)) == DOCUMENT
    assert mail.content.isascii()
    assert max(map(len, mail.content.split(b"\r\n"))) <= 998


def test_the_envelope_asks_for_delivery_and_for_no_answer() -> None:
    envelope = composed().envelope
    assert str(envelope.sender) == "tls@example.com"  # RFC 5321 section 4.5.5: this is no notification about mail
    (recipient,) = envelope.recipients
    assert recipient.address == TO
    assert recipient.notify == {Notify.NEVER}
    assert envelope.tls_optional
    assert (envelope.body, envelope.smtputf8) == (Body.SEVEN_BIT, False)


def test_an_address_beyond_ascii_needs_smtputf8() -> None:
    mail = composed(Address("berichte-ü", "b.example"), key=False)
    assert mail.envelope.smtputf8
    assert "berichte-ü@b.example".encode() in mail.content


def test_each_recipient_gets_a_message_id_of_its_own_and_the_same_report_id() -> None:
    one, other = composed(key=False), composed(Address("x", "c.example"), key=False)
    assert one.message_id != other.message_id
    assert b"Report-ID:\r\n <2026-11-25.b.example@relay.example.com>" in one.content
    assert b"Report-ID:\r\n <2026-11-25.b.example@relay.example.com>" in other.content
    assert composed(key=False) == one


@pytest.mark.parametrize("mode", [True, "strict"])
def test_dkimpy_finds_the_signature_valid(mode: bool | str) -> None:
    signed = composed()
    verifier = dkim.DKIM(signed.content, tlsrpt=mode)
    asked: list[bytes] = []

    def key(name: bytes, timeout: int = 5) -> bytes:
        asked.append(name)
        return dkim_key().record().encode()

    assert verifier.verify(0, dnsfunc=key)
    assert asked == [b"r2026._domainkey.example.com."]
    assert verifier.domain == b"example.com"
    assert b"l" not in verifier.signature_fields
    for field in (b"from", b"to", b"subject", b"date", b"tls-report-domain", b"tls-report-submitter"):
        assert field in verifier.include_headers


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"TLS-Report-Domain: b.example", b"TLS-Report-Domain: c.example"),
        (b"H4sI", b"H4sJ"),
        (b"--\r\n", b"--\r\nmore\r\n"),
        (b"Subject: ", b"Subject: Re: "),
    ],
)
def test_dkimpy_finds_any_change(old: bytes, new: bytes) -> None:
    changed = composed().content.replace(old, new)
    with_another_from = b"From: <mallory@example.com>\r\n" + composed().content
    for message in (changed, with_another_from):
        try:
            valid = dkim.DKIM(message, tlsrpt=True).verify(
                0, dnsfunc=lambda _name, timeout=5: dkim_key().record().encode()
            )
        except dkim.DKIMException:
            valid = False
        assert not valid
