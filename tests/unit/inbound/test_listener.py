"""Listeners open all or none, follow a new configuration, count who comes in, and close without losing a message."""

import asyncio
import contextlib
import socket
from pathlib import Path
from typing import Any

import pytest

from relay.inbound.passwords import PasswordFileError
from relay.inbound.port import Port
from relay.inbound.services import TimeLimits
from relay.inbound.sockets import ListenError
from relay.mail.events import ConnectionRefused, ListenerReady, SessionClosed, SessionOpened, Unexpected
from relay.policy.book import RuleBook
from tests.unit.inbound.world import CLEAR, PATIENT, Pki, Wire, on_both_loops, relay

LOCAL = "127.0.0.1:0"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


# Opening -------------------------------------------------------------------------------------------------------------


@on_both_loops
async def test_every_listener_is_opened_and_told(tmp_path: Path, pki: Pki) -> None:
    (tmp_path / "passwords").write_text("")
    data = {
        "listeners": [
            {"address": LOCAL, "starttls": "off"},
            {"address": "[::1]:0"},
            {"address": LOCAL, "kind": "submission"},
            {"address": LOCAL, "kind": "submissions"},
        ],
        "submission": {"passwords": "passwords"},
    }
    async with relay(tmp_path, data, certificates=pki.certificates) as world:
        ready = [(event.listener, event.address) for event in world.of(ListenerReady)]
        assert ready == [(each.listener.name, str(each.address)) for each in world.listeners.bound]
        assert len({address for _name, address in ready}) == 4
        assert ready[1][1].startswith("[::1]:")
        assert all(each.address.port for each in world.listeners.bound)
        words = []
        for bound in world.listeners.bound[:3]:
            reader, writer = await asyncio.open_connection(bound.address.host, bound.address.port)
            async with Wire(reader, writer) as wire:
                await wire.expect(220)
                words.append((await wire.ehlo()).split("\n"))
        assert ["STARTTLS" in each for each in words] == [False, True, True]


async def test_an_address_in_use_opens_nothing(tmp_path: Path) -> None:
    port = free_port()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        data = {
            "listeners": [{"address": f"127.0.0.1:{port}", "starttls": "off"}, {"address": address, "starttls": "off"}]
        }
        with pytest.raises(ListenError, match=rf"cannot listen on {address}: .*in use.*ss -ltnp"):
            async with relay(tmp_path, data):
                pass
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)


async def test_an_address_that_is_not_ours(tmp_path: Path) -> None:
    with pytest.raises(ListenError, match="this machine has no such address"):
        async with relay(tmp_path, {"listeners": [{"address": "192.0.2.1:0", "starttls": "off"}]}):
            pass


@pytest.mark.parametrize("certificates", ["", "empty"])
async def test_a_listener_without_a_certificate_does_not_start(tmp_path: Path, certificates: str) -> None:
    folder = tmp_path / "empty"
    folder.mkdir()
    with pytest.raises(ListenError, match=r"has no usable certificate.*write `starttls: off`"):
        async with relay(tmp_path, {}, certificates=folder if certificates else None):
            pass


async def test_submission_needs_its_password_file(tmp_path: Path, pki: Pki) -> None:
    data: dict[str, Any] = {"listeners": [{"address": LOCAL, "kind": "submission"}]}
    with pytest.raises(ListenError, match="needs a password file"):
        async with relay(tmp_path, data, certificates=pki.certificates):
            pass
    with pytest.raises(PasswordFileError, match="No such file"):
        async with relay(tmp_path, data | {"submission": {"passwords": "none"}}, certificates=pki.certificates):
            pass


async def test_a_listener_without_tls_has_no_context(tmp_path: Path) -> None:
    async with relay(tmp_path, CLEAR) as world:
        port = Port(world.listeners._floor, world.listeners.bound[0].listener)
        with pytest.raises(RuntimeError, match="has no TLS"):
            port.context(ask_certificate=False)


# A new configuration -------------------------------------------------------------------------------------------------


@on_both_loops
async def test_listeners_follow_the_configuration_and_sessions_stay(tmp_path: Path) -> None:
    stays, goes, comes = (f"127.0.0.1:{free_port()}" for _ in range(3))
    off = {"starttls": "off"}
    async with relay(tmp_path, {"listeners": [{"address": stays} | off, {"address": goes} | off]}) as world:
        in_one, in_two = [await Wire.open(each.address.port) for each in world.listeners.bound]
        await in_one.expect(220)
        await in_two.expect(220)
        first = world.listeners.bound[0]
        world.configure(
            {"listeners": [{"address": comes} | off, {"address": stays} | off], "accept": {"domains": ["example.org"]}}
        )
        bound = await world.listeners.reload()
        assert [str(each.address) for each in bound] == [comes, stays]
        assert bound[1] is first
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", int(goes.split(":")[1]))
        for wire in (in_one, in_two):
            await wire.ehlo()
            await wire.message(recipient="bob@example.org")
            await wire.close()
        async with await world.connect() as wire:
            await wire.ehlo()
        assert [event.address for event in world.of(ListenerReady)][2:] == [comes]


@on_both_loops
async def test_new_rules_for_an_address_lose_no_connection(tmp_path: Path) -> None:
    address = f"127.0.0.1:{free_port()}"
    before = {"listeners": [{"address": address, "starttls": "off"}]}
    after = {"listeners": [{"address": address, "starttls": "off", "proxy_protocol": {"from": ["127.0.0.1"]}}]}
    async with relay(tmp_path, before) as world:
        async with await world.connect() as wire:
            world.configure(after)
            await world.listeners.reload()
            await wire.say("NOOP", 250)
            async with await Wire.open(world.port) as proxied:
                proxied.send("PROXY TCP4 192.0.2.7 127.0.0.1 4711 25")
                await proxied.expect(220)
        assert [event.client for event in world.of(SessionOpened)] == ["127.0.0.1", "192.0.2.7"]


async def test_a_configuration_that_cannot_be_opened_changes_nothing(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        async with relay(tmp_path, CLEAR) as world:
            bound = world.listeners.bound
            address = f"127.0.0.1:{taken.getsockname()[1]}"
            world.configure({"listeners": [{"address": address, "starttls": "off"}]})
            with pytest.raises(ListenError):
                await world.listeners.reload()
            assert world.listeners.bound == bound
            async with await world.connect() as wire:
                await wire.say("NOOP", 250)


# Limits --------------------------------------------------------------------------------------------------------------


@on_both_loops
async def test_too_many_connections(tmp_path: Path) -> None:
    async with relay(tmp_path, CLEAR | {"limits": {"connections": 2}}) as world:
        wires = [await world.connect() for _ in range(2)]
        for _ in range(3):
            async with await Wire.open(world.port) as refused:
                assert await refused.expect(421) == "4.7.0 too many connections"
                assert await refused.rest() == b""
        assert world.listeners.sessions == 2
        assert world.listeners.by_listener == {"mx 127.0.0.1:0": 2}
        await wires[0].say("QUIT", 221)
        await world.event(SessionClosed)
        async with await world.connect() as wire:
            await wire.say("NOOP", 250)
        assert [event.reason for event in world.of(ConnectionRefused)] == ["too many connections"] * 3
        for wire in wires:
            await wire.close()


async def test_too_many_connections_of_one_client(tmp_path: Path) -> None:
    async with relay(tmp_path, CLEAR | {"limits": {"connections_per_ip": 1}}) as world:
        async with await world.connect():
            async with await Wire.open(world.port) as refused:
                assert await refused.expect(421) == "4.7.0 too many connections from your address"
                assert await refused.rest() == b""
            async with await Wire.open(world.port, local_addr=("127.0.0.2", 0)) as other:
                await other.expect(220)
        await world.event(SessionClosed, 2)
        async with await world.connect() as wire:
            await wire.say("NOOP", 250)


async def test_implicit_tls_is_refused_without_a_handshake(tmp_path: Path, pki: Pki) -> None:
    (tmp_path / "passwords").write_text("")
    data = {
        "listeners": [{"address": LOCAL, "kind": "submissions"}],
        "submission": {"passwords": "passwords"},
        "limits": {"connections": 1},
    }
    async with relay(tmp_path, data, certificates=pki.certificates) as world:
        async with await Wire.open(world.port), await Wire.open(world.port) as refused:
            assert await refused.rest() == b""
        assert (await world.event(ConnectionRefused)).reason == "too many connections"


async def test_a_flood_leaves_nothing_behind(tmp_path: Path) -> None:
    async with relay(tmp_path, CLEAR | {"limits": {"connections": 5, "connections_per_ip": 5}}) as world:

        async def knock() -> None:
            with contextlib.suppress(ConnectionError):
                async with await Wire.open(world.port) as wire:
                    await wire.reply()
                    await wire.say("QUIT", 221)

        await asyncio.gather(*(knock() for _ in range(200)), return_exceptions=True)
        async with await world.connect() as wire:
            await wire.say("NOOP", 250)
            assert world.listeners.sessions == 1
            floor = world.listeners._floor
            assert (floor.connections.total, len(floor.deadlines)) == (1, 1)


async def test_a_bug_at_accept_closes_the_connection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with relay(tmp_path, CLEAR) as world:
        monkeypatch.setattr("relay.inbound.session.limit_key", lambda address: 1 / 0)
        async with await Wire.open(world.port) as wire:
            assert await wire.rest() == b""
        assert (await world.event(Unexpected)).where == "inbound session"
        monkeypatch.undo()
        async with await world.connect() as wire:
            await wire.say("NOOP", 250)


# Closing -------------------------------------------------------------------------------------------------------------


@on_both_loops
async def test_idle_sessions_end_at_once(tmp_path: Path) -> None:
    async with relay(tmp_path, CLEAR) as world:
        wires = [await world.connect() for _ in range(3)]
        port = world.port
        closing = asyncio.create_task(world.listeners.close(grace=30))
        for wire in wires:
            assert (await wire.expect(421)).startswith("4.3.2 ")
            assert await wire.rest() == b""
            await wire.close()
        await closing
        assert [event.reason for event in world.of(SessionClosed)] == ["shutting down"] * 3
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", port)


@on_both_loops
async def test_a_message_is_finished_first(tmp_path: Path) -> None:
    async with relay(tmp_path, CLEAR) as world, await world.connect() as wire:
        await wire.ehlo()
        await wire.mail()
        closing = asyncio.create_task(world.listeners.close(grace=30))
        await asyncio.sleep(0)  # its first step
        wire.send("Subject: x", "", ".")
        await wire.expect(250, 421)
        await wire.close()
        await closing
        assert len(world.intake.taken) == 1


@on_both_loops
async def test_who_takes_too_long_is_cut_short(tmp_path: Path) -> None:
    async with relay(tmp_path, CLEAR) as world, await world.connect() as wire:
        await wire.ehlo()
        await wire.mail()
        closing = asyncio.create_task(world.listeners.close(grace=0.05))
        assert (await wire.expect(421)).startswith("4.3.2 ")
        await wire.close()
        await closing
        assert world.intake.begun[0].aborted


@on_both_loops
async def test_a_commit_is_waited_for_and_its_client_hears(tmp_path: Path) -> None:
    async with relay(tmp_path, CLEAR) as world, await world.connect() as wire:
        world.intake.go.clear()
        await wire.ehlo()
        await wire.mail()
        wire.send("Subject: x", "", ".")
        await world.intake.committing.wait()
        closing = asyncio.create_task(world.listeners.close(grace=0.05))
        done, _pending = await asyncio.wait({closing}, timeout=0.3)
        assert not done
        world.intake.go.set()
        await wire.expect(250, 421)
        await wire.close()
        await closing
        assert len(world.intake.taken) == 1


async def test_a_client_that_does_not_let_go_is_let_go(tmp_path: Path) -> None:
    async with relay(tmp_path, CLEAR, times=TimeLimits(linger=0.1, tick=0.01)) as world, await world.connect() as wire:
        await asyncio.wait_for(world.listeners.close(grace=5), 5)
        assert world.listeners.sessions == 0
        await wire.expect(421)


async def test_a_client_that_does_not_let_go_and_a_timer_that_is_late(tmp_path: Path) -> None:
    async with relay(tmp_path, CLEAR, times=TimeLimits(linger=0.1, tick=60)) as world, await world.connect() as wire:
        await asyncio.wait_for(world.listeners.close(grace=0.1), 5)
        await wire.expect(421)


async def test_handshakes_and_proxy_headers_are_not_waited_for(tmp_path: Path, pki: Pki) -> None:
    data = {"listeners": [{"address": LOCAL}, {"address": LOCAL, "proxy_protocol": {"from": ["127.0.0.0/8"]}}]}
    async with relay(tmp_path, data, certificates=pki.certificates) as world:
        shaking = await world.connect()
        await shaking.ehlo()
        await shaking.say("STARTTLS", 220)
        silent = await Wire.open(world.listeners.bound[1].address.port)
        async with asyncio.timeout(10):
            while world.listeners.sessions < 2:  # noqa: ASYNC110 - nothing is told of a connection that has not said a word
                await asyncio.sleep(0)
        await asyncio.wait_for(world.listeners.close(grace=20), 5)
        assert await shaking.rest() == await silent.rest() == b""
        assert [event.reason for event in world.of(SessionClosed)] == ["shutting down"]
        await shaking.close()
        await silent.close()


async def test_whoever_comes_while_we_close(tmp_path: Path) -> None:
    """A connection that was accepted in the same turn of the loop."""
    async with relay(tmp_path, CLEAR, times=PATIENT) as world:
        world.listeners._floor.stopping = True
        async with await Wire.open(world.port) as wire:
            assert (await wire.expect(421)).startswith("4.3.2 ")


@on_both_loops
async def test_whoever_waits_to_be_accepted_while_we_close(tmp_path: Path) -> None:
    """Closing the socket would reset them."""
    async with relay(tmp_path, CLEAR | {"limits": {"connections_per_ip": 100}}) as world:
        waiting = [socket.create_connection(("127.0.0.1", world.port), timeout=10) for _ in range(50)]
        await world.listeners.close()
        for each in waiting:
            with each:
                assert each.recv(1000).startswith(b"421 4.3.2 ")


async def test_sizes_come_from_the_configuration_of_their_time(tmp_path: Path) -> None:
    async with relay(tmp_path, CLEAR | {"limits": {"message_size": 1000}}) as world, await world.connect() as old:
        assert "SIZE 1000" in (await old.ehlo()).split("\n")
        book: RuleBook = world.book
        world.configure(CLEAR | {"limits": {"message_size": 2000}})
        assert world.book is not book
        assert "SIZE 1000" in (await old.ehlo()).split("\n")
        async with await world.connect() as new:
            assert "SIZE 2000" in (await new.ehlo()).split("\n")
