"""MAIL and RCPT for one hop, with the parameters that it offers, and what of a message it can not carry.

What can not be carried is bounced, never changed silently: 8-bit content without 8BITMIME (RFC 6152 section 3), a message beyond
SIZE (RFC 1870 section 6.1), SMTPUTF8 where it is really needed (RFC 6531 section 3.2). No other hop is asked: the hosts of one
domain are alike, and a bounce must not depend on which of them came first. DSN parameters go to hops that offer DSN (RFC 3461).

REQUIRETLS (RFC 8689) is the plan's business: its verdict lets no such message near a hop that does not offer it. It is looked at here once more.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from aiosmtplib.protocol import COMMAND_INJECTION_REGEX

from relay.mail.address import Address
from relay.mail.attempt import MessageBytes
from relay.mail.codec import notify_text
from relay.mail.envelope import Envelope, Message, Recipient
from relay.mail.outcome import Bounced
from relay.mail.tls import TlsFailure
from relay.outbound.offer import Offer

_UNSUPPORTED = TlsFailure.REQUIRETLS_NOT_SUPPORTED
PER_TRANSACTION = 100  # RFC 5321 section 4.5.3.1.8: what every server must take

NOT_EIGHT_BIT = Bounced(554, "5.6.3", "the message holds 8-bit data and the hop does not offer 8BITMIME")
NOT_UTF8 = Bounced(553, "5.6.7", "the message needs SMTPUTF8, which the hop does not offer")
NOT_REQUIRETLS = Bounced(550, "5.7.30", "the message asks for REQUIRETLS, which the hop does not offer", _UNSUPPORTED)
RECIPIENT_NOT_UTF8 = Bounced(553, "5.6.7", "the address needs SMTPUTF8, which the hop does not offer")


@dataclass(frozen=True, slots=True)
class Commands:
    """Commands with their CRLF. `recipients` are those of `indexes`, in order."""

    mail: bytes
    recipients: tuple[bytes, ...]
    indexes: tuple[int, ...]
    refused: dict[int, Bounced]


def needs_look_at_header(message: Message, offer: Offer) -> bool:
    """True where only the header can tell whether SMTPUTF8 is needed: asked for, 8-bit somewhere, and the hop does not offer it."""
    return message.envelope.smtputf8 and message.eight_bit and not offer.smtputf8


async def header_is_utf8(body: MessageBytes) -> bool:
    """True where the header section holds octets above 127 (RFC 6532). Reads no further than the header."""
    tail = b"\r\n"
    async for piece in body.chunks():
        seen = tail + piece
        end = seen.find(b"\r\n\r\n")
        if not (seen if end < 0 else seen[:end]).isascii():
            return True
        if end >= 0:
            return False
        tail = seen[-3:]
    return False


def commands(message: Message, indexes: Sequence[int], offer: Offer, *, utf8_header: bool = False) -> Commands:
    """`utf8_header` is `header_is_utf8`'s answer where `needs_look_at_header`."""
    unfit = _unfit(message, offer, utf8_header=utf8_header)
    if unfit is not None:
        return Commands(b"", (), (), dict.fromkeys(indexes, unfit))
    envelope = message.envelope
    utf8 = envelope.smtputf8 or envelope.sender.needs_smtputf8
    refused: dict[int, Bounced] = {}
    lines: list[bytes] = []
    taken: list[int] = []
    for index in indexes:
        recipient = envelope.recipients[index]
        if recipient.address.needs_smtputf8:
            if not offer.smtputf8:
                refused[index] = RECIPIENT_NOT_UTF8
                continue
            utf8 = True
        lines.append(_line(f"RCPT TO:<{recipient.address}>{_rcpt_parameters(recipient) if offer.dsn else ''}"))
        taken.append(index)
    parameters = f" SIZE={_size(message)}" if offer.size else ""
    if _is_eight_bit(message):
        parameters += " BODY=8BITMIME"
    if utf8 and offer.smtputf8:
        parameters += " SMTPUTF8"
    if envelope.requiretls:
        parameters += " REQUIRETLS"
    if offer.dsn:
        parameters += _dsn_parameters(envelope)
    mail = _line(f"MAIL FROM:<{envelope.sender}>{parameters}")
    return Commands(mail, tuple(lines), tuple(taken), refused)


def probe_commands(address: Address, offer: Offer) -> tuple[bytes, bytes, bytes] | None:
    """MAIL FROM:<>, RCPT TO the address, and RCPT TO postmaster at its domain. None where the hop cannot take such an address."""
    if address.needs_smtputf8 and not offer.smtputf8:
        return None
    mail = "MAIL FROM:<> SMTPUTF8" if address.needs_smtputf8 else "MAIL FROM:<>"
    postmaster = Address("postmaster", address.domain)
    return _line(mail), _line(f"RCPT TO:<{address}>"), _line(f"RCPT TO:<{postmaster}>")


def _unfit(message: Message, offer: Offer, *, utf8_header: bool) -> Bounced | None:
    """What keeps this hop from taking the message, whoever it is for."""
    unfit = None
    if _is_eight_bit(message) and not offer.eight_bit:
        unfit = NOT_EIGHT_BIT
    size = _size(message)
    if offer.size_limit and size > offer.size_limit:
        unfit = Bounced(552, "5.3.4", f"the message has {size} octets and the hop takes {offer.size_limit}")
    envelope = message.envelope
    if not offer.smtputf8 and (utf8_header or envelope.sender.needs_smtputf8 or not message.header.isascii()):
        unfit = NOT_UTF8
    if envelope.requiretls and not offer.requiretls:
        unfit = NOT_REQUIRETLS
    return unfit


def _size(message: Message) -> int:
    return message.size + len(message.header)


def _is_eight_bit(message: Message) -> bool:
    return message.eight_bit or not message.header.isascii()


def _dsn_parameters(envelope: Envelope) -> str:
    words = f" RET={envelope.ret.value}" if envelope.ret else ""
    return f"{words} ENVID={envelope.envid}" if envelope.envid else words


def _rcpt_parameters(recipient: Recipient) -> str:
    words = f" NOTIFY={notify_text(recipient.notify)}" if recipient.notify else ""
    if recipient.orcpt:
        words += f" ORCPT={recipient.orcpt if recipient.orcpt.isascii() else _xtext(recipient.orcpt)}"
    return words


def _xtext(orcpt: str) -> str:
    """utf-8-addr-xtext (RFC 6533 section 3), which any DSN hop takes."""
    return "".join(each if each.isascii() else f"\\x{{{ord(each):X}}}" for each in orcpt)


def _line(text: str) -> bytes:
    line = text.encode()
    if COMMAND_INJECTION_REGEX.search(line):
        raise ValueError("a control character in an envelope")  # parsed long ago; a bug if it ever happens
    return line + b"\r\n"
