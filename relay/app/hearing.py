"""Who hears of what happens: one table by an event's type, so that an event costs nothing to those who do not want it.

Observers are called in the event loop, in the order in which they were added: they must be quick and must not raise.
"""

from collections.abc import Collection

from relay.mail.events import Emit, Event


class Hearing:
    """Is the relay's `Emit`. An observer is of the classes themselves, not of their subclasses: no event has any."""

    def __init__(self) -> None:
        self._all: list[tuple[Emit, Collection[type[Event]] | None]] = []
        self._table: dict[type[Event], tuple[Emit, ...]] = {}

    def add(self, hear: Emit, kinds: Collection[type[Event]] | None = None) -> None:
        """From now on `hear` is told of events of these kinds, None: of all."""
        self._all.append((hear, kinds))
        self._table.clear()

    def __call__(self, event: Event) -> None:
        kind = type(event)
        hearers = self._table.get(kind)
        if hearers is None:
            hearers = self._table[kind] = tuple(hear for hear, kinds in self._all if kinds is None or kind in kinds)
        for hear in hearers:
            hear(event)
