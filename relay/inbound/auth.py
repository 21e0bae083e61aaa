"""Checks logins of submission against the password file, in a bounded pool of threads: argon2 is slow on purpose.

The exchange of AUTH is `relay.smtp`'s, the file's format is `relay.inbound.passwords`'. The file is read again when it changes; one with
errors changes nothing and is reported.

Threat: guessing, and being kept busy. Failures are counted by client address; a client has few logins in work at a time, all clients
together not many more; an unknown user costs as much time as a known one. A password is never in an event or a log line.
"""

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from relay.inbound.limits import Failures, Key, LoginFailures
from relay.inbound.passwords import Account, Accounts, PasswordFileError, normalised, verify
from relay.mail.events import ConfigurationSettled, ConfigurationWaiting, Emit


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


@dataclass(frozen=True, slots=True)
class _Stamp:
    """What changes when a file does."""

    modified: int
    size: int
    inode: int


class Authenticator:
    """Logins against one password file. Opening raises PasswordFileError where the file cannot be used.

    `tell` hears whose login failed: the relay's other processes must count it too (`failed_elsewhere`), or a client would have as many
    tries at each.
    """

    def __init__(
        self,
        path: Path,
        emit: Emit,
        *,
        failures: LoginFailures | None = None,
        verify: Callable[[str, str], bool] = verify,
        limits: LoginLimits = LoginLimits(),
        tell: Callable[[Key], None] | None = None,
    ) -> None:
        self._path, self._emit, self._verify, self._limits = path, emit, verify, limits
        self._failures = LoginFailures() if failures is None else failures
        self._tell = tell
        self._pool = ThreadPoolExecutor(limits.threads, thread_name_prefix="argon2")
        self._waiting = 0
        self._by_client: dict[Key, int] = {}
        self._stamp = self._look()
        self._accounts = Accounts.read(path)
        self._in_trouble = False

    def close(self) -> None:
        """Logins in work end as they will; nobody waits for them."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def account(self, user: str) -> Account | None:
        """The account as the file has it now; None where the user is gone."""
        self._refresh()
        return self._accounts.by_user.get(user)

    async def login(self, user: str, password: str, client: Key) -> Account | Denied:
        """Takes tens of milliseconds where it is verified at all."""
        loop = asyncio.get_running_loop()
        if self._failures.wait(client, loop.time()):
            return Denied.BLOCKED
        mine = self._by_client.get(client, 0)
        if self._waiting >= self._limits.waiting or mine >= self._limits.waiting_per_client:
            return Denied.BUSY
        self._refresh()
        account = self._accounts.by_user.get(normalised(user))
        digest = account.hash if account else self._accounts.decoy
        self._waiting += 1
        self._by_client[client] = mine + 1
        try:
            right = await loop.run_in_executor(self._pool, self._verify, digest, password)
        finally:
            self._waiting -= 1
            self._by_client[client] -= 1
            if not self._by_client[client]:
                del self._by_client[client]
        if account is None or not right:
            self._failures.add(client, loop.time())
            if self._tell is not None:
                self._tell(client)
            return Denied.WRONG
        return account

    def failed_elsewhere(self, client: Key) -> None:
        self._failures.add(client, asyncio.get_running_loop().time())

    def failures(self) -> Mapping[Key, Failures]:
        """Those that are not forgotten, for another process that begins: else a blocked client would have fresh tries there."""
        return self._failures.remembered(asyncio.get_running_loop().time())

    def learn(self, failures: Mapping[Key, Failures]) -> None:
        self._failures.learn(failures)

    def _look(self) -> _Stamp | None:
        """None where there is no file to look at."""
        try:
            status = self._path.stat()
        except OSError:
            return None
        return _Stamp(status.st_mtime_ns, status.st_size, status.st_ino)

    def _refresh(self) -> None:
        stamp = self._look()
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._accounts = Accounts.read(self._path)
        except PasswordFileError as error:
            self._in_trouble = True
            self._emit(ConfigurationWaiting(str(self._path), (str(error),)))
            return
        if self._in_trouble:
            self._in_trouble = False
            self._emit(ConfigurationSettled(str(self._path)))
