"""Signing in and out. One answer for every failure; how often somebody may try is `relay.admin.accounts`' to say; a new session id each time.

The sign-in form has no session and so no token: that it comes from our own page is what `guard.same_origin` checks.
"""

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from relay.admin.accounts import TooManyFailuresError
from relay.admin.console.desk import Accounts
from relay.admin.console.forms import FormError, local_path, read_form
from relay.admin.console.pages import Pages, url
from relay.admin.console.sessions import Sessions
from relay.admin.console.visit import Visit, cookie_of, with_cookie
from relay.admin.endpoint import Change, Note, Unavailable

WRONG = "That name and password do not fit."


class Signing:
    def __init__(self, accounts: Accounts, note: Note, sessions: Sessions, pages: Pages) -> None:
        self._accounts, self._note, self._sessions, self._pages = accounts, note, sessions, pages

    async def show(self, request: Request) -> Response:
        return self._form(local_path(request.query_params.get("next", "")[:2000]), "", 200)

    async def sign_in(self, request: Request) -> Response:
        try:
            form = await read_form(request)
        except FormError as error:
            return self._form(local_path(""), str(error), 400)
        name, password = form.text("name", 128), form.get("password", "")[:1024]
        following = local_path(form.text("next", 2000))
        try:
            caller = await self._accounts.sign_in(name, password, caller_address(request))
        except TooManyFailuresError as error:
            return self._form(following, f"{str(error).capitalize()}.", 429)
        except Unavailable as error:
            return self._form(following, str(error), 503)
        if caller is None:
            return self._form(following, WRONG, 401)
        self._sessions.end(cookie_of(request))
        session_id, _session = self._sessions.begin(caller, self._accounts.mark(caller.name))
        return with_cookie(request, RedirectResponse(following, 303), session_id)

    async def sign_out(self, visit: Visit) -> Response:
        self._sessions.end(visit.session_id)
        await self._note(visit.caller, "sign-out", Change("the web console"))
        answer = with_cookie(visit.request, RedirectResponse(url("/sign-in"), 303), "")
        answer.headers["clear-site-data"] = '"cache", "storage"'
        return answer

    def _form(self, following: str, trouble: str, status: int) -> Response:
        return self._pages.render("sign_in.html", status=status, next=following, trouble=trouble)


def caller_address(request: Request) -> str:
    return request.client.host if request.client is not None else ""
