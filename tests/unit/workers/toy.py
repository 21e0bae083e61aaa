"""A relay of toy workers under a real supervisor: `python -m tests.unit.workers.toy SCENARIO`. Prints a JSON line for whatever happens.

A process of its own, since it forks: a test run has threads.
"""

import contextlib
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

from relay.mail.events import Event
from relay.workers import patience
from relay.workers.frames import SUPERVISOR, Answer, Ask, Content, FrameReader, Tell, frame
from relay.workers.link import GONE
from relay.workers.supervisor import (
    ADOPT,
    ADOPTED,
    COUNTS,
    FAILED,
    KEEP,
    PAST,
    READY,
    REPLACE,
    Station,
    Supervisor,
)
from relay.workers.table import Table


def say(what: str, **fields: Any) -> None:
    os.write(1, (json.dumps({"what": what, **fields}) + "\n").encode())


class Toy:
    """A worker without a loop."""

    def __init__(self, station: Station) -> None:
        self.slot, self.line = station.slot, station.line
        self._reader = FrameReader()

    def tell(self, to: int, content: Content) -> None:
        self.line.sendall(frame(to, self.slot, content).encode())

    def ready(self) -> None:
        self.tell(SUPERVISOR, Tell(READY))

    def hear(self) -> Iterator[tuple[int, Content]]:
        """Until the supervisor has gone."""
        with contextlib.suppress(ConnectionResetError):  # it had not read all that we told
            while data := self.line.recv(65536):
                for each in self._reader.feed(data):
                    yield each.sender, each.content
        say("alone", slot=self.slot)

    def idle(self) -> int:
        for sender, content in self.hear():
            say("heard", slot=self.slot, sender=sender, name=getattr(content, "name", ""))
        return 0


def plain(station: Station) -> int:
    """Does nothing, and dies when it is told to by a signal."""
    toy = Toy(station)
    say("born", slot=station.slot)
    toy.ready()  # the next one may start from here on, and say that it works before we do
    say("work", slot=station.slot, pid=os.getpid(), kept=station.kept)
    return toy.idle()


def broken(station: Station) -> int:
    """The second worker says why it cannot start."""
    toy = Toy(station)
    if station.slot == 1:
        toy.tell(SUPERVISOR, Tell(FAILED, "no port for the second"))
        return 1
    toy.ready()
    return toy.idle()


def crashing(_station: Station) -> int:
    raise RuntimeError("a bug before anything else")


def hopeless(station: Station) -> int:
    """The second one dies soon after each start; the first takes over its mail, in its own time."""
    toy = Toy(station)
    toy.ready()
    if station.slot == 1:
        say("work", slot=1)
        time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGKILL)
    for _sender, content in toy.hear():
        if isinstance(content, Tell) and content.name == ADOPT:
            say("adopting", slot=content.argument)
            time.sleep(0.2)
            say("adopted", slot=content.argument)
            toy.tell(SUPERVISOR, Tell(ADOPTED, content.argument))
    return 0


def silent(station: Station) -> int:
    """The first tells its counts again and again; the second does so once, and hangs. Its successor works."""
    toy = Toy(station)
    toy.ready()
    say("work", slot=station.slot, pid=os.getpid())
    toy.tell(SUPERVISOR, Tell(COUNTS, {}))
    if station.slot == 1:
        return toy.idle()
    toy.line.settimeout(0.1)
    while True:
        try:
            return toy.idle()
        except TimeoutError:
            toy.tell(SUPERVISOR, Tell(COUNTS, {}))


def talking(station: Station) -> int:
    """The second one counts, asks the first, and is replaced; then the first asks what all have counted."""
    toy = Toy(station)
    toy.ready()
    say("work", slot=station.slot, kept=station.kept)
    if station.slot == 0:
        toy.tell(SUPERVISOR, Tell(COUNTS, {"a": 1.0}))
        toy.tell(SUPERVISOR, Tell(KEEP, "a new configuration"))
    if station.slot == 1:
        toy.tell(SUPERVISOR, Tell(COUNTS, {"a": 2.0, "b": 3.0}))
        toy.tell(0, Ask(1, "hello", "x" * 1_000_000))
    replaced = False
    for sender, content in toy.hear():
        if isinstance(content, Ask):
            toy.tell(sender, Answer(content.number, len(content.argument)))
        elif isinstance(content, Answer) and station.slot == 1:
            say("answer", result=content.result)
            toy.tell(0, Tell("done"))
        elif isinstance(content, Answer):
            say("counted", result=content.result)
        elif content.name == "done" and not replaced:
            replaced = True
            toy.tell(SUPERVISOR, Tell(REPLACE, 1))
        elif content.name == GONE:
            toy.tell(SUPERVISOR, Ask(2, PAST))
    return 0


def stubborn(station: Station) -> int:
    """Does not stop."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    return plain(station)


def flooding(station: Station) -> int:
    toy = Toy(station)
    toy.ready()
    if station.slot == 1:
        say("work", slot=1)
        while True:
            time.sleep(1)
    for _ in range(70):
        toy.tell(1, Tell("much", "x" * 2**20))
    return toy.idle()


def unforkable(station: Station) -> int:
    return plain(station)


def lineless(station: Station) -> int:
    return plain(station)


def early(station: Station) -> int:
    """The first process in the second slot is told to stop before it has run a line of its own."""
    return plain(station)


def mute(station: Station) -> int:
    """The second closes its line long before it ends; the first asks it something then."""
    toy = Toy(station)
    toy.ready()
    if station.slot == 1:
        toy.tell(0, Tell("closing"))
        toy.line.close()
        time.sleep(0.3)
        return 7
    for _sender, content in toy.hear():
        if isinstance(content, Tell):
            say("told", name=content.name)
            if content.name == "closing":
                toy.tell(1, Ask(1, "hello"))
    return 0


SCENARIOS: dict[str, Callable[[Station], int]] = {
    each.__name__: each
    for each in (
        plain,
        broken,
        crashing,
        hopeless,
        talking,
        stubborn,
        flooding,
        unforkable,
        lineless,
        early,
        mute,
        silent,
    )
}


def fail(owner: Any, name: str, time: int, error: OSError) -> None:
    """The `time`-th call."""
    real, times = getattr(owner, name), 0

    def call(*about: Any) -> Any:
        nonlocal times
        times += 1
        if times == time:
            raise error
        return real(*about)

    setattr(owner, name, call)


def stop_early(time: int) -> None:
    """The `time`-th process gets SIGTERM before its fork returns there."""
    real, times = os.fork, 0

    def fork() -> int:
        nonlocal times
        times += 1
        if times != time:
            return real()
        reading, writing = os.pipe()
        pid = real()
        if pid:
            os.kill(pid, signal.SIGTERM)
            os.write(writing, b"x")
        else:
            os.read(reading, 1)
        return pid

    os.fork = fork


def count_wakings(supervisor: Supervisor) -> Callable[[], int]:
    real, times = supervisor._selector.select, 0

    def select(timeout: float | None = None) -> Any:
        nonlocal times
        times += 1
        return real(timeout)

    supervisor._selector.select = select  # type: ignore[method-assign]
    return lambda: times


def main() -> None:
    name = sys.argv[1]
    table = Table(2)

    def tell(event: Event) -> None:
        say(type(event).__name__, **asdict(event))

    supervisor = Supervisor(table, SCENARIOS[name], tell, limit=0.3, silence=2.0)
    if name == "hopeless":
        patience._PAUSES = (0.0, 0.0, 0.05, 0.1)
    if name == "unforkable":
        fail(os, "fork", 3, OSError(11, "Resource temporarily unavailable"))
    if name == "lineless":
        fail(socket, "socketpair", 4, OSError(24, "Too many open files"))
    if name == "early":
        stop_early(2)
    wakings = count_wakings(supervisor)
    problem = supervisor.serve()
    say("end", problem=problem, wakings=wakings())


if __name__ == "__main__":
    main()
