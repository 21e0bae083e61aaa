"""Who changed what: `GET /audit`."""

from collections.abc import Sequence
from typing import Annotated, Any, Protocol

from relay.admin.endpoint import Answer, Asked, Endpoint, Json, Question, Scope, Shape
from relay.admin.parameters import Between, Moment, PageLimit, Text
from relay.mail.audit import AuditQuery


class AuditLog(Protocol):
    """What this topic asks of the relay. May raise Unavailable."""

    async def audit(self, query: AuditQuery) -> Sequence[Json]:
        """In the shape of Entry, newest first."""
        ...


class AuditQuestion(Question):
    since: Moment = None
    who: Text = ""
    action: Text = ""
    below: Annotated[int, Between(0, 999_999_999)] = 0
    """The `next` of the page before."""
    limit: PageLimit = 100


class Entry(Shape):
    n: int
    at: str
    who: str
    """An account, a certificate's name, "uid 0" at the socket; "relay" for what it does by itself."""
    via: str
    """socket, token, certificate, console, or itself."""
    address: str | None
    action: str
    what: str
    count: int
    """How many things it touched."""
    before: Any
    after: Any


class Entries(Shape):
    entries: list[Entry]
    next: int | None
    """Give it as `below` for the page that follows; null at the end."""


def endpoints(relay: AuditLog) -> tuple[Endpoint[Any], ...]:
    async def audit(asked: Asked[AuditQuestion]) -> Answer:
        given = asked.given
        query = AuditQuery(given.since, given.who, given.action, given.below or None, given.limit)
        found = list(await relay.audit(query))
        return Answer({"entries": found, "next": found[-1]["n"] if len(found) == given.limit else None})

    summary = "Every change that somebody made, and every sign-in, newest first."
    return (Endpoint("GET", "/audit", Scope.ADMIN, summary, AuditQuestion, Entries, audit),)
