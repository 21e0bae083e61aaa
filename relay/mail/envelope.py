"""The envelope: what MAIL and RCPT said, and how a message was accepted. The message's bytes are elsewhere (the store)."""

from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum

from relay.mail.address import Address
from relay.mail.tls import TlsEvidence


class Body(StrEnum):
    """BODY= of MAIL (RFC 6152). BINARYMIME is not offered."""

    SEVEN_BIT = "7BIT"
    EIGHT_BIT = "8BITMIME"


class Ret(StrEnum):
    """RET= of MAIL (RFC 3461 section 4.3); UNSET leaves the choice to whoever reports."""

    UNSET = ""
    FULL = "FULL"
    HEADERS = "HDRS"


class Notify(StrEnum):
    """One word of NOTIFY= of RCPT (RFC 3461 section 4.1). An empty set means the parameter was not given."""

    NEVER = "NEVER"
    SUCCESS = "SUCCESS"
    FAILURE = "FAILURE"
    DELAY = "DELAY"


@dataclass(frozen=True, slots=True)
class Recipient:
    """A forward-path with its DSN parameters. `orcpt` is the parameter's value as received (`rfc822;bob@x`, xtext kept), "" if none."""

    address: Address
    notify: frozenset[Notify] = frozenset()
    orcpt: str = ""


@dataclass(frozen=True, slots=True)
class Envelope:
    """`envid` is xtext as received, "" if none. `smtputf8` says that MAIL asked for it (RFC 6531).

    `requiretls`: MAIL asked for REQUIRETLS (RFC 8689). `tls_optional`: its sender asked that published TLS policy be left out, by a
    `TLS-Required: No` that we honour; never together with `requiretls`.
    """

    sender: Address
    recipients: tuple[Recipient, ...] = ()
    body: Body = Body.SEVEN_BIT
    smtputf8: bool = False
    ret: Ret = Ret.UNSET
    envid: str = ""
    requiretls: bool = False
    tls_optional: bool = False

    def to(self, recipients: tuple[Recipient, ...]) -> "Envelope":
        """The same envelope for some of its recipients."""
        return replace(self, recipients=recipients)


LOCAL = "local"
"""`Accepted.protocol` of what we wrote ourselves."""
TLS_REPORTS = "tlsrpt"
"""`Accepted.listener` of the TLS reports that we send."""
ALERTS = "alerts"
"""`Accepted.listener` of the alerts that we send."""
TRIALS = "trial"
"""`Accepted.listener` of test messages that an operator asks for."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """How a message came to us, for the trace and for later decisions.

    `protocol` is the Received keyword (RFC 3848: ESMTP, ESMTPS, ESMTPSA; UTF8SMTPS by RFC 6531), "local" for our own reports.
    `connector` is the inbound connector that admitted it, "" if none did; `auth` the submission user, "" if none.
    `tls` is None for a message that came in clear. `may_relay` says that the client was one that may send anywhere.
    `client_port` is the client's own port, 0 where it is not known, and `server` what it connected to ("address:port"), "" likewise;
    behind a proxy both are what its header says.
    """

    at: datetime
    client: str
    helo: str
    listener: str
    protocol: str
    connector: str = ""
    auth: str = ""
    tls: TlsEvidence | None = None
    may_relay: bool = False
    client_port: int = 0
    server: str = ""


@dataclass(frozen=True, slots=True)
class Message:
    """A message in our care. `size` counts the received bytes, without the trace header; `header` is what we put in front of them.

    `id` is ours: 20 characters that sort by time. `message_id` is the Message-ID header as received, "" if none.
    """

    id: str
    envelope: Envelope
    accepted: Accepted
    size: int
    header: bytes = field(default=b"", repr=False)
    message_id: str = ""
    eight_bit: bool = False  # the bytes hold octets above 127, whatever BODY= said

    @property
    def is_tls_report(self) -> bool:
        """One that we send (RFC 8460): delivered whatever has been published about TLS, and its own sessions are not reported."""
        return self.accepted.protocol == LOCAL and self.accepted.listener == TLS_REPORTS
