"""One request of somebody who is signed in: who, the form that came, and the ways to answer. Every page goes through `Door.page`.

The door refuses what the scope does not allow, whatever the page showed, and a form without the session's token. An exception becomes a page
that says what to do, never the exception's text.

The cookie is SameSite=Strict, so a browser leaves it out when somebody follows a link in a mail or a chat. Such a visit is answered with a page
that leads to the same address once more, this time from a page of ours, and with the cookie. Threat: none is added. It happens for a GET that
a person navigates to and for nothing else, no GET changes anything, and forms from elsewhere come without a cookie as before.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from relay.admin.console.desk import Accounts, Desk, NotAllowedError, RefusedError
from relay.admin.console.facts import Facts
from relay.admin.console.forms import ROOT, Form, FormError, local_path, read_form, token_fits
from relay.admin.console.pages import Pages, url
from relay.admin.console.sessions import Session, Sessions
from relay.admin.endpoint import BadQuestionError, Caller, NotFoundError, Scope, Unavailable

NAVIGATION = (
    ("/", "Overview", Scope.READ),
    ("/queue", "Queue", Scope.READ),
    ("/trace", "Trace", Scope.READ),
    ("/connectors", "Connectors", Scope.READ),
    ("/certificates", "Certificates", Scope.READ),
    ("/report", "Security report", Scope.READ),
    ("/audit", "Audit log", Scope.ADMIN),
)
REFRESH = "refresh"
"""The query parameter of a page that refreshes itself: nobody may be looking, so it keeps no session alive."""

_COOKIE = "relay-console"


@dataclass(frozen=True, slots=True)
class Visit:
    """`form` is empty for a page that was only asked for."""

    request: Request
    session: Session
    session_id: str
    form: Form
    facts: Facts
    pages: Pages
    now: datetime

    @property
    def caller(self) -> Caller:
        return self.session.caller

    def query(self, name: str, most: int = 320) -> str:
        return self.request.query_params.get(name, "").strip()[:most]

    def number(self, name: str) -> int:
        """A whole number in the query, 0 where there is none."""
        text = self.query(name, 6)
        return int(text) if text.isdecimal() and text.isascii() else 0

    def may(self, scope: Scope) -> bool:
        return self.caller.scope.covers(scope)

    def show(self, template: str, place: str, *, status: int = 200, **values: Any) -> Response:
        """A page under `place` of the navigation."""
        notices = list(self.session.notices)
        if (
            REFRESH not in self.request.query_params
        ):  # a page that looks again in the background shows nobody what was done in another
            self.session.notices.clear()
        return self.pages.render(
            template,
            status=status,
            place=place,
            navigation=[(path, name) for path, name, scope in NAVIGATION if self.may(scope)],
            caller=self.caller,
            csrf=self.session.csrf,
            notices=notices,
            operates=self.may(Scope.OPERATE),
            administers=self.may(Scope.ADMIN),
            **values,
        )

    def go(self, path: str, notice: str = "", **query: Any) -> Response:
        """To another page, which says `notice` once. 303: what was sent is not sent again."""
        if notice:
            self.session.notices.append(notice[:2000])
        return RedirectResponse(url(path, **query), 303)

    def refuse(self, status: int, heading: str, text: str, *, place: str = "", kind: str = "bad") -> Response:
        return self.show(
            "message_page.html", place, status=status, heading=heading, text=text, kind=kind, back=url(place or "/")
        )


Handler = Callable[[Visit], Awaitable[Response]]


class Door:
    """Lets requests in to the pages."""

    def __init__(
        self, desk: Desk, accounts: Accounts, sessions: Sessions, pages: Pages, clock: Callable[[], datetime]
    ) -> None:
        self._desk, self._accounts, self._sessions, self._pages, self._clock = desk, accounts, sessions, pages, clock

    def page(self, handler: Handler, scope: Scope = Scope.READ) -> Callable[[Request], Awaitable[Response]]:
        """The endpoint of `handler`, for those whose scope reaches `scope`."""

        async def endpoint(request: Request) -> Response:
            session_id = cookie_of(request)
            session = self._session(request, session_id)
            if session is None:
                return self._once_more(request) if _from_elsewhere(request) else _to_sign_in(request)
            facts = Facts(self._desk, session.caller)
            visit = Visit(request, session, session_id, Form(), facts, self._pages, self._clock())
            if not session.caller.scope.covers(scope):
                text = f"This needs an account of scope {scope.value}; {session.caller.name} has {session.caller.scope.value}."
                return visit.refuse(403, "Not allowed", text)
            return await self._answer(visit, handler)

        return endpoint

    def _once_more(self, request: Request) -> Response:
        # From our own page it is not `_from_elsewhere` any more: it cannot go round.
        return self._pages.render("once_more.html", here=_address(request))

    def _session(self, request: Request, session_id: str) -> Session | None:
        session = self._sessions.find(session_id, touch=REFRESH not in request.query_params) if session_id else None
        if session is None:
            return None
        # Rights as they are now: an account that was taken away, or has another scope, has it here at once.
        caller = self._accounts.holder(session.caller.name)
        # Threat: a stolen cookie, and the password changed because of it.
        if caller is None or self._accounts.mark(caller.name) != session.mark:
            self._sessions.end(session_id)
            return None
        session.caller = replace(caller, address=session.caller.address)
        return session

    async def _answer(self, visit: Visit, handler: Handler) -> Response:
        try:
            if visit.request.method == "POST":
                form = await read_form(visit.request)
                if not token_fits(form, visit.session.csrf):
                    text = "The form is not of this session. Go back, load the page again, and try once more."
                    return visit.refuse(403, "Not taken", text)
                visit = replace(visit, form=form)
            return await handler(visit)
        except (BadQuestionError, FormError) as error:
            return visit.refuse(400, "That does not work", str(error), kind="warn")
        except NotAllowedError as error:
            return visit.refuse(403, "Not allowed", str(error))
        except RefusedError as error:
            return visit.refuse(409, "Not done", str(error), kind="warn")
        except NotFoundError as error:
            return visit.refuse(404, "Not found", str(error), kind="warn")
        except Unavailable as error:
            return visit.refuse(503, "Not available now", str(error))


def cookie_name(request: Request) -> str:
    """`__Host-`: only our own host over TLS can set it (RFC 6265bis section 4.1.3.2). Without TLS there is no such cookie."""
    return f"__Host-{_COOKIE}" if request.url.scheme == "https" else _COOKIE


def cookie_of(request: Request) -> str:
    return request.cookies.get(cookie_name(request), "")[:128]


def with_cookie(request: Request, answer: Response, session_id: str) -> Response:
    """Sets the session's cookie, or takes it away where `session_id` is ""."""
    name, secure = cookie_name(request), request.url.scheme == "https"
    if session_id:
        answer.set_cookie(name, session_id, path="/", secure=secure, httponly=True, samesite="strict")
    else:
        answer.delete_cookie(name, path="/", secure=secure, httponly=True, samesite="strict")
    return answer


def _to_sign_in(request: Request) -> Response:
    if request.headers.get("hx-request"):
        return Response(status_code=200, headers={"hx-refresh": "true"})
    if request.method != "GET" or request.url.path in (f"{ROOT}/", ROOT):
        return RedirectResponse(url("/sign-in"), 303)
    return RedirectResponse(f"{url('/sign-in')}?{urlencode({'next': _address(request)})}", 303)


def _from_elsewhere(request: Request) -> bool:
    """Whether somebody followed a link on another site's page, so that the browser left the cookie out. No page can forge these headers."""
    headers = request.headers
    return (
        request.method == "GET"
        and headers.get("sec-fetch-site") == "cross-site"
        and headers.get("sec-fetch-mode") == "navigate"
        and headers.get("sec-fetch-dest") == "document"
        and not cookie_of(request)
    )


def _address(request: Request) -> str:
    """Where the request leads, of our own paths only."""
    return local_path(request.url.path + (f"?{request.url.query}" if request.url.query else ""))
