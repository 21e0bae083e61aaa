"""The password file of submission: who may log in, and as whom each user may send.

A line is `user:$argon2id$...:senders`; senders are comma separated: `bob@example.com`, `@example.com` or `*`. Blank lines and lines
that begin with `#` are comments. Verifying a password is the affair of `relay.inbound.auth`.

User names and passwords are compared in Unicode's NFC (RFC 8265), user names with regard to case.
"""

import base64
import os
import secrets
import tempfile
import unicodedata
from dataclasses import dataclass, field
from pathlib import Path

from argon2 import Parameters, PasswordHasher, Type, extract_parameters
from argon2.exceptions import Argon2Error, InvalidHash

from relay.mail.address import Address, AddressError, normalise_domain, parse_mailbox

_PREFIX = "$argon2id$"


class PasswordFileError(ValueError):
    """The file or a line of it is not usable; str() says which, and what to do."""


@dataclass(frozen=True, slots=True)
class Senders:
    """What a user may say at MAIL. `anyone` is `*`; `mailboxes` have their local part in lower case."""

    mailboxes: frozenset[tuple[str, str]]
    domains: frozenset[str]
    anyone: bool

    @classmethod
    def parse(cls, text: str) -> "Senders":
        """From `bob@example.com,@example.com` or `*`. Raises ValueError."""
        mailboxes: set[tuple[str, str]] = set()
        domains: set[str] = set()
        words = [word.strip() for word in text.split(",")]
        if not all(words):
            raise ValueError("name the senders behind the hash: bob@example.com, @example.com or *, comma separated")
        for word in words:
            try:
                if word.startswith("@"):
                    domains.add(normalise_domain(word[1:]))
                elif word != "*":
                    address = parse_mailbox(word)
                    mailboxes.add((address.local.lower(), address.domain))
            except AddressError as error:
                raise ValueError(f"{error}: write senders as bob@example.com, @example.com or *") from None
        return cls(frozenset(mailboxes), frozenset(domains), "*" in words)

    def __str__(self) -> str:
        """As `parse` takes it."""
        mailboxes = sorted(f"{local}@{domain}" for local, domain in self.mailboxes)
        return "*" if self.anyone else ",".join([*mailboxes, *(f"@{domain}" for domain in sorted(self.domains))])

    def allow(self, sender: Address) -> bool:
        """The null sender is everyone's: a read receipt must have it (RFC 8098 section 3), and it names nobody."""
        if self.anyone or sender.is_null or sender.domain in self.domains:
            return True
        return (sender.local.lower(), sender.domain) in self.mailboxes


@dataclass(frozen=True, slots=True)
class Account:
    user: str
    hash: str = field(repr=False)
    senders: Senders


@dataclass(frozen=True, slots=True)
class Accounts:
    """`decoy` is a hash that no password has, of the same cost as the file's: an unknown user takes as long to refuse as a known one."""

    by_user: dict[str, Account]
    decoy: str = field(repr=False)

    @classmethod
    def parse(cls, text: str, name: str) -> "Accounts":
        """`name` is the file's, for the errors. Raises PasswordFileError."""
        by_user: dict[str, Account] = {}
        for number, line in enumerate(text.splitlines(), 1):
            if not line.strip() or line.lstrip().startswith("#"):
                continue
            try:
                account = _account(line)
                if account.user in by_user:
                    raise ValueError(f"user {account.user} stands here a second time: remove one of the lines")
            except ValueError as error:
                raise PasswordFileError(f"{name}:{number}: {error}") from None
            by_user[account.user] = account
        first = next(iter(by_user.values()), None)
        return cls(by_user, _decoy(extract_parameters(first.hash) if first else _hasher_parameters()))

    @classmethod
    def read(cls, path: Path) -> "Accounts":
        """Raises PasswordFileError."""
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise PasswordFileError(f"{path}: cannot read the password file: {reason}") from None
        return cls.parse(text, str(path))


def normalised(text: str) -> str:
    """RFC 8265: NFC, so that a password typed on another system is the same password."""
    return unicodedata.normalize("NFC", text)


def checked_user(user: str) -> str:
    """The user name as it stands in the file. Raises ValueError."""
    name = normalised(user)
    if not name or name != name.strip() or name.startswith("#") or ":" in name or not name.isprintable():
        raise ValueError(f"{user!r} cannot be a user name: no colon, no control character, no # or space in front")
    return name


def _account(line: str) -> Account:
    user, colon, rest = line.partition(":")
    digest, colon_2, senders = rest.rpartition(":")
    if not colon or not colon_2:
        raise ValueError("a line is user:$argon2id$...:senders; `relay password USER` writes one")
    return Account(checked_user(user.strip()), _checked_hash(digest.strip()), Senders.parse(senders.strip()))


def _checked_hash(digest: str) -> str:
    # The line is not quoted in the error: whatever stands there may be somebody's password in clear.
    advice = "the second field is not an argon2id hash; `relay password USER` writes one"
    try:
        parameters = extract_parameters(digest)
    except (InvalidHash, ValueError):
        raise ValueError(advice) from None
    if parameters.type is not Type.ID or parameters.salt_len < 8 or parameters.hash_len < 16:
        raise ValueError(advice)
    return digest


def _hasher_parameters() -> Parameters:
    hasher = PasswordHasher()
    return Parameters(
        hasher.type, 19, hasher.salt_len, hasher.hash_len, hasher.time_cost, hasher.memory_cost, hasher.parallelism
    )


def _decoy(parameters: Parameters) -> str:
    cost = f"m={parameters.memory_cost},t={parameters.time_cost},p={parameters.parallelism}"
    salt, digest = (
        base64.b64encode(secrets.token_bytes(size)).decode().rstrip("=")
        for size in (parameters.salt_len, parameters.hash_len)
    )
    return f"{_PREFIX}v={parameters.version}${cost}${salt}${digest}"


def verify(digest: str, password: str) -> bool:
    """Takes tens of milliseconds and megabytes, by design: not for the event loop's thread."""
    try:
        return PasswordHasher().verify(digest, normalised(password))
    except (Argon2Error, InvalidHash):
        return False


def make_line(user: str, password: str, senders: str) -> str:
    """A line for the file, without line end. Raises ValueError on a user name or senders that cannot stand there, or no password."""
    if not password:
        raise ValueError("an empty password protects nothing")
    parsed = Senders.parse(senders)
    return f"{checked_user(user)}:{PasswordHasher().hash(normalised(password))}:{parsed}"


def write_line(path: Path, line: str) -> None:
    """Puts the line into the file, in place of the user's old one where there is one. The file appears whole or not at all, mode 0600.

    Raises PasswordFileError where the file has errors already, OSError where it cannot be written.
    """
    path = path.resolve()  # replacing a symbolic link would leave the file behind it as it was
    user = line.partition(":")[0]
    lines = []
    if path.exists():
        Accounts.read(path)
        lines = path.read_text(encoding="utf-8").splitlines()
    places = [index for index, each in enumerate(lines) if normalised(each.partition(":")[0].strip()) == user]
    if places:
        lines[places[0]] = line
    else:
        lines.append(line)
    _replace(path, "".join(f"{each}\n" for each in lines))


def _replace(path: Path, text: str) -> None:
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # mode 0600
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            if path.exists() and os.geteuid() == 0:
                # An admin's root shell must not take the file away from the user that the relay runs as.
                owner = path.stat()
                os.fchown(file.fileno(), owner.st_uid, owner.st_gid)
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
