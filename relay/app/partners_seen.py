"""What certificates partners show, noticed from the events of deliveries and messages, and written at ease.

A message costs one look into a table. A domain without a connector is nobody's partner: the traces have its evidence.

Threat: a stranger who shows a new certificate each time. Memory holds MOST spots, the store a bounded number for each connector.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from relay.config.connectors import DEFAULT
from relay.mail.attempt import Attempt
from relay.mail.envelope import Message
from relay.mail.events import AttemptMade, Event, MessageAccepted
from relay.mail.outcome import Delivered
from relay.mail.seen import Dated, Direction, SeenCertificate, Spot
from relay.mail.tls import Certificate, TlsEvidence, TlsFailure
from relay.policy.expiry import sooner_than_leaf
from relay.queue.seen import SqliteSeen

MOST = 4096
NAMES = 20  # of a certificate
WORDS = 200  # characters of what a peer wrote
AGAIN = timedelta(hours=1)
"""How often it is written that a certificate is still shown."""


SHOWS_CERTIFICATES: frozenset[type[Event]] = frozenset((AttemptMade, MessageAccepted))


@dataclass(slots=True)
class _Note:
    seen: SeenCertificate
    last: datetime
    written: datetime | None = None


class PartnersSeen:
    """`hear` is an observer of what SHOWS_CERTIFICATES; `flush` is called every few seconds and at the end."""

    def __init__(self, keeper: SqliteSeen) -> None:
        self._keeper = keeper
        self._notes: dict[Spot, _Note] = {}

    def hear(self, event: Event) -> None:
        if isinstance(event, AttemptMade):
            self._attempted(event.message, event.attempt)
        elif isinstance(event, MessageAccepted):
            self._accepted(event.message)

    def _attempted(self, message: Message, attempt: Attempt) -> None:
        evidence, connector = attempt.evidence, attempt.connector
        if evidence is None or not evidence.chain or connector in ("", DEFAULT) or not attempt.outcomes:
            return
        # TLS that fails its plan fails for all recipients alike.
        index, outcome = attempt.outcomes[0]
        failure = None if isinstance(outcome, Delivered) else outcome.failure
        if failure is TlsFailure.REQUIRETLS_NOT_SUPPORTED:  # says nothing about the certificate
            failure = None
        spot = Spot(Direction.OUTBOUND, connector, attempt.hop, failure is not None)
        domain = message.envelope.recipients[index].address.domain
        self._note(spot, evidence, (domain, attempt.address, failure.value if failure else ""), attempt.at)

    def _accepted(self, message: Message) -> None:
        accepted = message.accepted
        evidence, connector = accepted.tls, accepted.connector
        if evidence is None or not evidence.chain or not connector:
            return
        leaf = evidence.chain[0]
        hop = (leaf.names[0] if leaf.names else leaf.subject)[:WORDS]
        spot = Spot(Direction.INBOUND, connector, hop)
        self._note(spot, evidence, (message.envelope.sender.domain, accepted.client, ""), accepted.at)

    def _note(self, spot: Spot, evidence: TlsEvidence, about: tuple[str, str, str], at: datetime) -> None:
        note, leaf = self._notes.get(spot), evidence.chain[0]
        if note is not None and note.seen.leaf.sha256 == leaf.sha256:
            note.last = at
            return
        if note is None and len(self._notes) >= MOST:
            del self._notes[next(iter(self._notes))]
        self._notes[spot] = _Note(_seen(spot, evidence.chain, about, at), at)

    async def flush(self) -> None:
        """Writes what is new, and once an hour that it is still seen. Raises StoreUnavailable, and the next time writes it."""
        due = [each for each in self._notes.values() if each.written is None or each.last - each.written >= AGAIN]
        if not due:
            return
        written = [(each, each.last) for each in due]
        await self._keeper.note([replace(each.seen, last=last) for each, last in written])
        for each, last in written:
            each.written = last


def _seen(spot: Spot, chain: Sequence[Certificate], about: tuple[str, str, str], at: datetime) -> SeenCertificate:
    leaf, (domain, address, failure) = chain[0], about
    return SeenCertificate(
        spot=spot,
        leaf=Dated(leaf.subject, leaf.sha256, leaf.not_after),
        issuer=leaf.issuer,
        names=tuple(name[:WORDS] for name in leaf.names[:NAMES]),
        not_before=leaf.not_before,
        pin=leaf.spki_sha256,
        domain=domain,
        address=address,
        failure=failure,
        first=at,
        last=at,
        sooner=sooner_than_leaf(chain),
    )
