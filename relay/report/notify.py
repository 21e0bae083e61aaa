"""Who is told what: NOTIFY (RFC 3461 section 4.1), and who may ask for it. Values only."""

from collections.abc import Iterable
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from relay.mail.envelope import Message, Notify
from relay.mail.outcome import Delivered, Outcome
from relay.mail.plan import TlsPlan


class Kind(StrEnum):
    FAILURE = "failure"
    DELAY = "delay"
    SUCCESS = "success"


class Ended(Protocol):
    """What became of one recipient, as the queue tells it. `fate` is "delivered", "failed" or "delayed".

    `outcome` is the result. `last` is what the last hop said where `outcome` is our own word (expired, given up by the administrator),
    else the same; None where no hop was ever tried. `until` is when we give up.
    `hop` is the last one's, "" if none; `plan` is what TLS it had to have, None where that is not known.
    """

    @property
    def index(self) -> int: ...
    @property
    def fate(self) -> str: ...
    @property
    def outcome(self) -> Outcome: ...
    @property
    def last(self) -> Outcome | None: ...
    @property
    def at(self) -> datetime: ...
    @property
    def hop(self) -> str: ...
    @property
    def attempts(self) -> int: ...
    @property
    def until(self) -> datetime: ...
    @property
    def plan(self) -> TlsPlan | None: ...


_KINDS = {"failed": Kind.FAILURE, "delayed": Kind.DELAY, "delivered": Kind.SUCCESS}
_WORDS = {Kind.FAILURE: Notify.FAILURE, Kind.DELAY: Notify.DELAY, Kind.SUCCESS: Notify.SUCCESS}


def may_ask_for_success(message: Message) -> bool:
    """Success reports tell a sender which addresses exist and how mail flows inside: only clients that may relay get them (design section 8)."""
    return message.accepted.may_relay or bool(message.accepted.auth)


def is_due(message: Message, kind: Kind, ended: Ended) -> bool:
    """True where the sender is to hear of this. A message without a return path is never reported on (RFC 5321 section 4.5.5)."""
    if message.envelope.sender.is_null:
        return False
    notify = message.envelope.recipients[ended.index].notify
    if kind is Kind.SUCCESS:
        # RFC 3461 section 5.2.2: a hop that took the parameters over reports itself; one that did not makes it our duty ("relayed").
        taken_over = isinstance(ended.outcome, Delivered) and ended.outcome.dsn
        return Notify.SUCCESS in notify and not taken_over and may_ask_for_success(message)
    # RFC 3461 section 4.1: without NOTIFY, failures are reported and delays may be.
    return not notify or _WORDS[kind] in notify


def due(message: Message, ended: Iterable[Ended]) -> dict[Kind, list[Ended]]:
    """What is to be reported, by kind of report. Empty where nobody needs to hear anything."""
    found: dict[Kind, list[Ended]] = {}
    for each in ended:
        kind = _KINDS[each.fate]
        if is_due(message, kind, each):
            found.setdefault(kind, []).append(each)
    return found
