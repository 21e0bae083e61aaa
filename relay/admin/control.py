"""The flow of mail: suspensions, detours, everything at once, and traces that are to be forgotten."""

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Protocol, Self

from pydantic import BeforeValidator, Field, model_validator

from relay.admin.endpoint import (
    Answer,
    Asked,
    BadQuestionError,
    Change,
    Endpoint,
    Json,
    Nothing,
    Question,
    Scope,
    Shape,
)
from relay.admin.parameters import Between, ConnectorName, Flag, Line, Mailbox, MessageId, Moment
from relay.admin.queue import Acted, Action, Queue, Selection, SelectionQuestion
from relay.config.values import parse_pattern
from relay.mail.address import NULL, AddressError, parse_mailbox
from relay.policy.suspension import sender_key

_MOST_ID = 2**31


class Refused(Exception):  # noqa: N818 - the answer is no; nothing went wrong
    """409: str() says why the relay does not do it."""


@dataclass(frozen=True, slots=True)
class Suspend:
    """`stops` is one of "to", "connector", "from"; `what` is normalised."""

    stops: str
    what: str
    reason: str
    until: datetime | None


@dataclass(frozen=True, slots=True)
class Undo:
    """Which suspensions to end: one `id`, those of `what`, or `everything`."""

    id: int = 0
    stops: str = ""
    what: str = ""
    everything: bool = False


@dataclass(frozen=True, slots=True)
class Purge:
    """Which traces to forget; all that is given must hold."""

    id: str
    recipient: str
    sender: str
    before: datetime | None

    def __str__(self) -> str:
        words = (
            self.id,
            f"to {self.recipient}" if self.recipient else "",
            f"from {self.sender}" if self.sender else "",
            f"before {self.before:%Y-%m-%dT%H:%M:%SZ}" if self.before else "",
        )
        return ", ".join(filter(None, words))


class Control(Protocol):
    """What this topic asks of the relay. All may raise Unavailable, and Refused with the reason."""

    async def suspensions(self) -> Json:
        """In the shape of SuspensionList."""
        ...

    async def suspend(self, wanted: Suspend, who: str) -> Json:
        """In the shape of SuspensionShape; one about the same mail is replaced."""
        ...

    async def resume(self, undo: Undo) -> Json:
        """In the shape of Resumed."""
        ...

    async def reroute(self, selection: Selection, via: str, *, weaker: bool, anywhere: bool) -> Json:
        """In the shape of Rerouted. `via`: a connector, a host with or without port, or "default". `anywhere`: to hosts that the
        configuration does not know, too. Raises Refused."""
        ...

    async def forget(self, purge: Purge) -> int:
        """How many messages' traces were forgotten. Mail in the queue is never touched."""
        ...


def _pattern(value: Any) -> str:
    return parse_pattern(value) if value != "" else ""


def _sender(value: Any) -> str:
    """An address, "@domain" or a domain, or "<>"; as a suspension has it."""
    if not isinstance(value, str):
        raise ValueError("a string")
    text = value.strip()
    if not text:
        return ""
    if text == "<>":
        return sender_key(NULL)
    try:
        if "@" in text.removeprefix("@"):
            return sender_key(parse_mailbox(text.removeprefix("<").removesuffix(">")))
        return "@" + parse_mailbox(f"x@{text.removeprefix('@')}").domain
    except AddressError as error:
        raise ValueError(str(error)) from None


Pattern = Annotated[str, BeforeValidator(_pattern)]
Sender = Annotated[str, BeforeValidator(_sender)]


class _Which(Question):
    to: Pattern = ""
    """Recipient domains: exact, `*.x` or `*`, as in a connector's `match`."""
    connector: ConnectorName = ""
    sender: Sender = Field(default="", alias="from")
    """An envelope sender's address, "@domain", or `<>`."""

    @property
    def named(self) -> list[tuple[str, str]]:
        given = (("to", self.to), ("connector", self.connector), ("from", self.sender))
        return [(stops, what) for stops, what in given if what]


class SuspendQuestion(_Which):
    """One of `to`, `connector` and `from`."""

    reason: Line = ""
    """Why, for whoever looks at it later. The senders do not see it."""
    until: Moment = None
    """It ends by itself then."""

    @model_validator(mode="after")
    def _one(self) -> Self:
        if len(self.named) != 1:
            raise ValueError("say what to suspend: one of to, connector and from")
        return self


class ResumeQuestion(_Which):
    """An `id`, or one of `to`, `connector` and `from` as it was suspended, or `all`."""

    id: Annotated[int, Between(1, _MOST_ID)] | None = None
    all: Flag = False

    @model_validator(mode="after")
    def _one(self) -> Self:
        if len(self.named) + (self.id is not None) + self.all != 1:
            raise ValueError("say what to resume: an id, one of to, connector and from, or all")
        return self

    @property
    def undo(self) -> Undo:
        stops, what = self.named[0] if self.named else ("", "")
        return Undo(self.id or 0, stops, what, self.all)


class RerouteQuestion(SelectionQuestion):
    via: Annotated[str, Field(min_length=1, max_length=300)]
    """A connector's name, a host with or without port, or `default`: its own way again."""
    weaker: Flag = False
    """The connector may ask for less than the recipients' own does. Needs the scope admin."""


class PurgeQuestion(Question):
    """At least one; all that are given must hold."""

    id: MessageId = ""
    to: Mailbox = ""
    """A recipient's address, or "@domain"."""
    sender: Mailbox = Field(default="", alias="from")
    before: Moment = None
    """Of messages that ended before."""

    @model_validator(mode="after")
    def _says_which(self) -> Self:
        if not (self.id or self.to or self.sender or self.before):
            raise ValueError("say which traces: id, to, from or before")
        return self

    @property
    def purge(self) -> Purge:
        return Purge(self.id, self.to, self.sender, self.before)


class SuspensionShape(Shape):
    id: int
    to: str | None = None
    connector: str | None = None
    sender: str | None = Field(default=None, alias="from")
    reason: str
    who: str
    since: str
    until: str | None


class SuspensionList(Shape):
    suspensions: list[SuspensionShape]


class Resumed(Shape):
    ended: list[SuspensionShape]


class Rerouted(Acted):
    via: str | None
    """As it is kept with each recipient; null for its own way."""
    weaker: list[str]
    """What is not asked of this mail any more, by domain."""


class Purged(Shape):
    forgotten: int
    """Messages."""


_REFUSED = {409: "The relay does not do it, and says why."}
_SUSPEND = "Stop attempts at mail that matches. It keeps waiting, and its time runs on."
_REROUTE = "Send what waits another way, or its own way again. What it must satisfy does not become less."
_FLUSH = "Try all that waits now; destinations that were down are tried too. What is suspended stays so."
_PURGE = "Forget the traces of messages that have ended. What is still in the queue is never touched."


def endpoints(relay: Control, queue: Queue) -> tuple[Endpoint[Any], ...]:
    return (*_about_suspensions(relay), *_about_mail(relay, queue), _about_traces(relay))


def _about_suspensions(relay: Control) -> tuple[Endpoint[Any], ...]:
    async def suspensions(_asked: Asked[Nothing]) -> Answer:
        return Answer(await relay.suspensions())

    async def suspend(asked: Asked[SuspendQuestion]) -> Answer:
        given = asked.given
        (stops, what), before = given.named[0], await relay.suspensions()
        try:
            made = await relay.suspend(Suspend(stops, what, given.reason, given.until), asked.caller.name)
        except Refused as error:
            return _no(error)
        was = next((each for each in before["suspensions"] if each.get(stops) == what), None)
        return Answer(made, change=Change(f"{stops} {what}", 1, was, made))

    async def resume(asked: Asked[ResumeQuestion]) -> Answer:
        done = await relay.resume(asked.given.undo)
        what = ", ".join(
            f"{stops} {each[stops]}" for each in done["ended"] for stops in ("to", "connector", "from") if stops in each
        )
        ended = len(done["ended"])
        return Answer(done, change=Change(what[:1000], ended, done["ended"], []) if ended else None)

    path, act = "/suspensions", Scope.OPERATE
    return (
        Endpoint("GET", path, Scope.READ, "What is suspended now.", Nothing, SuspensionList, suspensions),
        Endpoint(
            "POST", path, act, _SUSPEND, SuspendQuestion, SuspensionShape, suspend, action="suspend", refusals=_REFUSED
        ),
        Endpoint("POST", f"{path}/resume", act, "End suspensions.", ResumeQuestion, Resumed, resume, action="resume"),
    )


def _about_mail(relay: Control, queue: Queue) -> tuple[Endpoint[Any], ...]:
    async def reroute(asked: Asked[RerouteQuestion]) -> Answer:
        given = asked.given
        if given.weaker and not asked.caller.scope.covers(Scope.ADMIN):
            raise BadQuestionError(
                f"weaker: this needs the scope {Scope.ADMIN}; {asked.caller.name} has {asked.caller.scope}"
            )
        try:
            anywhere = asked.caller.scope.covers(Scope.ADMIN)
            done = await relay.reroute(given.selection, given.via, weaker=given.weaker, anywhere=anywhere)
        except Refused as error:
            return _no(error)
        after = {"via": done["via"], "weaker": done["weaker"]}
        what = f"{given.selection} via {given.via}{' although weaker' if done['weaker'] else ''}"
        return Answer(done, change=Change(what, int(done["changed"]) + int(done["running"]), after=after))

    async def flush(asked: Asked[SelectionQuestion]) -> Answer:
        done = await queue.act(Action.RETRY, asked.given.selection)
        return Answer(done, change=Change(str(asked.given.selection), int(done["changed"])))

    act = Scope.OPERATE
    return (
        Endpoint(
            "POST",
            "/queue/reroute",
            act,
            _REROUTE,
            RerouteQuestion,
            Rerouted,
            reroute,
            action="reroute",
            refusals=_REFUSED,
        ),
        Endpoint("POST", "/queue/flush", act, _FLUSH, SelectionQuestion, Acted, flush, action="flush"),
    )


def _about_traces(relay: Control) -> Endpoint[Any]:
    async def forget(asked: Asked[PurgeQuestion]) -> Answer:
        purge = asked.given.purge
        forgotten = await relay.forget(purge)
        # The log of who did what must not keep what was to be forgotten.
        what = str(Purge(purge.id, _domain(purge.recipient), _domain(purge.sender), purge.before))
        return Answer({"forgotten": forgotten}, change=Change(what, forgotten))

    return Endpoint("POST", "/trace/purge", Scope.ADMIN, _PURGE, PurgeQuestion, Purged, forget, action="purge-traces")


def _no(error: Refused) -> Answer:
    return Answer({"error": str(error)}, status=409)


def _domain(mailbox: str) -> str:
    """Of an address that is to be forgotten: only where it was."""
    local, at, domain = mailbox.rpartition("@")
    return f"somebody@{domain}" if local and at else mailbox
