"""Work for a thread: in order, told in the loop, and begun where somebody wants that."""

import asyncio
import threading

from relay.queue.aside import Aside


async def test_what_is_begun_has_begun() -> None:
    aside, loop = Aside("test"), asyncio.get_running_loop()
    begun, go_on = threading.Event(), threading.Event()
    done: asyncio.Future[tuple[str | None, Exception | None]] = loop.create_future()

    def work() -> str:
        begun.set()
        go_on.wait(20)
        return "done"

    aside.begin(work, lambda result, fault: done.set_result((result, fault)), most=20)
    assert begun.wait(20)
    assert not done.done()
    go_on.set()
    assert await asyncio.wait_for(done, 20) == ("done", None)
    await aside.close()
