"""Delivery status notifications: multipart/report from values to bytes (RFC 3461, 3464, 6522, 6533). No I/O, no clock.

Who is told what is decided in `relay.report.notify`, what of the original may go back in `relay.report.reporter`. The result
is 7-bit clean whatever stands in it: what is not ASCII goes quoted-printable, which the message/global types allow (RFC 6532 section 3.5). So a
report needs SMTPUTF8 only where the address that it goes to does.

Threat: a bounce is mail that a stranger makes us send. It goes to the envelope sender only, with the null reverse-path; all that peers said
is made harmless in `relay.report.text`; the content goes back only as far as the caller allows.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from email.utils import format_datetime

from relay.mail.address import NULL, Address
from relay.mail.envelope import Body, Envelope, Message, Notify, Recipient
from relay.mail.outcome import Outcome, reason_given
from relay.report.human import SUBJECTS, Item, human_part, said_words
from relay.report.notify import Kind
from relay.report.text import (
    Part,
    ascii_line,
    field,
    is_seven_bit,
    multipart,
    one_line,
    unitext_decode,
    xtext_decode,
)

_STATUS = re.compile(r"[245]\.\d{1,3}\.\d{1,3}\Z")
_MESSAGE_ID = re.compile(r"<[!-;=?A-~]{1,200}@[!-;=?A-~]{1,200}>\Z")
_ACTIONS = {Kind.FAILURE: "failed", Kind.DELAY: "delayed", Kind.SUCCESS: "relayed"}
_CLASSES = {Kind.FAILURE: "5", Kind.DELAY: "4", Kind.SUCCESS: "2"}


@dataclass(frozen=True, slots=True)
class Issuer:
    """Who reports: this relay's name and its postmaster."""

    hostname: str
    postmaster: Address


@dataclass(frozen=True, slots=True)
class Stamp:
    """What makes this report this one: a word that is unique here and cannot be guessed, and the time."""

    word: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Returned:
    """What goes back of the original: all of it (`whole`) or its header section. Bytes as received, CRLF."""

    content: bytes
    whole: bool


@dataclass(frozen=True, slots=True)
class Report:
    """`recipient` says whom it speaks of; `content` is the whole message. The shape that the queue takes."""

    kind: str
    recipient: str
    envelope: Envelope
    content: bytes
    message_id: str


def compose(
    issuer: Issuer, message: Message, kind: Kind, items: Sequence[Item], returned: Returned, stamp: Stamp
) -> Report:
    """One report of one kind about one message to its sender. `items` is not empty and the sender is not null: ValueError."""
    sender = message.envelope.sender
    if sender.is_null or not items:
        raise ValueError("a report needs somebody to tell and something to say")
    to = sender if sender.domain else issuer.postmaster  # a bare postmaster is ours (RFC 5321 section 4.5.1)
    returned = _fitting(message, returned)
    wide = _is_global(items, returned)
    parts = (
        _human(issuer, kind, items, returned),
        Part(
            "message/global-delivery-status" if wide else "message/delivery-status",
            "Delivery report",
            _status_part(issuer, message, kind, items, wide),
        ),
        _original(returned, wide),
    )
    boundary, body = multipart(parts, f"=_{stamp.word}")
    message_id = f"<{stamp.word}@{issuer.hostname}>"
    head = _head(issuer, to, kind, stamp, message.message_id) + field(
        "Content-Type", f'multipart/report; report-type=delivery-status; boundary="{boundary}"'
    )
    envelope = _envelope(to, requiretls=message.envelope.requiretls)
    return Report(kind.value, _about(items), envelope, head.encode() + b"\r\n" + body, message_id)


def _envelope(to: Address, *, requiretls: bool) -> Envelope:
    """RFC 3461 section 6.1: null reverse-path, no RET, and NOTIFY=NEVER, so that nobody reports on a report.

    RFC 8689 section 5: what tells of a REQUIRETLS message is protected as that was.
    """
    back = (Recipient(to, frozenset({Notify.NEVER})),)
    return Envelope(NULL, back, Body.SEVEN_BIT, smtputf8=to.needs_smtputf8, requiretls=requiretls)


def _about(items: Sequence[Item]) -> str:
    more = f" and {len(items) - 1} more" if len(items) > 1 else ""
    return f"{items[0].recipient.address}{more}"


def _head(issuer: Issuer, to: Address, kind: Kind, stamp: Stamp, original_id: str) -> str:
    fields = [
        field("From", f"Mail Delivery System <{one_line(str(issuer.postmaster))}>"),
        field("To", f"<{one_line(str(to))}>"),
        field("Subject", SUBJECTS[kind]),
        field("Date", format_datetime(stamp.at)),
        field("Message-ID", f"<{stamp.word}@{issuer.hostname}>"),
    ]
    if _MESSAGE_ID.match(original_id):
        fields += [field("In-Reply-To", original_id), field("References", original_id)]
    # RFC 3834 section 5: nobody's vacation programme answers it.
    fields += [field("Auto-Submitted", "auto-replied"), field("MIME-Version", "1.0")]
    return "".join(fields)


def _fitting(message: Message, returned: Returned) -> Returned:
    """A whole message that not every hop could carry is cut to its header section: message/rfc822 is never encoded (RFC 2046 section 5.2.1)."""
    if returned.whole and (message.eight_bit or not is_seven_bit(returned.content)):
        return Returned(header_section(returned.content), whole=False)
    return returned


def header_section(content: bytes) -> bytes:
    """What stands before the first empty line, with the CRLF of its last line."""
    if content.startswith(b"\r\n"):
        return b""
    head, blank, _body = content.partition(b"\r\n\r\n")
    return head + b"\r\n" if blank else head


def _is_global(items: Sequence[Item], returned: Returned) -> bool:
    """RFC 6533: the wide types are used where the narrow ones cannot say it, in an address or in an internationalised header section."""
    if any(each.recipient.address.needs_smtputf8 for each in items):
        return True
    try:
        return not returned.content.decode("utf-8").isascii()
    except UnicodeDecodeError:
        return False  # not UTF-8, so no internationalised header either: text/rfc822-headers, encoded


def _human(issuer: Issuer, kind: Kind, items: Sequence[Item], returned: Returned) -> Part:
    what = "The message itself is" if returned.whole else "The header lines of your message are"
    text = human_part(issuer.hostname, issuer.postmaster, kind, items, f"{what} enclosed.")
    charset = "us-ascii" if text.isascii() else "utf-8"
    return Part(f"text/plain; charset={charset}", "Notification", text.encode())


def _original(returned: Returned, wide: bool) -> Part:
    if returned.whole:
        return Part("message/rfc822", "Undelivered message", returned.content)
    kind = "message/global-headers" if wide else "text/rfc822-headers"
    return Part(kind, "Header lines of the message", returned.content)


def _status_part(issuer: Issuer, message: Message, kind: Kind, items: Sequence[Item], wide: bool) -> bytes:
    """The groups of fields of RFC 3464 section 2.1: one about the message, one per recipient."""
    about = [field("Reporting-MTA", f"dns; {issuer.hostname}")]
    envid = xtext_decode(message.envelope.envid)
    if envid:
        # RFC 3464 section 2.2.1: as the sender gave it, xtext decoded.
        about.insert(0, field("Original-Envelope-Id", ascii_line(envid)))
    about.append(field("Arrival-Date", format_datetime(message.accepted.at)))
    groups = ["".join(about), *(_recipient_group(message, kind, each, wide) for each in items)]
    return "\r\n".join(groups).encode()


def _recipient_group(message: Message, kind: Kind, item: Item, wide: bool) -> str:
    said = item.said or item.outcome
    fields = [_original_recipient(item.recipient.orcpt, wide)]
    address = one_line(str(item.recipient.address))
    fields.append(field("Final-Recipient", f"{'rfc822' if address.isascii() else 'utf-8'}; {address}"))
    fields.append(field("Action", _ACTIONS[kind]))
    fields.append(field("Status", _status(kind, item.outcome)))
    if item.hop and not (item.is_our_finding and item.failure is None):
        fields.append(field("Remote-MTA", f"dns; {_host(item.hop)}"))
    # RFC 3464 section 2.3.6: what the remote server said, or, under a type of our own, what we found.
    source = "X-Ironpost" if item.is_our_finding else "smtp"
    if reason_given(item.outcome):
        source, said = "X-Ironpost", item.outcome
    fields.append(field("Diagnostic-Code", f"{source}; {ascii_line(said_words(said))}"))
    if item.attempts:
        fields.append(field("Last-Attempt-Date", format_datetime(item.at)))
    fields.append(field("Final-Log-ID", message.id))
    if kind is Kind.DELAY:
        fields.append(field("Will-Retry-Until", format_datetime(item.until)))
    return "".join(fields)


def _original_recipient(orcpt: str, wide: bool) -> str:
    """ORCPT as the sender wrote it before xtext (RFC 3461 section 4.2); "" where there is none or it is not one."""
    kind, semicolon, value = orcpt.partition(";")
    address = xtext_decode(value)
    if not semicolon or not address or not kind.replace("-", "").isalnum() or not kind.isascii():
        return ""
    if kind.lower() == "utf-8" and wide:
        return field("Original-Recipient", f"{kind}; {one_line(unitext_decode(address))}")
    return field("Original-Recipient", f"{kind}; {ascii_line(address)}")


def _status(kind: Kind, outcome: Outcome) -> str:
    """The enhanced status code, its class fit for the action (RFC 3464 section 2.3.4)."""
    wanted = _CLASSES[kind]
    if not _STATUS.match(outcome.status):
        return f"{wanted}.0.0"
    return wanted + outcome.status[1:]


def _host(hop: str) -> str:
    """ "host:port" as a name for Remote-MTA, an IP address in brackets."""
    host = hop.rpartition(":")[0]
    return f"[{host}]" if host.replace(".", "").isdigit() else host
