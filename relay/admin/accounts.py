"""Who may use the admin API by network: people with a password (the web console), programs with a token.

One file, a line each: `NAME:HASH:SCOPE`. `$argon2id$...` is a person's password, `sha256:` and 64 hex digits a token. Tokens are 256 random
bits, so a fast hash keeps them; they are compared in constant time. The file must be its owner's alone (mode 0600). It is read
again when it changes; one with errors changes nothing and is reported.

Threat: guessing (failed sign-ins are counted by address, argon2 runs in a bounded pool), a leaked file (it holds hashes only), an account
that was removed and goes on working (`holder` is asked at each request).
"""

import hashlib
import hmac
import ipaddress
import re
import secrets
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from relay.admin.endpoint import Caller, Change, Note, Scope
from relay.clients.limits import Key, limit_key
from relay.clients.passwords import PREFIX, checked_hash, checked_user, decoy, hashed, normalised, put_line
from relay.clients.verifier import Denied, LoginLimits, Verifier
from relay.mail.events import ConfigurationSettled, ConfigurationWaiting, Emit

_LARGEST = 2**20
_STRANGERS = 0o027  # who must not: others at all, and a group, which may read by intent (as for keys), must not write
_TOKEN = re.compile(r"sha256:[0-9a-f]{64}\Z")
_TOKEN_PREFIX = "ironpost_"  # noqa: S105 - so that a scanner of repositories knows one when it sees it


class AccountsFileError(ValueError):
    """The file or a line of it is not usable; str() says which, and what to do."""


class TooManyFailuresError(Exception):
    """Nothing is tried now; str() says why and how long."""


@dataclass(frozen=True, slots=True)
class Account:
    name: str
    secret: str = field(repr=False)
    scope: Scope

    @property
    def is_token(self) -> bool:
        return not self.secret.startswith(PREFIX)

    def __str__(self) -> str:
        """Fit for the audit log."""
        return f"{'token' if self.is_token else 'password'}, {self.scope.value}"


def parse(text: str, name: str) -> Mapping[str, Account]:
    """By account name. `name` is the file's, for the errors. Raises AccountsFileError."""
    found: dict[str, Account] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        try:
            account = _account(line)
            if account.name in found:
                raise ValueError(f"{account.name} stands here a second time: remove one of the lines")
        except ValueError as error:
            raise AccountsFileError(f"{name}:{number}: {error}") from None
        found[account.name] = account
    return found


def read(path: Path) -> Mapping[str, Account]:
    """Raises AccountsFileError."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode) or status.st_size > _LARGEST:
            raise AccountsFileError(f"{path}: it is not a regular file of at most {_LARGEST // 2**20} MiB")
        if status.st_mode & _STRANGERS:
            raise AccountsFileError(
                f"{path}: others may read or write it (mode {stat.S_IMODE(status.st_mode):04o}): chmod g-w,o-rwx {path}"
            )
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise AccountsFileError(
            f"{path}: cannot read the accounts of the admin API: {reason}; `relay token NAME --scope read` writes a first one"
        ) from None
    return parse(text, str(path))


def _account(line: str) -> Account:
    name, colon, rest = line.partition(":")
    secret, colon_2, scope = rest.rpartition(":")
    if not colon or not colon_2:
        raise ValueError(
            "a line is NAME:HASH:SCOPE; `relay token NAME` and `relay password NAME --scope SCOPE` write one"
        )
    if scope.strip() not in set(Scope):
        raise ValueError(f"{scope.strip()[:40]!r} is none of {', '.join(Scope)}")
    secret = secret.strip()
    if not _TOKEN.match(secret):
        # The line is not quoted: whatever stands there may be a secret in clear.
        checked_hash(secret, "relay password NAME --scope SCOPE")
    return Account(checked_user(name.strip()), secret, Scope(scope.strip()))


def hash_token(token: str) -> str:
    return "sha256:" + hashlib.sha256(token.encode()).hexdigest()


def add_token(path: Path, name: str, scope: Scope) -> str:
    """Writes a new token's line, in place of the name's old one, and gives the token: it stands nowhere else.

    Raises ValueError (AccountsFileError among them), OSError.
    """
    token = _TOKEN_PREFIX + secrets.token_urlsafe(32)
    _put(path, f"{checked_user(name)}:{hash_token(token)}:{scope.value}")
    return token


def set_password(path: Path, name: str, password: str, scope: Scope) -> None:
    """Raises ValueError (AccountsFileError among them), OSError."""
    _put(path, f"{checked_user(name)}:{hashed(password)}:{scope.value}")


def _put(path: Path, line: str) -> None:
    put_line(path, line, lambda text: parse(text, str(path)))


@dataclass(frozen=True, slots=True)
class _Stamp:
    modified: int
    size: int
    inode: int
    mode: int


class Accounts:
    """Opening raises AccountsFileError. `note` writes to the audit log; it may be slow, and must not raise."""

    def __init__(
        self,
        path: Path,
        emit: Emit,
        note: Note,
        *,
        limits: LoginLimits = LoginLimits(),  # noqa: B008 - frozen
    ) -> None:
        self._path, self._emit, self._note = path, emit, note
        self._verifier = Verifier(limits=limits)
        self._stamp = self._look()
        self._accounts = read(path)
        self._in_trouble = False

    def close(self) -> None:
        self._verifier.close()

    # People.

    async def sign_in(self, name: str, password: str, address: str) -> Caller | None:
        """A person, by password; None where name or password are wrong. `address` is where from. Raises TooManyFailuresError."""
        key = client_key(address)
        self._refuse_blocked(key)
        account = self._people().get(normalised(name))
        like = account or next(iter(self._people().values()), None)
        digest = account.secret if account else decoy(like.secret if like else "")
        denied = await self._verifier.check(digest, password, key, known=account is not None)
        if denied in (Denied.BLOCKED, Denied.BUSY):
            raise TooManyFailuresError(f"{denied.value}: try again later")
        caller = Caller(
            account.name if account else "unknown", Scope.READ, "console", address
        )  # a name that is none may be a password
        if denied or account is None:
            await self._note(caller, "sign-in-failed", Change("the web console"))
            return None
        caller = Caller(account.name, account.scope, "console", address)
        await self._note(caller, "sign-in", Change("the web console"))
        return caller

    def holder(self, name: str) -> Caller | None:
        """A person as the file has them now, None where there is none of that name (any more): asked at each request of a session."""
        account = self._people().get(name)
        return Caller(account.name, account.scope, "console") if account else None

    def mark(self, name: str) -> str:
        """Another one once a person has another password, or the name is another person's; "" where there is nobody. Tells nothing of it."""
        account = self._people().get(name)
        return hashlib.sha256(account.secret.encode()).hexdigest() if account else ""

    def _people(self) -> Mapping[str, Account]:
        return {name: each for name, each in self._accounts.items() if not each.is_token}

    # Programs.

    async def by_token(self, token: str, address: str) -> Caller | None:
        """Whose token it is. A right one always passes: it cannot have been guessed, and its owner may share an address with a guesser.

        Raises TooManyFailuresError for a wrong one from an address with too many failures.
        """
        digest = hash_token(token)
        # All are compared, each in constant time: how long it takes says nothing about any of them.
        found = [each for each in self._accounts.values() if each.is_token and hmac.compare_digest(each.secret, digest)]
        if found:
            return Caller(found[0].name, found[0].scope, "token", address)
        await self.failed("", "token", address, "no such token")
        return None

    async def failed(self, name: str, via: str, address: str, why: str) -> None:
        """Counts a sign-in that failed for its address. Raises TooManyFailuresError where there were too many."""
        key = client_key(address)
        self._refuse_blocked(key)
        self._verifier.failed(key)
        await self._note(Caller(name or "unknown", Scope.READ, via, address), "sign-in-failed", Change(why))

    def _refuse_blocked(self, key: Key) -> None:
        if seconds := self._verifier.wait(key):
            raise TooManyFailuresError(
                f"too many failed sign-ins from this address: try again in {seconds:.0f} seconds"
            )

    # The file.

    async def look(self) -> None:
        """Called every few seconds: takes a changed file, and says who is new, gone or another."""
        stamp = self._look()
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            accounts = read(self._path)
        except AccountsFileError as error:
            self._in_trouble = True
            self._emit(ConfigurationWaiting(str(self._path), (str(error),)))
            return
        if self._in_trouble:
            self._in_trouble = False
            self._emit(ConfigurationSettled(str(self._path)))
        before, self._accounts = self._accounts, accounts
        changed = sorted(name for name in before.keys() | accounts.keys() if before.get(name) != accounts.get(name))
        if changed:
            told = Change(
                ", ".join(changed),
                len(changed),
                {name: str(before[name]) for name in changed if name in before},
                {name: str(accounts[name]) for name in changed if name in accounts},
            )
            await self._note(Caller("accounts file", Scope.ADMIN, "itself"), "accounts", told)

    def _look(self) -> _Stamp | None:
        try:
            status = self._path.stat()
        except OSError:
            return None
        return _Stamp(status.st_mtime_ns, status.st_size, status.st_ino, status.st_mode)


def client_key(address: str) -> Key:
    """One client as limits count: an IPv4 address, an IPv6 /64."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return limit_key(mapped or found)
