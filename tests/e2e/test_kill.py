"""kill -9 at random moments under load: every message that got its 250 arrives (design section 7)."""

import asyncio
import random
from collections.abc import Sequence
from pathlib import Path

import aiosmtplib
import pytest

from relay.testing import Sink, write_config
from tests.e2e.process import RelayProcess

KILLS = 50
CLIENTS = 4
SEED = 20261122


class Load:
    """Clients that send as fast as they get through, and remember whose 250 they have seen."""

    def __init__(self) -> None:
        self.kept: set[str] = set()
        self.more = asyncio.Event()
        self._number = 0

    async def client(self, port: int) -> None:
        """Until the connection breaks, or it is refused because the relay is not there."""
        client = aiosmtplib.SMTP(
            hostname="127.0.0.1", port=port, start_tls=False, local_hostname="load.test", timeout=20
        )
        try:
            await client.connect()
            while True:
                self._number += 1
                name = f"{self._number}@example.com"
                await client.sendmail("load@example.test", [name], _body(self._number))
                self.kept.add(name)
                self.more.set()
        except (aiosmtplib.SMTPException, OSError):
            return
        finally:
            client.close()

    async def beyond(self, count: int) -> None:
        while len(self.kept) < count:
            self.more.clear()
            await self.more.wait()


def _body(number: int) -> bytes:
    """From one line to about 6 KB."""
    return b"Subject: load\r\n\r\n" + (b"y" * 70 + b"\r\n") * (number * 7919 % 84) + b"end\r\n"


def config(folder: Path, sink: Sink) -> Path:
    values = {
        "hostname": "relay.test",
        "postmaster": "postmaster@relay.test",
        "listeners": [{"address": "127.0.0.1:0", "starttls": "off"}],
        "queue": "sqlite:queue.db",
        "limits": {"free_space": "1MiB"},
        "accept": {"networks": ["127.0.0.0/8"]},
        "defaults": {
            "outbound": {
                "route": {"smart_hosts": [str(sink.address)]},
                "retry": {"initial": "100ms", "maximum": "500ms"},
            }
        },
    }
    return write_config(folder, values, {})


async def one_life(relay: RelayProcess, load: Load, chance: random.Random) -> None:
    """Start, load, and death after a random number of further 250s and a random moment."""
    await relay.start()
    clients = [asyncio.create_task(load.client(relay.address.port)) for _ in range(CLIENTS)]
    async with asyncio.timeout(60):
        await load.beyond(len(load.kept) + chance.randrange(1, 60))
    # Not synchronisation: the moment of death is what is random.
    await asyncio.sleep(chance.random() * 0.02)
    await relay.kill()
    await asyncio.gather(*clients)


def arrived(sink: Sink) -> Sequence[str]:
    return [recipient for message in sink.messages for recipient in message.recipients]


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_what_got_its_250_arrives_through_fifty_deaths(tmp_path: Path) -> None:
    chance, load = random.Random(SEED), Load()
    async with Sink() as sink:
        relay = RelayProcess(config(tmp_path, sink))
        for _ in range(KILLS):
            await one_life(relay, load, chance)
        async with relay:
            async with asyncio.timeout(120):
                while not load.kept <= set(arrived(sink)):
                    await sink.wait(len(sink.messages) + 1, seconds=60)
    found = arrived(sink)
    assert load.kept <= set(found)
    # Twice is allowed for what was under way at a death only: never more than the clients and connections of one life.
    assert len(found) - len(set(found)) <= KILLS * 40
    assert len(load.kept) > KILLS
