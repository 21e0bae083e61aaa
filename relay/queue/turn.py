"""Whose turn it is to write, among the processes that share a queue.

SQLite's own way (a writer that finds another one at work sleeps, longer each time) is slow and unfair; so each asks for its turn before
it begins, and keeps it for one transaction.
"""

from typing import Protocol


class Turn(Protocol):
    """Held by at most one process at a time, and given back by the kernel where its holder dies."""

    def take(self) -> bool:
        """True: it is ours until `give`. False: somebody else has it, ask again in a millisecond."""
        ...

    def give(self) -> None: ...

    @property
    def edition(self) -> int:
        """Counts how often the queue's file was written anew: whoever opened an earlier edition has to open it again before it writes."""
        ...

    def new_edition(self) -> None:
        """The holder of the turn has put another file in the place of the queue's."""
        ...

    @property
    def doubt(self) -> bool:
        """True: a sync of the log failed. What was in the log by then may be nowhere but in memory, and SQLite reads none of what comes behind
        it after a power cut: nobody may write, or promise anything, until the log was written to the disk once more."""
        ...

    def raise_doubt(self) -> None:
        """By anybody, at any time."""
        ...

    def end_doubt(self) -> None:
        """By the holder of the turn, once the log is safe."""
        ...


class Alone:
    """One process has the queue to itself: it is always its turn."""

    def __init__(self) -> None:
        self.edition = 0
        self.doubt = False

    def take(self) -> bool:
        return True

    def give(self) -> None:
        return None

    def new_edition(self) -> None:
        self.edition += 1

    def raise_doubt(self) -> None:
        self.doubt = True

    def end_doubt(self) -> None:
        self.doubt = False
