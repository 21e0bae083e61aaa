"""The messages in memory that wait in the windows of their lanes, and the room that they and their bytes may take.

All else stays in the store until there is room: a lane that could not be fed for want of it is fed as soon as there is some.
"""

from collections.abc import Callable, Mapping

from relay.mail.attempt import MessageBytes
from relay.mail.envelope import Message
from relay.queue.claims import Claims
from relay.queue.lanes import Candidate, Key, LaneState, Stage
from relay.queue.store import Standing, Store


class Windows:
    """At most `most` messages, with `memory` bytes of bodies. `feed` has more read for a lane, if it can make use of some."""

    def __init__(
        self, store: Store, claims: Claims, *, most: int, memory: int, feed: Callable[[LaneState], bool]
    ) -> None:
        self.candidates = 0
        self.memory = 0  # bytes of bodies; those under way too
        self._store, self._claims = store, claims
        self._most, self._most_memory, self._feed = most, memory, feed
        self._crowded: dict[LaneState, None] = {}  # could be fed but for the room

    def has_room(self, lane: LaneState) -> bool:
        """For a fresh message. Where older mail waits in the store, half the window is left to that."""
        depth = lane.depth // 2 if lane.backlog else lane.depth
        return len(lane.window) < depth and self.candidates < self._most and not lane.is_down

    def takes(self, lane: LaneState) -> bool:
        """Another message that was read for it. False: it is fed again once there is room."""
        if self.candidates >= self._most:
            self._crowded[lane] = None
        return lane not in self._crowded and len(lane.window) < lane.depth

    def has_memory(self, size: int) -> bool:
        """For the body of a message to be kept in memory."""
        return self.memory + size <= self._most_memory

    def feed(self, lane: LaneState) -> None:
        """If it has a backlog. One that is crowded is fed when there is room."""
        if lane.backlog and lane not in self._crowded:
            self._feed(lane)

    def enlist(
        self, lane: LaneState, message: Message, body: MessageBytes | None, standing: Mapping[int, Standing]
    ) -> None:
        """`body` None: its bytes are in the store only."""
        weight = message.size
        if body is None or not self.has_memory(weight):
            body, weight = self._store.body(message), 0
        candidate = Candidate(lane, message, body, standing, weight)
        self.memory += weight
        self.candidates += 1
        self._claims.take(candidate)
        lane.window.append(candidate)

    def begin(self, lane: LaneState) -> Candidate | None:
        """The first of the lane's window, which is under way from now on, until it is freed."""
        if not lane.window:
            return None
        candidate = lane.window.popleft()
        lane.start()
        candidate.stage = Stage.RUNNING
        self._left()
        return candidate

    def free(self, candidate: Candidate) -> None:
        """What was under way is over and recorded."""
        self._claims.free(candidate.keys)
        self.memory -= candidate.weight

    def withdraw(self, key: Key) -> bool:
        """Takes a recipient out of its lane's window. False where it is not in one."""
        candidate = self._claims.candidate(key)
        if candidate is None or candidate.stage is not Stage.QUEUED:
            return False
        self._claims.free([key])
        candidate.standing = {index: each for index, each in candidate.standing.items() if index != key[1]}
        candidate.indexes = tuple(candidate.standing)
        if not candidate.indexes:
            candidate.lane.window.remove(candidate)
            self._forget(candidate)
        return True

    def clear(self, lane: LaneState) -> set[str]:
        """Forgets what is in the window; the destinations that had something in it. The store still has it."""
        destinations: set[str] = set()
        for candidate in lane.window:
            destinations |= candidate.destinations
            self._claims.free(candidate.keys)
            self._forget(candidate)
        lane.window.clear()
        return destinations

    def _forget(self, candidate: Candidate) -> None:
        self.memory -= candidate.weight
        self._left()

    def _left(self) -> None:
        """One waits no more: there is room for another."""
        self.candidates -= 1
        self.pass_on()

    def pass_on(self) -> None:
        """Room goes to the next lane that waits for it. One may have nothing to fill it with any more: then to the one behind it."""
        while self._crowded and self.candidates < self._most:
            lane = next(iter(self._crowded))
            del self._crowded[lane]
            if self._feed(lane):
                return
