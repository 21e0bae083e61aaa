"""What the session machine tells its driver. An event that says "answer" stops the machine until it has been answered.

Every transaction that a 2xx to MailFrom opened ends in exactly one DataEnds or TransactionEnds (or with the connection).
Between the go-ahead for DataBegins and that end only DataChunk and Said come.
"""

from dataclasses import dataclass, field

from relay.mail.address import Address
from relay.mail.envelope import Body, Envelope, Recipient, Ret
from relay.mail.reply import Reply


@dataclass(frozen=True, slots=True)
class SmtpEvent:
    """Base of all."""


@dataclass(frozen=True, slots=True)
class StartTls(SmtpEvent):
    """STARTTLS was said and allowed. The 220 is in the output: send it, make the handshake, then call `tls_established()`.

    Whatever the peer sent behind the command in clear is gone by then (RFC 3207 section 4.2; CVE-2011-0411).
    """


@dataclass(frozen=True, slots=True)
class Login(SmtpEvent):
    """AUTH finished its exchange. Answer: 235 (by `proceed()`), 535 or 454."""

    user: str
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class MailFrom(SmtpEvent):
    """MAIL with its parameters. `size` is SIZE=, 0 if not given; `requiretls` only inside TLS. Answer: `proceed()` or a Reply; 2xx opens the
    transaction."""

    sender: Address
    body: Body
    smtputf8: bool
    ret: Ret
    envid: str
    size: int
    requiretls: bool = False


@dataclass(frozen=True, slots=True)
class RcptTo(SmtpEvent):
    """RCPT. Answer: `proceed()`, `accept_recipient()` with what is to enter the envelope instead, or a Reply."""

    recipient: Recipient


@dataclass(frozen=True, slots=True)
class DataBegins(SmtpEvent):
    """DATA, or the first BDAT of a message, with at least one recipient. Answer: `proceed()`, or a 4xx or 5xx Reply."""

    envelope: Envelope


@dataclass(frozen=True, slots=True)
class DataChunk(SmtpEvent):
    """Message bytes, dots unstuffed, line ends proved to be CRLF, never cut between CR and LF. No answer."""

    data: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class DataEnds(SmtpEvent):
    """The message is complete and its framing sound. Answer: the final Reply (250 only once it is durable)."""

    envelope: Envelope
    size: int
    eight_bit: bool


@dataclass(frozen=True, slots=True)
class TransactionEnds(SmtpEvent):
    """RSET, EHLO, STARTTLS, QUIT, a refused DataBegins, a fault in the message's framing, a session that ends: throw away what came since MAIL.

    No answer.
    """


@dataclass(frozen=True, slots=True)
class Said(SmtpEvent):
    """The machine itself said 4xx or 5xx, for the log. `command` is a verb we know, or "": never the peer's own text. No answer."""

    command: str
    reply: Reply


@dataclass(frozen=True, slots=True)
class Close(SmtpEvent):
    """Send the output, then close. `reason` for the log: "quit", "too many errors", ... Nothing comes after it."""

    reason: str
