"""Passwords at rest: argon2id hashes, and files of one account a line.

Names and passwords are compared in Unicode's NFC (RFC 8265), names with regard to case. What else stands on a line is its reader's affair.
"""

import base64
import os
import secrets
import tempfile
import unicodedata
from collections.abc import Callable
from pathlib import Path

from argon2 import Parameters, PasswordHasher, Type, extract_parameters
from argon2.exceptions import Argon2Error, InvalidHash

from relay.config.owner import give

PREFIX = "$argon2id$"


def normalised(text: str) -> str:
    """RFC 8265: NFC, so that a password typed on another system is the same password."""
    return unicodedata.normalize("NFC", text)


def checked_user(user: str) -> str:
    """The user name as it stands in the file. Raises ValueError."""
    name = normalised(user)
    if not name or name != name.strip() or name.startswith("#") or ":" in name or not name.isprintable():
        raise ValueError(f"{user!r} cannot be a user name: no colon, no control character, no # or space in front")
    return name


def checked_hash(digest: str, writes_one: str) -> str:
    """`writes_one` is the command for it. Raises ValueError."""
    # The line is not quoted in the error: whatever stands there may be somebody's password in clear.
    advice = f"the second field is not an argon2id hash; `{writes_one}` writes one"
    try:
        parameters = extract_parameters(digest)
    except (InvalidHash, ValueError):
        raise ValueError(advice) from None
    if parameters.type is not Type.ID or parameters.salt_len < 8 or parameters.hash_len < 16:
        raise ValueError(advice)
    return digest


def hashed(password: str) -> str:
    """Raises ValueError for no password."""
    if not password:
        raise ValueError("an empty password protects nothing")
    return PasswordHasher().hash(normalised(password))


def decoy(like: str) -> str:
    """A hash that no password has, of the same cost as `like` (a hash; "" for the usual cost): an unknown user takes as long to refuse as a
    known one."""
    parameters = extract_parameters(like) if like else _usual()
    cost = f"m={parameters.memory_cost},t={parameters.time_cost},p={parameters.parallelism}"
    salt, digest = (
        base64.b64encode(secrets.token_bytes(size)).decode().rstrip("=")
        for size in (parameters.salt_len, parameters.hash_len)
    )
    return f"{PREFIX}v={parameters.version}${cost}${salt}${digest}"


def _usual() -> Parameters:
    hasher = PasswordHasher()
    return Parameters(
        hasher.type, 19, hasher.salt_len, hasher.hash_len, hasher.time_cost, hasher.memory_cost, hasher.parallelism
    )


def verify(digest: str, password: str) -> bool:
    """Takes tens of milliseconds and megabytes, by design: not for the event loop's thread."""
    try:
        return PasswordHasher().verify(digest, normalised(password))
    except (Argon2Error, InvalidHash):
        return False


def put_line(path: Path, line: str, check: Callable[[str], object]) -> None:
    """Puts a line into a file, in place of the one with the same name where there is one. The file appears whole or not at all.

    A new one has mode 0600, or what `give` says; where root writes, what is there keeps its owner and mode.

    `check` raises where the text that is there has errors already. OSError where it cannot be written.
    """
    path = path.resolve()  # replacing a symbolic link would leave the file behind it as it was
    name = line.partition(":")[0]
    lines = []
    if path.exists():
        text = path.read_text(encoding="utf-8")
        check(text)
        lines = text.splitlines()
    places = [index for index, each in enumerate(lines) if normalised(each.partition(":")[0].strip()) == name]
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
            # An admin's root shell must not keep the file from the user that the relay runs as.
            if not path.exists():
                give(file.fileno(), path.parent)
            elif os.geteuid() == 0:
                before = path.stat()
                os.fchown(file.fileno(), before.st_uid, before.st_gid)
                os.fchmod(file.fileno(), before.st_mode & 0o777)
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
