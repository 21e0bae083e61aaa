"""Reports, byte by byte: tests/golden/dsn/NN-name.toml says what happened, NN-name.eml is what the sender gets.

To write the .eml files anew after a wanted change: GOLDEN=write pytest tests/golden/test_dsn.py, then read the difference.
"""

import email
import email.policy
import os
import quopri
import tomllib
from datetime import UTC, datetime, timedelta
from email.message import Message as Parsed
from pathlib import Path
from typing import Any

import pytest

from relay.mail.address import Address, parse_mailbox
from relay.mail.envelope import Accepted, Envelope, Message, Recipient, Ret
from relay.mail.outcome import Bounced, Deferred, Delivered, Outcome
from relay.mail.tls import TlsFailure
from relay.report.dsn import Issuer, Report, Returned, Stamp, compose, header_section
from relay.report.human import Item
from relay.report.notify import Kind

FOLDER = Path(__file__).parent / "dsn"
CASES = sorted(FOLDER.glob("*.toml"))
ARRIVED = datetime(2026, 11, 20, 8, 0, 0, tzinfo=UTC)
TRIED = datetime(2026, 11, 25, 7, 59, 30, tzinfo=UTC)
ISSUER = Issuer("relay.example.com", Address("postmaster", "example.com"))
STAMP = Stamp("0123456789abcdef", datetime(2026, 11, 25, 8, 0, 1, tzinfo=UTC))


def outcome(data: dict[str, Any]) -> Outcome:
    failure = TlsFailure(data["failure"]) if "failure" in data else None
    kinds = {2: Delivered, 4: Deferred, 5: Bounced}
    values = (data["code"], data["status"], data["text"])
    kind = kinds[data["code"] // 100]
    return Delivered(*values) if kind is Delivered else kind(*values, failure)


def address(text: str) -> Address:
    return parse_mailbox(text) if "@" in text else Address(text, "")


def item(data: dict[str, Any]) -> Item:
    result = outcome(data["outcome"])
    return Item(
        recipient=Recipient(address(data["address"]), orcpt=data.get("orcpt", "")),
        outcome=result,
        said=outcome(data["said"]) if "said" in data else result,
        hop=data["hop"],
        at=TRIED,
        attempts=data["attempts"],
        until=ARRIVED + timedelta(days=5),
        connector=data.get("connector", "default"),
        required=data.get("required", ""),
    )


def report(case: dict[str, Any]) -> Report:
    original = case["original"].lstrip("\n").replace("\n", "\r\n").encode(case.get("encoding", "utf-8"))
    items = [item(each) for each in case["recipient"]]
    whole = case["enclosed"] == "whole"
    message = Message(
        "01JD3M8Z7Q0000000001",
        Envelope(
            address(case["sender"]), tuple(each.recipient for each in items), ret=Ret.UNSET, envid=case.get("envid", "")
        ),
        Accepted(ARRIVED, "192.0.2.1", "client.example.com", "mx 0.0.0.0:25", "ESMTPS"),
        len(original),
        message_id=case.get("message_id", ""),
        eight_bit=not original.isascii(),
    )
    returned = Returned(original if whole else header_section(original), whole)
    return compose(ISSUER, message, Kind(case["kind"]), items, returned, STAMP)


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_bytes(path: Path) -> None:
    case = tomllib.loads(path.read_text(encoding="utf-8"))
    content = report(case).content
    expected = path.with_suffix(".eml")
    if os.environ.get("GOLDEN") == "write":
        expected.write_bytes(content)
    assert content == expected.read_bytes()


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_structure(path: Path) -> None:
    case = tomllib.loads(path.read_text(encoding="utf-8"))
    made = report(case)
    check_wire(made.content, utf8=made.envelope.smtputf8)
    parsed = email.message_from_bytes(made.content, policy=email.policy.SMTP)
    check_structure(parsed, made, case)
    groups = status_groups(parsed)
    assert len(groups) == 1 + len(case["recipient"])
    action = {"failure": "failed", "delay": "delayed", "success": "relayed"}[case["kind"]]
    for group, each in zip(groups[1:], case["recipient"], strict=True):
        assert f"; {each['address']}\n".encode() in group.as_bytes().replace(b"\r", b"")
        assert group["Action"] == action
        assert group["Status"][0] == {"failed": "5", "delayed": "4", "relayed": "2"}[action]
        assert len(group.get_all("Action", [])) == 1
        assert (group["Will-Retry-Until"] is not None) == (action == "delayed")


def check_wire(content: bytes, *, utf8: bool) -> None:
    """What every hop can carry."""
    assert content.endswith(b"\r\n")
    assert b"\n" not in content.replace(b"\r\n", b"")
    assert b"\r" not in content.replace(b"\r\n", b"")
    assert all(len(line) <= 998 for line in content.split(b"\r\n"))
    head, _blank, body = content.partition(b"\r\n\r\n")
    assert body.isascii()
    assert head.isascii() or utf8
    assert not any(byte < 32 and byte not in (9, 10, 13) for byte in content)


def check_structure(parsed: Parsed, made: Report, case: dict[str, Any]) -> None:
    assert parsed.get_content_type() == "multipart/report"
    assert parsed.get_param("report-type") == "delivery-status"
    assert parsed["Auto-Submitted"] == "auto-replied"
    assert parsed["MIME-Version"] == "1.0"
    assert parsed["Bcc"] is None
    assert parsed["Message-ID"] == made.message_id
    assert parsed.keys() == list(dict.fromkeys(parsed.keys()))
    assert made.envelope.sender.is_null
    assert str(made.envelope.recipients[0].address) in str(parsed["To"])
    assert not parsed.defects
    parts = list(parsed.iter_parts())  # type: ignore[attr-defined]  # the SMTP policy makes an EmailMessage
    assert [part.get_content_maintype() for part in parts][:2] == ["text", "message"]
    assert len(parts) == 3
    assert not any(part.defects for part in parts)
    wide = any(not each["address"].isascii() for each in case["recipient"])
    assert parts[1].get_content_type() == ("message/global-delivery-status" if wide else "message/delivery-status")


def status_groups(parsed: Parsed) -> list[Parsed]:
    """The groups of the second part, decoded by hand: the standard library does not look into an encoded message/* type."""
    boundary = str(parsed.get_boundary())
    part = parsed.as_bytes(policy=email.policy.SMTP).split(f"--{boundary}".encode())[2]
    _head, _blank, inner = part.partition(b"\r\n\r\n")
    if "message/global" in str(parsed.get_payload(1)):
        inner = quopri.decodestring(inner)
    return [email.message_from_bytes(each) for each in inner.strip().split(b"\r\n\r\n")]
