"""Where a process stands in its relay: alone, or a worker among others."""

from dataclasses import dataclass, field
from pathlib import Path

from relay.config.load import Loaded
from relay.config.models import Config
from relay.inbound.sockets import Own, Sockets
from relay.queue.share import Share
from relay.workers.limits import SharedConnections, SharedLanes
from relay.workers.link import Link
from relay.workers.locks import QueueTurn
from relay.workers.steering import Steering
from relay.workers.table import Table


@dataclass(frozen=True, slots=True)
class InForce:
    """A configuration, and the other files whose content became part of it.

    `text` is the file's, and may hold secrets. `is_older`: the file on disk may be another one by now, which nobody has looked at yet.
    """

    config: Config
    files: frozenset[Path]
    is_older: bool = False
    text: str = field(default="", repr=False)

    @classmethod
    def of(cls, loaded: Loaded) -> "InForce":
        return cls(loaded.config, loaded.files, text=loaded.text)


@dataclass(frozen=True, slots=True)
class Place:
    """`table` and `link` are None for a relay of one process."""

    slot: int = 0
    count: int = 1
    table: Table | None = None
    link: Link | None = None
    sockets: Sockets = field(default_factory=Own)

    @property
    def leads(self) -> bool:
        """True for the one that speaks for all: it reads the configuration, and has the admin socket and `observe`."""
        return self.slot == 0

    @property
    def share(self) -> Share:
        """Of the queue."""
        if self.table is None:
            return Share()
        return Share(self.slot, self.count, QueueTurn(self.table), locked=True)

    @property
    def connections(self) -> SharedConnections | None:
        return None if self.table is None else SharedConnections(self.table, self.slot)

    @property
    def steering(self) -> Steering | None:
        return None if self.table is None else Steering(self.table, self.slot)

    @property
    def lanes(self) -> SharedLanes | None:
        return None if self.table is None else SharedLanes(self.table, self.slot)
