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
class Connector:
    """One connector as it stands in the configuration. `asks` are its demands in words, `last` the newest evidence of it (see `Last`)."""

    name: str
    direction: str
    level: str
    partners: Sequence[str]
    asks: Sequence[str]
    route: str
    waiting: int
    held: int
    last: "Last | None"
    suspended: bool


@dataclass(frozen=True, slots=True)
class Last:
    """The newest message of a connector: when, how it went, and its TLS (as `evidence` in a trace; None in clear). `id` finds its trace."""

    at: datetime
    state: str
    hop: str
    text: str
    evidence: Json | None
    id: str


@dataclass(frozen=True, slots=True)
class WaitingChange:
    """The configuration on disk beside the one in force.

    `waiting` says why it is not in force, empty where it is. `diff` are lines of a unified diff without secrets. `last` is the newest audit
    entry about one that was taken. `mark` stands for the state of the file, so that what is taken is what was looked at.
    """

    file: str
    waiting: Sequence[str]
    diff: Sequence[str]
    weaker: Sequence[str]
    restart: Sequence[str]
    errors: Sequence[str]
    last: Json | None
    mark: str
