"""An alert as a mail: a few lines of plain text, through our own queue like any other mail.

It comes from the postmaster and not from the null reverse-path (RFC 5321 section 4.5.5 keeps that for notifications about mail); NOTIFY=NEVER
says that nobody need hear of a failure, and our own queue does not tell either; Auto-Submitted keeps vacation programmes quiet (RFC 3834
section 5). So there is no loop to be had.
"""

from email.utils import format_datetime

from relay.mail.address import Address
from relay.mail.alerts import Notice, NoticeState, Severity
from relay.mail.envelope import Body, Envelope, Notify, Recipient
from relay.report.dsn import Issuer
from relay.report.text import CRLF, Part, ascii_line, field, paragraph
from relay.report.tlsrpt.mail import Mail

_WORDS = {NoticeState.RAISED: "", NoticeState.REPEATED: "still: ", NoticeState.CLEARED: ""}


def compose(issuer: Issuer, notice: Notice, to: tuple[Address, ...]) -> Mail:
    """One mail for all of them. `to` is not empty."""
    message_id = f"<{notice.id}@{issuer.hostname}>"
    part = Part("text/plain; charset=utf-8", "Alert", _text(issuer, notice).encode("utf-8", "replace")).encode()
    head = "".join(
        (
            field(
                "From",
                f"Ironpost <{ascii_line(str(issuer.postmaster)) if not _wide(issuer.postmaster) else issuer.postmaster}>",
            ),
            field("To", ", ".join(f"<{each}>" for each in to)),
            field("Subject", ascii_line(f"[{issuer.hostname}] {_words(notice)}")),
            field("Date", format_datetime(notice.at)),
            field("Message-ID", message_id),
            field("Auto-Submitted", "auto-generated"),
            field("X-Ironpost-Alert", f"{notice.kind.value}; {notice.state.value}; {notice.severity.value}"),
            field("MIME-Version", "1.0"),
        )
    )
    wide = _wide(issuer.postmaster) or any(map(_wide, to))
    recipients = tuple(Recipient(each, frozenset({Notify.NEVER})) for each in to)
    envelope = Envelope(issuer.postmaster, recipients, Body.SEVEN_BIT, smtputf8=wide)
    return Mail(envelope, head.encode() + part, message_id)


def _wide(address: Address) -> bool:
    return address.needs_smtputf8


def _words(notice: Notice) -> str:
    severity = "" if notice.severity is Severity.INFO else f"{notice.severity.value}: "
    return f"{severity}{_WORDS[notice.state]}{notice.title}"


def _text(issuer: Issuer, notice: Notice) -> str:
    blocks = [paragraph(f"{_words(notice)}."), paragraph(notice.text)]
    if notice.remedy:
        blocks.append(paragraph("What to do:") + paragraph(notice.remedy, "  "))
    facts = (
        f"relay: {issuer.hostname}",
        f"about: {notice.kind.value} {notice.subject}".rstrip(),
        f"since: {notice.since:%Y-%m-%d %H:%M:%S} UTC",
    )
    blocks.append("".join(paragraph(each) for each in facts))
    return CRLF.join(blocks)
