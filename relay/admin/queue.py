"""What waits in the queue, and what to do with it: `GET /queue`, `GET /queue/{id}`, `POST /queue/ACTION`."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal, Protocol, Self, get_args

from pydantic import Field, field_validator, model_validator

from relay.admin.endpoint import Answer, Asked, Change, Endpoint, Json, NotFoundError, Question, Scope, Shape
from relay.admin.parameters import ConnectorName, Domain, Flag, Line, MessageId, MessageIds, PageLimit

State = Literal["waiting", "suspended", "delivering", "held", "delivered", "bounced", "deleted"]


class Action(StrEnum):
    """What can be done to recipients in the queue."""

    RETRY = "retry"
    HOLD = "hold"
    RELEASE = "release"
    BOUNCE = "bounce"
    DELETE = "delete"


_SUMMARIES = {
    Action.RETRY: "Try at once, whatever the back-off says.",
    Action.HOLD: "Keep back: no attempts and no expiry until released.",
    Action.RELEASE: "Let go what was held.",
    Action.BOUNCE: "Give up now and tell the senders.",
    Action.DELETE: "Throw away without telling anybody.",
}


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
        """In words, for the audit log."""
        narrowed = [f"to {self.domain}" if self.domain else "", f"connector {self.connector}" if self.connector else ""]
        words = [each for each in narrowed if each]
        if self.ids:
            shown = ", ".join(self.ids[:5])
            words.insert(0, f"{shown} and {len(self.ids) - 5} more" if len(self.ids) > 5 else shown)
        return ", ".join(words) or ("all" if self.everything else "nothing")


class Queue(Protocol):
    """What this topic asks of the relay. All may raise Unavailable."""

    async def messages(self, selection: Selection, *, after: str, limit: int) -> Json:
        """A page in the order of ids, in the shape of Page. `after`: the page before's `next`."""
        ...

    async def message(self, message_id: str) -> Json | None:
        """One Message, None where there is none."""
        ...

    async def destinations(self, after: str, limit: int) -> Json:
        """In the shape of Destinations, in the order of domains, from behind `after`."""
        ...

    async def act(self, action: Action, selection: Selection, reason: str = "") -> Json:
        """In the shape of Acted. `reason` is one line for the senders of what is bounced."""
        ...


class PageQuestion(Question):
    to: Domain = ""
    """Only recipients in this domain."""
    connector: ConnectorName = ""
    """Only what this connector governs."""
    state: list[State] = Field(default=[])
    """Only recipients in one of these states; without it, all that is still queued."""
    after: MessageId = ""
    """The `next` of the page before."""
    limit: PageLimit = 100
    """Messages at most."""

    @field_validator("state", mode="before")
    @classmethod
    def _known(cls, states: list[str]) -> list[str]:
        for each in states:
            if each not in get_args(State):
                raise ValueError(f"{each[:80]!r} is none of {', '.join(get_args(State))}")
        return states

    @property
    def selection(self) -> Selection:
        return Selection((), True, self.to, self.connector, tuple(self.state))


class DestinationsQuestion(Question):
    after: Domain = ""
    """The last domain of the page before."""
    limit: PageLimit = 100
    """Domains at most."""


class MessageQuestion(Question):
    id: MessageId


class SelectionQuestion(Question):
    """`ids`, or `all`, or `to` and `connector`, both narrowing."""

    ids: MessageIds = ()
    all: Flag = False
    """Everything in the queue, or what `to` and `connector` leave of it."""
    to: Domain = ""
    connector: ConnectorName = ""

    @model_validator(mode="after")
    def _says_which(self) -> Self:
        selects = self.all or bool(self.to or self.connector)
        if self.ids and selects:
            raise ValueError("give ids, or a selection, not both: a slip must not touch more mail than was named")
        if not self.ids and not selects:
            raise ValueError("say which messages: ids, all, to or connector")
        return self

    @property
    def selection(self) -> Selection:
        return Selection(self.ids, not self.ids, self.to, self.connector)


class BounceQuestion(SelectionQuestion):
    reason: Line = ""
    """One line that the senders read."""


class Last(Shape):
    """What the last attempt came to."""

    at: str
    hop: str
    state: Literal["delivered", "deferred", "bounced"]
    code: int
    status: str
    text: str
    failure: str | None
    """The TLS failure that withheld it (RFC 8460 section 4.3, or one of ours)."""


class Detour(Shape):
    connector: str | None
    host: str | None
    weaker: bool
    """The connector may ask for less than the recipient's own."""


class RecipientState(Shape):
    address: str
    state: State
    connector: str
    attempts: int
    next_attempt: str | None
    last: Last | None
    via: Detour | None = None
    """Where an operator sends it instead of its own way."""
    suspended: dict[str, Any] | None = None
    """What keeps it from being tried (`GET /suspensions`), in state suspended."""


class MessageHead(Shape):
    id: str
    message_id: str
    sender: str
    """"" for the null sender."""
    size: int
    requiretls: bool
    """RFC 8689."""
    tls_optional: bool
    recipients: list[RecipientState]


class Message(MessageHead):
    accepted_at: str


class Page(Shape):
    messages: list[Message]
    next: str | None
    """Give it as `after` for the page that follows; null at the end."""


class Destination(Shape):
    """What waits for one recipient domain. Counts are recipients."""

    domain: str
    connector: str
    """That governs it now."""
    waiting: int
    held: int
    oldest: str | None
    """When the oldest of its messages began to arrive."""
    next_attempt: str | None
    last: Last | None
    """The newest answer, of those of its recipients that are due first."""


class Destinations(Shape):
    destinations: list[Destination]


class Acted(Shape):
    changed: int
    """Recipients touched."""
    running: int
    """Recipients whose attempt is under way and has to end first."""
    unknown: list[str]
    """Ids that are not in the queue."""
    before: dict[str, int]
    """Recipients that were looked at, by state."""
    after: dict[str, int]
    """Those that it concerned, by their state now."""


def endpoints(relay: Queue) -> tuple[Endpoint[Any], ...]:
    async def page(asked: Asked[PageQuestion]) -> Answer:
        given = asked.given
        return Answer(await relay.messages(given.selection, after=given.after, limit=given.limit))

    async def destinations(asked: Asked[DestinationsQuestion]) -> Answer:
        return Answer(await relay.destinations(asked.given.after, asked.given.limit))

    async def message(asked: Asked[MessageQuestion]) -> Answer:
        found = await relay.message(asked.given.id)
        if found is None:
            raise NotFoundError(f"there is no message {asked.given.id} in the queue")
        return Answer(found)

    def act(action: Action) -> Callable[[Asked[SelectionQuestion]], Awaitable[Answer]]:
        async def handler(asked: Asked[SelectionQuestion]) -> Answer:
            selection = asked.given.selection
            reason = asked.given.reason if isinstance(asked.given, BounceQuestion) else ""
            done = await relay.act(action, selection, reason)
            after = done["after"] | ({"reason": reason} if reason else {})
            return Answer(done, change=Change(str(selection), int(done["changed"]), done["before"], after))

        return handler

    return (
        Endpoint("GET", "/queue", Scope.READ, "What is queued, oldest first, in pages.", PageQuestion, Page, page),
        Endpoint(
            "GET",
            "/queue/destinations",
            Scope.READ,
            "What waits, by recipient domain, in pages.",
            DestinationsQuestion,
            Destinations,
            destinations,
        ),
        *(
            Endpoint(
                "POST",
                f"/queue/{action.value}",
                Scope.OPERATE,
                summary,
                BounceQuestion if action is Action.BOUNCE else SelectionQuestion,
                Acted,
                act(action),
                action=action.value,
            )
            for action, summary in _SUMMARIES.items()
        ),
        Endpoint(
            "GET",
            "/queue/{id}",
            Scope.READ,
            "One message, whatever its state.",
            MessageQuestion,
            Message,
            message,
            refusals={404: "There is no such message."},
        ),
    )
