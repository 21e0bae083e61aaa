"""One try of one message at one hop, as it is recorded and proved afterwards."""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from relay.mail.envelope import Message
from relay.mail.outcome import Outcome
from relay.mail.plan import PolicyApplied, TlsPlan
from relay.mail.tls import TlsEvidence, TlsFailure


class MessageBytes(Protocol):
    """A message's received bytes, CRLF line ends, not dot-stuffed, without our trace header. May be read more than once."""

    def chunks(self) -> AsyncIterator[bytes]:
        """Pieces of at most 256 KiB, in order.

        Their end may come later than the last of them, or not at all: it is said only when the message is ours to send. Nobody may be told
        that a message is whole before.
        """
        ...


@dataclass(frozen=True, slots=True)
class Delivery:
    """What the scheduler hands to an attempt: `indexes` are the recipients of the envelope that this delivery is for, one lane's. `via` has
    those of them that an operator sends another way, and where (relay.policy.reroute.key)."""

    message: Message
    indexes: tuple[int, ...]
    body: MessageBytes
    via: Mapping[int, str] = field(default_factory=dict)


class SessionEnd(StrEnum):
    """How far TLS came in a session."""

    SECURED = "secured"  # the handshake was completed
    NOT_OFFERED = "not-offered"  # the hop offers no STARTTLS
    BROKEN = "broken"  # it was offered and came to nothing
    WITHHELD = "withheld"  # published policy keeps mail from the host: nobody connected


@dataclass(frozen=True, slots=True)
class Session:
    """A new connection as TLS reports count it (RFC 8460): sessions, not messages. `source` is the address of our end, "" if none.

    `reason` says why TLS came to nothing. `failure` and `published` are for WITHHELD: what stood against the host, and the policies that
    were found for it.
    """

    end: SessionEnd
    source: str = ""
    reason: str = ""
    failure: TlsFailure | None = None
    published: tuple[PolicyApplied, ...] = ()


@dataclass(frozen=True, slots=True)
class Attempt:
    """`hop` is "host:port" and `address` the IP tried, both "" where it never came so far (no such domain, no usable address).

    `plan` is None only where none could be made. `evidence` is None in clear or where no handshake was completed.
    `outcomes` maps an index into the envelope's recipients to what this hop did to it; a recipient that a later hop of the same
    delivery took up stands there too, with its Deferred. `seconds` is how long it took.
    `session` is None where a kept connection was used, or where none came so far that TLS could be judged.
    """

    message: str
    at: datetime
    hop: str
    address: str
    connector: str
    plan: TlsPlan | None
    evidence: TlsEvidence | None
    outcomes: tuple[tuple[int, Outcome], ...]
    seconds: float = field(default=0.0, compare=False)
    session: Session | None = field(default=None, compare=False)
