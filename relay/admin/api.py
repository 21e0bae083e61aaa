"""The HTTP API on a unix socket: the queue, traces, reload and status for `relay queue`, `relay trace` and `relay reload`.

    GET  /status
    GET  /queue?to=DOMAIN&connector=NAME&state=STATE&after=ID&limit=N
    GET  /queue/ID
    POST /queue/ACTION      {"ids": [...]} or {"all": true} or {"to": DOMAIN, "connector": NAME}
    GET  /trace?id=&to=&from=&message_id=&since=&limit=
    GET  /reports?domain=&day=&limit=
    GET  /reports/show?domain=&day=
    GET  /reports/received?since=&limit=
    POST /reports/send      {} or {"domain": DOMAIN, "day": DAY}
    POST /reload            {"dry_run": true}

Answers are JSON; an error is {"error": TEXT}. What is asked is checked in `relay.admin.questions`, who may ask at all by the socket's mode
(`relay.admin.unix`). Answers come in pages, so that a queue of a million messages fills nobody's memory.
"""

import json
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from relay.admin.operations import Action, Operations, Unavailable
from relay.admin.questions import (
    BadQuestionError,
    action_question,
    page_question,
    received_question,
    reload_question,
    report_question,
    reports_question,
    send_question,
    trace_question,
)
from relay.mail.events import AdminActed, Emit

_LARGEST_BODY = 2**18

Answer = Callable[[Request], Awaitable[Response]]


def application(operations: Operations, emit: Emit) -> Starlette:
    """The ASGI application. `emit` hears of every change that somebody made (AdminActed)."""
    api = _Api(operations, emit)
    return Starlette(
        routes=[
            Route("/status", api.status, methods=["GET"]),
            Route("/queue", api.queue, methods=["GET"]),
            Route("/queue/{name}", api.message, methods=["GET"]),
            Route("/queue/{name}", api.act, methods=["POST"]),
            Route("/trace", api.trace, methods=["GET"]),
            Route("/reports", api.reports, methods=["GET"]),
            Route("/reports/show", api.report, methods=["GET"]),
            Route("/reports/received", api.received_reports, methods=["GET"]),
            Route("/reports/send", api.send_reports, methods=["POST"]),
            Route("/reload", api.reload, methods=["POST"]),
        ],
        exception_handlers={
            BadQuestionError: _bad_question,
            Unavailable: _unavailable,
            HTTPException: _http_error,
            Exception: _unexpected,
        },
    )


class _Api:
    def __init__(self, operations: Operations, emit: Emit) -> None:
        self._operations = operations
        self._emit = emit

    async def status(self, _request: Request) -> Response:
        return JSONResponse(await self._operations.status())

    async def queue(self, request: Request) -> Response:
        query = request.query_params
        selection, after, limit = page_question(query, query.getlist("state"))
        return JSONResponse(await self._operations.messages(selection, after=after, limit=limit))

    async def message(self, request: Request) -> Response:
        name = request.path_params["name"]
        found = await self._operations.message(name)
        return _error(404, f"there is no message {name[:80]} in the queue") if found is None else JSONResponse(found)

    async def act(self, request: Request) -> Response:
        name = request.path_params["name"]
        if name not in set(Action):
            return _error(404, f"{name[:80]!r} is none of {', '.join(Action)}")
        selection = action_question(await _body(request))
        done = await self._operations.act(Action(name), selection)
        self._emit(AdminActed(_uid(request), name, str(selection), int(done["changed"])))
        return JSONResponse(done)

    async def trace(self, request: Request) -> Response:
        found = await self._operations.trace(trace_question(request.query_params))
        return JSONResponse({"traces": list(found)})

    async def reports(self, request: Request) -> Response:
        return JSONResponse(await self._operations.reports(reports_question(request.query_params)))

    async def report(self, request: Request) -> Response:
        query = report_question(request.query_params)
        found = await self._operations.report(query)
        if found is None:
            return _error(404, f"no session was counted for {query.domain} on that day")
        return JSONResponse(found)

    async def received_reports(self, request: Request) -> Response:
        since, limit = received_question(request.query_params)
        return JSONResponse(await self._operations.received_reports(since, limit))

    async def send_reports(self, request: Request) -> Response:
        query = send_question(await _body(request), datetime.now(UTC).date())
        done = await self._operations.send_reports(query)
        selection = " ".join(filter(None, (query.domain, query.day.isoformat() if query.day else ""))) or "all"
        self._emit(AdminActed(_uid(request), "send-reports", selection, sum(done["states"].values())))
        return JSONResponse(done)

    async def reload(self, request: Request) -> Response:
        dry_run = reload_question(await _body(request))
        result = await self._operations.reload(dry_run=dry_run)
        if not dry_run:
            self._emit(AdminActed(_uid(request), "reload", "; ".join(result.weaker), int(result.taken)))
        answer = {
            "taken": result.taken,
            "changed": result.changed,
            "dry_run": dry_run,
            "weaker": list(result.weaker),
            "restart": list(result.restart),
            "errors": list(result.errors),
        }
        return JSONResponse(answer, status_code=422 if result.errors else 200)


def _uid(request: Request) -> int:
    """Who is at the other end of the socket (`relay.admin.unix` puts it where a port would be)."""
    return request.client.port if request.client is not None else -1


async def _body(request: Request) -> Any:
    data = bytearray()
    async for chunk in request.stream():
        data += chunk
        if len(data) > _LARGEST_BODY:
            raise BadQuestionError("the body is too large")
    try:
        return json.loads(bytes(data) or b"{}")
    except ValueError:  # bad UTF-8 too
        raise BadQuestionError("the body is not JSON") from None
    except RecursionError:
        raise BadQuestionError("the body is nested too deep") from None


def _error(status: int, text: str) -> Response:
    return JSONResponse({"error": text}, status_code=status)


async def _bad_question(_request: Request, error: Exception) -> Response:
    return _error(400, str(error))


async def _unavailable(_request: Request, error: Exception) -> Response:
    return _error(503, str(error))


async def _http_error(_request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    return _error(status, {404: "there is no such path", 405: "not with this method"}.get(status, "not possible"))


async def _unexpected(_request: Request, error: Exception) -> Response:
    # starlette hands the exception on after this answer, so that it stands in the log with its traceback.
    return _error(500, f"the relay met an unexpected {type(error).__name__}; its log says more")
