"""What links need of a supervisor, in one process: frames handed on, and the word that somebody has gone."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from relay.workers.frames import SUPERVISOR, FrameReader, Tell, frame
from relay.workers.link import GONE, Link


class Hub:
    """Hands frames on between links, as the supervisor does. What is for itself is kept."""

    def __init__(self) -> None:
        self.links: dict[int, Link] = {}
        self.lines: dict[int, asyncio.StreamWriter] = {}
        self.heard: list[tuple[int, Any]] = []
        self.told = asyncio.Event()
        self.tasks: list[asyncio.Task[None]] = []
        self._all: list[asyncio.StreamWriter] = []

    async def join(self, slot: int, count: int) -> Link:
        ours, theirs = socket.socketpair()
        reader, self.lines[slot] = await asyncio.open_unix_connection(sock=ours)
        self._all.append(self.lines[slot])
        self.tasks.append(asyncio.create_task(self._hand_on(reader)))
        link = self.links[slot] = await Link.open(theirs, slot, count)
        return link

    async def _hand_on(self, reader: asyncio.StreamReader) -> None:
        frames = FrameReader()
        while data := await reader.read(65536):
            for each in frames.feed(data):
                if each.to == SUPERVISOR:
                    self.heard.append((each.sender, each.content))
                    self.told.set()
                elif each.to in self.lines:
                    self.lines[each.to].write(each.encode())
                else:
                    self.lines[each.sender].write(frame(each.sender, SUPERVISOR, Tell(GONE, each.to)).encode())

    async def close(self) -> None:
        for line in self._all:
            line.close()
            await line.wait_closed()
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    def gone(self, slot: int) -> None:
        del self.lines[slot]
        for each, line in self.lines.items():
            line.write(frame(each, SUPERVISOR, Tell(GONE, slot)).encode())


@asynccontextmanager
async def hub(count: int) -> AsyncIterator[tuple[Hub, list[Link]]]:
    made = Hub()
    links = [await made.join(slot, count) for slot in range(count)]
    try:
        yield made, links
    finally:
        for link in links:
            await link.close()
        await made.close()
