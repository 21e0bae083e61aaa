"""A driver for the session machine without sockets: answers by simple rules, and keeps what happened."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from relay.mail.envelope import Envelope
from relay.mail.reply import Reply
from relay.smtp.events import (
    Close,
    DataBegins,
    DataChunk,
    DataEnds,
    Login,
    MailFrom,
    RcptTo,
    Said,
    SmtpEvent,
    StartTls,
    TransactionEnds,
)
from relay.smtp.session import ServerSession, SessionSettings

SETTINGS = SessionSettings("relay.example.com")
QUEUED = Reply(250, "2.0.0", "queued")
UNKNOWN = Reply(550, "5.1.1", "no such recipient here")
LATER = Reply(451, "4.3.0", "try again later")
DENIED = Reply(535, "5.7.8", "wrong user or password")
NOT_NOW = Reply(421, "4.3.2", "shutting down")


@dataclass
class Harness:
    """Answers as the addresses say: a local part `unknown` is refused for good, `later` for now, `gone` with 421; so for MAIL and RCPT.

    A message to `nodata` is declined before its content, one to `full` after it. alice's password is `secret`.
    """

    settings: SessionSettings = SETTINGS
    hold: tuple[type[SmtpEvent], ...] = ()
    events: list[SmtpEvent] = field(default_factory=list)
    messages: list[tuple[Envelope, bytes]] = field(default_factory=list)
    log: bytearray = field(default_factory=bytearray)

    def __post_init__(self) -> None:
        self.session = ServerSession(self.settings)
        self.handshakes = 0
        self._content = bytearray()

    @classmethod
    def greeted(cls, settings: SessionSettings = SETTINGS, hold: tuple[type[SmtpEvent], ...] = ()) -> "Harness":
        harness = cls(settings, hold)
        harness.session.greet()
        harness.run()
        harness.log.clear()
        return harness

    def feed(self, *reads: bytes) -> bytes:
        """Each as one read. Returns what was said to them."""
        start = len(self.log)
        for data in reads:
            self.session.receive(data)
            self.run()
        return bytes(self.log[start:])

    def feed_split(self, data: bytes, sizes: Iterable[int]) -> bytes:
        start = len(self.log)
        position = 0
        for size in sizes:
            self.feed(data[position : position + size])
            position += size
        self.feed(data[position:])
        return bytes(self.log[start:])

    def run(self) -> None:
        while (event := self.session.next_event()) is not None:
            self.events.append(event)
            if not isinstance(event, self.hold):
                self._handle(event)
        self.log += self.session.take_output()

    def of(self, kind: type[SmtpEvent]) -> list[SmtpEvent]:
        return [event for event in self.events if isinstance(event, kind)]

    @property
    def closed(self) -> str:
        """The reason, "" while it is open."""
        return next((event.reason for event in self.events if isinstance(event, Close)), "")

    def _handle(self, event: SmtpEvent) -> None:
        match event:
            case MailFrom(sender):
                self._decide(sender.local)
            case RcptTo(recipient):
                self._decide(recipient.address.local)
            case DataBegins() | DataChunk() | DataEnds() | TransactionEnds():
                self._handle_message(event)
            case Login(user, password):
                if (user, password) == ("alice", "secret"):
                    self.session.proceed()
                else:
                    self.session.answer(DENIED)
            case StartTls():
                self.log += self.session.take_output()
                self.handshakes += 1
            case Said() | Close():
                pass
            case _:
                raise AssertionError(f"an event the driver does not know: {event}")

    def _handle_message(self, event: DataBegins | DataChunk | DataEnds | TransactionEnds) -> None:
        match event:
            case DataBegins(envelope):
                self._content.clear()
                if any(each.address.local == "nodata" for each in envelope.recipients):
                    self.session.answer(LATER)
                else:
                    self.session.proceed()
            case DataChunk(data):
                self._content += data
            case DataEnds(envelope):
                if any(each.address.local == "full" for each in envelope.recipients):
                    self.session.answer(LATER)
                else:
                    self.messages.append((envelope, bytes(self._content)))
                    self.session.answer(QUEUED)
            case TransactionEnds():
                self._content.clear()

    def _decide(self, local: str) -> None:
        match local:
            case "unknown":
                self.session.answer(UNKNOWN)
            case "later":
                self.session.answer(LATER)
            case "gone":
                self.session.answer(NOT_NOW)
            case _:
                self.session.proceed()


def start_message(harness: Harness, recipients: int = 1) -> None:
    """EHLO, MAIL, RCPT; what was said is not kept."""
    lines = b"EHLO client.example\r\nMAIL FROM:<a@example.org>\r\n"
    harness.feed(lines + b"".join(b"RCPT TO:<r%d@example.com>\r\n" % index for index in range(recipients)))
    harness.log.clear()
    harness.events.clear()
