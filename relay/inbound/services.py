"""What a listener needs from the rest of the relay, and what all of its sessions share.

The queue is known here by two protocols only; `relay.app` hands in the real one.
"""

import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from relay.clients.limits import Elsewhere, Key
from relay.inbound.callouts import Ask, nobody_to_ask
from relay.inbound.client import Means
from relay.inbound.sockets import Own, Sockets
from relay.mail.envelope import Accepted, Envelope, Message
from relay.mail.events import Emit
from relay.policy.book import RuleBook
from relay.tls.keyring import Keyring
from relay.tls.revocation.checks import NotChecked, RevocationChecks
from relay.tls.trust import TrustStores


def _nobody(_client: Key) -> None:
    """There is no other process to be told."""


class Incoming(Protocol):
    """One message on its way into the store.

    An exception with an attribute `reply` that is a Reply is an answer for the client (452 4.3.1: no room, store gone), not a bug.
    """

    @property
    def id(self) -> str:
        """Ours, for the Received header."""
        ...

    @property
    def full(self) -> bool:
        """Stop reading from the socket until `drain` returns."""
        ...

    def write(self, data: bytes) -> None:
        """Never blocks and never raises; `data` is not copied."""
        ...

    async def drain(self) -> None: ...

    async def commit(
        self,
        envelope: Envelope,
        accepted: Accepted,
        *,
        header: bytes = b"",
        message_id: str = "",
        eight_bit: bool = False,
    ) -> Message:
        """Durable when it returns. When it raises, nothing was kept."""
        ...

    def abort(self) -> None:
        """Throw the message away. Any number of times; nothing after a commit."""
        ...


class Intake(Protocol):
    def begin(self) -> Incoming: ...


class Steering(Protocol):
    """Which of the relay's processes gets the next connection. `connections` are open in all of them, `listening` our own sockets."""

    def came(self, connections: int, listening: Sequence[socket.socket]) -> None:
        """One more."""
        ...

    def left(self, connections: int, listening: Sequence[socket.socket]) -> None:
        """One less."""
        ...

    def opened(self, listening: Sequence[socket.socket]) -> None:
        """These are new."""
        ...


@dataclass(frozen=True, slots=True)
class Services:
    """`book` is asked at every MAIL, so that a new configuration holds at once. `keyring` is None where there are no certificates.

    The rest is for a relay of several `processes`: its sockets, what the others hold (`elsewhere`), which of them clients
    meet (`steering`), and whom to tell of a failed login.
    `claims`: this one sees to it that a new address is nobody else's. `ask`: whether a recipient exists inside (`accept.recipients`).
    """

    book: Callable[[], RuleBook]
    intake: Intake
    trust: TrustStores
    keyring: Keyring | None
    emit: Emit
    clock: Callable[[], datetime]
    sockets: Sockets = Own()  # noqa: RUF009 - it has no state
    elsewhere: Elsewhere | None = None
    steering: Steering | None = None
    login_failed: Callable[[Key], None] = _nobody
    processes: int = 1
    claims: bool = True
    ask: Ask = nobody_to_ask
    revocations: RevocationChecks = NotChecked()  # noqa: RUF009 - it has no state

    def means(self, book: RuleBook | None = None) -> Means:
        """What a decision goes by now; `book` where it is not the one in force."""
        return Means(book or self.book(), self.trust, self.revocations, self.clock())


@dataclass(frozen=True, slots=True)
class TimeLimits:
    """In seconds. Those for commands and for a whole message are in the configuration (`limits`).

    `proxy_header`: from accept to the end of the PROXY header. `handshake`: one TLS handshake. `unread`: how long a peer may leave our
    replies unread while the write buffer is full. `linger`: how long a last reply may take to reach the peer. `tick`: how late
    any of this may be noticed.
    """

    proxy_header: float = 10.0
    handshake: float = 30.0
    unread: float = 60.0
    linger: float = 5.0
    tick: float = 1.0
