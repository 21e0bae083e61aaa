"""The flow of mail over the admin API: what is asked, who may, what the audit log has."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from starlette.requests import Request

from relay.admin import api, control, transfer
from relay.admin.control import Purge, Refused, Suspend, Undo
from relay.admin.endpoint import Caller, Change, Json, Scope
from relay.admin.queue import Selection
from relay.admin.transfer import ForbiddenError
from tests.unit.admin.fake import FakeRelay

MADE = {"id": 3, "to": "a.example", "reason": "", "who": "ops", "since": "2026-11-25T08:00:00.000Z", "until": None}


class Fake:
    """Implements both topics."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.refuses = False
        self.weaker: list[str] = []
        self.body = b""

    def _ask(self, *what: Any) -> None:
        self.asked.append(what[0] if len(what) == 1 else what)
        if self.refuses:
            raise Refused("no")

    async def suspensions(self) -> Json:
        return {"suspensions": [MADE]}

    async def suspend(self, wanted: Suspend, who: str) -> Json:
        self._ask(wanted, who)
        return {**MADE, "id": 4}

    async def resume(self, undo: Undo) -> Json:
        self._ask(undo)
        return {"ended": [MADE] if undo.id != 9 else []}

    async def reroute(self, selection: Selection, via: str, *, weaker: bool, anywhere: bool) -> Json:
        self._ask(selection, via, weaker)
        return {"changed": 2, "running": 1, "unknown": [], "via": f"connector {via}", "weaker": self.weaker}

    async def forget(self, purge: Purge) -> int:
        self._ask(purge)
        return 7

    async def envelope(self, message_id: str) -> Json | None:
        return {"id": message_id} if message_id == "A1" else None

    async def content(self, message_id: str) -> AsyncIterator[bytes] | None:
        async def pieces() -> AsyncIterator[bytes]:
            yield b"Subject: x\r\n"
            yield b"\r\nhi\r\n"

        return pieces() if message_id == "A1" else None

    async def take(self, content: AsyncIterator[bytes], *, again: bool, who: str) -> Json:
        self.body = b"".join([each async for each in content])
        self.asked.append((again, who))
        if self.body.startswith(b"bad"):
            raise ForbiddenError("not fit")
        return {"id": "B2", "size": 5, "recipients": 1}


@pytest.fixture
def relay() -> Fake:
    return Fake()


@pytest.fixture
def noted() -> list[tuple[str, Change]]:
    return []


@pytest.fixture
async def ask(relay: Fake, noted: list[tuple[str, Change]]) -> AsyncIterator[httpx.AsyncClient]:
    async def who(request: Request) -> Caller:
        return Caller("ops", Scope(request.headers.get("scope", "admin")), "socket")

    async def note(_caller: Caller, action: str, change: Change) -> None:
        noted.append((action, change))

    app = api.application([*control.endpoints(relay, FakeRelay()), *transfer.endpoints(relay)], who, note)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://relay") as client:
        yield client


@pytest.mark.parametrize(
    ("body", "wanted"),
    [
        ({"to": "A.Example."}, Suspend("to", "a.example", "", None)),
        ({"to": "*.a.example", "reason": " why "}, Suspend("to", "*.a.example", "why", None)),
        ({"to": "*"}, Suspend("to", "*", "", None)),
        ({"connector": "c"}, Suspend("connector", "c", "", None)),
        ({"from": "Bob@A.Example"}, Suspend("from", "bob@a.example", "", None)),
        ({"from": "A.Example"}, Suspend("from", "@a.example", "", None)),
        ({"from": "@a.example"}, Suspend("from", "@a.example", "", None)),
        ({"from": "<>"}, Suspend("from", "<>", "", None)),
    ],
)
async def test_suspend(
    ask: httpx.AsyncClient,
    relay: Fake,
    noted: list[tuple[str, Change]],
    body: dict[str, Any],
    wanted: Suspend,
) -> None:
    answer = await ask.post("/suspensions", json=body)
    assert (answer.status_code, answer.json()["id"]) == (200, 4)
    assert relay.asked == [(wanted, "ops")]
    ((action, change),) = noted
    assert (action, change.what) == ("suspend", f"{wanted.stops} {wanted.what}")
    assert change.after["id"] == 4
    assert change.before == (MADE if wanted.what == "a.example" and wanted.stops == "to" else None)


@pytest.mark.parametrize(
    ("path", "body", "says"),
    [
        ("/suspensions", {}, "one of to, connector and from"),
        ("/suspensions", {"to": "a.example", "connector": "c"}, "one of to, connector and from"),
        ("/suspensions", {"to": "a b"}, "to: "),
        ("/suspensions", {"to": "a.*.example"}, "to: "),
        ("/suspensions", {"from": "a@b@"}, "from: "),
        ("/suspensions", {"to": "a.example", "reason": "two\r\nlines"}, "one line"),
        ("/suspensions", {"to": "a.example", "reason": "x" * 301}, "at most 300"),
        ("/suspensions", {"to": "a.example", "reason": "a\u202eb"}, "one line"),
        ("/suspensions", {"to": "a.example", "until": "soon"}, "until: a time"),
        ("/suspensions/resume", {}, "an id, one of"),
        ("/suspensions/resume", {"id": 1, "all": True}, "an id, one of"),
        ("/suspensions/resume", {"id": 0}, "id: "),
        ("/queue/reroute", {"ids": ["A1"]}, "via: it must be given"),
        ("/queue/reroute", {"via": "c"}, "say which messages"),
        ("/queue/flush", {}, "say which messages"),
        ("/trace/purge", {}, "say which traces"),
    ],
)
async def test_bad_questions(
    ask: httpx.AsyncClient, noted: list[tuple[str, Change]], path: str, body: dict[str, Any], says: str
) -> None:
    answer = await ask.post(path, json=body)
    assert answer.status_code == 400
    assert says in answer.json()["error"]
    assert not noted


async def test_resume(ask: httpx.AsyncClient, relay: Fake, noted: list[tuple[str, Change]]) -> None:
    for body, undo in (
        ({"id": 3}, Undo(id=3)),
        ({"all": True}, Undo(everything=True)),
        ({"from": "B@a.example"}, Undo(0, "from", "b@a.example")),
    ):
        assert (await ask.post("/suspensions/resume", json=body)).json() == {"ended": [MADE]}
        assert relay.asked.pop() == undo
    assert [action for action, _change in noted] == ["resume"] * 3
    assert noted[0][1].before == [MADE]
    assert (await ask.post("/suspensions/resume", json={"id": 9})).json() == {"ended": []}
    assert len(noted) == 3, "nothing was changed"


async def test_reroute(ask: httpx.AsyncClient, relay: Fake, noted: list[tuple[str, Change]]) -> None:
    answer = await ask.post("/queue/reroute", json={"to": "a.example", "via": "c"})
    assert answer.json()["changed"] == 2
    assert relay.asked == [(Selection((), True, "a.example"), "c", False)]
    assert (noted[0][0], noted[0][1].count) == ("reroute", 3)
    relay.weaker = ["a.example: tls goes from domain to encryption"]
    await ask.post("/queue/reroute", json={"to": "a.example", "via": "c", "weaker": True})
    assert noted[1][1].what == "to a.example via c although weaker"
    assert noted[1][1].after == {"via": "connector c", "weaker": relay.weaker}


async def test_weaker_is_for_admins(ask: httpx.AsyncClient, relay: Fake, noted: list[tuple[str, Change]]) -> None:
    body = {"to": "a.example", "via": "c", "weaker": True}
    answer = await ask.post("/queue/reroute", json=body, headers={"scope": "operate"})
    assert answer.status_code == 400
    assert "needs the scope admin" in answer.json()["error"]
    assert not relay.asked
    assert not noted
    plain = await ask.post("/queue/reroute", json={"to": "a.example", "via": "c"}, headers={"scope": "operate"})
    assert plain.status_code == 200


async def test_what_the_relay_refuses(ask: httpx.AsyncClient, relay: Fake, noted: list[tuple[str, Change]]) -> None:
    relay.refuses = True
    for path, body in (("/suspensions", {"to": "a.example"}), ("/queue/reroute", {"to": "a.example", "via": "c"})):
        answer = await ask.post(path, json=body)
        assert (answer.status_code, answer.json()) == (409, {"error": "no"})
    assert not noted


async def test_the_audit_log_does_not_keep_what_was_forgotten(
    ask: httpx.AsyncClient, relay: Fake, noted: list[tuple[str, Change]]
) -> None:
    answer = await ask.post("/trace/purge", json={"to": "bob@a.example", "from": "@b.example"})
    assert answer.json() == {"forgotten": 7}
    assert relay.asked == [Purge("", "bob@a.example", "@b.example", None)]
    assert noted[0][1].what == "to somebody@a.example, from @b.example"


@pytest.mark.parametrize(
    ("method", "path", "scope"),
    [
        ("GET", "/suspensions", "read"),
        ("POST", "/suspensions", "operate"),
        ("POST", "/suspensions/resume", "operate"),
        ("POST", "/queue/reroute", "operate"),
        ("POST", "/queue/flush", "operate"),
        ("POST", "/trace/purge", "admin"),
        ("GET", "/queue/A1/envelope", "admin"),
        ("POST", "/queue/A1/export", "admin"),
        ("POST", "/queue/import", "admin"),
    ],
)
async def test_who_may(ask: httpx.AsyncClient, method: str, path: str, scope: str) -> None:
    for each in Scope:
        answer = await ask.request(method, path, headers={"scope": each})
        assert (answer.status_code == 403) is not each.covers(Scope(scope)), (each, answer.text)


async def test_export(ask: httpx.AsyncClient, noted: list[tuple[str, Change]]) -> None:
    answer = await ask.post("/queue/A1/export", json={})
    assert answer.content == b"Subject: x\r\n\r\nhi\r\n"
    assert answer.headers["content-type"] == "message/rfc822"
    assert [(action, change.what) for action, change in noted] == [("export", "A1")]
    assert (await ask.get("/queue/A1/envelope")).json() == {"id": "A1"}
    assert (await ask.post("/queue/B2/export", json={})).status_code == 404
    assert (await ask.get("/queue/B2/envelope")).status_code == 404


async def test_import(ask: httpx.AsyncClient, relay: Fake, noted: list[tuple[str, Change]]) -> None:
    answer = await ask.post("/queue/import", params={"again": "true"}, content=b"{}\nSubject: x\r\n")
    assert answer.json()["id"] == "B2"
    assert relay.body == b"{}\nSubject: x\r\n"
    assert relay.asked == [(True, "ops")]
    assert [(action, change.what) for action, change in noted] == [("import", "B2")]
    answer = await ask.post("/queue/import", content=b"bad")
    assert (answer.status_code, answer.json()) == (409, {"error": "not fit"})
    assert len(noted) == 1
