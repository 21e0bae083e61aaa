import asyncio
import signal
import socket
from collections.abc import AsyncIterator, Mapping, Sequence

import httpx
import pytest
import uvloop

from relay.config.values import HostPort
from relay.mail.events import SessionOpened
from relay.observe import http
from relay.observe.http import observe_listener
from relay.observe.metrics import CountKey, Metrics, Readings

ANY = HostPort("127.0.0.1", 0)


class Relay:
    def __init__(self) -> None:
        self.reasons: list[str] = []
        self.error: Exception | None = None
        self.hang = asyncio.Event()
        self.hang.set()

    async def readings(self) -> Readings:
        await self.hang.wait()
        if self.error:
            raise self.error
        return Readings(queue={"waiting": 7})

    async def totals(self) -> Mapping[CountKey, float] | None:
        return None

    async def troubles(self) -> Sequence[str]:
        await self.hang.wait()
        if self.error:
            raise self.error
        return self.reasons


@pytest.fixture
def relay() -> Relay:
    return Relay()


@pytest.fixture
async def client(relay: Relay) -> AsyncIterator[httpx.AsyncClient]:
    metrics = Metrics()
    metrics(SessionOpened("mx", "192.0.2.1"))
    async with (
        observe_listener(ANY, metrics, relay) as address,
        httpx.AsyncClient(base_url=f"http://{address}") as client,
    ):
        yield client


async def test_metrics(client: httpx.AsyncClient) -> None:
    answer = await client.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=")
    assert 'ironpost_queue_recipients{state="waiting"} 7.0' in answer.text
    assert 'ironpost_sessions_total{listener="mx"} 1.0' in answer.text


async def test_metrics_without_the_store(client: httpx.AsyncClient, relay: Relay) -> None:
    relay.error = OSError("disk on fire")
    answer = await client.get("/metrics")
    assert answer.status_code == 200
    assert "ironpost_readings_ok 0.0" in answer.text
    assert 'ironpost_sessions_total{listener="mx"} 1.0' in answer.text


async def test_health_and_readiness(client: httpx.AsyncClient, relay: Relay) -> None:
    assert (await client.get("/healthz")).text == "ok\n"
    assert (await client.get("/readyz")).json() == {"ready": True, "reasons": []}
    relay.reasons = ["the queue's disk is full"]
    answer = await client.get("/readyz")
    assert answer.status_code == 503
    assert answer.json() == {"ready": False, "reasons": ["the queue's disk is full"]}
    assert (await client.get("/healthz")).status_code == 200


async def test_a_relay_that_fails_or_hangs_is_not_ready(
    client: httpx.AsyncClient, relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    relay.error = RuntimeError("secret path")
    answer = await client.get("/readyz")
    assert (answer.status_code, answer.json()["reasons"]) == (503, ["the state cannot be read (RuntimeError)"])
    monkeypatch.setattr(http, "_PATIENCE", 0.01)
    relay.hang.clear()
    answer = await client.get("/readyz")
    assert (answer.status_code, answer.json()["reasons"]) == (503, ["no answer within 0 seconds"])


async def test_it_is_read_only(client: httpx.AsyncClient) -> None:
    for path in ("/metrics", "/healthz", "/readyz"):
        assert (await client.post(path)).status_code == 405
    assert (await client.get("/queue")).status_code == 404


async def test_several_in_one_process_and_no_signal_handlers(relay: Relay) -> None:
    before = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    async with (
        observe_listener(ANY, Metrics(), relay) as one,
        observe_listener(HostPort("::1", 0), Metrics(), relay) as two,
        httpx.AsyncClient() as client,
    ):
        assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == before
        for address in (one, two):
            assert (await client.get(f"http://{address}/healthz")).status_code == 200
    with pytest.raises(OSError, match=r"refused|Connect"):
        socket.create_connection((one.host, one.port))


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_a_taken_port_is_an_error_that_names_it(relay: Relay, host: str) -> None:
    async with observe_listener(HostPort(host, 0), Metrics(), relay) as address:
        with pytest.raises(OSError, match="cannot listen on") as error:
            async with observe_listener(address, Metrics(), relay):
                pass
        assert str(address) in str(error.value)


async def test_stopping_waits_for_a_running_request_and_not_for_an_idle_connection(relay: Relay) -> None:
    relay.hang.clear()
    async with httpx.AsyncClient() as client:
        async with observe_listener(ANY, Metrics(), relay) as address:
            await client.get(f"http://{address}/healthz")  # leaves an idle connection behind
            asking = asyncio.create_task(client.get(f"http://{address}/readyz"))
            asyncio.get_running_loop().call_later(0.1, relay.hang.set)
            await asyncio.wait([asking], timeout=0.03)
        assert (await asking).json() == {"ready": True, "reasons": []}


async def test_stopping_gives_up_on_a_request_that_never_ends(relay: Relay, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relay.asgi._GRACE", 0.01)
    relay.hang.clear()
    async with httpx.AsyncClient() as client:
        async with observe_listener(ANY, Metrics(), relay) as address:
            asking = asyncio.create_task(client.get(f"http://{address}/readyz"))
            await asyncio.wait([asking], timeout=0.05)
        assert (await asking).status_code == 500


def test_it_works_under_uvloop() -> None:
    async def ask() -> int:
        async with (
            observe_listener(ANY, Metrics(), Relay()) as address,
            httpx.AsyncClient() as client,
        ):
            return (await client.get(f"http://{address}/readyz")).status_code

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(ask()) == 200
