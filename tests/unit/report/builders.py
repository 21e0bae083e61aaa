"""Messages, ends and rule books for the tests of this room."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from relay.config.models import Config
from relay.mail.address import Address
from relay.mail.envelope import Accepted, Envelope, Message, Notify, Recipient, Ret
from relay.mail.outcome import Bounced, Deferred, Delivered, Outcome
from relay.mail.plan import Level, Plaintext, TlsPlan
from relay.policy.book import RuleBook

NOW = datetime(2026, 11, 25, 8, 0, tzinfo=UTC)
ALICE = Address("alice", "example.com")
BOB = Address("bob", "contoso.com")
CAROL = Address("carol", "fabrikam.example")

GONE = Bounced(550, "5.1.1", "no such user")
LATER = Deferred(451, "4.4.1", "no answer")
DONE = Delivered(250, "2.0.0", "queued")
OPEN = TlsPlan(Level.OPPORTUNISTIC, Plaintext.IF_NOT_OFFERED)


@dataclass(frozen=True, slots=True)
class End:
    index: int
    fate: str
    outcome: Outcome
    last: Outcome | None
    at: datetime = NOW
    hop: str = "mx.contoso.com:25"
    attempts: int = 3
    until: datetime = NOW + timedelta(days=1)
    plan: TlsPlan | None = OPEN


def failed(index: int = 0, outcome: Outcome = GONE) -> End:
    return End(index, "failed", outcome, outcome)


def delayed(index: int = 0, outcome: Outcome = LATER) -> End:
    return End(index, "delayed", outcome, outcome)


def delivered(index: int = 0, outcome: Outcome = DONE) -> End:
    return End(index, "delivered", outcome, outcome)


def message(
    *recipients: Address,
    sender: Address = ALICE,
    notify: frozenset[Notify] = frozenset(),
    ret: Ret = Ret.UNSET,
    size: int = 100,
    requiretls: bool = False,
    **accepted: Any,
) -> Message:
    to = tuple(Recipient(each, notify) for each in recipients or (BOB,))
    how = Accepted(NOW - timedelta(days=4), "192.0.2.1", "client.example", "mx 0.0.0.0:25", "ESMTP", **accepted)
    return Message("01JD3M8Z7Q0000000001", Envelope(sender, to, ret=ret, requiretls=requiretls), how, size)


def book(*connectors: dict[str, Any], **defaults: Any) -> RuleBook:
    """Outbound connectors by their keys; `defaults` are those of `defaults.outbound`."""
    return RuleBook.of(
        Config.model_validate(
            {
                "hostname": "relay.example.com",
                "postmaster": "postmaster@example.com",
                "listeners": [{"address": "127.0.0.1:0", "starttls": "off"}],
                "defaults": {"outbound": defaults},
                "connectors": [{"direction": "outbound", **each} for each in connectors],
            }
        )
    )


def connector(name: str, domain: str, **keys: Any) -> dict[str, Any]:
    return {"name": name, "match": {"recipient_domains": [domain]}, **keys}


class Body:
    """A message's bytes, in chunks of `size`. `read` counts those that were asked for."""

    def __init__(self, content: bytes, size: int = 1 << 18) -> None:
        self.content = content
        self.size = size
        self.read = 0

    async def chunks(self) -> AsyncIterator[bytes]:
        for start in range(0, len(self.content), self.size):
            self.read += 1
            yield self.content[start : start + self.size]
