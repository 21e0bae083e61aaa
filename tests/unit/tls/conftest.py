"""A folder of certificates, made once, and a runner for each event loop."""

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Protocol, TypeVar

import pytest
import uvloop

from relay.tls.keyring import Keyring
from tests.unit.tls.pki import Issued, Wish, clock, root

T = TypeVar("T")


class Run(Protocol):
    def __call__(self, main: Coroutine[Any, Any, T], /) -> T: ...


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    """Runs a coroutine, once per kind of event loop."""
    factory: Callable[[], asyncio.AbstractEventLoop] = request.param

    def start(main: Coroutine[Any, Any, T], /) -> T:
        with asyncio.Runner(loop_factory=factory) as runner:
            return runner.run(main)

    return start


@pytest.fixture(scope="session")
def ca() -> Issued:
    return root()


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory, ca: Issued) -> Path:
    """a.example (also 192.0.2.1) behind an intermediate, b.example, and *.w.example with w.example."""
    path = tmp_path_factory.mktemp("certs")
    intermediate = ca.issue(Wish("intermediate", ca=True))
    intermediate.issue(Wish("a", names=["a.example", "192.0.2.1"])).write(path, "a")
    ca.issue(Wish("b", names=["b.example"])).write(path, "b")
    ca.issue(Wish("w", names=["*.w.example", "w.example"])).write(path, "w")
    return path


@pytest.fixture(scope="session")
def keyring(folder: Path) -> Keyring:
    ring = Keyring(folder, hostname="b.example", clock=clock)
    assert ring.problems == ()
    return ring
