"""When an MTA-STS policy is fetched: at first sight, at once for a new id, in the background before it ends, seldom where that fails.

RFC 8461 sections 3.3 and 5.1. Pure: `relay.dns.sts` does it. Threats: a policy that lapses because its refresh is blocked until it has
ended (section 10.2); askers and failures that add up to a flood against a small web server.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum, auto

from relay.mail.published import SHORTEST_LIFE, StsTrouble
from relay.policy.route import LookupFailed
from relay.policy.stsfile import StsRecord

BACK_OFF = timedelta(minutes=5)  # RFC 8461 section 3.3: "a period of five minutes or longer per version ID"
_LONGEST_BACK_OFF = timedelta(hours=1)
_REFRESH = timedelta(days=1)  # RFC 8461 section 3.3: "a suggested refresh frequency is once per day"
_NEVER = datetime.min.replace(tzinfo=UTC)

Record = StsRecord | StsTrouble | LookupFailed | None
"""What is at `_mta-sts.DOMAIN`: a record, one that does not count, no answer, nothing."""


@dataclass(frozen=True, slots=True)
class Tries:
    """The latest tries to fetch a domain's policy: of which `id`, how many `failures` in a row, when the `last` began, and when `again`."""

    id: str = ""
    failures: int = 0
    last: datetime = _NEVER
    again: datetime = _NEVER

    def is_due(self, now: datetime) -> bool:
        """A clock that went back behind the last try makes the next one due too, so that none waits for years."""
        return not self.last <= now < self.again


class Step(Enum):
    NOTHING = auto()
    WAIT = auto()  # fetch, and mail waits for it
    BEHIND = auto()  # fetch, and mail goes by what is known
    MISSED = auto()  # the refresh of a policy in force is due and cannot be: its record is gone or does not count


def next_step(record: Record, tries: Tries, now: datetime, *, in_force: bool) -> Step:
    """`in_force`: a policy of the domain is."""
    if isinstance(record, StsRecord):
        if record.id != tries.id:
            # Never seen, or replaced: the next delivery should know. But where fetching fails as it is, other ids are no reason to wait
            # again: anyone on the path can forge them.
            return Step.BEHIND if in_force and tries.failures else Step.WAIT
        if not tries.is_due(now):
            return Step.NOTHING
        return Step.BEHIND if in_force or tries.failures else Step.WAIT
    if not in_force or not tries.is_due(now):
        return Step.NOTHING
    # RFC 8461 section 3.1: without a valid record "senders MUST [...] skip the remaining steps of policy discovery". No answer is neither:
    # blocking DNS must not end a policy that HTTPS can still renew.
    return Step.BEHIND if isinstance(record, LookupFailed) else Step.MISSED


def may_recheck(record_id: str, tries: Tries, now: datetime) -> bool:
    """Before a failure is final (RFC 8461 section 5.1), and so perhaps for many messages at once."""
    return record_id != tries.id or not tries.last <= now < tries.last + BACK_OFF


def succeeded(record_id: str, began: datetime, max_age: int, chance: float) -> Tries:
    """`chance` in [0, 1) spreads refreshes that would come together. Daily, and at half of a short life."""
    wait = min(_REFRESH, timedelta(seconds=max_age) / 2) * (1 - chance / 10)
    return Tries(record_id, 0, began, began + max(wait, SHORTEST_LIFE))


def failed(record_id: str, before: Tries, began: datetime, chance: float) -> Tries:
    """Five minutes, doubled each time up to an hour, and a little more."""
    failures = before.failures + 1 if record_id == before.id else 1
    wait = min(BACK_OFF * 2 ** min(failures - 1, 10), _LONGEST_BACK_OFF) * (1 + chance / 4)
    return Tries(record_id, failures, began, began + wait)
