"""The line between processes: frames whole whatever the pieces, answers to whoever asked, and nobody waits for the dead."""

import asyncio
from typing import Any

import pytest

from relay.queue.store import StoreUnavailable
from relay.workers.frames import SUPERVISOR, Answer, Ask, Content, FrameReader, Tell, frame
from relay.workers.link import Gone, Silent
from tests.unit.workers.hub import hub


def test_frames_come_whole_whatever_the_pieces() -> None:
    contents: list[Content] = [Ask(1, "x", {"a": [1, 2]}), Answer(1, error=ValueError("no")), Tell("y")]
    data = b"".join(frame(2, 1, each).encode() for each in contents)
    for size in (1, 3, 1000):
        reader = FrameReader()
        found = [each for start in range(0, len(data), size) for each in reader.feed(data[start : start + size])]
        assert [(each.to, each.sender) for each in found] == [(2, 1)] * 3
        assert [type(each.content) for each in found] == [Ask, Answer, Tell]
        assert found[0].content == contents[0]


def test_a_frame_of_no_process_of_ours_is_an_error() -> None:
    with pytest.raises(ValueError, match="a frame of"):
        list(FrameReader().feed(b"\xff" * 6))


async def double(number: Any) -> Any:
    if number == 0:
        raise StoreUnavailable("not now")
    return number * 2


async def test_asking_one_and_all() -> None:
    async with hub(3) as (_hub, links):
        for link in links:
            link.listen({"double": double})
        assert await links[0].ask(1, "double", 21) == 42
        assert await links[2].ask_others("double", "a") == {0: "aa", 1: "aa"}


async def test_what_the_other_side_raises_is_raised_here() -> None:
    async with hub(2) as (_hub, links):
        links[1].listen({"double": double})
        with pytest.raises(StoreUnavailable, match="not now"):
            await links[0].ask(1, "double", 0)
        with pytest.raises(KeyError):
            await links[0].ask(1, "what", 0)
        found = await links[0].ask_others("double", 0)
        assert isinstance(found[1], StoreUnavailable)


class Unsendable:
    """Says the same in every Python, which a lambda does not."""

    def __reduce__(self) -> str:
        raise TypeError("cannot be sent")


async def test_an_answer_that_cannot_be_sent_is_an_error_and_no_silence() -> None:
    async def odd(_argument: Any) -> Any:
        return Unsendable()

    async with hub(2) as (_hub, links):
        links[1].listen({"odd": odd})
        with pytest.raises(RuntimeError, match="cannot be sent"):
            await links[0].ask(1, "odd")


async def test_what_comes_before_anybody_listens_waits() -> None:
    async with hub(2) as (_hub, links):
        asking = asyncio.create_task(links[0].ask(1, "double", 4))
        told = asyncio.Event()

        async def tell(_argument: Any) -> None:
            told.set()

        links[0].tell(1, "tell")
        await asyncio.sleep(0.01)
        assert not asking.done()
        links[1].listen({"double": double, "tell": tell})
        assert await asking == 8
        await told.wait()


async def test_one_that_dies_is_not_waited_for() -> None:
    async with hub(3) as (made, links):
        links[1].listen({"double": double})
        asking = asyncio.create_task(links[0].ask(2, "double", 4))
        others = asyncio.create_task(links[0].ask_others("double", 1))
        await asyncio.sleep(0)
        made.gone(2)
        with pytest.raises(Gone, match="process 2 of this relay has ended"):
            await asking
        assert await others == {1: 2}


async def test_one_that_does_not_answer_is_waited_for_in_vain() -> None:
    async with hub(2) as (_hub, links):
        with pytest.raises(Silent, match="does not answer"):
            await links[0].ask(1, "double", 4, seconds=0.01)
        assert isinstance((await links[0].ask_others("double", 4, seconds=0.01))[1], Silent)
        links[1].listen({"double": double})  # its answer comes too late, and hurts nobody
        assert await links[0].ask(1, "double", 5) == 10


async def test_when_the_supervisor_has_gone_everybody_knows() -> None:
    async with hub(2) as (made, links):
        asking = asyncio.create_task(links[0].ask(1, "double", 4))
        await asyncio.sleep(0)
        made.lines[0].close()
        await asyncio.wait_for(links[0].lost.wait(), 5)
        with pytest.raises(Gone, match="the supervisor of this relay has ended"):
            await asking


async def test_what_is_told_and_cannot_be_used_is_heard_of() -> None:
    caught: list[dict[str, Any]] = []
    heard = asyncio.Event()

    def handler(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        caught.append(context)
        heard.set()

    asyncio.get_running_loop().set_exception_handler(handler)
    async with hub(2) as (_hub, links):
        links[1].listen({"double": double})
        links[0].tell_others("double", 0)
        await asyncio.wait_for(heard.wait(), 5)
    assert isinstance(caught[0]["exception"], StoreUnavailable)


async def test_the_supervisor_is_told() -> None:
    async with hub(1) as (made, links):
        links[0].tell(SUPERVISOR, "ready")
        await asyncio.wait_for(made.told.wait(), 5)
        assert made.heard == [(0, Tell("ready"))]
