"""PROXY headers in front of real sessions: who the client is then, and who may send one at all."""

import asyncio
import struct
from pathlib import Path
from typing import Any

from relay.inbound.proxy import SIGNATURE
from relay.inbound.services import TimeLimits
from relay.mail.events import ConnectionRefused, SessionClosed, SessionOpened
from tests.unit.inbound.test_tls import TlsClient
from tests.unit.inbound.world import Pki, Wire, on_both_loops, relay

FROM = {"from": ["127.0.0.1"]}
PROXIED: dict[str, Any] = {"listeners": [{"address": "127.0.0.1:0", "starttls": "off", "proxy_protocol": FROM}]}
V1 = b"PROXY TCP4 192.0.2.7 127.0.0.1 4711 25\r\n"
V1_UNKNOWN = b"PROXY UNKNOWN\r\n"
V2 = (
    SIGNATURE + struct.pack("!BBH", 0x21, 0x11, 12) + bytes([192, 0, 2, 8, 127, 0, 0, 1]) + struct.pack("!HH", 4711, 25)
)
V2_LOCAL = SIGNATURE + struct.pack("!BBH", 0x20, 0, 0)


@on_both_loops
async def test_the_client_behind_the_proxy(tmp_path: Path) -> None:
    async with relay(tmp_path, PROXIED) as world:
        for header in (V1, V2):
            async with await Wire.open(world.port) as wire:
                wire.send(header)
                await wire.expect(220)
                await wire.ehlo()
                await wire.message()
        assert [event.client for event in world.of(SessionOpened)] == ["192.0.2.7", "192.0.2.8"]
        assert [taken.accepted.client for taken in world.intake.taken] == ["192.0.2.7", "192.0.2.8"]
        assert {taken.accepted.client_port for taken in world.intake.taken} == {4711}
        assert {taken.accepted.server for taken in world.intake.taken} == {"127.0.0.1:25"}
        assert b"from client.example ([192.0.2.8])" in world.intake.taken[1].header


async def test_a_header_in_pieces_and_with_a_session_behind_it(tmp_path: Path) -> None:
    async with relay(tmp_path, PROXIED) as world:
        for header in (V1, V2):
            async with await Wire.open(world.port) as wire:
                for octet in header[:-1]:
                    wire.send(bytes([octet]))
                    await wire.writer.drain()
                    await asyncio.sleep(0)
                wire.send(header[-1:] + b"EHLO client.example\r\nNOOP\r\n")
                await wire.expect(220, 250, 250)


async def test_networks_are_the_clients_not_the_proxys(tmp_path: Path) -> None:
    accept = {"domains": ["example.com"], "networks": ["127.0.0.0/8", "192.0.2.7"]}
    async with relay(tmp_path, PROXIED | {"accept": accept}) as world:
        for header, may in ((V1, True), (V2, False), (V1_UNKNOWN, False), (V2_LOCAL, False)):
            async with await Wire.open(world.port) as wire:
                wire.send(header)
                await wire.expect(220)
                await wire.ehlo()
                await wire.say("MAIL FROM:<ann@contoso.com>", 250)
                await wire.say("RCPT TO:<eve@elsewhere.example>", 250 if may else 550)
        assert [event.client for event in world.of(SessionOpened)][2:] == ["unknown", "unknown"]


async def test_a_client_without_an_address_still_sends_to_us(tmp_path: Path) -> None:
    async with relay(tmp_path, PROXIED) as world, await Wire.open(world.port) as wire:
        wire.send(V1_UNKNOWN)
        await wire.expect(220)
        await wire.ehlo()
        await wire.message()
        assert world.intake.taken[0].accepted.client == "unknown"
        assert b"from client.example (unknown)" in world.intake.taken[0].header


async def test_others_may_not_send_a_header(tmp_path: Path) -> None:
    async with relay(tmp_path, PROXIED) as world:
        async with await Wire.open(world.port, local_addr=("127.0.0.2", 0)) as wire:
            assert await wire.rest() == b""
        refused = await world.event(ConnectionRefused)
        assert refused.client == "127.0.0.2"
        assert "`proxy_protocol`" in refused.reason
        assert world.of(SessionOpened) == []


@on_both_loops
async def test_a_bad_header_ends_the_connection(tmp_path: Path) -> None:
    async with relay(tmp_path, PROXIED) as world:
        for number, data in enumerate(
            (b"EHLO client.example\r\n", b"PROXY TCP4 x y 1 2\r\n", SIGNATURE + b"\x31\0\0\0"), 1
        ):
            async with await Wire.open(world.port) as wire:
                wire.send(data)
                assert await wire.rest() == b""
            assert (await world.event(ConnectionRefused, number)).reason.startswith("bad PROXY header: ")
        assert world.of(SessionOpened) == []


async def test_a_header_that_does_not_come(tmp_path: Path) -> None:
    async with relay(tmp_path, PROXIED, times=TimeLimits(proxy_header=0.2, linger=0.2, tick=0.02)) as world:
        async with await Wire.open(world.port) as wire:
            wire.send(b"PROXY TCP4 192.0")
            assert await wire.rest() == b""
        assert (await world.event(ConnectionRefused)).reason == "no PROXY header in time"


async def test_a_proxy_that_only_looks(tmp_path: Path) -> None:
    """A TCP health check connects and goes away."""
    async with relay(tmp_path, PROXIED) as world:
        async with await Wire.open(world.port):
            pass
        async with await Wire.open(world.port) as wire:
            wire.send(V2_LOCAL + b"QUIT\r\n")
            await wire.expect(220, 221)
        await world.event(SessionClosed)
        assert world.of(ConnectionRefused) == []


async def test_limits_count_the_client_or_else_the_proxy(tmp_path: Path) -> None:
    async with relay(tmp_path, PROXIED | {"limits": {"connections_per_ip": 1}}) as world:
        wires = []
        for header, code in ((V1, 220), (V2, 220), (V1, 421), (V2_LOCAL, 220), (V1_UNKNOWN, 421)):
            wire = await Wire.open(world.port)
            wires.append(wire)
            wire.send(header)
            await wire.expect(code)
        for wire in wires:
            await wire.close()
        await world.event(SessionClosed, 3)
        assert [event.client for event in world.of(ConnectionRefused)] == ["192.0.2.7", "unknown"]
        assert world.listeners._floor.connections._by_client == {}


@on_both_loops
async def test_the_header_comes_before_implicit_tls(tmp_path: Path, pki: Pki) -> None:
    (tmp_path / "passwords").write_text("")
    data = {
        "listeners": [{"address": "127.0.0.1:0", "kind": "submissions", "proxy_protocol": FROM}],
        "submission": {"passwords": "passwords"},
    }
    async with relay(tmp_path, data, certificates=pki.certificates) as world:
        for header in (V1, V2):
            client = TlsClient(pki.client_context())
            with await client.connect(asyncio.get_running_loop(), world.port):
                await client.handshake(before=header)  # the ClientHello in the same packet
                assert (await client.receive()).startswith(b"220 ")
        assert [event.client for event in world.of(SessionOpened)] == ["192.0.2.7", "192.0.2.8"]
