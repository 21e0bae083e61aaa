"""The admin API, asked within the process: what a page shows and does goes through the same endpoints, scopes and audit log as what the command
line asks.

Threat: a page that forgets to look at the scope. The desk looks at it, whatever the page did.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Protocol

from relay.admin.api import parse
from relay.admin.endpoint import Asked, Caller, Content, Endpoint, Note, carry_out

Json = Mapping[str, Any]


class NotAllowedError(Exception):
    """403: the caller's scope does not reach; str() says what it needs."""


class RefusedError(Exception):
    """409 and the like: the relay does not do it; str() says why."""


class Accounts(Protocol):
    """Who may sign in: `relay.admin.accounts`. It brakes guessing, and writes sign-ins to the audit log."""

    async def sign_in(self, name: str, password: str, address: str) -> Caller | None:
        """Who that is; None for a wrong name and a wrong password alike. TooManyFailuresError where nothing is tried now."""
        ...

    def holder(self, name: str) -> Caller | None:
        """Who somebody that signed in earlier is now: None once the account is gone."""
        ...

    def mark(self, name: str) -> str:
        """What a session of that person must have had at its sign-in: another one after a change of the password."""
        ...


class Desk:
    """`endpoints` are those of the API, `note` writes to the audit log."""

    def __init__(self, endpoints: Sequence[Endpoint[Any]], note: Note) -> None:
        self._endpoints = {each.name: each for each in endpoints}
        self._note = note

    async def ask(self, caller: Caller, name: str, given: Json | None = None) -> Json:
        """The JSON answer; `name` is a method and a path, as in "GET /queue/{id}".

        NotAllowedError, RefusedError, and what endpoints raise: BadQuestionError, NotFoundError, Unavailable.
        """
        endpoint = self._endpoints[name]
        if not caller.scope.covers(endpoint.scope):
            raise NotAllowedError(f"this needs the scope {endpoint.scope}; {caller.name} has {caller.scope}")
        asked = Asked(parse(endpoint.asks, given or {}), caller, _nothing())
        answer = await carry_out(endpoint, asked, self._note)
        if isinstance(answer.body, Content):
            raise TypeError(f"{name} answers {answer.body.media_type}, which no page shows")
        if answer.status >= 400 and "error" in answer.body:
            raise RefusedError(str(answer.body["error"]))
        return answer.body


async def _nothing() -> AsyncIterator[bytes]:
    no: tuple[bytes, ...] = ()
    for chunk in no:
        yield chunk
