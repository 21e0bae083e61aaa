"""What the scheduler tells of recipients that ended or are delayed, and the reports it gets back to store. `relay.report` writes them."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from relay.mail.attempt import MessageBytes
from relay.mail.envelope import Envelope, Message
from relay.mail.outcome import Outcome
from relay.mail.plan import TlsPlan


class Fate(StrEnum):
    DELIVERED = "delivered"
    FAILED = "failed"
    DELAYED = "delayed"


@dataclass(frozen=True, slots=True)
class Ended:
    """What became of one recipient. `outcome` is the result.

    `last` is what the last hop said where `outcome` is our own word (expired, given up by the administrator), else the same; None where no hop
    was ever tried. `hop` is the last one's "host:port", "" if none. `until` is when we give up.
    `plan` is what TLS that hop had to have, None where that is not at hand.
    """

    index: int
    fate: Fate
    outcome: Outcome
    last: Outcome | None
    at: datetime
    hop: str
    attempts: int
    until: datetime
    plan: TlsPlan | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """A message to store in the same transaction. `kind` is "failure", "delay" or "success"; `recipient` whom it speaks of."""

    kind: str
    recipient: str
    envelope: Envelope
    content: bytes
    message_id: str = ""


Compose = Callable[[Message, MessageBytes, Sequence[Ended]], Awaitable[Sequence[Report]]]
