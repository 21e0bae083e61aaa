"""Small builders for outbound tests: messages, deliveries, and an Outbound whose world is a fake."""

import random
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from relay.dns.answers import Resolver
from relay.mail.address import parse_mailbox, parse_path
from relay.mail.attempt import Attempt, Delivery
from relay.mail.envelope import Accepted, Envelope, Message, Recipient
from relay.mail.events import Event
from relay.mail.outcome import Outcome
from relay.outbound.client import Timeouts
from relay.outbound.deliver import Outbound, OutboundSettings
from relay.outbound.handshake import TlsClient
from relay.outbound.ourselves import Ourselves
from relay.outbound.pool import PoolLimits
from relay.outbound.publications import NothingPublished, Publications
from relay.policy.book import RuleBook
from relay.tls.revocation.checks import NotChecked, RevocationChecks
from relay.tls.trust import TrustStores
from tests.fakes import FakeResolver
from tests.unit.policy.builders import book

HOST = "mx.hostile.test"
TEXT = b"Subject: hello\r\n\r\nbody\r\n"
HEADER = b"Received: by relay.example.com\r\n"
PATIENT = Timeouts(connect=10, greeting=10, command=10, handshake=10, data=10, block=10, final=10, quit=0.2)
SHORT = Timeouts(connect=10, greeting=0.2, command=0.2, handshake=0.2, data=0.2, block=0.2, final=0.2, quit=0.2)
"""For hops that never answer; all others get PATIENT, so that a busy machine fails no test."""
IMPATIENT = OutboundSettings(timeouts=SHORT)


@dataclass
class Body:
    """A message's bytes in the given pieces; counts how often they were read."""

    pieces: Sequence[bytes] = (TEXT,)
    reads: int = 0

    async def chunks(self) -> AsyncIterator[bytes]:
        self.reads += 1
        for piece in self.pieces:
            yield piece


def message(
    *recipients: str | Recipient, sender: str = "<anna@a.example>", content: bytes = TEXT, **envelope: Any
) -> Message:
    found = tuple(each if isinstance(each, Recipient) else Recipient(parse_mailbox(each)) for each in recipients)
    return Message(
        id="MESSAGE0000000000001",
        envelope=Envelope(parse_path(sender), found, **envelope),
        accepted=Accepted(datetime.now(UTC), "192.0.2.1", "client", "mx", "ESMTP"),
        size=len(content),
        header=HEADER,
        eight_bit=not content.isascii(),
    )


def delivery(*recipients: str | Recipient, content: bytes = TEXT, **values: Any) -> Delivery:
    made = message(*recipients or ("bob@b.example",), content=content, **values)
    return Delivery(made, tuple(range(len(made.envelope.recipients))), Body((content,) if content else ()))


def utc() -> datetime:
    return datetime.now(UTC)


@dataclass
class World:
    """An Outbound and what it sees. `book` may be replaced at any time (a reload)."""

    book: RuleBook
    resolver: FakeResolver = field(default_factory=FakeResolver)
    ourselves: Ourselves = field(default_factory=Ourselves)
    clock: Callable[[], datetime] = utc
    settings: OutboundSettings = field(default_factory=lambda: OutboundSettings(timeouts=PATIENT))
    events: list[Event] = field(default_factory=list)
    seed: int = 1
    publications: Publications = field(default_factory=NothingPublished)
    revocations: RevocationChecks = field(default_factory=NotChecked)

    def __post_init__(self) -> None:
        resolver: Resolver = self.resolver
        self.tls = TlsClient(lambda _name: None, TrustStores(), lambda: self.clock(), self.revocations)
        self.outbound = Outbound(
            book=lambda: self.book,
            resolver=resolver,
            tls=self.tls,
            ourselves=lambda: self.ourselves,
            clock=lambda: self.clock(),
            emit=self.events.append,
            publications=self.publications,
            chance=random.Random(self.seed),
            settings=self.settings,
        )

    async def __aenter__(self) -> "World":
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self.outbound.close()

    async def deliver(self, *recipients: str | Recipient, **values: Any) -> Sequence[Attempt]:
        given = delivery(*recipients, **values)
        attempts = await self.outbound.deliver(given)
        self.outbound.tell_withheld(given.message, attempts)  # as if they had been recorded
        return attempts

    async def outcome(self, *recipients: str | Recipient, **values: Any) -> Outcome:
        """What became of the only recipient."""
        return results(await self.deliver(*recipients, **values))[0]


def results(attempts: Sequence[Attempt]) -> dict[int, Outcome]:
    """The last word on every recipient."""
    return {index: outcome for attempt in attempts for index, outcome in attempt.outcomes}


def smart_host(port: int, *more: int, host: str = HOST, **keys: Any) -> dict[str, Any]:
    """A connector for everything that leads to ports of the hostile host."""
    route: dict[str, Any] = {"smart_hosts": [f"{host}:{each}" for each in (port, *more)]} | keys.pop("route", {})
    return {"name": "c", "direction": "outbound", "match": {"recipient_domains": ["*"]}, "route": route} | keys


def world(port: int, *more: int, exceptions: Sequence[dict[str, Any]] = (), **keys: Any) -> World:
    """One connector to 127.0.0.1 at these ports."""
    own = ("settings", "clock", "ourselves", "publications", "revocations")
    settings = {name: keys.pop(name) for name in own if name in keys}
    rules = book(connectors=[smart_host(port, *more, **keys)], exceptions=list(exceptions))
    return World(rules, FakeResolver(hosts={HOST: ["127.0.0.1"]}), **settings)


def with_limits(**limits: Any) -> OutboundSettings:
    return OutboundSettings(timeouts=PATIENT, pool=replace(PoolLimits(), **limits))
