"""What the admin API can ask of a running relay. `relay.app` implements it with the queue, the trace and the configuration."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum
from typing import Any, Protocol

Json = Mapping[str, Any]


class Action(StrEnum):
    """What can be done to recipients in the queue."""

    RETRY = "retry"
    HOLD = "hold"
    RELEASE = "release"
    BOUNCE = "bounce"
    DELETE = "delete"


@dataclass(frozen=True, slots=True)
class Selection:
    """Messages by `ids`, or `everything`, narrowed by recipient `domain` (A-labels) and `connector`.

    `states` empty: all that is still queued.
    """

    ids: tuple[str, ...] = ()
    everything: bool = False
    domain: str = ""
    connector: str = ""
    states: tuple[str, ...] = ()

    def __str__(self) -> str:
        """In words, for the audit trail."""
        narrowed = [f"to {self.domain}" if self.domain else "", f"connector {self.connector}" if self.connector else ""]
        words = [each for each in narrowed if each]
        if self.ids:
            shown = ", ".join(self.ids[:5])
            words.insert(0, f"{shown} and {len(self.ids) - 5} more" if len(self.ids) > 5 else shown)
        return ", ".join(words) or ("all" if self.everything else "nothing")


@dataclass(frozen=True, slots=True)
class TraceQuery:
    """All that is given must hold; "" and None are not given. `recipient` and `sender` are an address, or "@domain"."""

    id: str = ""
    recipient: str = ""
    sender: str = ""
    message_id: str = ""
    since: datetime | None = None
    limit: int = 100


@dataclass(frozen=True, slots=True)
class ReportsQuery:
    """Which TLS reports. `domain` "" and `day` None: any."""

    domain: str = ""
    day: date | None = None
    limit: int = 100


@dataclass(frozen=True, slots=True)
class Reload:
    """`changed`: the file differs from what is in force. `taken`: it is in force now, or would be but for the dry run.

    `weaker` is what it allows that was not allowed; `restart` what takes effect only when the relay is started again.
    `errors` are those of the file, each with line, key and fix; then nothing was taken.
    """

    taken: bool
    changed: bool
    weaker: Sequence[str] = ()
    restart: Sequence[str] = ()
    errors: Sequence[str] = ()


class Unavailable(Exception):  # noqa: N818 - it is a state of the relay, not an error in the question
    """The relay cannot do it now; str() says why, in words for the admin."""


class Operations(Protocol):
    """All may raise Unavailable."""

    async def status(self) -> Json:
        """Who this is and how it is: {version, hostname, pid, started_at, configuration: {...}, queue: {...}, listeners: [...], ...}."""
        ...

    async def messages(self, selection: Selection, *, after: str, limit: int) -> Json:
        """A page in the order of ids: {messages: [MESSAGE...], next: id or null}, as in design section 11. `after`: the page before's `next`."""
        ...

    async def message(self, message_id: str) -> Json | None:
        """One MESSAGE, None where there is none."""
        ...

    async def act(self, action: Action, selection: Selection) -> Json:
        """{changed: recipients touched, running: attempts under way that it waits for, unknown: [ids that are not in the queue]}."""
        ...

    async def trace(self, query: TraceQuery) -> Sequence[Json]:
        """TRACEs of design section 11, newest first, at most `query.limit`."""
        ...

    async def reports(self, query: ReportsQuery) -> Json:
        """{sending, uncounted, reports: [{day, domain, successes, failures, due, to: [{to, state, tries, next_try, until, message, text}]}]}."""
        ...

    async def report(self, query: ReportsQuery) -> Json | None:
        """The JSON of RFC 8460 section 4.4 that goes to `query.domain`, so far where the day is not over; None where nothing was counted."""
        ...

    async def send_reports(self, query: ReportsQuery) -> Json:
        """{states: {STATE: number}, reports: [{day, domain, to, state, ...}]}. Without domain and day: all that waits."""
        ...

    async def received_reports(self, since: datetime | None, limit: int) -> Json:
        """{received: [...]}: what others report about us, newest first."""
        ...

    async def reload(self, *, dry_run: bool) -> Reload:
        """Read the configuration file again and put it in force, whatever it weakens; `dry_run` only says what would happen."""
        ...
