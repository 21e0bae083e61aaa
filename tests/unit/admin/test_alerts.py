"""The topics `alerts` and `connectors` of the admin API: what may be asked, and what is written to the audit log."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from relay.admin.unix import admin_socket
from relay.mail.events import AdminActed, Event
from tests.unit.admin.fake import FakeRelay, application


@pytest.fixture
def relay() -> FakeRelay:
    return FakeRelay()


@pytest.fixture
def events() -> list[Event]:
    return []


@pytest.fixture
async def client(tmp_path: Path, relay: FakeRelay, events: list[Event]) -> AsyncIterator[httpx.AsyncClient]:
    path = tmp_path / "relay.sock"
    transport = httpx.AsyncHTTPTransport(uds=str(path))
    async with (
        admin_socket(path, application(relay, events.append)),
        httpx.AsyncClient(transport=transport, base_url="http://relay") as client,
    ):
        yield client


async def test_alerts(client: httpx.AsyncClient, relay: FakeRelay, events: list[Event]) -> None:
    answer = await client.get("/alerts")
    assert (answer.status_code, answer.json()["ways"]) == (200, ["mail"])
    answer = await client.post("/alerts/test", json={"ways": ["mail", "mail"]})
    assert answer.status_code == 200
    assert relay.asked == ["alerts", ("test-alerts", ("mail",))]
    (acted,) = events
    assert isinstance(acted, AdminActed)
    assert (acted.action, acted.selection, acted.count) == ("test-alerts", "mail", 1)


async def test_a_test_message(client: httpx.AsyncClient, relay: FakeRelay, events: list[Event]) -> None:
    answer = await client.post("/connectors/test", json={"connector": "out", "to": "Bob@B.example"})
    assert (answer.status_code, answer.json()) == (200, {"message": "0" * 20, "connector": "out"})
    assert relay.asked == [("test-connector", "out", "Bob@b.example")]
    (acted,) = events
    assert isinstance(acted, AdminActed)
    assert (acted.action, acted.selection) == ("test-connector", "out Bob@b.example")


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/alerts/test", {"ways": ["pigeon"]}),
        ("/alerts/test", {"ways": "mail"}),
        ("/alerts/test", {"way": ["mail"]}),
        ("/connectors/test", {}),
        ("/connectors/test", {"connector": "out"}),
        ("/connectors/test", {"connector": "", "to": "a@b.example"}),
        ("/connectors/test", {"connector": "out", "to": "@b.example"}),
        ("/connectors/test", {"connector": "out", "to": "<>"}),
        ("/connectors/test", {"connector": "out", "to": "a b@c"}),
    ],
)
async def test_bad_questions(path: str, body: dict[str, Any], client: httpx.AsyncClient, relay: FakeRelay) -> None:
    answer = await client.post(path, json=body)
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]
    assert not relay.asked
