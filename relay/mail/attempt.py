"""One try of one message at one hop, as it is recorded and proved afterwards."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from relay.mail.envelope import Message
from relay.mail.outcome import Outcome
from relay.mail.plan import TlsPlan
from relay.mail.tls import TlsEvidence


class MessageBytes(Protocol):
    """A message's received bytes, CRLF line ends, not dot-stuffed, without our trace header. May be read more than once."""

    def chunks(self) -> AsyncIterator[bytes]:
        """Pieces of at most 256 KiB, in order."""
        ...


@dataclass(frozen=True, slots=True)
class Delivery:
    """What the scheduler hands to an attempt: `indexes` are the recipients of the envelope that this delivery is for, one lane's."""

    message: Message
    indexes: tuple[int, ...]
    body: MessageBytes


@dataclass(frozen=True, slots=True)
class Attempt:
    """`hop` is "host:port" and `address` the IP tried, both "" where it never came so far (no such domain, no usable address).

    `plan` is None only where none could be made. `evidence` is None in clear or where no handshake was completed.
    `outcomes` maps an index into the envelope's recipients to what this hop did to it; a recipient that a later hop of the same
    delivery took up stands there too, with its Deferred. `seconds` is how long it took.
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
