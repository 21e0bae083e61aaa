"""How a process that serves shares the processors: under load it does not interrupt those that run.

By Linux's usual policy a process that wakes up may stop the one that runs. Where several are busy with the same mail (workers, a peer on the
same machine) they stop each other in the middle of every step, and each finds its caches swept: a tenth to a fifth of the CPU time of a message
(docs/decisions/workers.md). Under SCHED_BATCH it waits its turn, with the same share. But mail that comes one at a time beside a busy program
would then wait a turn at each of its steps, so the policy follows the load.
Source: sched(7).
"""

import asyncio
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, process_time

_LOOK = 0.2  # seconds between two looks at our own CPU time
_BUSY = 0.12  # of a processor's time: some 100 messages a second. From here on, ...
_CALM = 0.06  # ... until it is less than this
_CROWD = 4  # under way at once: with fewer, somebody waits for each step
_PATIENT = 10  # looks without a crowd until it is taken as gone: it is counted in passing
_THREADS = Path("/proc/self/task")


@dataclass(frozen=True, slots=True)
class Load:
    """How busy the process has been of late. `alone`: looks in a row without a crowd."""

    is_busy: bool = False
    alone: int = _PATIENT

    def after(self, share: float, under_way: int) -> "Load":
        """`share` of one processor was used since the last look (several threads: more than 1.0).
        `under_way`: mail at the door, or on its way out."""
        alone = 0 if under_way >= _CROWD else min(self.alone + 1, _PATIENT)
        return Load(share > (_CALM if self.is_busy else _BUSY) and alone < _PATIENT, alone)


@contextmanager
def pace(under_way: Callable[[], int]) -> Iterator[None]:
    """Within it the policy follows the load. Needs a running loop. Leaves it alone where it is not the usual one: somebody chose that."""
    if not _is_usual():
        yield
        return
    task = asyncio.ensure_future(follow_load(under_way, set_batch))
    try:
        yield
    finally:
        task.cancel()
        set_batch(False)


def _is_usual() -> bool:
    """False, too, where there are no policies, or a sandbox does not let us ask: mail is taken all the same."""
    try:
        return hasattr(os, "SCHED_BATCH") and os.sched_getscheduler(0) == os.SCHED_OTHER
    except OSError:
        return False


async def follow_load(under_way: Callable[[], int], set_batch: Callable[[bool], bool]) -> None:
    """Until `set_batch` says that it may not."""
    load, used, at = Load(), process_time(), monotonic()
    while True:
        await asyncio.sleep(_LOOK)
        then_used, then, before = used, at, load
        used, at = process_time(), monotonic()
        load = load.after((used - then_used) / (at - then), under_way())
        if load.is_busy != before.is_busy and not set_batch(load.is_busy):
            return


def set_batch(batch: bool, /) -> bool:
    """Every thread of this process; those to come have their maker's. False where the system allows no such thing: a sandbox, or no /proc."""
    policy, nothing_else = os.SCHED_BATCH if batch else os.SCHED_OTHER, os.sched_param(0)
    try:
        for thread in _THREADS.iterdir():
            with suppress(ProcessLookupError):  # it has ended meanwhile
                os.sched_setscheduler(int(thread.name), policy, nothing_else)
    except OSError:
        return False
    return True
