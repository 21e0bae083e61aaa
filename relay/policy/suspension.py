"""Which mail an operator has stopped: by recipient domain, by connector, by sender. Values in, values out.

Suspended mail keeps waiting and is not attempted; its time runs on: it expires and its sender hears of the delay as ever. Where several
suspensions speak of one recipient each of them holds it.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from relay.mail.address import Address
from relay.mail.outcome import Deferred
from relay.policy.match import PatternIndex

WHY = Deferred(451, "4.3.2", "the administrator of this relay has suspended deliveries like this one")
"""What a sender is told of mail that no hop has seen. The operator's reason stays with us."""


class Stops(StrEnum):
    """What a suspension looks at."""

    TO = "to"  # a pattern of recipient domains, as in a connector: exact, `*.x`, `*`
    CONNECTOR = "connector"
    FROM = "from"  # an address, "@domain", or "<>"


@dataclass(frozen=True, slots=True)
class Suspension:
    """`what` is normalised. `until` is None where it does not end by itself. `id` is the store's, 0 before it has one."""

    stops: Stops
    what: str
    reason: str
    who: str
    since: datetime
    until: datetime | None = None
    id: int = 0

    def holds_at(self, now: datetime) -> bool:
        return self.until is None or now < self.until


class Suspensions:
    """All that hold at one moment. False where there is none: nobody pays for what is not used."""

    __slots__ = ("_connectors", "_senders", "_to", "all")

    def __init__(self, held: Iterable[Suspension] = ()) -> None:
        self.all = tuple(held)
        # `*` is a pattern of its own: an address literal matches none in a connector, and must be stopped all the same.
        self._to = PatternIndex.of((each.what, each) for each in self.all if each.stops is Stops.TO)
        self._connectors = {each.what: each for each in self.all if each.stops is Stops.CONNECTOR}
        self._senders = {each.what: each for each in self.all if each.stops is Stops.FROM}

    def __bool__(self) -> bool:
        return bool(self.all)

    @property
    def by_sender(self) -> bool:
        """Does any look at who sends?"""
        return bool(self._senders)

    @property
    def ends(self) -> datetime | None:
        """When the first of them ends; None where none does by itself."""
        return min((each.until for each in self.all if each.until is not None), default=None)

    def at(self, now: datetime) -> "Suspensions":
        """Those that still hold."""
        return Suspensions(each for each in self.all if each.holds_at(now))

    def of_destination(self, domain: str, connector: str) -> Suspension | None:
        """What stops mail for a recipient domain (normalised) that goes by a connector."""
        if not self.all:
            return None
        by_connector = self._connectors.get(connector)
        if by_connector is not None:
            return by_connector
        found = self._to.find(domain).values or self._to.find("*" if domain.startswith("[") else "").values
        return found[0] if found else None

    def of_sender(self, sender: str) -> Suspension | None:
        """What stops mail from an envelope sender ("" for the null one)."""
        if not self._senders:
            return None
        if not sender:
            return self._senders.get("<>")
        local, _at, domain = sender.rpartition("@")
        return self._senders.get(f"{local.lower()}@{domain}") or self._senders.get(f"@{domain}")

    def of(self, sender: str, domain: str, connector: str) -> Suspension | None:
        return self.of_destination(domain, connector) or self.of_sender(sender)


def sender_key(address: Address) -> str:
    """As `Suspension.what` has it. Local parts are compared without case: one that is stopped must not get by as BOB@."""
    return f"{address.local.lower()}@{address.domain}" if address.domain else address.local.lower() or "<>"


NONE = Suspensions()
