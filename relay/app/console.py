"""The web console of a running relay, beside the admin API on the network door."""

import time
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import Any

from starlette.responses import RedirectResponse
from starlette.types import ASGIApp, Receive, Scope, Send

import relay
from relay.admin.accounts import Accounts
from relay.admin.console.application import Surroundings, console
from relay.admin.console.desk import Desk
from relay.admin.console.forms import ROOT
from relay.admin.endpoint import Endpoint, Note
from relay.config.models import Admin
from relay.tls.keyring import Keyring


def console_of(
    endpoints: Sequence[Endpoint[Any]],
    note: Note,
    accounts: Accounts,
    hosts: Callable[[], Sequence[str]],
    hostname: str,
    clock: Callable[[], datetime],
) -> ASGIApp:
    """The console's application for those who have an account. `hosts` are the names that people reach it by."""
    about = {"hostname": hostname, "version": relay.__version__}
    return console(Surroundings(Desk(endpoints, note), accounts, note, hosts, lambda: about, clock, time.monotonic))


def names_of(admin: Admin, hostname: str, keyring: Keyring | None) -> Callable[[], Sequence[str]]:
    """Ours: the hostname, what our certificates say, `admin.names`. Certificates may be others by the time that somebody asks."""

    def found() -> Iterator[str]:
        yield "localhost"
        yield hostname
        yield from admin.names
        if keyring is not None:
            for each in keyring.certificates:
                yield from each.names

    return lambda: tuple(found())


def beside(api: ASGIApp, pages: ASGIApp) -> ASGIApp:
    """One application of both: the console below its root, the API everywhere else; "/" leads people to the console."""
    home = RedirectResponse(f"{ROOT}/", 303)

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "")
        if path == ROOT or path.startswith(f"{ROOT}/"):
            await pages(scope, receive, send)
        elif path == "/" and scope.get("method") == "GET":
            await home(scope, receive, send)
        else:
            await api(scope, receive, send)

    return application
