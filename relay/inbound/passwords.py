"""The password file of submission: who may log in, and as whom each user may send.

A line is `user:$argon2id$...:senders`; senders are comma separated: `bob@example.com`, `@example.com` or `*`. Blank lines and lines
that begin with `#` are comments. Verifying a password is the affair of `relay.inbound.auth`.

User names and passwords are compared in Unicode's NFC (RFC 8265), user names with regard to case.
"""

from dataclasses import dataclass, field
from pathlib import Path

from relay.clients.passwords import checked_hash, checked_user, decoy, hashed, put_line
from relay.mail.address import Address, AddressError, normalise_domain, parse_mailbox


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
        return cls(by_user, decoy(first.hash if first else ""))

    @classmethod
    def read(cls, path: Path) -> "Accounts":
        """Raises PasswordFileError."""
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise PasswordFileError(f"{path}: cannot read the password file: {reason}") from None
        return cls.parse(text, str(path))


def _account(line: str) -> Account:
    user, colon, rest = line.partition(":")
    digest, colon_2, senders = rest.rpartition(":")
    if not colon or not colon_2:
        raise ValueError("a line is user:$argon2id$...:senders; `relay password USER` writes one")
    return Account(
        checked_user(user.strip()), checked_hash(digest.strip(), "relay password USER"), Senders.parse(senders.strip())
    )


def make_line(user: str, password: str, senders: str) -> str:
    """A line for the file, without line end. Raises ValueError on a user name or senders that cannot stand there, or no password."""
    parsed = Senders.parse(senders)
    return f"{checked_user(user)}:{hashed(password)}:{parsed}"


def write_line(path: Path, line: str) -> None:
    """Puts the line into the file, in place of the user's old one. Raises PasswordFileError where the file has errors already, OSError
    where it cannot be written."""
    put_line(path, line, lambda text: Accounts.parse(text, str(path)))
