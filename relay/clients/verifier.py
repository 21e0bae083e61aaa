"""Checks passwords in a bounded pool of threads: argon2 is slow on purpose. Which hash is whose is its caller's affair.

Threat: guessing, and being kept busy. Failures are counted by client address; a client has few logins in work at a time, all clients
together not many more; an unknown user costs as much time as a known one.
"""

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import Enum

from relay.clients.limits import Failures, Key, LoginFailures
from relay.clients.passwords import verify


@dataclass(frozen=True, slots=True)
class LoginLimits:
    """Logins in work at the same time: `threads` verify, so many wait, of all clients and of one.

    argon2 with its usual parameters takes 64 MiB and half a CPU second, so these bound memory too.
    """

    threads: int = 2
    waiting: int = 32
    waiting_per_client: int = 8

    def among(self, processes: int) -> "LoginLimits":
        """What one of so many has. Never so little that a user with two connections, or one client beside another, is turned away."""
        return LoginLimits(
            max(self.threads // processes, 1),
            max(self.waiting // processes, 4),
            max(self.waiting_per_client // processes, 2),
        )


class Denied(Enum):
    """Why a login did not succeed."""

    WRONG = "wrong user or password"
    BUSY = "too many logins in work"
    BLOCKED = "too many failed logins"


class Verifier:
    """`tell` hears whose login failed: the relay's other processes must count it too (`failed_elsewhere`), or a client would have as many
    tries at each."""

    def __init__(
        self,
        *,
        failures: LoginFailures | None = None,
        verify: Callable[[str, str], bool] = verify,
        limits: LoginLimits = LoginLimits(),
        tell: Callable[[Key], None] | None = None,
    ) -> None:
        self._verify, self._limits = verify, limits
        self._failures = LoginFailures() if failures is None else failures
        self._tell = tell
        self._pool = ThreadPoolExecutor(limits.threads, thread_name_prefix="argon2")
        self._waiting = 0
        self._by_client: dict[Key, int] = {}

    def close(self) -> None:
        """Logins in work end as they will; nobody waits for them."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def wait(self, client: Key) -> float:
        """Seconds until this client may try again, 0 where it may now."""
        return self._failures.wait(client, asyncio.get_running_loop().time())

    def hurdle(self, client: Key) -> Denied | None:
        """Why nothing is verified for this client now; None where it may be."""
        if self.wait(client):
            return Denied.BLOCKED
        if self._waiting >= self._limits.waiting or self._by_client.get(client, 0) >= self._limits.waiting_per_client:
            return Denied.BUSY
        return None

    async def check(self, digest: str, password: str, client: Key, *, known: bool) -> Denied | None:
        """None where the password is right, of a user who is `known`. Takes tens of milliseconds where it is verified at all."""
        if hurdle := self.hurdle(client):
            return hurdle
        self._waiting += 1
        self._by_client[client] = self._by_client.get(client, 0) + 1
        try:
            right = await asyncio.get_running_loop().run_in_executor(self._pool, self._verify, digest, password)
        finally:
            self._waiting -= 1
            self._by_client[client] -= 1
            if not self._by_client[client]:
                del self._by_client[client]
        if known and right:
            return None
        self.failed(client)
        return Denied.WRONG

    def failed(self, client: Key) -> None:
        """Counts a login of this client that failed."""
        self.failed_elsewhere(client)
        if self._tell is not None:
            self._tell(client)

    def failed_elsewhere(self, client: Key) -> None:
        self._failures.add(client, asyncio.get_running_loop().time())

    def failures(self) -> Mapping[Key, Failures]:
        """Those that are not forgotten, for another process that begins: else a blocked client would have fresh tries there."""
        return self._failures.remembered(asyncio.get_running_loop().time())

    def learn(self, failures: Mapping[Key, Failures]) -> None:
        self._failures.learn(failures)
