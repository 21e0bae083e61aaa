"""A worker's line to the others and to the supervisor, in its event loop.

Threat: one that is asked and dies, or hangs. Whoever asks hears `Gone` as soon as the supervisor knows, or `Silent` when the time is over.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, cast

from relay.workers.frames import SUPERVISOR, Answer, Ask, Content, FrameReader, Tell, frame

GONE = "gone"
"""What the supervisor tells of a slot whose process has ended, or that has none."""

Handler = Callable[[Any], Awaitable[Any]]


class Gone(Exception):  # noqa: N818 - it is a state of the other one, not an error of ours
    """The process that was asked has ended."""


class Silent(Exception):  # noqa: N818 - as above
    """The process that was asked has not answered in time, and may still do what it was asked."""


class Link(asyncio.Protocol):
    """`lost` is set when the supervisor has gone. Made by `open`."""

    def __init__(self, slot: int, count: int) -> None:
        self.slot = slot
        self.others = tuple(each for each in range(count) if each != slot)
        self.lost = asyncio.Event()
        self._handlers: dict[str, Handler] = {}
        self._reader = FrameReader()
        self._transport: asyncio.Transport
        self._asked: dict[int, tuple[int, asyncio.Future[Any]]] = {}
        self._number = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._early: list[tuple[int, Ask | Tell]] | None = []

    @classmethod
    async def open(cls, sock: socket.socket, slot: int, count: int) -> "Link":
        link = cls(slot, count)
        await asyncio.get_running_loop().create_unix_connection(lambda: link, sock=sock)
        return link

    def listen(self, handlers: Mapping[str, Handler]) -> None:
        """What others ask and tell is answered by these from now on, what came before as well."""
        self._handlers.update(handlers)
        early, self._early = self._early or [], None
        for sender, content in early:
            self._serve(sender, content)

    def tell(self, to: int, name: str, argument: Any = None) -> None:
        self._send(to, Tell(name, argument))

    def tell_others(self, name: str, argument: Any = None) -> None:
        for each in self.others:
            self.tell(each, name, argument)

    async def ask(self, to: int, name: str, argument: Any = None, *, seconds: float = 5.0) -> Any:
        """Raises what the other side's handler raised, Gone or Silent."""
        self._number += 1
        number = self._number
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._asked[number] = (to, future)
        try:
            self._send(to, Ask(number, name, argument))
            async with asyncio.timeout(seconds):
                return await future
        except TimeoutError:
            raise Silent(f"process {to} of this relay does not answer") from None
        finally:
            del self._asked[number]

    async def ask_others(self, name: str, argument: Any = None, *, seconds: float = 5.0) -> dict[int, Any]:
        """The answer of each, or the exception that it raised, or Silent; without those that are gone."""
        answers = await asyncio.gather(
            *(self.ask(each, name, argument, seconds=seconds) for each in self.others), return_exceptions=True
        )
        found = dict(zip(self.others, answers, strict=True))
        return {slot: answer for slot, answer in found.items() if not isinstance(answer, Gone)}

    async def close(self) -> None:
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._transport.close()

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        for each in self._reader.feed(data):
            self._take(each.sender, each.content)

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set()
        for _to, future in self._asked.values():
            if not future.done():
                future.set_exception(Gone("the supervisor of this relay has ended"))

    # Inside.

    def _send(self, to: int, content: Content) -> None:
        self._transport.write(frame(to, self.slot, content).encode())

    def _take(self, sender: int, content: Content) -> None:
        if isinstance(content, Answer):
            _to, future = self._asked.get(content.number, (0, None))
            if future is not None and not future.done():
                if content.error is None:
                    future.set_result(content.result)
                else:
                    future.set_exception(content.error)
        elif sender == SUPERVISOR and content.name == GONE:
            for to, future in self._asked.values():
                if to == content.argument and not future.done():
                    future.set_exception(Gone(f"process {to} of this relay has ended"))
        elif self._early is not None:
            self._early.append((sender, content))
        else:
            self._serve(sender, content)

    def _serve(self, sender: int, content: Ask | Tell) -> None:
        task = asyncio.get_running_loop().create_task(self._handle(sender, content))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _handle(self, sender: int, content: Ask | Tell) -> None:
        result, error = None, None
        try:
            result = await self._handlers[content.name](content.argument)
        except Exception as raised:  # noqa: BLE001 - handed to whoever asked
            error = raised
        if isinstance(content, Ask):
            self._answer(sender, content.number, result, error)
        elif error is not None:
            asyncio.get_running_loop().call_exception_handler(
                {"message": f"what another process told ({content.name}) could not be used", "exception": error}
            )

    def _answer(self, to: int, number: int, result: Any, error: Exception | None) -> None:
        try:
            self._send(to, Answer(number, result, error))
        except Exception as odd:  # noqa: BLE001 - something in it cannot be pickled; the other side must not wait for it
            self._send(to, Answer(number, error=RuntimeError(f"{error or odd!r}")))
