"""The Received header: what it says, how it is folded, and that no peer can write another header through it."""

from dataclasses import replace
from datetime import UTC, datetime
from email.parser import BytesHeaderParser
from email.policy import default

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.inbound.received import certificate_words, received_header
from relay.mail.address import Address
from relay.mail.envelope import Accepted, Envelope, Recipient
from relay.mail.tls import Certificate, TlsEvidence

AT = datetime(2026, 11, 22, 3, 4, 5, 678901, tzinfo=UTC)
CLEAR = Accepted(AT, "192.0.2.1", "mail.contoso.com", "mx 0.0.0.0:25", "ESMTP")
ONE = Envelope(Address("ann", "contoso.com"), (Recipient(Address("bob", "example.com")),))
TWO = ONE.to((*ONE.recipients, Recipient(Address("eve", "example.com"))))
LEAF = Certificate("CN=mail.contoso.com", "CN=Contoso CA", ("mail.contoso.com",), (), AT, AT, "00", "sha256:")
TLS = TlsEvidence("TLSv1.3", "TLS_AES_256_GCM_SHA384", "X25519MLKEM768", chain=(LEAF,))


def header(accepted: Accepted = CLEAR, envelope: Envelope = ONE, certificate: str = "") -> str:
    return received_header(accepted, "relay.example.com", "01K4WZ8Q9M5T7XN2C3VB", envelope, certificate).decode()


def test_in_clear() -> None:
    assert header() == (
        "Received: from mail.contoso.com ([192.0.2.1])\r\n"
        "\tby relay.example.com with ESMTP id 01K4WZ8Q9M5T7XN2C3VB\r\n"
        "\tfor <bob@example.com>;\r\n"
        "\tSun, 22 Nov 2026 03:04:05 +0000\r\n"
    )


def test_with_tls_and_a_certificate() -> None:
    words = certificate_words(TLS, asked=True, connector="contoso-in")
    assert header(replace(CLEAR, protocol="ESMTPS", tls=TLS), certificate=words) == (
        "Received: from mail.contoso.com ([192.0.2.1])\r\n"
        "\tby relay.example.com with ESMTPS id 01K4WZ8Q9M5T7XN2C3VB\r\n"
        "\t(TLSv1.3, TLS_AES_256_GCM_SHA384, X25519MLKEM768, client certificate\r\n"
        '\t\\"CN=mail.contoso.com\\" satisfies connector contoso-in)\r\n'
        "\tfor <bob@example.com>;\r\n"
        "\tSun, 22 Nov 2026 03:04:05 +0000\r\n"
    ).replace('\\"', '"')


@pytest.mark.parametrize(
    ("evidence", "asked", "connector", "words"),
    [
        (replace(TLS, chain=()), False, "", "client certificate not asked for"),
        (replace(TLS, chain=()), True, "", "no client certificate"),
        (TLS, True, "", 'client certificate "CN=mail.contoso.com" not judged'),
        (TLS, True, "inner", 'client certificate "CN=mail.contoso.com" satisfies connector inner'),
        (
            replace(TLS, chain=(replace(LEAF, subject=""),)),
            True,
            "",
            'client certificate "without a subject" not judged',
        ),
    ],
)
def test_certificate_words(evidence: TlsEvidence, asked: bool, connector: str, words: str) -> None:
    assert certificate_words(evidence, asked=asked, connector=connector) == words


def test_several_recipients_are_not_shown() -> None:
    assert "example.com>" not in header(envelope=TWO)
    assert header(envelope=TWO).count(";") == 1


def test_a_recipient_outside_ascii_is_not_shown() -> None:
    assert "for" not in header(envelope=ONE.to((Recipient(Address("bøb", "example.com")),)))


@pytest.mark.parametrize(
    ("client", "shown"),
    [("2001:db8::1", "([IPv6:2001:db8::1])"), ("192.0.2.1", "([192.0.2.1])"), ("unknown", "(unknown)")],
)
def test_client(client: str, shown: str) -> None:
    assert shown in header(replace(CLEAR, client=client))


HOSTILE = 'x)\r\nBcc: eve@example.net\r\n\r\nbody (a \\ " \x00 é \u202e' + "long " * 100


def test_hostile_words_stay_in_their_place() -> None:
    evidence = replace(TLS, cipher="a)\r\nb", chain=(replace(LEAF, subject=HOSTILE),))
    words = certificate_words(evidence, asked=True, connector="")
    text = header(replace(CLEAR, helo=HOSTILE, tls=evidence), certificate=words)
    assert text.isascii()
    assert "\0" not in text
    lines = text.removesuffix("\r\n").split("\r\n")
    assert all(line.startswith("\t") for line in lines[1:])
    assert all(len(line) < 78 for line in lines if "?Bcc:?" not in line)  # a name cannot be folded
    comment = text[text.index("(TLSv1.3") :]
    assert comment.replace("\\\\", "").replace("\\(", "").replace("\\)", "").count(")") == 1


@given(st.text(max_size=300), st.text(max_size=300), st.text(max_size=40))
def test_always_one_header(helo: str, subject: str, group: str) -> None:
    evidence = TlsEvidence("TLSv1.3", "", group, chain=(replace(LEAF, subject=subject),))
    words = certificate_words(evidence, asked=True, connector="c")
    raw = received_header(replace(CLEAR, helo=helo, tls=evidence), "relay.example.com", "1", ONE, words)
    parsed = BytesHeaderParser(policy=default).parsebytes(raw + b"\r\n")
    assert parsed.keys() == ["Received"]
    assert raw.count(b"\r") == raw.count(b"\n") == raw.count(b"\r\n")
    assert parsed["Received"].rpartition(";")[2].strip() == "Sun, 22 Nov 2026 03:04:05 +0000"
