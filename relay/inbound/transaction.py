"""One transaction, from MAIL to its end: what was decided at MAIL, the message on its way into the store, what its header says.

The session asks; this answers with replies. `relay.policy` decides, the intake keeps the bytes.
"""

from dataclasses import dataclass, replace

from relay.config.models import TlsRequiredNo
from relay.inbound.client import Client
from relay.inbound.received import certificate_words, received_header
from relay.inbound.room import Room
from relay.inbound.services import Incoming, Services
from relay.mail.address import Address
from relay.mail.envelope import Accepted, Envelope, Recipient
from relay.mail.reply import Reply
from relay.policy.admission import NO_DOMAIN, Admitted, Finding, Refused, asks_header_from
from relay.policy.book import RuleBook
from relay.policy.recipients import Accepting, Asking, judge_recipient
from relay.smtp.events import DataEnds
from relay.smtp.header import HeaderScan

MOST_RECEIVED = 100  # RFC 5321 section 6.3
_RECIPIENT = 500  # bytes of memory beside the texts

LOOP = Reply(554, "5.4.6", "too many hops: the message is going round in a loop")
NO_ROOM = Reply(452, "4.3.1", "too much mail is under way at the moment: try again later")
OVERTAKEN = Reply(451, "4.3.2", "the rules changed while the message was under way: send it again")
LONG_HEADER = Reply(552, "5.3.4", "the header of the message is too large")


@dataclass(frozen=True, slots=True)
class Arrival:
    """How the message came: what the session knows and the header tells."""

    helo: str
    listener: str
    protocol: str


@dataclass(frozen=True, slots=True)
class _Content:
    """The message on its way in: to the store, and past a look at its header."""

    incoming: Incoming
    scan: HeaderScan


class Transaction:
    """`failure` is the reply that the end of data will get, whatever else comes; None while there is none.

    `committing`: the store has been asked to keep the message, and nothing stops that any more. `deadline`, in the event loop's seconds,
    is when the whole message must be there; 0 before its first byte.
    """

    __slots__ = (
        "_admitted",
        "_begun",
        "_findings",
        "_header",
        "_header_connector",
        "_recipients",
        "_room",
        "_user",
        "book",
        "committing",
        "deadline",
        "failure",
        "sender",
    )

    def __init__(self, book: RuleBook, sender: Address, admitted: Admitted, user: str, room: Room) -> None:
        self.book, self.sender = book, sender
        self._room = room
        self._recipients = self._header = 0  # bytes of `room`
        self.failure: Reply | None = None
        self.committing = False
        self.deadline = 0.0
        self._admitted, self._user = admitted, user
        self._findings: tuple[Finding, ...] = admitted.findings
        self._header_connector = ""
        self._begun: _Content | None = None

    @property
    def is_of_stranger(self) -> bool:
        """The client may send to our own domains only, as anybody may."""
        return not self._admitted.may_relay

    def judge_recipient(self, recipient: Recipient) -> Accepting | Asking | Reply:
        return judge_recipient(self.book, recipient.address, may_relay=self._admitted.may_relay)

    def enter(self, recipient: Recipient, address: Address) -> Recipient | Reply:
        """The recipient as it enters the envelope, going to `address`, or why there is no room for it."""
        cost = _RECIPIENT + len(recipient.address.local) + len(recipient.orcpt)
        if not self._room.take(self._recipients, cost):
            return NO_ROOM
        self._recipients += cost
        return recipient if address == recipient.address else replace(recipient, address=address)

    def begin(self, services: Services) -> None:
        """Raises what the intake raises."""
        self._begun = _Content(services.intake.begin(), HeaderScan())

    @property
    def _content(self) -> _Content:
        if self._begun is None:
            raise RuntimeError("message data before its beginning")
        return self._begun

    def write(self, data: bytes) -> None:
        """Nothing more is kept once the message has failed."""
        if self.failure is None:
            content = self._content
            content.scan.feed(data)
            more = content.scan.held - self._header
            if more and not self._room.take(self._recipients + self._header, more):
                self.fail(NO_ROOM)
                return
            self._header += more
            content.incoming.write(data)

    @property
    def full(self) -> bool:
        """The store is behind."""
        return self.failure is None and self._content.incoming.full

    async def drain(self) -> None:
        """Raises what the intake raises."""
        await self._content.incoming.drain()

    def fail(self, reply: Reply) -> None:
        self.failure = reply
        self.abort()
        if self._begun is not None:
            self._begun.scan.forget()
            self._room.give_back(self._header)
            self._header = 0

    def close(self) -> None:
        """It is over, whatever became of it. Any number of times."""
        self._room.give_back(self._recipients + self._header)
        self._recipients = self._header = 0

    def abort(self) -> None:
        if self._begun is not None and not self.committing:
            self._begun.incoming.abort()

    def unchecked(self, services: Services, client: Client) -> tuple[tuple[bytes, ...], ...]:
        """The paths of which it must be found out whether they are revoked before `judge` can decide."""
        book = services.book()
        if self.failure is not None or self._user or not book.asks_revocation:
            return ()
        header_from = NO_DOMAIN
        if asks_header_from(book):
            scan = self._content.scan
            scan.finish()
            header_from = scan.header_from()
        sender = self.sender.domain if book is not self.book else NO_DOMAIN
        return client.unchecked(services.means(book), sender, header_from)

    def judge(self, services: Services, client: Client, envelope: Envelope) -> Refused | None:
        """What speaks against the whole message: rules that came into force since MAIL, or its header. None: nothing."""
        if self.failure is not None:
            return Refused(self.failure, "")
        return self._judge_again(services, client, envelope) or self._judge_header(services, client)

    def _judge_again(self, services: Services, client: Client, envelope: Envelope) -> Refused | None:
        """Threat: a transaction that was opened before a reload and kept open, for one more message by the old rules."""
        book = services.book()
        if book is self.book:
            return None
        if not self._user:  # what users may do is in the password file, asked at MAIL
            admission = client.admit(services.means(book), self.sender.domain)
            if isinstance(admission, Refused):
                return admission
            self._admitted, self._findings = admission, admission.findings
        for each in envelope.recipients:
            judged = judge_recipient(book, each.address, may_relay=self._admitted.may_relay)
            # Nobody is asked anew: it is enough where that was so at RCPT.
            asked = isinstance(judged, Asking) and each.address.domain not in self.book.config.accept.callouts
            if isinstance(judged, Reply) or asked:
                return Refused(OVERTAKEN, "")
        self.book = book
        return None

    def _judge_header(self, services: Services, client: Client) -> Refused | None:
        scan = self._content.scan
        scan.finish()
        if scan.too_long:
            return Refused(LONG_HEADER, "")
        if scan.received >= MOST_RECEIVED:
            return Refused(LOOP, "")
        # Connectors about partners do not apply to authenticated users (design section 4).
        if self._user or not asks_header_from(self.book):
            return None
        admission = client.admit_header_from(services.means(self.book), scan.header_from())
        if isinstance(admission, Refused):
            return admission
        self._header_connector = admission.connector
        self._findings += admission.findings
        return None

    async def commit(self, services: Services, client: Client, end: DataEnds, how: Arrival) -> Reply:
        """Durable when it returns. Raises what the intake raises; nothing is kept then."""
        content = self._content
        accepted = Accepted(
            at=services.clock(),
            client=client.text,
            helo=how.helo,
            listener=how.listener,
            protocol=how.protocol,
            connector=self._admitted.connector or self._header_connector,
            auth=self._user,
            tls=client.evidence,
            may_relay=self._admitted.may_relay,
            client_port=client.port,
            server=client.server,
        )
        envelope = self._envelope(end.envelope, content.scan)
        header = received_header(
            accepted, self.book.config.hostname, content.incoming.id, envelope, self._certificate(client)
        )
        message = await content.incoming.commit(
            envelope, accepted, header=header, message_id=content.scan.message_id, eight_bit=end.eight_bit
        )
        return Reply(250, "2.0.0", f"queued as {message.id}")

    def _envelope(self, envelope: Envelope, scan: HeaderScan) -> Envelope:
        """`TLS-Required: No` counts where the admin lets it, from users who logged in, never beside REQUIRETLS (RFC 8689 section 4.1)."""
        heard = self._user and self.book.config.tls_required_no is TlsRequiredNo.HONOUR
        if heard and not envelope.requiretls and scan.tls_required_no:
            return replace(envelope, tls_optional=True)
        return envelope

    def _certificate(self, client: Client) -> str:
        if client.evidence is None:
            return ""
        satisfied = (each.connector for each in self._findings if each.satisfied)
        connector = next((each.name for each in satisfied if each.speaks_of_certificates), "")
        return certificate_words(client.evidence, asked=client.asked, connector=connector)
