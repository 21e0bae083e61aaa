"""Work for a thread: in order, told in the loop, and begun where somebody wants that."""

import asyncio
import threading
import time

from relay.queue.aside import Aside

LONG = 20.0  # seconds


def ignore(_result: object, _fault: object) -> None:
    """Nobody wants to know."""


async def test_whoever_begins_work_waits_until_it_has_begun() -> None:
    aside, asked, done = Aside("test"), threading.Event(), threading.Event()

    def take_time() -> None:
        asked.wait(LONG)
        time.sleep(0.2)  # without the interpreter: whoever does not wait goes on meanwhile
        done.set()

    aside.do(take_time, ignore)
    assert not done.is_set()
    asked.set()
    aside.begin(lambda: None, ignore, most=LONG)
    assert done.is_set(), "the thread had other work until now"
    await aside.close()


async def test_it_does_not_wait_for_its_end_and_hears_of_it() -> None:
    aside, loop = Aside("test"), asyncio.get_running_loop()
    go_on = threading.Event()
    done: asyncio.Future[tuple[bool | None, Exception | None]] = loop.create_future()
    aside.begin(lambda: go_on.wait(LONG), lambda result, fault: done.set_result((result, fault)), most=LONG)
    assert not done.done()
    go_on.set()
    assert await asyncio.wait_for(done, LONG) == (True, None)
    await aside.close()


async def test_it_does_not_wait_long_for_a_thread_that_is_busy() -> None:
    aside, go_on = Aside("test"), threading.Event()
    done: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
    aside.do(lambda: go_on.wait(LONG), ignore)
    began = time.monotonic()
    aside.begin(lambda: "done", lambda result, _fault: done.set_result(result))
    assert time.monotonic() - began < LONG / 2
    go_on.set()
    assert await asyncio.wait_for(done, LONG) == "done", "it is done all the same"
    await aside.close()
