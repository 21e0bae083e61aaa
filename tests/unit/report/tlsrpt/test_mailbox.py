"""Mail to the report mailbox: taken in, thrown away, or waiting for what a retry can mend; never bounced, never answered."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from datetime import timedelta

import dkim as dkimpy
import pytest

from relay.dns.answers import TxtRecords
from relay.mail.address import Address
from relay.mail.envelope import Accepted, Envelope, Message, Recipient
from relay.mail.events import Event, TlsReportIgnored, TlsReportReceived
from relay.mail.outcome import Deferred, Delivered
from relay.report.tlsrpt import mailbox as module
from relay.report.tlsrpt.document import packed, report
from relay.report.tlsrpt.mail import Key, compose
from relay.report.tlsrpt.mailbox import Mailbox, Terms
from relay.report.tlsrpt.reading import MAIL_LIMIT
from tests.dkim import dkim_key
from tests.fakes import FakeResolver
from tests.unit.report.tlsrpt.builders import ABOUT, COUNTS, NOW, REPORTER, Busy, Clock, MemoryLedger

KEY = "r._domainkey.example.com"
US = Address("tlsrpt", "us.example")


@dataclass
class Body:
    content: bytes
    reads: int = 0

    async def chunks(self) -> AsyncIterator[bytes]:
        self.reads += 1
        for start in range(0, len(self.content), 1000):
            yield self.content[start : start + 1000]


def mail(*, key: bool = True, domain: str = "example.com", sender: Address | None = None) -> bytes:
    reporter = replace(REPORTER, sender=sender or REPORTER.sender)
    signing = Key(domain, "r", lambda: dkim_key().pem) if key else None
    return compose(reporter, ABOUT, US, packed(report(reporter, ABOUT, COUNTS)), NOW, signing).content


@dataclass
class World:
    resolver: FakeResolver = field(default_factory=lambda: FakeResolver(texts={KEY: [dkim_key().record()]}))
    ledger: MemoryLedger = field(default_factory=MemoryLedger)
    clock: Clock = field(default_factory=Clock)
    events: list[Event] = field(default_factory=list)
    terms: Terms = Terms(must_be_signed=True)  # noqa: RUF009 - frozen

    def __post_init__(self) -> None:
        self.mailbox = Mailbox(
            self.ledger, self.resolver.txt, terms=lambda: self.terms, clock=self.clock, emit=self.events.append
        )

    async def take(self, content: bytes) -> Delivered | Deferred:
        accepted = Accepted(NOW, "192.0.2.1", "client", "mx", "ESMTPS")
        envelope = Envelope(Address("tls", "example.com"), (Recipient(US),))
        return await self.mailbox.take(Message("M", envelope, accepted, len(content)), Body(content))

    async def ignored(self, content: bytes) -> str:
        """Why it was thrown away."""
        outcome = await self.take(content)
        assert isinstance(outcome, Delivered)
        (event,) = self.events
        assert isinstance(event, TlsReportIgnored)
        assert outcome.text == f"taken, and thrown away: {event.reason}"
        assert (event.message, event.sender) == ("M", "tls@example.com")
        assert not self.ledger.kept
        return event.reason


async def test_a_report_is_taken_in() -> None:
    world = World()
    assert await world.take(mail()) == Delivered(250, "2.0.0", "taken in as a TLS report")
    (kept,) = world.ledger.kept
    assert world.events == [TlsReportReceived("M", kept)]
    assert (kept.organization, kept.signer, kept.submitter) == ("Example Inc.", "example.com", "example.com")
    assert (kept.at, kept.successes, kept.failures) == (NOW, 15, 3)


async def test_a_flood_leaves_the_lane_to_other_mail(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each mail in here holds a place that mail for the domain's people waits for, while a stranger's name servers are asked."""
    monkeypatch.setattr(module, "_KEYS", 0.0)
    silence = asyncio.Event()

    async def never(_name: str) -> TxtRecords:
        await silence.wait()
        return TxtRecords(())

    world = World()
    world.mailbox._txt = never
    outcomes = await asyncio.gather(*(world.take(mail()) for _ in range(20)))
    assert all(isinstance(each, Deferred) for each in outcomes)
    texts = [each.text for each in outcomes]
    assert texts.count("other reports are being read") == 16
    assert sum("no answer in time" in text for text in texts) == 4
    assert not world.events
    world.mailbox._txt = world.resolver.txt
    monkeypatch.undo()
    assert isinstance(await world.take(mail()), Delivered)


async def test_the_same_report_a_second_time() -> None:
    world = World()
    await world.take(mail())
    assert isinstance(await world.take(mail()), Delivered)
    assert len(world.ledger.kept) == 1
    ignored = world.events[1]
    assert isinstance(ignored, TlsReportIgnored)
    assert ignored.reason == "the report 2026-11-25.b.example@relay.example.com of Example Inc. is here already"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (mail(key=False), "it is not validly signed: it has no DKIM signature"),
        (mail().replace(b"H4sI", b"H4sJ"), "it is not validly signed: the body was changed"),
        (mail(domain="other.example"), "it is not validly signed: its signature is other.example's, not example.com's"),
        # A customer's subdomain cannot speak for its provider.
        (mail(domain="sub.example.com"), "it is not validly signed: its signature is sub.example.com's, not example.com's"),
        (b"From: a@example.com\r\nFrom: b@example.com\r\n\r\nx", "its From field names no sender"),
        (b"From: undisclosed\r\n\r\nx", "its From field names no sender"),
        (b"Subject: hello\r\n\r\nx", "its From field names no sender"),
        (b"no header\r\n\r\nx", "the mail has no header"),
        (b"", "the mail has no header"),
        (b"x" * (MAIL_LIMIT + 1), "the mail is larger than 3 MiB"),
    ],
    ids=range(10),
)  # fmt: skip
async def test_what_is_thrown_away(content: bytes, reason: str) -> None:
    assert await World().ignored(content) == reason


async def test_a_mail_that_is_too_large_is_not_read() -> None:
    body = Body(b"x" * (MAIL_LIMIT + 1))
    accepted = Accepted(NOW, "192.0.2.1", "client", "mx", "ESMTPS")
    envelope = Envelope(Address("", ""), (Recipient(US),))
    world = World()
    await world.mailbox.take(Message("M", envelope, accepted, len(body.content)), body)
    assert body.reads == 0
    (event,) = world.events
    assert isinstance(event, TlsReportIgnored)
    assert event.sender == "<>"


async def test_signed_and_yet_no_report() -> None:
    message = b"From: a@example.com\r\nSubject: hello\r\n\r\nhello\r\n"
    signature = dkimpy.sign(message, b"r", b"example.com", dkim_key().pkcs1.encode(), tlsrpt=True)
    world = World()
    assert (await world.ignored(signature + message)).startswith("it has no part of type application/tlsrpt+gzip")


async def test_a_domain_signs_for_what_is_below_it() -> None:
    world = World()
    await world.take(mail(sender=Address("noreply", "mail.example.com")))
    assert world.ledger.kept[0].signer == "example.com"


async def test_one_valid_signature_is_enough() -> None:
    """A forwarder put its own on top, and one is broken."""
    once = mail()
    broken = once.split(b"From:")[0].replace(b"bh=", b"bh=AAAA")
    forwarder = mail(domain="forwarder.example").split(b"From:")[0]
    world = World()
    await world.take(forwarder + broken + once)
    assert world.ledger.kept[0].signer == "example.com"
    assert world.resolver.asked == {f"txt {KEY}": 2}  # nobody asks for a key that does not matter


async def test_unsigned_ones_where_the_configuration_takes_them() -> None:
    world = World(terms=Terms(must_be_signed=False))
    await world.take(mail(key=False))
    assert world.ledger.kept[0].signer == ""
    assert not world.resolver.asked


async def test_a_key_that_is_not_there_and_one_that_cannot_be_looked_up() -> None:
    assert await World(FakeResolver()).ignored(mail()) == "it is not validly signed: there is no such key"
    world = World(FakeResolver(failing={KEY}))
    outcome = await world.take(mail())
    text = f"the look-up of the DKIM key {KEY} failed: SERVFAIL"
    assert outcome == Deferred(451, "4.7.5", text)
    assert not world.events
    world.clock.now = NOW + timedelta(hours=24)  # long before the queue would give it back to its sender
    assert await world.ignored(mail()) == f"it is not validly signed: {text}"


async def test_the_store_cannot_keep_it_now() -> None:
    world = World(ledger=MemoryLedger(busy=True))
    with pytest.raises(Busy):
        await world.take(mail())
    world.ledger.busy = False
    assert isinstance(await world.take(mail()), Delivered)  # the mailbox is free again
