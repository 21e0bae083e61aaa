"""Messages out of the queue and into it, with their envelopes."""

from collections.abc import AsyncIterator
from typing import Any, Protocol

from relay.admin.endpoint import (
    Answer,
    Asked,
    Change,
    Content,
    Endpoint,
    Json,
    NotFoundError,
    Question,
    Scope,
    Shape,
)
from relay.admin.parameters import Flag, MessageId

MESSAGE = "message/rfc822"
_WITH_ENVELOPE = "application/octet-stream"
_LARGEST = 2**40  # what counts is limits.message_size


class ForbiddenError(Exception):
    """409: str() says why the message is not taken."""


class Transfer(Protocol):
    """What this topic asks of the relay. May raise Unavailable."""

    async def envelope(self, message_id: str) -> Json | None:
        """In the shape of Envelope; None where no such message waits."""
        ...

    async def content(self, message_id: str) -> AsyncIterator[bytes] | None:
        """The received bytes; None where no such message waits."""
        ...

    async def take(self, content: AsyncIterator[bytes], *, again: bool, who: str) -> Json:
        """In the shape of Imported. Raises ForbiddenError."""
        ...


class WhichQuestion(Question):
    id: MessageId


class ImportQuestion(Question):
    again: Flag = False
    """Even where a message of that id was imported before, or is here."""


class Envelope(Shape):
    """As `POST /queue/import` takes it."""

    ironpost: int
    id: str
    size: int
    message_id: str
    sender: str
    recipients: list[dict[str, Any]]
    body: str
    smtputf8: bool
    ret: str
    envid: str
    requiretls: bool
    tls_optional: bool
    header: str
    """What this relay puts in front of the message."""
    accepted: dict[str, Any]


class Imported(Shape):
    id: str
    """What it is called here."""
    size: int
    recipients: int


_TAKE = "Put a message into the queue; durable when answered. The body: its envelope as one line of JSON, LF, the message with CRLF line ends."
_NONE = {404: "There is no such message in the queue."}


def endpoints(relay: Transfer) -> tuple[Endpoint[Any], ...]:
    async def envelope(asked: Asked[WhichQuestion]) -> Answer:
        found = await relay.envelope(asked.given.id)
        if found is None:
            raise NotFoundError(f"there is no message {asked.given.id} in the queue")
        return Answer(found)

    async def export(asked: Asked[WhichQuestion]) -> Answer:
        found = await relay.content(asked.given.id)
        if found is None:
            raise NotFoundError(f"there is no message {asked.given.id} in the queue")
        content = Content(MESSAGE, found, f"{asked.given.id}.eml")
        return Answer(content, change=Change(asked.given.id))

    async def take(asked: Asked[ImportQuestion]) -> Answer:
        try:
            done = await relay.take(asked.content, again=asked.given.again, who=asked.caller.name)
        except ForbiddenError as error:
            return Answer({"error": str(error)}, status=409)
        return Answer(done, change=Change(str(done["id"]), int(done["recipients"])))

    scope = Scope.ADMIN  # whoever reads or writes mail
    return (
        Endpoint(
            "GET",
            "/queue/{id}/envelope",
            scope,
            "The envelope of a message that waits.",
            WhichQuestion,
            Envelope,
            envelope,
            refusals=_NONE,
        ),
        Endpoint(
            "POST",
            "/queue/{id}/export",
            scope,
            "The received bytes of a message that waits; it stays in the queue.",
            WhichQuestion,
            MESSAGE,
            export,
            action="export",
            refusals=_NONE,
        ),
        Endpoint(
            "POST",
            "/queue/import",
            scope,
            _TAKE,
            ImportQuestion,
            Imported,
            take,
            action="import",
            refusals={409: "The message is not taken, and why."},
            takes=_WITH_ENVELOPE,
            largest=_LARGEST,
        ),
    )
