"""A report as a mail (RFC 8460 section 5.3): multipart/report, the fields that receivers sort by, a DKIM signature where there is a key.

The envelope sender is the configured address, not the null one: RFC 5321 section 4.5.5 keeps that for notifications about mail. NOTIFY=NEVER
says that nobody need hear of a failure, and our own queue does not tell either; so there is no loop to be had.

The report must arrive whatever is wrong with the receiver's TLS (RFC 8460 section 5.3.1): the envelope says so to our own outbound
(`tls_optional`), and `TLS-Required: No` (RFC 8689 section 5) to the hops behind. Both let go of published policy only, never of what an
admin's connector asks.
"""

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from email.utils import format_datetime

from relay.mail.address import Address
from relay.mail.envelope import Body, Envelope, Notify, Recipient
from relay.report.text import Part, field, multipart, one_line
from relay.report.tlsrpt.dkim import sign
from relay.report.tlsrpt.document import GZIP, Reporter, Subject, filename, report_id

# RFC 8460 section 5.3: the report's own fields SHOULD be signed too.
_SIGNED = (
    *("From", "To", "Subject", "Date", "Message-ID", "MIME-Version", "Content-Type"),
    *("TLS-Report-Domain", "TLS-Report-Submitter", "TLS-Required"),
)


@dataclass(frozen=True, slots=True)
class Key:
    """`private` gives the RSA key in PEM."""

    domain: str
    selector: str
    private: Callable[[], str]


@dataclass(frozen=True, slots=True)
class Mail:
    envelope: Envelope
    content: bytes
    message_id: str


def compose(reporter: Reporter, about: Subject, to: Address, packed: bytes, at: datetime, key: Key | None) -> Mail:
    """`packed` is the report's file. Takes some milliseconds with a key."""
    identity = report_id(reporter, about)
    name, _, host = identity.rpartition("@")
    message_id = f"<{name}.{zlib.crc32(str(to).encode()):08x}@{host}>"  # another for each recipient
    parts = (
        Part("text/plain; charset=us-ascii", "TLS report", _words(reporter, about)),
        Part(GZIP, "Aggregate TLS report", packed, filename(reporter, about)),
    )
    boundary, body = multipart(parts, f"=_{zlib.crc32(packed):08x}")
    fields = (
        field("From", f"<{one_line(str(reporter.sender))}>"),
        field("To", f"<{one_line(str(to))}>"),
        field("Subject", f"Report Domain: {about.domain} Submitter: {reporter.submitter} Report-ID: <{identity}>"),
        field("Date", format_datetime(at)),
        field("Message-ID", message_id),
        field("TLS-Report-Domain", about.domain),
        field("TLS-Report-Submitter", reporter.submitter),
        field("TLS-Required", "No"),
        field("Auto-Submitted", "auto-generated"),
        field("MIME-Version", "1.0"),
        field("Content-Type", f'multipart/report; report-type="tlsrpt"; boundary="{boundary}"'),
    )
    content = "".join(fields).encode() + b"\r\n" + body
    if key is not None:
        content = sign(content, key.domain, key.selector, key.private(), _SIGNED, at) + content
    wide = to.needs_smtputf8 or reporter.sender.needs_smtputf8
    recipient = Recipient(to, frozenset({Notify.NEVER}))
    envelope = Envelope(reporter.sender, (recipient,), Body.SEVEN_BIT, smtputf8=wide, tls_optional=True)
    return Mail(envelope, content, message_id)


def _words(reporter: Reporter, about: Subject) -> bytes:
    text = (
        f"This is an aggregate TLS report (RFC 8460) from {reporter.submitter} about {about.domain},\r\n"
        f"from {about.begins:%Y-%m-%d %H:%M} to {about.last:%Y-%m-%d %H:%M} UTC. It says how many connections to your mail\r\n"
        "servers kept to what you publish about TLS, and in which way others did not.\r\n"
    )
    return text.encode("ascii", "replace")
