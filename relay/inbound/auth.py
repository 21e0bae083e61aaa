"""Checks logins of submission against the password file.

The exchange of AUTH is `relay.smtp`'s, the file's format is `relay.inbound.passwords`'. The file is read again when it changes; one with
errors changes nothing and is reported.

Guessing is slowed by `relay.clients.verifier`. Threat: a password in an event or a log line: it is in none.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from relay.clients.limits import Failures, Key, LoginFailures
from relay.clients.passwords import normalised, verify
from relay.clients.verifier import Denied, LoginLimits, Verifier
from relay.inbound.passwords import Account, Accounts, PasswordFileError
from relay.mail.events import ConfigurationSettled, ConfigurationWaiting, Emit


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
        limits: LoginLimits = LoginLimits(),  # noqa: B008 - frozen
        tell: Callable[[Key], None] | None = None,
    ) -> None:
        self._path, self._emit = path, emit
        self._verifier = Verifier(failures=failures, verify=verify, limits=limits, tell=tell)
        self._stamp = self._look()
        self._accounts = Accounts.read(path)
        self._in_trouble = False

    def close(self) -> None:
        """Logins in work end as they will; nobody waits for them."""
        self._verifier.close()

    def account(self, user: str) -> Account | None:
        """The account as the file has it now; None where the user is gone."""
        self._refresh()
        return self._accounts.by_user.get(user)

    async def login(self, user: str, password: str, client: Key) -> Account | Denied:
        """Takes tens of milliseconds where it is verified at all."""
        if hurdle := self._verifier.hurdle(client):
            return hurdle
        self._refresh()
        account = self._accounts.by_user.get(normalised(user))
        digest = account.hash if account else self._accounts.decoy
        denied = await self._verifier.check(digest, password, client, known=account is not None)
        return denied or account or Denied.WRONG

    def failed_elsewhere(self, client: Key) -> None:
        self._verifier.failed_elsewhere(client)

    def failures(self) -> Mapping[Key, Failures]:
        """As in Verifier."""
        return self._verifier.failures()

    def learn(self, failures: Mapping[Key, Failures]) -> None:
        self._verifier.learn(failures)

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
