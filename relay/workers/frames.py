"""What goes over the line between a relay's processes: frames with an address, so that the supervisor hands on what it does not read.

The content is pickled: both ends are the same program and the same user, over a socket pair that nobody else can open.
"""

import pickle
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

_HEAD = struct.Struct("!IBB")  # length of the content, to, from
_LARGEST = 256 * 2**20

SUPERVISOR = 255
"""Its address. The others' are their slots."""


@dataclass(frozen=True, slots=True)
class Ask:
    """`number` comes back in the answer."""

    number: int
    name: str
    argument: Any = None


@dataclass(frozen=True, slots=True)
class Answer:
    """`error` is what the other side raised, None where it did not."""

    number: int
    result: Any = None
    error: Exception | None = None


@dataclass(frozen=True, slots=True)
class Tell:
    """Nobody waits for an answer."""

    name: str
    argument: Any = None


Content = Ask | Answer | Tell


@dataclass(frozen=True, slots=True)
class Frame:
    to: int
    sender: int
    data: bytes

    def encode(self) -> bytes:
        return _HEAD.pack(len(self.data), self.to, self.sender) + self.data

    @property
    def content(self) -> Content:
        content: Content = pickle.loads(self.data)  # noqa: S301 - see above
        return content


def frame(to: int, sender: int, content: Content) -> Frame:
    """Raises what pickle raises for what cannot be sent."""
    return Frame(to, sender, pickle.dumps(content))


class FrameReader:
    """Bytes in, frames out. Raises ValueError for what no process of ours sends."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[Frame]:
        buffer = self._buffer
        buffer += data
        while len(buffer) >= _HEAD.size:
            length, to, sender = _HEAD.unpack_from(buffer)
            if length > _LARGEST:
                raise ValueError(f"a frame of {length} bytes")
            end = _HEAD.size + length
            if len(buffer) < end:
                return
            data = bytes(buffer[_HEAD.size : end])
            del buffer[:end]
            yield Frame(to, sender, data)
