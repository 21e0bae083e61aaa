"""How far this process has written: the numbers that it gave out and has not settled yet, so that whoever counts rows misses none.

Rows do not come in the order of their numbers. A message has its number from its first byte on, and is committed when its last one came,
perhaps an hour later; an outcome waits while the store is in trouble; and another process commits in between. So each process says now
and then up to where all of its numbers are settled (committed, or given up for good), and which messages before that are still open. What
lies before the lowest of these marks, and is not open, is there or will never be (tally.py).
"""

from dataclasses import dataclass

from relay.queue.ids import SLOTS, Ids, Numbers, first_number, number, since_epoch

_LONGEST = 24 * 3600 * 1000  # milliseconds that a message may take to arrive, before we stop waiting for it


@dataclass(frozen=True, slots=True)
class Complete:
    """`attempts`, `messages`: numbers up to which all is settled, but the messages in `still_open`."""

    attempts: int
    messages: int
    still_open: tuple[int, ...]


class Progress:
    """Beside the store, in its event loop. A fraction of a microsecond for each message and outcome."""

    def __init__(self, ids: Ids, attempts: Numbers) -> None:
        self._ids = ids
        self._attempts = attempts
        self._open: set[str] = set()
        self._recording: dict[int, None] = {}  # in the order of their numbers

    @property
    def arriving(self) -> int:
        """Messages that have begun, and are not durable yet."""
        return len(self._open)

    def began(self, message: str) -> None:
        self._open.add(message)

    def ended(self, message: str) -> None:
        """Committed, or given up. Harmless any number of times."""
        self._open.discard(message)

    def recording(self, count: int) -> range:
        """Numbers for the attempts of a record that goes to the writer."""
        taken = self._attempts.take(count)
        if count:
            self._recording[taken[0]] = None
        return taken

    def recorded(self, taken: range) -> None:
        if taken:
            self._recording.pop(taken[0], None)

    def complete(self) -> Complete:
        """As of now. Every number that is given out later is above both marks."""
        messages, attempts = self._ids.mark(), self._attempts.take(1)[0]
        oldest = first_number(max(since_epoch(messages) - _LONGEST, 0))
        self._open = {
            each for each in self._open if number(each) >= oldest
        }  # one that a bug left open does not stay for ever
        first = next(iter(self._recording), None)
        return Complete(attempts if first is None else first - SLOTS, messages, tuple(sorted(map(number, self._open))))
