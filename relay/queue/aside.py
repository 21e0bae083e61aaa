"""Threads for what has to wait for the disk: an fsync, a checkpoint, a database that is opened anew. The event loop goes on meanwhile.

One thread does one piece of work at a time, in order; with several, whoever needs an order waits for the end of one piece before the
next. The end of each is told in the loop.
"""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, NamedTuple, TypeVar

T = TypeVar("T")
_BEGINNING = 0.0002  # seconds; a thread wakes up in a third of that where a processor is free


def _nobody_waits() -> None:
    """For its beginning."""


class _Given(NamedTuple):
    work: Callable[[], Any]
    then: Callable[[Any, Exception | None], None]
    begun: Callable[[], None] = _nobody_waits


class Aside:
    """Made in an event loop, and ended with `close`."""

    def __init__(self, name: str, threads: int = 1) -> None:
        self._loop = asyncio.get_running_loop()
        self._work: SimpleQueue[_Given | None] = SimpleQueue()
        self._threads = [threading.Thread(target=self._run, name=name, daemon=True) for _ in range(threads)]
        for each in self._threads:
            each.start()

    def do(self, work: Callable[[], T], then: Callable[[T | None, Exception | None], None]) -> None:
        """Calls `work` in a thread, then `then` in the loop with its result, or with None and what it raised."""
        self._work.put(_Given(work, then))

    def begin(
        self, work: Callable[[], T], then: Callable[[T | None, Exception | None], None], most: float = _BEGINNING
    ) -> None:
        """As `do`, and returns when the thread has begun, or after so many seconds.

        A thread needs the interpreter to begin, and a loop that goes on at once keeps it until it has nothing more to do.
        """
        begun = threading.Lock()
        begun.acquire()
        self._work.put(_Given(work, then, begun.release))
        begun.acquire(timeout=most)

    async def close(self) -> None:
        """Ends the threads behind the work that they were given."""
        for _ in self._threads:
            self._work.put(None)
        for each in self._threads:
            await asyncio.to_thread(each.join)

    def _run(self) -> None:
        while (given := self._work.get()) is not None:
            result, fault = None, None
            given.begun()
            try:
                result = given.work()
            except Exception as error:  # noqa: BLE001 - handed to whoever wanted the work
                fault = error
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                self._loop.call_soon_threadsafe(given.then, result, fault)
