"""What a message goes through in a benchmark: our relay or Postfix, one hop or a pair with TLS between, to one destination or many."""

import os
import shutil
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import peers
from bench.machine import cpu_seconds, memory_mib, tree
from bench.served import Served, configuration, outbound
from bench.sinks import destinations
from relay.config.values import HostPort
from relay.testing import Pki
from tests.e2e.process import free_port
from tests.postfix import find

OURS, DEFAULT, TUNED = "ironpost", "postfix", "postfix tuned"
_MOST_SESSIONS = 100  # with more, Postfix tuned gets more processes


@dataclass(frozen=True)
class Shape:
    """How the relays stand and what goes through them. `hops` 2: two relays, TLS 1.3 between. `reuse` False: a new connection each."""

    hops: int = 1
    reuse: bool = True
    size: int = 4096
    sessions: int = 20
    destinations: int = 1


@dataclass(frozen=True)
class Chain:
    """Relays that run. `entry` is where mail goes in; `roots` are the processes whose trees are theirs."""

    entry: HostPort
    roots: tuple[int, ...]

    def cpu_seconds(self) -> float:
        return cpu_seconds(tree(self.roots))

    def memory_mib(self) -> float:
        return memory_mib(tree(self.roots))


Contender = Callable[[Path, Shape, int], AbstractAsyncContextManager[Chain]]
"""Given a folder, the shape, and the port of the sinks."""


def contenders(*, workers: Iterable[str] = ("",), ours_alone: bool = False) -> dict[str, Contender]:
    """By name, in the order in which they take turns. One of ours for each value of `workers` ("": as it comes)."""
    found: dict[str, Contender] = {}
    for each in workers:
        found[f"{OURS}, workers {each}" if each else OURS] = _ironpost(each)
    if not ours_alone and has_postfix():
        found[DEFAULT] = _postfix(tuned=False)
        found[TUNED] = _postfix(tuned=True)
    return found


def has_postfix() -> bool:
    """It is installed, and we may start it."""
    return find("postfix") is not None and os.geteuid() == 0


def _hops(shape: Shape, port: int) -> list[HostPort]:
    return [HostPort(host, port) for host in destinations(shape.destinations)]


def _ironpost(workers: str) -> Contender:
    @asynccontextmanager
    async def run(folder: Path, shape: Shape, port: int) -> AsyncIterator[Chain]:
        pki = Pki(folder / "pki")
        hops = _hops(shape, port)
        limits: dict[str, Any] = {} if shape.reuse else {"limits": {"messages_per_connection": 1}}
        connectors = [
            outbound(f"out{number}", peers.domain(number) if len(hops) > 1 else "*", hop, **limits)
            for number, hop in enumerate(hops)
        ]
        async with AsyncExitStack() as stack:
            last = await stack.enter_async_context(
                Served(configuration(folder / "last", connectors, name="last.test", pki=pki, workers=workers))
            )
            if shape.hops == 1:
                yield Chain(last.address, (last.pid,))
                return
            secured = {"tls": "domain", "names": ["last.test"], "ca": str(pki.ca), "tls_version": "TLSv1.3", **limits}
            connectors = [outbound("partner", "*", last.address, **secured)]
            first = await stack.enter_async_context(
                Served(configuration(folder / "first", connectors, name="first.test", pki=pki, workers=workers))
            )
            yield Chain(first.address, (first.pid, last.pid))

    return run


def _postfix(*, tuned: bool) -> Contender:
    @asynccontextmanager
    async def run(folder: Path, shape: Shape, port: int) -> AsyncIterator[Chain]:
        pki = Pki(folder / "pki")
        hops, roots = _hops(shape, port), list[int]()
        processes = 300 if tuned and shape.sessions > _MOST_SESSIONS else 100
        async with AsyncExitStack() as stack:
            for name in ("last", "first")[: shape.hops]:
                place, own = folder / name, free_port()
                pem = pki.issue(place, f"{name}.test", "127.0.0.1")
                shutil.copy(pem, place / "cert.pem")
                shutil.copy(pem.with_suffix(".key"), place / "key.pem")
                shutil.copy(pki.ca, place / "ca.pem")
                roots.append(
                    stack.enter_context(
                        peers.postfix(place, own, hops, tuned=tuned, reuse=shape.reuse, processes=processes)
                    )
                )
                hops = [HostPort("127.0.0.1", own)]
            yield Chain(hops[0], tuple(roots))

    return run
