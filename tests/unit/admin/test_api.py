import asyncio
import os
import socket
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvloop

from relay.admin.endpoint import Unavailable
from relay.admin.queue import Action, Selection
from relay.admin.reload import Reload
from relay.admin.reports import ReportsQuery
from relay.admin.unix import SocketUnusableError, admin_socket, bind_unix, peer_uid
from relay.mail.events import AdminActed, Event
from tests.unit.admin.fake import GONE, FakeRelay, application, message, trace

ID = "01JD3M8Z7Q0000000001"


@pytest.fixture
def relay() -> FakeRelay:
    return FakeRelay()


@pytest.fixture
def events() -> list[Event]:
    return []


@pytest.fixture
async def client(tmp_path: Path, relay: FakeRelay, events: list[Event]) -> AsyncIterator[httpx.AsyncClient]:
    path = tmp_path / "relay.sock"
    async with (
        admin_socket(path, application(relay, events.append)),
        httpx.AsyncClient(transport=httpx.AsyncHTTPTransport(uds=str(path)), base_url="http://relay") as client,
    ):
        yield client


async def test_status(client: httpx.AsyncClient) -> None:
    answer = await client.get("/status")
    assert (answer.status_code, answer.json()["hostname"]) == (200, "relay.example.com")


async def test_the_queue_in_pages(client: httpx.AsyncClient, relay: FakeRelay) -> None:
    relay.queue = [message(number) for number in range(1, 6)]
    found: list[dict[str, Any]] = []
    after: str | None = ""
    while after is not None:
        page = (await client.get("/queue", params={"limit": 2, "after": after})).json()
        assert len(page["messages"]) <= 2
        found += page["messages"]
        after = page["next"]
    assert found == relay.queue


async def test_tls_reports(client: httpx.AsyncClient, relay: FakeRelay, events: list[Event]) -> None:
    assert (await client.get("/reports?domain=contoso.com")).json() == relay.reports_answer
    assert (await client.get("/reports/show?domain=contoso.com&day=2026-11-25")).status_code == 404
    relay.report_answer = {"report-id": "1"}
    assert (await client.get("/reports/show?domain=contoso.com")).json() == {"report-id": "1"}
    assert (await client.get("/reports/received?limit=5")).json() == {"received": []}
    relay.sent_answer = {"states": {"sent": 2, "failed": 1}, "reports": []}
    assert (await client.post("/reports/send", json={"domain": "contoso.com"})).json() == relay.sent_answer
    await client.post("/reports/send", json={})
    await client.post("/reports/send", json={"domain": "contoso.com", "day": "2026-11-25"})
    assert relay.asked[0] == ReportsQuery("contoso.com")
    assert relay.asked[3] == (None, 5)
    acted = [each for each in events if isinstance(each, AdminActed)]
    assert [(each.action, each.selection, each.count) for each in acted] == [
        ("send-reports", "contoso.com", 3),
        ("send-reports", "all", 3),
        ("send-reports", "contoso.com 2026-11-25", 3),
    ]
    assert (await client.get("/reports/send")).status_code == 405
    assert (await client.get("/reports/show")).status_code == 400


async def test_filters_reach_the_queue(client: httpx.AsyncClient, relay: FakeRelay) -> None:
    await client.get("/queue?to=contoso.com&connector=c&state=held&state=waiting")
    expected = Selection(everything=True, domain="contoso.com", connector="c", states=("held", "waiting"))
    assert relay.asked == [(expected, "", 100)]


async def test_one_message(client: httpx.AsyncClient, relay: FakeRelay) -> None:
    relay.queue = [message(1)]
    assert (await client.get(f"/queue/{ID}")).json() == message(1)
    answer = await client.get("/queue/NOSUCH")
    assert (answer.status_code, answer.json()) == (404, {"error": "there is no message NOSUCH in the queue"})


@pytest.mark.parametrize("action", Action)
async def test_actions_are_done_and_noted_with_who_asked(
    client: httpx.AsyncClient, relay: FakeRelay, events: list[Event], action: Action
) -> None:
    relay.result = {"changed": 2, "running": 1, "unknown": [], "before": {}, "after": {}}
    answer = await client.post(f"/queue/{action}", json={"ids": [ID]})
    assert answer.json() == relay.result
    assert relay.asked == [(action, Selection(ids=(ID,)))]
    assert events == [AdminActed(f"uid {os.getuid()}", "socket", action.value, ID, 2)]


async def test_an_action_that_is_none(client: httpx.AsyncClient, relay: FakeRelay) -> None:
    answer = await client.post("/queue/purge", json={"all": True})
    assert (answer.status_code, answer.json()) == (405, {"error": "not with this method, only GET, HEAD"})
    assert relay.asked == []


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "say which messages"),
        (b"{", "the body is not JSON"),
        (b"\xff", "the body is not JSON"),
        (b"[" * 100_000, "the body is nested too deep"),
        (b" " * 300_000, "the body is too large"),
    ],
)
async def test_a_body_that_cannot_be(
    client: httpx.AsyncClient, relay: FakeRelay, events: list[Event], body: bytes, said: str
) -> None:
    answer = await client.post("/queue/delete", content=body)
    assert answer.status_code == 400
    assert answer.json()["error"].startswith(said)
    assert relay.asked == []
    assert events == []


async def test_traces(client: httpx.AsyncClient, relay: FakeRelay) -> None:
    relay.traces = [trace(2), trace(1)]
    answer = await client.get("/trace", params={"from": "alice@example.com"})
    assert answer.json() == {"traces": relay.traces}
    assert (await client.get("/trace")).status_code == 400


async def test_reload(client: httpx.AsyncClient, relay: FakeRelay, events: list[Event]) -> None:
    relay.reloaded = Reload(taken=True, changed=True, weaker=("contoso-out: tls",))
    answer = await client.post("/reload")
    assert answer.status_code == 200
    assert answer.json() == {
        "taken": True,
        "changed": True,
        "dry_run": False,
        "weaker": ["contoso-out: tls"],
        "restart": [],
        "errors": [],
    }
    assert events == [AdminActed(f"uid {os.getuid()}", "socket", "reload", "contoso-out: tls", 1)]


async def test_a_dry_run_and_a_file_with_errors(
    client: httpx.AsyncClient, relay: FakeRelay, events: list[Event]
) -> None:
    relay.reloaded = Reload(taken=False, changed=True, errors=("line 3: no such key",))
    answer = await client.post("/reload", json={"dry_run": True})
    assert (answer.status_code, answer.json()["errors"]) == (422, ["line 3: no such key"])
    assert relay.asked == [True]
    assert events == []


async def test_a_relay_that_cannot_now(client: httpx.AsyncClient, relay: FakeRelay) -> None:
    relay.error = GONE
    answer = await client.get("/queue")
    assert (answer.status_code, answer.json()) == (503, {"error": "the queue cannot be read now: disk gone"})


async def test_a_bug_says_its_name_and_no_more(client: httpx.AsyncClient, relay: FakeRelay) -> None:
    relay.error = RuntimeError("secret")
    answer = await client.get("/queue")
    assert answer.status_code == 500
    assert answer.json() == {"error": "the relay met an unexpected RuntimeError; its log says more"}


async def test_paths_and_methods(client: httpx.AsyncClient) -> None:
    assert (await client.get("/nothing")).json() == {"error": "there is no such path"}
    answer = await client.delete("/queue")
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD")
    assert answer.json() == {"error": "not with this method, only GET, HEAD"}
    head = await client.head("/status")
    assert (head.status_code, head.content) == (200, b"")


def names(folder: Path) -> list[str]:
    return [each.name for each in folder.iterdir()]


async def test_the_socket_is_for_its_owner_only_and_is_cleaned_up(tmp_path: Path, relay: FakeRelay) -> None:
    path = tmp_path / "relay.sock"
    async with admin_socket(path, application(relay)):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert names(tmp_path) == ["relay.sock"]
    assert names(tmp_path) == []


def stale(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))


async def test_a_stale_socket_is_replaced(tmp_path: Path, relay: FakeRelay) -> None:
    path = tmp_path / "relay.sock"
    stale(path)
    stale(tmp_path / "relay.sock.new")
    async with (
        admin_socket(path, application(relay)),
        httpx.AsyncClient(transport=httpx.AsyncHTTPTransport(uds=str(path)), base_url="http://relay") as client,
    ):
        assert (await client.get("/status")).status_code == 200


async def test_a_running_relay_keeps_its_socket(tmp_path: Path, relay: FakeRelay) -> None:
    path = tmp_path / "relay.sock"
    async with admin_socket(path, application(relay)):
        with pytest.raises(SocketUnusableError, match="another relay listens on"):
            bind_unix(path)
        assert path.exists()


def test_another_file_is_never_replaced(tmp_path: Path) -> None:
    path = tmp_path / "relay.sock"
    path.write_text("precious")
    with pytest.raises(SocketUnusableError, match="is not a socket"):
        bind_unix(path)
    assert path.read_text() == "precious"


def test_paths_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(SocketUnusableError, match="too long for a unix socket"):
        bind_unix(tmp_path / ("x" * 100))
    with pytest.raises(SocketUnusableError, match="cannot be made: No such file"):
        bind_unix(tmp_path / "no" / "relay.sock")


async def test_a_relay_that_took_over_meanwhile_keeps_its_socket(tmp_path: Path, relay: FakeRelay) -> None:
    path = tmp_path / "relay.sock"
    async with admin_socket(path, application(relay)):
        path.unlink()
        stale(path)
    assert path.exists()


def test_peer_of_a_socket_that_has_none() -> None:
    one, two = socket.socketpair()
    with one, two, socket.socket(socket.AF_INET) as other:
        assert peer_uid(one) == os.getuid()
        assert peer_uid(other) == -1
    assert peer_uid(one) == -1


def test_it_works_under_uvloop(tmp_path: Path, relay: FakeRelay, events: list[Event]) -> None:
    path = tmp_path / "relay.sock"

    async def ask() -> int:
        transport = httpx.AsyncHTTPTransport(uds=str(path))
        async with (
            admin_socket(path, application(relay, events.append)),
            httpx.AsyncClient(transport=transport, base_url="http://relay") as client,
        ):
            return (await client.post("/queue/retry", json={"all": True})).status_code

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(ask()) == 200
    assert events == [AdminActed(f"uid {os.getuid()}", "socket", "retry", "all", 1)]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"sec-fetch-site": "same-origin", "origin": "http://relay"}, 200),
        ({"sec-fetch-site": "none"}, 200),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-site"}, 403),
        ({"origin": "https://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "http://relay"}, 200),
    ],
)
async def test_pages_of_other_sites_give_no_orders(
    client: httpx.AsyncClient, relay: FakeRelay, headers: dict[str, str], status: int
) -> None:
    answer = await client.post("/queue/hold", json={"all": True}, headers=headers)
    assert answer.status_code == status
    assert bool(relay.asked) is (status == 200)


async def test_an_order_that_breaks_off_is_noted(
    client: httpx.AsyncClient, relay: FakeRelay, events: list[Event]
) -> None:
    relay.error = Unavailable("the disk is gone")
    assert (await client.post("/queue/delete", json={"all": True})).status_code == 503
    (acted,) = [each for each in events if isinstance(each, AdminActed)]
    assert (acted.action, acted.selection) == ("delete", "it broke off, part may be done: the disk is gone")
    assert (await client.post("/queue/delete", json={"nonsense": 1})).status_code == 400
    assert len([each for each in events if isinstance(each, AdminActed)]) == 1
