"""The console as an ASGI application, with all its routes. Reading needs scope `read`, acting on mail `operate`, taking a change `admin`.

Mounted beside the API on the admin listener, below `forms.ROOT`. All state (sessions, brakes) is in memory and belongs to one process.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp

from relay.admin.console.desk import Accounts, Desk
from relay.admin.console.forms import ROOT
from relay.admin.console.guard import Guard
from relay.admin.console.pages import Pages, static_file, url
from relay.admin.console.sessions import Sessions
from relay.admin.console.signing import Signing
from relay.admin.console.views import audit, certificates, connectors, deeds, overview, queue, report, traces
from relay.admin.console.visit import Door, Handler
from relay.admin.endpoint import Note, Scope


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the console stands on.

    `hosts` are the names and addresses that it is reached by, without port; `about` gives {"hostname", "version"}; `clock` the time in UTC and
    `monotonic` seconds that never go back.
    """

    desk: Desk
    accounts: Accounts
    note: Note
    hosts: Callable[[], Collection[str]]
    about: Callable[[], dict[str, Any]]
    clock: Callable[[], datetime]
    monotonic: Callable[[], float]


_PAGES: tuple[tuple[str, str, Handler, Scope], ...] = (
    ("GET", "/", overview.overview, Scope.READ),
    ("GET", "/queue", queue.queue, Scope.READ),
    ("GET", "/queue/{id}", queue.message, Scope.READ),
    ("POST", "/queue/confirm", deeds.confirm, Scope.OPERATE),
    ("POST", "/queue/act", deeds.act, Scope.OPERATE),
    ("GET", "/suspend", deeds.suspend_form, Scope.OPERATE),
    ("POST", "/suspend", deeds.suspend, Scope.OPERATE),
    ("POST", "/resume", deeds.resume, Scope.OPERATE),
    ("GET", "/trace", traces.search, Scope.READ),
    ("GET", "/trace/{id}", traces.trace, Scope.READ),
    ("GET", "/connectors", connectors.connectors, Scope.READ),
    ("GET", "/connectors/{name}", connectors.connector, Scope.READ),
    ("POST", "/explain", connectors.explain, Scope.READ),
    ("POST", "/probe", connectors.probe, Scope.OPERATE),
    ("GET", "/change", connectors.change, Scope.READ),
    ("POST", "/change/take", connectors.take, Scope.ADMIN),
    ("GET", "/certificates", certificates.certificates, Scope.READ),
    ("GET", "/certificates/sheet", certificates.sheet, Scope.READ),
    ("GET", "/report", report.report, Scope.READ),
    ("GET", "/report.csv", report.report_csv, Scope.READ),
    ("GET", "/audit", audit.audit, Scope.ADMIN),
)


def console(around: Surroundings) -> ASGIApp:
    """The application. It answers below `ROOT` only."""
    sessions, pages = Sessions(around.monotonic), Pages(around.clock, around.about)
    door = Door(around.desk, around.accounts, sessions, pages, around.clock)
    signing = Signing(around.accounts, around.note, sessions, pages)
    routes: list[BaseRoute] = [
        Route(ROOT, _home, methods=["GET"]),
        Route(f"{ROOT}/static/{{name}}", _static, methods=["GET"]),
        Route(f"{ROOT}/sign-in", signing.show, methods=["GET"]),
        Route(f"{ROOT}/sign-in", signing.sign_in, methods=["POST"]),
        Route(f"{ROOT}/sign-out", door.page(signing.sign_out), methods=["POST"]),
        *(
            Route(f"{ROOT}{path}", door.page(handler, scope), methods=[method])
            for method, path, handler, scope in _PAGES
        ),
    ]
    app = Starlette(routes=routes, exception_handlers={HTTPException: _no_such_page, Exception: _unexpected})
    return Guard(app, around.hosts)


async def _home(_request: Request) -> Response:
    return RedirectResponse(url("/"), 303)


async def _static(request: Request) -> Response:
    return static_file(str(request.path_params["name"])) or PlainTextResponse("There is no such file.\n", 404)


async def _no_such_page(_request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    text = {404: "There is no such page.", 405: "Not with this method."}.get(status, "That is not possible.")
    return PlainTextResponse(f"{text}\n", status)


async def _unexpected(_request: Request, error: Exception) -> Response:
    # starlette hands the exception on after this answer, so that it stands in the log with its traceback.
    return PlainTextResponse(f"The relay met an unexpected {type(error).__name__}; its log says more.\n", 500)
