"""What pages show, as values. `facts` makes them from the answers of the admin API. Times are aware and in UTC."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Destination:
    """What waits for one recipient domain. `oldest` is when the oldest was accepted; `last` the newest failure, as `last` in a message."""

    domain: str
    connector: str
    waiting: int
    held: int
    oldest: datetime | None
    next_attempt: datetime | None
    last: Json | None


@dataclass(frozen=True, slots=True)
class Suspension:
    """Mail that is not tried. `kind` is "to" (a pattern of recipient domains), "connector" or "from"; `until` None: until it is resumed."""

    id: int
    kind: str
    value: str
    since: datetime | None
    who: str
    reason: str
    until: datetime | None


@dataclass(frozen=True, slots=True)
class WaitingChange:
    """The configuration on disk beside the one in force.

    `waiting` says why it is not in force, empty where it is. `diff` are lines of a unified diff, secrets masked. `last` is who took the last
    one ({at, who, via, what}), None where nobody did or this relay does not tell. `mark` stands for all of it, so that what is taken is what
    was looked at.
    """

    waiting: Sequence[str]
    diff: Sequence[str]
    weaker: Sequence[str]
    restart: Sequence[str]
    errors: Sequence[str]
    last: Json | None
    mark: str
