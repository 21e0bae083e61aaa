"""How many connections and failed logins one client may have, at whatever door. Bounded, no I/O; times are the event loop's seconds.

Threat: floods. Whoever holds one IPv6 address holds its /64 (RFC 6177), so that is what is counted, not the address.
"""

import ipaddress
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from relay.policy.book import IpAddress

Key = int | str
"""One client as limits count: an IPv4 address, an IPv6 /64, or a name for clients without an address."""


def limit_key(address: IpAddress) -> Key:
    if isinstance(address, ipaddress.IPv4Address):
        return int(address)
    return -1 - (int(address) >> 64)  # below zero: no /64 can be taken for an IPv4 address


class Entry(Enum):
    """May this connection come in?"""

    FREE = "free"
    FULL = "too many connections"
    CLIENT_FULL = "too many connections from your address"


class Elsewhere(Protocol):
    """The connections of the relay's other processes, which hear of ours.

    Two processes that ask at the same moment for the last place both get it: a limit can be passed by one less than there are processes.
    """

    def total(self) -> int: ...
    def of(self, key: Key) -> int: ...
    def entered(self) -> None: ...
    def entered_client(self, key: Key) -> None: ...
    def left(self, key: Key | None) -> None: ...


class Connections:
    """Open connections, in all and by client. The limits come with each question: a new configuration may have changed them.

    `total` is our own; the limits are for those of `elsewhere` too.
    """

    __slots__ = ("_by_client", "_elsewhere", "total")

    def __init__(self, elsewhere: Elsewhere | None = None) -> None:
        self.total = 0
        self._elsewhere = elsewhere
        self._by_client: dict[Key, int] = {}

    @property
    def everywhere(self) -> int:
        """Open connections of all processes."""
        return self.total + (self._elsewhere.total() if self._elsewhere else 0)

    def enter(self, total: int) -> Entry:
        """Counts a connection whose client is not known yet, if it may come in."""
        if self.everywhere >= total:
            return Entry.FULL
        self.total += 1
        if self._elsewhere:
            self._elsewhere.entered()
        return Entry.FREE

    def enter_client(self, key: Key, each: int) -> Entry:
        """Counts it for its client too, once that is known."""
        elsewhere = self._elsewhere
        count = self._by_client.get(key, 0)
        if count + (elsewhere.of(key) if elsewhere else 0) >= each:
            return Entry.CLIENT_FULL
        self._by_client[key] = count + 1
        if elsewhere:
            elsewhere.entered_client(key)
        return Entry.FREE

    def leave(self, key: Key | None) -> None:
        """`key` is None for a connection that was never counted for a client."""
        self.total -= 1
        if self._elsewhere:
            self._elsewhere.left(key)
        if key is None:
            return
        count = self._by_client[key] - 1
        if count:
            self._by_client[key] = count
        else:
            del self._by_client[key]


@dataclass(frozen=True, slots=True)
class Failures:
    """Of one client."""

    count: int
    until: float
    """Before this moment no login is tried."""
    forgotten: float
    """From this moment on, nothing happened."""


class LoginFailures:
    """Clients that failed to log in. From the `tries`-th failure on, each one closes the door for twice as long as the last.

    A success clears nothing: with one account of his own, an attacker would have endless guesses at the others.
    """

    __slots__ = ("_clients", "_first", "_longest", "_memory", "_size", "_tries")

    def __init__(
        self, tries: int = 5, memory: float = 600.0, first: float = 30.0, longest: float = 900.0, size: int = 10_000
    ) -> None:
        self._tries, self._memory, self._first, self._longest, self._size = tries, memory, first, longest, size
        self._clients: OrderedDict[Key, Failures] = OrderedDict()

    def __len__(self) -> int:
        return len(self._clients)

    def wait(self, key: Key, now: float) -> float:
        """Seconds until this client may try again, 0 where it may now."""
        known = self._clients.get(key)
        return max(0.0, known.until - now) if known else 0.0

    def add(self, key: Key, now: float) -> None:
        known = self._clients.pop(key, None)
        count = known.count + 1 if known and now < known.forgotten else 1
        over = count - self._tries
        # The exponent is bounded before the power: a float overflows at 2 ** 1024.
        until = now + min(self._first * 2.0 ** min(over, 30), self._longest) if over >= 0 else now
        self._clients[key] = Failures(count, until, until + self._memory)
        self._trim()

    def remembered(self, now: float) -> Mapping[Key, Failures]:
        return {key: each for key, each in self._clients.items() if now < each.forgotten}

    def learn(self, others: Mapping[Key, Failures]) -> None:
        """From another process of this machine, whose clock is ours. Whoever knows of more failures is right."""
        for key, each in others.items():
            known = self._clients.get(key)
            if known is None or known.count < each.count:
                self._clients[key] = each
        self._trim()

    def _trim(self) -> None:
        while len(self._clients) > self._size:
            self._clients.popitem(last=False)
