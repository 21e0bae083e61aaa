"""Who is signed in: sessions in memory, found by an unguessable id, that end when idle, when old, and at sign-out. No I/O.

A restart of the relay ends them all, which is one sign-in. The id is kept as its SHA-256, so that neither a memory dump of this table nor the
time of a look-up gives one away.

Threat: a session id that somebody planted or watched before sign-in. Each sign-in makes a new one, and ends the one it came with.
"""

import hashlib
import secrets
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

from relay.admin.endpoint import Caller

IDLE = 30 * 60.0  # seconds
ABSOLUTE = 12 * 3600.0
_MOST = 500
_MOST_OF_ONE = 10


@dataclass(slots=True)
class Session:
    """One sign-in. `mark` stands for the password that it was made with; `csrf` stands in each form; `notices` are what the next
    page says once. `began` and `seen` are seconds of the clock."""

    caller: Caller
    csrf: str
    began: float
    seen: float
    mark: str
    notices: list[str] = field(default_factory=list)


class Sessions:
    """`clock` is monotonic, in seconds."""

    def __init__(self, clock: Callable[[], float], idle: float = IDLE, absolute: float = ABSOLUTE) -> None:
        self._clock, self._idle, self._absolute = clock, idle, absolute
        self._sessions: OrderedDict[bytes, Session] = OrderedDict()

    def __len__(self) -> int:
        self._sweep()
        return len(self._sessions)

    def begin(self, caller: Caller, mark: str = "") -> tuple[str, Session]:
        """A new session and its id, for the cookie. Where somebody has too many, the oldest ends; so too where all have."""
        self._sweep()
        own = [key for key, each in self._sessions.items() if each.caller.name == caller.name]
        for key in own[: max(len(own) - _MOST_OF_ONE + 1, 0)]:
            del self._sessions[key]
        while len(self._sessions) >= _MOST:
            self._sessions.popitem(last=False)
        now, session_id = self._clock(), secrets.token_urlsafe(32)
        session = self._sessions[_key(session_id)] = Session(caller, secrets.token_urlsafe(32), now, now, mark)
        return session_id, session

    def find(self, session_id: str, *, touch: bool = True) -> Session | None:
        """The session, None where it has ended. A page that refreshes itself must not `touch`: nobody may be there any more."""
        key = _key(session_id)
        session = self._sessions.get(key)
        if session is None:
            return None
        if self._ended(session):
            del self._sessions[key]
            return None
        if touch:
            session.seen = self._clock()
        return session

    def end(self, session_id: str) -> None:
        self._sessions.pop(_key(session_id), None)

    def _ended(self, session: Session) -> bool:
        now = self._clock()
        return now - session.seen >= self._idle or now - session.began >= self._absolute

    def _sweep(self) -> None:
        for key in [key for key, each in self._sessions.items() if self._ended(each)]:
            del self._sessions[key]


def _key(session_id: str) -> bytes:
    return hashlib.sha256(session_id.encode("utf-8", "surrogatepass")).digest()
