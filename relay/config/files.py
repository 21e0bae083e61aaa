"""The kinds of value in connectors.yaml that lead to other files: paths, secrets, trust stores, recipient lists.

Paths are relative to the folder of the configuration file. Whether trust data is any good is `relay.config.certificates`' business.

Threat: a secret that shows in an error message, a log or a traceback. So no message here ever holds a value, only the path.
"""

import re
import stat
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    BeforeValidator,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    ValidationInfo,
    WithJsonSchema,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from relay.mail.tls import SYSTEM_TRUST

SQLITE = "sqlite:"
_COMMENT = re.compile(r"(?:^|\s)#.*")
_LARGEST_SECRET = 64 * 2**10
_LARGEST_LIST = 64 * 2**20
_LONGEST_SOCKET = 107  # bytes in sockaddr_un.sun_path, with its final NUL 108 (unix(7))


class Expanded(str):
    """Text that `${NAME}` gave all or part of. What it holds may be secret."""

    __slots__ = ()


class SecretOrigin(StrEnum):
    """Where a secret came from."""

    WRITTEN = "written"
    ENVIRONMENT = "environment"
    FILE = "file"


class Secret:
    """A value that must not be seen. It shows as stars wherever it is printed; only `reveal()` gives it.

    `path` is the file it was read from, None elsewhere. Two secrets are equal where their values are, wherever they came from.
    """

    __slots__ = ("_value", "origin", "path")

    def __init__(self, value: str, origin: SecretOrigin = SecretOrigin.WRITTEN, path: Path | None = None) -> None:
        self._value = value
        self.origin = origin
        self.path = path

    def reveal(self) -> str:
        return self._value

    def __repr__(self) -> str:
        return "Secret('********')"

    __str__ = __repr__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash(("secret", self._value))

    @classmethod
    def parse(cls, value: Any, info: ValidationInfo) -> "Secret":
        """The text itself (after `${ENV}`), or the first line of `file:PATH`. Not stripped: a blank may belong to a password."""
        if isinstance(value, Secret):
            return value
        if not isinstance(value, str) or not value:
            raise ValueError("write ${NAME} for an environment variable, or file:PATH; digits alone need quotes")
        if not value.startswith("file:"):
            return cls(value, SecretOrigin.ENVIRONMENT if isinstance(value, Expanded) else SecretOrigin.WRITTEN)
        path = consulted(locate(value.removeprefix("file:"), info), info)
        lines = read_text(path, "the secret", _LARGEST_SECRET).splitlines()
        if not lines or not lines[0]:
            raise ValueError(f"{path} is empty: its first line is the secret")
        return cls(lines[0], SecretOrigin.FILE, path)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.with_info_plain_validator_function(cls.parse)

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {"type": "string", "description": "${NAME} of an environment variable, or file:PATH"}


def consulted(path: Path, info: ValidationInfo) -> Path:
    """The path, noted in the set `context["files"]`: what it holds becomes part of the configuration, so a change in it is one of that."""
    (info.context or {}).get("files", set()).add(path)
    return path


def locate(text: str, info: ValidationInfo) -> Path:
    """A path of the file, relative to the folder that the configuration file is in (`context["base"]`). Raises ValueError."""
    if not text or "\0" in text:
        raise ValueError("write a path, relative to the folder of this file")
    base = Path((info.context or {}).get("base", "."))
    return (base / text).absolute()


def trouble(path: Path) -> str:
    """Why nothing can be read at `path`, "" where something is there."""
    try:
        path.stat()
    except OSError as error:
        return "does not exist" if isinstance(error, FileNotFoundError) else f"cannot be read: {error.strerror}"
    return ""


def read_text(path: Path, what: str, limit: int) -> str:
    """The text of a regular file of at most `limit` bytes. Raises ValueError saying why not.

    A FIFO or a device would hold up the start, or never end.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise ValueError(f"cannot read {what} in {path}: it is not a regular file")
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        raise ValueError(f"cannot read {what} in {path}: {error.strerror}") from None
    if len(data) > limit:
        raise ValueError(f"cannot read {what} in {path}: it is larger than {limit // 2**10} KiB")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(f"cannot read {what} in {path}: it is not UTF-8 text") from None


def _path(value: Any, info: ValidationInfo) -> Path:
    if isinstance(value, Path):
        return value
    if not isinstance(value, str):
        raise ValueError("write a path, relative to the folder of this file")
    return locate(value.strip(), info)


def _socket(value: Any, info: ValidationInfo) -> Path:
    path = _path(value, info)
    if len(str(path).encode(errors="surrogateescape")) > _LONGEST_SOCKET:
        raise ValueError(f"{path} is longer than the {_LONGEST_SOCKET} bytes that a unix socket's path may have")
    return path


def _queue(value: Any, info: ValidationInfo) -> str:
    """`sqlite:` and the absolute path of the database."""
    what = "write sqlite:PATH, such as sqlite:queue.db"
    if not isinstance(value, str) or not value.startswith(SQLITE):
        raise ValueError(what)
    path = locate(value.removeprefix(SQLITE).strip(), info)
    why = trouble(path.parent)
    if why:
        raise ValueError(f"the folder {path.parent} {why}: make it first")
    return f"{SQLITE}{path}"


def _trust(value: Any, info: ValidationInfo) -> str:
    """`system`, or the absolute path of something that is there."""
    if value == SYSTEM_TRUST:
        return SYSTEM_TRUST
    if not isinstance(value, str) or not value:
        raise ValueError("write `system`, or the path of a PEM file or of a folder of PEM files")
    path = locate(value, info)
    why = trouble(path)
    if why:
        raise ValueError(f"{path} {why}: put the CA's certificate there, or name another file")
    return str(path)


def _recipient_list(value: Any, info: ValidationInfo) -> frozenset[str]:
    """The entries of `file:PATH`, lower case: one address or local part a line.

    `#` begins a comment where it begins a line or follows a blank: it is also a letter of local parts.
    """
    if isinstance(value, frozenset):
        return value
    if not isinstance(value, str) or not value.startswith("file:"):
        raise ValueError("write file:PATH (a file with one address or local part a line), or `callout`")
    path = consulted(locate(value.removeprefix("file:"), info), info)
    lines = read_text(path, "the recipient list", _LARGEST_LIST).splitlines()
    names = (_COMMENT.sub("", line).strip() for line in lines)
    found = frozenset(name.lower() for name in names if name)
    if not found:
        raise ValueError(f"{path} names no recipient: every message would be refused; leave the key out to accept all")
    return found


_TEXT = {"type": "string"}
FilePath = Annotated[Path, BeforeValidator(_path), WithJsonSchema(_TEXT)]
SocketPath = Annotated[Path, BeforeValidator(_socket), WithJsonSchema(_TEXT | {"examples": ["relay.sock"]})]
QueueUrl = Annotated[
    str, BeforeValidator(_queue), WithJsonSchema(_TEXT | {"pattern": "^sqlite:", "examples": ["sqlite:queue.db"]})
]
Trust = Annotated[
    str, BeforeValidator(_trust), WithJsonSchema(_TEXT | {"description": "`system`, or a PEM file or folder"})
]
RecipientList = Annotated[
    frozenset[str], BeforeValidator(_recipient_list), WithJsonSchema(_TEXT | {"pattern": "^file:"})
]
