"""A relay that does nothing, behind the real admin API on a real unix socket, in a thread of its own."""

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from relay.admin.unix import admin_socket
from relay.cli import build
from tests.unit.admin.fake import FakeRelay, application


class Shell:
    """Runs `relay ...` against a configuration file."""

    def __init__(self, config: Path) -> None:
        self.config = config

    def __call__(self, *arguments: str, stdin: str | None = None, config: bool = True) -> Result:
        words = [*arguments, "--config", str(self.config)] if config else list(arguments)
        return CliRunner().invoke(build(words), words, input=stdin)


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    config = tmp_path / "connectors.yaml"
    config.write_text("admin: {socket: relay.sock}\nsomething: that is an error\n")
    return Shell(config)


@pytest.fixture
def relay(tmp_path: Path) -> Iterator[FakeRelay]:
    fake = FakeRelay()
    ready = threading.Event()
    loop = asyncio.new_event_loop()
    done = asyncio.Event()

    async def serve() -> None:
        async with admin_socket(tmp_path / "relay.sock", application(fake)):
            ready.set()
            await done.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    assert ready.wait(10)
    yield fake
    loop.call_soon_threadsafe(done.set)
    thread.join()
    loop.close()
