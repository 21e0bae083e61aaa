"""Whatever peers say, a report keeps its structure: no field, no part, no line and no octet that they could have put there."""

import email
import email.policy
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from relay.mail.address import Address, AddressError, parse_mailbox
from relay.mail.envelope import Recipient
from relay.mail.outcome import Bounced
from relay.mail.tls import TlsFailure
from relay.report.dsn import Issuer, Returned, Stamp, compose
from relay.report.human import Item
from relay.report.notify import Kind
from tests.golden.test_dsn import check_wire
from tests.unit.report.builders import ALICE, NOW, message

WORD = "0123456789abcdef"
NASTY = st.text("\r\n \t-=:;<>@+\x00\x1b\u0085\u2028a0DAé" + WORD, max_size=200)
TEXT = NASTY | st.text(max_size=200) | st.just(f"\r\n\r\n--=_{WORD}--\r\nX: y\r\n")
XTEXT = TEXT | TEXT.map(lambda text: "".join(f"+{byte:02X}" for byte in text.encode("utf-8", "surrogatepass")))


def address(local: str) -> Address:
    try:
        return parse_mailbox(f"{local}@contoso.com")
    except AddressError:
        return ALICE


CONTENT = st.binary(max_size=200) | TEXT.map(lambda text: text.encode("utf-8", "replace"))


@given(text=TEXT, status=TEXT, local=TEXT, orcpt=XTEXT, envid=XTEXT, original_id=TEXT, content=CONTENT)
def test_structure_holds(
    text: str, status: str, local: str, orcpt: str, envid: str, original_id: str, content: bytes
) -> None:
    to = address(local)
    outcome = Bounced(550, status, text, TlsFailure.PIN_MISMATCH if len(text) % 2 else None)
    item = Item(Recipient(to, orcpt=f"rfc822;{orcpt}"), outcome, outcome, "mx.contoso.com:25", NOW, 1, NOW, "default")
    about = message(to, sender=address(local))
    about = replace(about, message_id=original_id, envelope=replace(about.envelope, envid=envid))
    sound = content.replace(b"\r", b"").replace(b"\n", b"\r\n").replace(b"\0", b"")
    issuer = Issuer("relay.example.com", Address("postmaster", "example.com"))
    made = compose(issuer, about, Kind.FAILURE, [item], Returned(sound, whole=False), Stamp(WORD, NOW))
    ours, _mark, theirs = made.content.partition(b"Content-Description: Header lines")
    check_wire(ours, utf8=made.envelope.smtputf8)
    assert theirs.isascii()
    assert all(len(line) <= 998 for line in theirs.split(b"\r\n"))
    parsed = email.message_from_bytes(made.content, policy=email.policy.compat32)
    allowed = {
        "From",
        "To",
        "Subject",
        "Date",
        "Message-ID",
        "In-Reply-To",
        "References",
        "Auto-Submitted",
        "MIME-Version",
        "Content-Type",
    }
    assert set(parsed.keys()) <= allowed
    assert len(parsed.keys()) == len(set(parsed.keys()))
    parts = parsed.get_payload()
    assert isinstance(parts, list)
    assert len(parts) == 3
    fields = made.content.split(b"\r\n--")[2].split(b"\r\n\r\n")
    names = [line.split(b":")[0] for group in fields[1:3] for line in group.split(b"\r\n") if line and line[:1] != b" "]
    if b"message/delivery-status" in fields[0]:
        assert names.count(b"Action") == 1
        assert names.count(b"Status") == 1
        assert names.count(b"Final-Recipient") == 1
