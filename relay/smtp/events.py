"""What the session machine tells its driver. An event that says "answer" stops the machine until it has been answered."""

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
    """AUTH finished its exchange. Answer: 235, 535 or 454."""

    user: str
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class MailFrom(SmtpEvent):
    """MAIL with its parameters. `size` is SIZE=, 0 if not given. Answer: a Reply; 250 opens the transaction."""

    sender: Address
    body: Body
    smtputf8: bool
    ret: Ret
    envid: str
    size: int


@dataclass(frozen=True, slots=True)
class RcptTo(SmtpEvent):
    """RCPT. Answer: a Reply; where it is 250, with the recipient to enter into the envelope."""

    recipient: Recipient


@dataclass(frozen=True, slots=True)
class DataBegins(SmtpEvent):
    """DATA, or the first BDAT of a message, with at least one recipient. Answer: go on, or a 4xx or 5xx Reply."""

    envelope: Envelope


@dataclass(frozen=True, slots=True)
class DataChunk(SmtpEvent):
    """Message bytes, dots unstuffed, line ends proved to be CRLF. No answer."""

    data: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class DataEnds(SmtpEvent):
    """The message is complete and its framing sound. Answer: the final Reply (250 only once it is durable)."""

    envelope: Envelope
    size: int
    eight_bit: bool


@dataclass(frozen=True, slots=True)
class TransactionEnds(SmtpEvent):
    """RSET, EHLO, STARTTLS, QUIT, or a fault in the message's framing: throw away what came since MAIL. No answer."""


@dataclass(frozen=True, slots=True)
class Said(SmtpEvent):
    """The machine itself said 4xx or 5xx to a command, for the log. No answer."""

    command: str
    reply: Reply


@dataclass(frozen=True, slots=True)
class Close(SmtpEvent):
    """Send the output, then close. `reason` for the log: "quit", "too many errors", ... Nothing comes after it."""

    reason: str
