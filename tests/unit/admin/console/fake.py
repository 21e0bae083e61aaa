"""The console over a relay that does nothing, asked as a browser would. What endpoints without a fake of their own answer is in `answers`."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import httpx
from pydantic import ConfigDict

from relay.admin.accounts import TooManyFailuresError
from relay.admin.console.application import Surroundings, console
from relay.admin.console.desk import Desk
from relay.admin.endpoint import Answer, Asked, Caller, Change, Endpoint, Question, Scope
from tests.unit.admin.fake import FakeRelay, topics

NOW = datetime(2026, 11, 27, 8, 0, tzinfo=UTC)
ORIGIN = "https://relay.example.com"
HOSTILE = "\"><script>alert(1)</script><img src=x onerror=alert(1)>\u202egnp\x1b[2J'"

_TOKEN = re.compile(r'name="csrf" value="([^"]+)"')


class Anything(Question):
    model_config = ConfigDict(extra="allow", frozen=True)


def canned(name: str, scope: Scope, relay: "Relay") -> Endpoint[Any]:
    method, path = name.split(" ")

    async def handler(asked: Asked[Anything]) -> Answer:
        relay.asked.append((name, asked.given.model_dump()))
        answer = relay.answers[name]
        status, body = answer if isinstance(answer, tuple) else (200, answer)
        asks_only = name in ("POST /explain", "POST /probe")
        return Answer(
            body, status, Change(path) if not asks_only and scope is not Scope.READ and status < 400 else None
        )

    return Endpoint(method, path, scope, "", Anything, Answer, handler, action=path)  # type: ignore[arg-type]


SCOPES = {
    "GET /suspensions": Scope.READ,
    "POST /suspensions": Scope.OPERATE,
    "POST /queue/reroute": Scope.OPERATE,
    "POST /suspensions/resume": Scope.OPERATE,
    "GET /security/overview": Scope.READ,
    "GET /security/shares": Scope.READ,
    "GET /security/troubled": Scope.READ,
    "GET /security/report": Scope.READ,
    "GET /security/partners": Scope.READ,
    "GET /certificates": Scope.READ,
    "GET /certificates/sheet": Scope.READ,
    "GET /audit": Scope.ADMIN,
    "GET /connectors": Scope.READ,
    "GET /connectors/{name}": Scope.READ,
    "GET /change": Scope.READ,
    "POST /explain": Scope.READ,
    "POST /probe": Scope.OPERATE,
}


@dataclass
class Relay(FakeRelay):
    answers: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__init__()


@dataclass
class Noted:
    entries: list[tuple[str, str, str]] = field(default_factory=list)

    async def note(self, caller: Caller, action: str, change: Change) -> None:
        self.entries.append((caller.name, caller.via, action))


class FakeAccounts:
    """Accounts named as their scope, all with the password "right"."""

    def __init__(self) -> None:
        self.scopes: dict[str, Scope] = {each.value: each for each in Scope}
        self.blocked = False
        self.marks: dict[str, str] = {}

    async def sign_in(self, name: str, password: str, address: str) -> Caller | None:
        if self.blocked:
            raise TooManyFailuresError("too many failed sign-ins from this address: try again in 90 seconds")
        return self.holder(name) if password == "right" else None

    def holder(self, name: str) -> Caller | None:
        scope = self.scopes.get(name)
        return Caller(name, scope, "console") if scope else None

    def mark(self, name: str) -> str:
        return self.marks.get(name, "first")


class World:
    """The console, what it asks, and a clock to turn."""

    def __init__(self, answers: Mapping[str, Any]) -> None:
        self.relay = Relay(dict(answers))
        self.accounts, self.noted, self.seconds = FakeAccounts(), Noted(), 0.0
        told = [each for each in topics(self.relay) if each.path.split("/")[1] != "security"]
        endpoints = [*told, *(canned(name, SCOPES[name], self.relay) for name in answers)]
        self.app = console(
            Surroundings(
                desk=Desk(endpoints, self.noted.note),
                accounts=self.accounts,
                note=self.noted.note,
                hosts=lambda: {"relay.example.com", "*.names.example"},
                about=lambda: {"hostname": "relay.example.com", "version": "0.1.0"},
                clock=lambda: NOW,
                monotonic=lambda: self.seconds,
            )
        )

    def browser(self, origin: str = ORIGIN) -> "Browser":
        return Browser(self, origin)


class Browser:
    """One person's: keeps cookies, follows nothing by itself, and says where its forms come from."""

    def __init__(self, world: World, origin: str) -> None:
        self._client = httpx.AsyncClient(transport=httpx.ASGITransport(app=world.app), base_url=origin)

    @property
    def cookies(self) -> httpx.Cookies:
        return self._client.cookies

    async def get(self, path: str, **headers: str) -> httpx.Response:
        return await self._client.get(f"/console{path}", headers=headers)

    async def post(self, path: str, data: Mapping[str, Any], **headers: str) -> httpx.Response:
        sent = {"sec-fetch-site": "same-origin", "origin": "null", **headers}
        return await self._client.post(f"/console{path}", data=data, headers={k: v for k, v in sent.items() if v})

    async def post_raw(self, path: str, content: str) -> httpx.Response:
        """A form as a browser wrote it."""
        headers = {"sec-fetch-site": "same-origin", "content-type": "application/x-www-form-urlencoded"}
        return await self._client.post(f"/console{path}", content=content, headers=headers)

    async def sign_in(self, name: str = "admin", word: str = "right", **more: str) -> httpx.Response:
        return await self.post("/sign-in", {"name": name, "password": word, **more})

    async def token(self) -> str:
        """The session's, from a page."""
        found = _TOKEN.search((await self.get("/trace")).text)
        assert found is not None
        return found[1]

    async def submit(self, path: str, **data: Any) -> httpx.Response:
        return await self.post(path, {"csrf": await self.token(), **data})
