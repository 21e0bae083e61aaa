"""What an attempt means for its recipients: delivered, given up, or again later, and what is to be told of it. Values in, values out.

Design section 8: mail that waited for TLS until its end is bounced with the code of that failure (5.7.4, 5.7.5), other mail with 5.4.7.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from relay.config.models import On5xx, Retry
from relay.mail.attempt import Attempt
from relay.mail.envelope import LOCAL, Message, Notify
from relay.mail.outcome import Bounced, Deferred, Delivered, Outcome
from relay.mail.outcome import given_up as by_operator
from relay.policy.refusal import is_held
from relay.policy.retry import Expired, delay_warning_is_due, next_attempt
from relay.queue.reports import Ended, Fate
from relay.queue.store import Change, Command, Last, Order, Standing, State


@dataclass(frozen=True, slots=True)
class Terms:
    """The rules and the moment that decide. `spread` gives numbers from 0 up to 1."""

    retry: Retry
    now: datetime
    spread: Callable[[], float]
    on_5xx: On5xx = On5xx.BOUNCE


@dataclass(frozen=True, slots=True)
class Settled:
    """`ended` is for whoever composes reports; `outcomes` is what became of each recipient, in the order of `changes`."""

    changes: tuple[Change, ...]
    ended: tuple[Ended, ...]
    outcomes: tuple[Outcome, ...]


def is_own_report(message: Message) -> bool:
    return message.accepted.protocol == LOCAL and message.envelope.sender.is_null


def is_kept_for_postmaster(message: Message, outcome: Bounced) -> bool:
    """Nobody would ever hear of it: a report of ours that failed, or another's bounce that only its REQUIRETLS kept from going on.

    RFC 5321 section 6.1: no bounce of a bounce. RFC 8689 section 5: REQUIRETLS must not make a bounce vanish.
    """
    envelope = message.envelope
    another = envelope.sender.is_null and envelope.requiretls and outcome.failure is not None
    return is_own_report(message) or another


def given_up(last: Outcome | None, expire: timedelta) -> Bounced:
    """Mail that waited too long, `last` having kept it waiting."""
    words = f"not delivered within {_words(expire)}"
    if last is None:
        return Bounced(554, "5.4.7", words)
    failure = last.failure if isinstance(last, Deferred | Bounced) else None
    # RFC 3463 section 3.8: X.7.x is about security. Its permanent form says why, which 5.4.7 (too old) would hide.
    status = f"5{last.status[1:]}" if failure is not None and last.status.startswith("4.7.") else "5.4.7"
    return Bounced(554, status, f"{words}; the last answer was: {last.code} {last.status} {last.text}", failure)


def _words(span: timedelta) -> str:
    """In the largest unit that leaves nothing over."""
    seconds = int(span.total_seconds())
    for unit, length in (("day", 86400), ("hour", 3600), ("minute", 60)):
        count, rest = divmod(seconds, length)
        if count and not rest:
            return f"{count} {unit}{'' if count == 1 else 's'}"
    return f"{seconds} second{'' if seconds == 1 else 's'}"


class _Tally:
    """Collects what becomes of the recipients of one message."""

    def __init__(self, message: Message, terms: Terms) -> None:
        self._message = message
        self._terms = terms
        self._until = message.accepted.at + terms.retry.expire
        self._changes: list[Change] = []
        self._ended: list[Ended] = []
        self._outcomes: list[Outcome] = []

    def _add(self, outcome: Outcome, change: Change) -> None:
        self._changes.append(change)
        self._outcomes.append(outcome)

    def delivered(self, index: int, outcome: Delivered, last: Last, attempts: int) -> None:
        self._add(outcome, Change(index, State.DELIVERED, attempts, None, last))
        # RFC 3461 section 4.1: nobody hears of success who did not ask.
        if Notify.SUCCESS in self._message.envelope.recipients[index].notify:
            self._tell(index, Fate.DELIVERED, outcome, last, attempts)

    def failed(self, index: int, outcome: Bounced, last: Last | None, attempts: int) -> None:
        """For good. `last` is what happened to it last, if anything did."""
        final = last if last and last.outcome is outcome else Last(outcome, self._terms.now, last.hop if last else "")
        if is_kept_for_postmaster(self._message, outcome) or is_held(
            self._terms.on_5xx, self._message.accepted, outcome
        ):
            self._add(outcome, Change(index, State.HELD, attempts, None, final))
            return
        self._add(outcome, Change(index, State.BOUNCED, attempts, None, final))
        self._tell(index, Fate.FAILED, outcome, last, attempts)

    def deleted(self, index: int, outcome: Outcome, last: Last | None, attempts: int) -> None:
        self._add(outcome, Change(index, State.DELETED, attempts, None, last))

    def held(self, index: int, outcome: Outcome, last: Last | None, attempts: int) -> None:
        self._add(outcome, Change(index, State.HELD, attempts, None, last))

    def deferred(self, index: int, outcome: Deferred, last: Last, standing: Standing) -> None:
        attempts = standing.attempts + 1
        terms = self._terms
        again = next_attempt(
            terms.retry, accepted_at=self._message.accepted.at, attempts=attempts, now=terms.now, spread=terms.spread()
        )
        if isinstance(again, Expired):
            self.failed(index, given_up(outcome, terms.retry.expire), last, attempts)
            return
        warned = standing.warned
        if not warned and self._is_late:
            warned = True
            self._tell(index, Fate.DELAYED, outcome, last, attempts)
        self._add(outcome, Change(index, State.WAITING, attempts, again.at, last, warned))

    def overdue(self, index: int, standing: Standing, trouble: Outcome | None, due: datetime) -> None:
        """Not attempted now: its destination is down, or far behind."""
        last, terms = standing.last, self._terms
        reason = last.outcome if last else trouble
        if terms.now >= self._until:
            bounced = given_up(reason, terms.retry.expire)
            self.failed(index, bounced, last or (Last(reason, terms.now, "") if reason else None), standing.attempts)
        elif not standing.warned and self._is_late:
            outcome = reason or Deferred(451, "4.4.7", "the destination is too slow for the mail that waits for it")
            self._tell(index, Fate.DELAYED, outcome, last, standing.attempts)
            self._add(outcome, Change(index, State.WAITING, standing.attempts, due, None, warned=True))

    @property
    def _is_late(self) -> bool:
        return not is_own_report(self._message) and delay_warning_is_due(
            self._terms.retry, accepted_at=self._message.accepted.at, now=self._terms.now
        )

    def _tell(self, index: int, fate: Fate, outcome: Outcome, last: Last | None, attempts: int) -> None:
        said = last.outcome if last else None
        at = last.at if last else self._terms.now
        hop, plan = (last.hop, last.plan) if last else ("", None)
        self._ended.append(Ended(index, fate, outcome, said, at, hop, attempts, self._until, plan))

    def settled(self) -> Settled:
        return Settled(tuple(self._changes), tuple(self._ended), tuple(self._outcomes))


def last_outcomes(attempts: Iterable[Attempt]) -> dict[int, Last]:
    """The last word on each index over all attempts."""
    found: dict[int, Last] = {}
    for attempt in attempts:
        for index, outcome in attempt.outcomes:
            found[index] = Last(outcome, attempt.at, attempt.hop, attempt.plan)
    return found


def settle(
    message: Message,
    standing: Mapping[int, Standing],
    lasts: Mapping[int, Last],
    terms: Terms,
    orders: Mapping[int, Command],
) -> Settled:
    """After a delivery. `lasts` has a word on every index of `standing`. An order stands against everything but a delivery."""
    tally = _Tally(message, terms)
    for index, history in standing.items():
        last = lasts[index]
        outcome, attempts = last.outcome, history.attempts + 1
        command = orders.get(index)
        order = command.order if command is not None else None
        match outcome:
            case Delivered():
                tally.delivered(index, outcome, last, attempts)
            case _ if order is Order.DELETE:
                tally.deleted(index, outcome, last, attempts)
            case Bounced():
                # An operator who gave up on it wants no `on_5xx: hold`.
                final = replace(outcome, by_hop=False) if order is Order.BOUNCE else outcome
                tally.failed(index, final, last, attempts)
            case Deferred() if order is Order.HOLD:
                tally.held(index, outcome, last, attempts)
            case Deferred() if command is not None and order is Order.BOUNCE:
                tally.failed(index, by_operator(command.reason), last, attempts)
            case Deferred():
                tally.deferred(index, outcome, last, history)
    return tally.settled()


def settle_overdue(
    message: Message, standing: Mapping[int, Standing], terms: Terms, trouble: Outcome | None
) -> Settled:
    """Recipients that wait behind others, or for a destination that is down: too old, or late enough for a warning. Others do not change."""
    tally = _Tally(message, terms)
    for index, history in standing.items():
        tally.overdue(index, history, trouble, message.accepted.at)
    return tally.settled()


def settle_bounced(message: Message, standing: Mapping[int, Standing], terms: Terms, reason: str = "") -> Settled:
    """The administrator gives up on them, for a reason that is told to the sender."""
    tally = _Tally(message, terms)
    for index, history in standing.items():
        tally.failed(index, by_operator(reason), history.last, history.attempts)
    return tally.settled()


def without_reports(settled: Settled) -> Settled:
    """Where no report can be made: what failed is held for the postmaster instead, what is late is not marked as told."""
    told = {each.index: each.fate for each in settled.ended}
    changes: Sequence[Change] = [
        replace(change, state=State.HELD)
        if told.get(change.index) is Fate.FAILED
        else replace(change, warned=False)
        if told.get(change.index) is Fate.DELAYED
        else change
        for change in settled.changes
    ]
    return Settled(tuple(changes), (), settled.outcomes)
