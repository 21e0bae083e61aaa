"""A relay of several processes: what has to be there before any of them, and what one of them does from its first moment to its last.

The supervisor's own life is `relay.workers.supervisor`'s.
"""

import asyncio
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from relay.app.collector import calm_collector
from relay.app.pace import pace
from relay.app.place import InForce, Place
from relay.app.relay import Relay, StartError
from relay.config.load import ConfigError
from relay.config.models import Config
from relay.inbound.policies import policy_door
from relay.inbound.sockets import Door, ListenError, Reserved, Sockets
from relay.mail.events import Emit
from relay.queue.disk import Lock, beside
from relay.queue.store import StoreLocked, StoreUnusable
from relay.workers.frames import SUPERVISOR
from relay.workers.link import Link
from relay.workers.service import of_this_process
from relay.workers.supervisor import FAILED, READY, Station, Supervisor
from relay.workers.table import Table

MOST_BY_ITSELF = 8  # beyond that they wait for the queue's one writer (docs/decisions/workers.md)


@dataclass(frozen=True, slots=True)
class Whole:
    """What all workers of a relay have in common. `in_force`: the configuration at the start."""

    file: Path
    in_force: InForce
    table: Table
    sockets: Sockets


def how_many(config: Config) -> int:
    """Processes that share the work."""
    return min(cores(), MOST_BY_ITSELF) if config.workers == "auto" else config.workers


def cores(root: Path = Path("/sys/fs/cgroup")) -> int:
    """Cores that this process may use: those it is bound to, or as much of them as its control group is granted."""
    bound = len(os.sched_getaffinity(0))
    try:
        quota, period = (root / "cpu.max").read_text().split()
        granted = -(-int(quota) // int(period))
    except (OSError, ValueError):  # not there, or "max"
        return bound
    return max(min(bound, granted), 1)


def doors(config: Config) -> tuple[Door, ...]:
    """All addresses that every worker listens on."""
    mail = (Door(each.name, each.address, "listeners") for each in config.listeners)
    return (*mail, *(policy_door(each) for each in config.publish.https or ()))


def supervise(file: Path, in_force: InForce, run: Callable[[Whole, Station], int], tell: Emit, *, now: datetime) -> str:
    """Serves with several workers until it is told to stop. Why it could not start, "" where it could. `run` is called in each worker."""
    config = in_force.config
    lock = Lock(beside(config.queue_file, ".lock"))
    try:
        lock.take(now)
    except (StoreLocked, StoreUnusable) as error:
        return str(error)
    try:
        sockets = Reserved(doors(config))
    except ListenError as error:
        lock.release()
        return str(error)
    whole = Whole(file, in_force, Table(how_many(config)), sockets)
    try:
        return Supervisor(whole.table, lambda station: run(whole, station), tell, service=of_this_process()).serve()
    finally:
        sockets.close()
        whole.table.close()
        lock.release()


async def work(whole: Whole, station: Station, hear: Emit, lines_dropped: Callable[[], int]) -> int:
    """One worker, until it is told to stop or the supervisor has gone. Its exit code."""
    slot, count = station.slot, whole.table.count
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    link = await Link.open(station.line, slot, count)
    relay = Relay(
        whole.file,
        observers=(hear,),
        lines_dropped=lines_dropped,
        place=Place(slot, count, whole.table, link, whole.sockets),
        in_force=station.kept or whole.in_force,
    )
    try:
        async with relay:
            if slot == 0:
                loop.add_signal_handler(signal.SIGHUP, reload_on_signal(relay))
            link.tell(SUPERVISOR, READY)
            calm_collector()
            with pace(lambda: relay.under_way):
                await first_of(ended, link.lost)
    except (ConfigError, StartError) as error:
        link.tell(SUPERVISOR, FAILED, str(error))
        return 1
    finally:
        await link.close()
    return 0


async def first_of(*events: asyncio.Event) -> None:
    """Returns when one of them is set."""
    waiting = [asyncio.ensure_future(each.wait()) for each in events]
    await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    for each in waiting:
        each.cancel()


def reload_on_signal(relay: Relay) -> Callable[[], None]:
    """What SIGHUP calls. What came of it is told by events: taken, or waiting and why."""
    running: set[asyncio.Task[None]] = set()

    async def reload() -> None:
        await relay.reload_on_signal()

    def start() -> None:
        task = asyncio.ensure_future(reload())
        running.add(task)
        task.add_done_callback(running.discard)

    return start
