"""Endpoints as an HTTP application: who asks, may they, what is asked, the answer, and a word to the audit log of what was changed.

Knows nothing of what the endpoints are about (`relay.admin.endpoint`), nor how a caller is recognised: each listener brings its own `Identify`.
An error is {"error": TEXT}.

Threat: a body without end, or nested without end; a parameter that is overlooked because its name was mistyped.
"""

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any

from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from relay.admin import openapi
from relay.admin.endpoint import (
    JSON,
    Answer,
    Asked,
    BadQuestionError,
    Caller,
    Content,
    Endpoint,
    Note,
    NotFoundError,
    Q,
    Question,
    Unavailable,
    carry_out,
)

Identify = Callable[[Request], Awaitable[Caller]]
"""Raises NotRecognisedError."""


class NotRecognisedError(Exception):
    """401, or 429 where it was tried too often; str() says what is wanted."""

    def __init__(self, text: str, status: int = 401) -> None:
        super().__init__(text)
        self.status = status


def application(endpoints: Sequence[Endpoint[Any]], identify: Identify, note: Note) -> Starlette:
    """The ASGI application: the endpoints, and the document about them."""
    calls: dict[str, dict[str, _Call]] = {}
    for each in (*endpoints, openapi.endpoint(endpoints)):
        calls.setdefault(each.path, {})[each.method] = _Call(each, identify, note)
    return Starlette(
        # The first route that fits is taken: a name in a path must not hide the word that stands in its place elsewhere.
        routes=[
            Route(path, _by_method(calls[path]), methods=list(calls[path]), name=path)
            for path in sorted(calls, key=lambda each: "{" in each)
        ],
        exception_handlers={
            BadQuestionError: _refusal(400),
            NotFoundError: _refusal(404),
            Unavailable: _refusal(503),
            NotRecognisedError: _not_recognised,
            HTTPException: _http_error,
            Exception: _unexpected,
        },
    )


class _Call:
    def __init__(self, endpoint: Endpoint[Any], identify: Identify, note: Note) -> None:
        self._endpoint, self._identify, self._note = endpoint, identify, note
        fields = endpoint.asks.model_fields
        self._lists = {
            field.alias or name
            for name, field in fields.items()
            if getattr(field.annotation, "__origin__", None) in (tuple, list)
        }

    async def answer(self, request: Request) -> Response:
        endpoint = self._endpoint
        caller = await self._identify(request)
        if endpoint.method != "GET" and _is_from_elsewhere(request):
            return _error(403, "a page of another site may not give orders here")
        if not caller.scope.covers(endpoint.scope):
            return _error(403, f"this needs the scope {endpoint.scope}; {caller.name} has {caller.scope}")
        given = parse(endpoint.asks, await self._given(request))
        asked = Asked(given, caller, _limited(request, endpoint.largest))
        return _response(await carry_out(endpoint, asked, self._note))

    async def _given(self, request: Request) -> dict[str, Any]:
        path = dict(request.path_params)
        in_query = self._endpoint.method == "GET" or self._endpoint.takes != JSON
        given = self._query(request) if in_query else await _body(request, self._endpoint.largest)
        for name in path:
            if name in given:
                raise BadQuestionError(f"{name}: it stands in the path already")
        return given | path

    def _query(self, request: Request) -> dict[str, Any]:
        query = request.query_params
        found: dict[str, Any] = {}
        for name in query:
            values = query.getlist(name)
            if name in self._lists:
                found[name] = values
            elif len(values) > 1:
                raise BadQuestionError(f"{name[:80]}: it is given more than once")
            else:
                found[name] = values[0]
        return found


def _by_method(calls: Mapping[str, _Call]) -> Callable[[Request], Awaitable[Response]]:
    async def answer(request: Request) -> Response:
        return await calls["GET" if request.method == "HEAD" else request.method].answer(request)

    return answer


def _is_from_elsewhere(request: Request) -> bool:
    """Threat: a browser that holds a client certificate shows it for any page's sake. Every browser of today says whose sake it is; programs
    say nothing."""
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site not in ("same-origin", "none")
    origin = request.headers.get("origin")
    return origin is not None and origin.partition("://")[2] != request.headers.get("host")


def parse(asks: type[Q], given: Mapping[str, Any]) -> Q:
    """Raises BadQuestionError, which names the parameter."""
    try:
        return asks.model_validate(given)
    except ValidationError as error:
        raise BadQuestionError(_said(asks, error)) from None


def _said(asks: type[Question], error: ValidationError) -> str:
    """The first thing that is wrong. A misspelt name comes first: it may be why another is missing."""
    problems = error.errors(include_url=False)
    first = next((each for each in problems if each["type"] == "extra_forbidden"), problems[0])
    name = ".".join(str(part) for part in first["loc"])[:80]
    known = sorted(field.alias or key for key, field in asks.model_fields.items())
    match first["type"]:
        case "extra_forbidden":
            return f"{name}: there is no such parameter here, only {', '.join(known) or 'none'}"
        case "missing":
            return f"{name}: it must be given"
        case "value_error":
            text = str(first["ctx"]["error"])
        case _:
            text = first["msg"]
    return f"{name}: {text}" if name else text


async def _limited(request: Request, largest: int) -> AsyncIterator[bytes]:
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > largest:
            raise BadQuestionError("the body is too large")
        yield chunk


async def _body(request: Request, largest: int) -> dict[str, Any]:
    data = b"".join([chunk async for chunk in _limited(request, largest)])
    try:
        found = json.loads(data or b"{}")
    except ValueError:  # bad UTF-8 too
        raise BadQuestionError("the body is not JSON") from None
    except RecursionError:
        raise BadQuestionError("the body is nested too deep") from None
    if not isinstance(found, dict):
        raise BadQuestionError('the body is a JSON object, such as {"name": "value"}')
    return found


def _response(answer: Answer) -> Response:
    content = answer.body
    if not isinstance(content, Content):
        return JSONResponse(content, answer.status)
    headers = {"content-disposition": f'attachment; filename="{content.filename}"'} if content.filename else {}
    if isinstance(content.chunks, bytes):
        return Response(content.chunks, answer.status, headers, content.media_type)
    return StreamingResponse(content.chunks, answer.status, headers, content.media_type)


def _error(status: int, text: str, headers: Mapping[str, str] | None = None) -> Response:
    return JSONResponse({"error": text}, status, headers)


def _refusal(status: int) -> Callable[[Request, Exception], Awaitable[Response]]:
    async def answer(_request: Request, error: Exception) -> Response:
        return _error(status, str(error))

    return answer


async def _not_recognised(_request: Request, error: Exception) -> Response:
    status = error.status if isinstance(error, NotRecognisedError) else 401
    headers = {"www-authenticate": "Bearer"} if status == 401 else {}
    return _error(status, str(error), headers)


async def _http_error(_request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    given = (error.headers or {}).get("Allow", "") if isinstance(error, HTTPException) else ""
    allow = ", ".join(sorted(filter(None, given.split(", "))))  # RFC 9110 section 15.5.6: a 405 says what there is
    texts = {404: "there is no such path", 405: f"not with this method, only {allow}"}
    return _error(status, texts.get(status, "not possible"), {"allow": allow} if allow else {})


async def _unexpected(_request: Request, error: Exception) -> Response:
    # starlette hands the exception on after this answer, so that it stands in the log with its traceback.
    return _error(500, f"the relay met an unexpected {type(error).__name__}; its log says more")
