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
class WaitingChange:
    """The configuration on disk beside the one in force.

    `differs`: it says something else than what is in force. `diff` are lines of a unified diff, secrets masked; none where the file has
    `errors`, or where only what it names differs. `last` is who took the last one ({at, who, via, what}), None where nobody did. `mark` stands
    for all of it, so that what is taken is what was looked at.
    """

    differs: bool
    diff: Sequence[str]
    weaker: Sequence[str]
    restart: Sequence[str]
    errors: Sequence[str]
    last: Json | None
    mark: str
