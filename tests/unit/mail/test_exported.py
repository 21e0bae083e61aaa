"""An envelope as a document, and back; what comes back may have been written by anybody."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from relay.mail.address import NULL, parse_mailbox
from relay.mail.envelope import LOCAL, Accepted, Body, Envelope, Message, Notify, Recipient, Ret
from relay.mail.exported import document, read

ID = "D23FDT61G001IBU2IT2N"
NOW = datetime(2026, 11, 25, 8, 0, tzinfo=UTC)
HEADER = b"Received: from client.example ([192.0.2.1])\r\n\tby relay.example.com with ESMTP id 1;\r\n\tWed, 25 Nov 2026 08:00:00 +0000\r\n"
WAITS = {
    "address": "b@c.example",
    "state": "waiting",
    "attempts": 2,
    "next_attempt": None,
    "last": None,
    "connector": "c",
}


def message(envelope: Envelope, protocol: str = "ESMTP") -> Message:
    accepted = Accepted(NOW, "192.0.2.1", "client.example", "mx", protocol)
    return Message(ID, envelope, accepted, 100, HEADER, "<m@x>", eight_bit=True)


def written(**values: Any) -> bytes:
    return json.dumps({"sender": "a@b.example", "recipients": [{"address": "b@c.example"}]} | values).encode()


def test_there_and_back() -> None:
    envelope = Envelope(
        parse_mailbox("anna@a.example"),
        (
            Recipient(
                parse_mailbox("b@c.example"), frozenset({Notify.DELAY, Notify.FAILURE}), "rfc822;b+2Bx@c.example"
            ),
            Recipient(parse_mailbox("jürgen@c.example"), frozenset({Notify.NEVER}), "utf-8;jürgen@c.example"),
        ),
        Body.EIGHT_BIT,
        smtputf8=True,
        ret=Ret.HEADERS,
        envid="QQ314159",
        requiretls=True,
    )
    states = [WAITS, {**WAITS, "address": "jürgen@c.example", "state": "suspended", "suspended": {"id": 1}}]
    found = read(json.dumps(document(message(envelope), states)).encode())
    assert found.envelope == envelope
    assert (found.id, found.header, found.is_own_report) == (ID, HEADER, False)


@pytest.mark.parametrize(
    ("accepted", "strangers"),
    [
        (Accepted(NOW, "192.0.2.1", "client.example", "mx", "ESMTP"), True),
        (Accepted(NOW, "192.0.2.1", "client.example", "mx", "ESMTP", may_relay=True), False),
        (Accepted(NOW, "192.0.2.1", "client.example", "submission", "ESMTPSA", auth="alice"), False),
        (Accepted(NOW, "", "", "", LOCAL), False),
    ],
)
def test_a_strangers_mail_stays_a_strangers(accepted: Accepted, strangers: bool) -> None:
    """Threat: the hop refuses it where it was moved to, and somebody who never wrote gets the bounce."""
    envelope = Envelope(parse_mailbox("a@b.example"), (Recipient(parse_mailbox("b@c.example")),))
    moved = Message(ID, envelope, accepted, 100, HEADER, "<m@x>")
    assert read(json.dumps(document(moved, [WAITS])).encode()).is_strangers is strangers
    assert not read(written()).is_strangers, "what an operator writes is his own"


def test_only_those_that_wait_come_back() -> None:
    some = tuple(Recipient(parse_mailbox(f"{name}@c.example")) for name in ("a", "b", "c", "d"))
    envelope = Envelope(NULL, some)
    states = [
        {**WAITS, "address": str(each.address), "state": state}
        for each, state in zip(some, ("delivered", "held", "bounced", "delivering"), strict=True)
    ]
    found = read(json.dumps(document(message(envelope, LOCAL), states)).encode())
    assert [each.address.local for each in found.envelope.recipients] == ["b", "d"]
    assert found.is_own_report


def test_the_least() -> None:
    found = read(written())
    assert found.envelope == Envelope(parse_mailbox("a@b.example"), (Recipient(parse_mailbox("b@c.example")),))
    assert found.id == ""
    assert read(written(sender="<>")).envelope.sender == NULL
    twice = read(written(recipients=[{"address": "b@c.example"}, {"address": "<b@C.example>"}]))
    assert len(twice.envelope.recipients) == 1
    assert read(written(sender="jürgen@b.example")).envelope.smtputf8


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"sender": "nobody"}, "sender: 'nobody' is not"),
        ({"sender": 1}, "sender: an address"),
        ({"sender": "a@b.example\r\nRCPT TO:<x@y.example>"}, "sender: "),
        ({"recipients": []}, "recipients: a list"),
        ({"recipients": ["b@c.example"]}, r"recipients\[0\]: an object"),
        ({"recipients": [{"address": "<>"}]}, "the null path is no recipient"),
        ({"recipients": [{"address": "b@c.example", "state": "delivered"}]}, "none of them waits"),
        ({"recipients": [{"address": "b@c.example", "notify": ["ALWAYS"]}]}, r"recipients\[0\].notify"),
        ({"recipients": [{"address": "b@c.example", "notify": ["NEVER", "DELAY"]}]}, "NEVER stands alone"),
        ({"recipients": [{"address": "b@c.example", "orcpt": "rfc822;b c"}]}, "orcpt"),
        ({"recipients": [{"address": "b@c.example", "orcpt": "rfc822;b+0D+0Ac"}]}, "orcpt"),
        ({"recipients": [{"address": "b@c.example", "colour": 1}]}, r"recipients\[0\].colour: there is no such key"),
        ({"must_be_encrypted": True}, "must_be_encrypted: there is no such key"),
        ({"ironpost": 2}, "another version"),
        ({"id": "../../etc"}, "id: "),
        ({"body": "BINARYMIME"}, "body: one of"),
        ({"ret": "ALL"}, "ret: one of"),
        ({"envid": "a b"}, "envid"),
        ({"envid": "+0A"}, "envid"),
        ({"requiretls": "yes"}, "requiretls: true or false"),
        ({"requiretls": True, "tls_optional": True}, "not together"),
        ({"header": "Subject: mine\r\n"}, "only Received fields"),
        ({"header": "Received: x\r\n\r\nbody"}, "only Received fields"),
        ({"header": "Received: x\n"}, "only Received fields"),
        ({"header": "Received: " + "x" * 20_000 + "\r\n"}, "only Received fields"),
    ],
)
def test_what_is_refused(values: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        read(written(**values))


@pytest.mark.parametrize("text", [b"", b"[]", b"{", b"\xff", b"[" * 100_000, b'{"sender": "a@b.example"}'])
def test_what_is_no_document(text: bytes) -> None:
    with pytest.raises(ValueError, match=r"envelope|recipients"):
        read(text)
