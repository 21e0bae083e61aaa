"""An endpoint of the admin API as a value: path, scope, question, answer, handler.

Routes (`relay.admin.api`) and the OpenAPI document are made from these values and from nothing else, so that neither can say what the
other does not do. Topics (`queue.py`, `trace.py`, ...) each give theirs; `relay.app.desk` lists the topics.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict

Json = Mapping[str, Any]

JSON = "application/json"
BODY = 2**18
"""Bytes of a body, unless an endpoint says otherwise."""


class Scope(StrEnum):
    """What a caller may do. Each holds the ones before it."""

    READ = "read"
    OPERATE = "operate"
    ADMIN = "admin"

    def covers(self, needed: "Scope") -> bool:
        ranks = list(Scope)
        return ranks.index(self) >= ranks.index(needed)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks. `name` is an account's, a certificate's, or "uid 0"; `via` how we know ("socket", "token", "certificate", "console",
    "itself" for what the relay does on its own); `address` where from, "" on the socket."""

    name: str
    scope: Scope
    via: str
    address: str = ""


class Question(BaseModel):
    """Base of what an endpoint asks for: path and query parameters of a GET; path parameters and the JSON body of all others.

    An unknown name is an error. A validator's ValueError is told to the caller as it is.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True, use_attribute_docstrings=True)


class Shape(BaseModel):
    """Base of what an endpoint answers. Only its schema is used, for the document: handlers give plain JSON."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True, use_attribute_docstrings=True)


class Nothing(Question):
    """There is nothing to ask."""


class Problem(Shape):
    """What every refusal answers."""

    error: str
    """What is wrong and what to do, in words."""


class BadQuestionError(ValueError):
    """400: str() says which parameter is wrong and what it may be."""


class NotFoundError(Exception):
    """404: str() says what there is not."""


class Unavailable(Exception):  # noqa: N818 - it is a state of the relay, not an error in the question
    """503: the relay cannot do it now; str() says why, in words for the admin."""


@dataclass(frozen=True, slots=True)
class Change:
    """What a call changed, for the audit log: `what` in words, the states `before` and `after` as JSON where they can be told, and how
    many things it touched. Never a secret."""

    what: str
    count: int = 1
    before: Any = None
    after: Any = None


@dataclass(frozen=True, slots=True)
class Content:
    """An answer that is no JSON. `filename`: the browser is to save it under that name."""

    media_type: str
    chunks: bytes | AsyncIterator[bytes]
    filename: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """`change` is None where nothing was changed (a trial run, a refusal)."""

    body: Json | Content
    status: int = 200
    change: Change | None = None


Note = Callable[[Caller, str, Change], Awaitable[None]]
"""Writes to the audit log: who, the action's name, what changed."""

Q = TypeVar("Q", bound=Question)


@dataclass(frozen=True, slots=True)
class Asked(Generic[Q]):
    """A call: its parsed question, and who asks. `content` gives the body's bytes where the endpoint `takes` something else than JSON."""

    given: Q
    caller: Caller
    content: AsyncIterator[bytes]


@dataclass(frozen=True, slots=True)
class Endpoint(Generic[Q]):
    """`path` may have parameters in braces, named like fields of `asks`. `answers` is the answer's shape, or the media type of a Content.

    `action` is what a change is called in the audit log, "" where there is none to make: whatever has one must not be a GET.
    `refusals` are statuses with a Problem that this endpoint has beside the common ones, and when; `also` statuses other than 200
    whose answer has the same shape. `takes` is the media type of the body, of at most `largest` bytes; where that is not JSON, all of
    the question comes in the query.
    """

    method: Literal["GET", "POST", "PUT", "DELETE"]
    path: str
    scope: Scope
    summary: str
    asks: type[Q]
    answers: type[Shape] | str
    handler: Callable[[Asked[Q]], Awaitable[Answer]]
    action: str = ""
    refusals: Mapping[int, str] = field(default_factory=dict)
    also: Mapping[int, str] = field(default_factory=dict)
    takes: str = JSON
    largest: int = BODY

    @property
    def name(self) -> str:
        return f"{self.method} {self.path}"


async def carry_out(endpoint: Endpoint[Q], asked: Asked[Q], note: Note) -> Answer:
    """Has the endpoint do it, and the audit log know.

    Threat: an order about a million messages that breaks off half-way (a store in trouble, a stop) has done its first part. What part that
    is cannot be told here, and the words of the question may be what was to be forgotten, so neither is noted.
    """
    try:
        answer = await endpoint.handler(asked)
    except (BadQuestionError, NotFoundError):
        raise  # nothing was done
    except BaseException as error:
        if endpoint.action:
            why = str(error) or type(error).__name__
            await asyncio.shield(
                note(asked.caller, endpoint.action, Change(f"it broke off, part may be done: {why}"[:1000], 0))
            )
        raise
    if answer.change is not None:
        await note(asked.caller, endpoint.action, answer.change)
    return answer
