"""The kinds of value that connectors.yaml holds: sizes, durations, networks, patterns, pins, secrets.

Each is a pydantic type whose error says what is allowed. Text comes in as YAML 1.2 gives it, so `off` and `no` are words.
"""

import base64
import binascii
import ipaddress
import re
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BeforeValidator,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    ValidationInfo,
    WithJsonSchema,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from relay.mail.address import Address, AddressError, normalise_domain, parse_mailbox

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)\Z")
_SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_DURATION = re.compile(r"(?:(\d+(?:\.\d+)?)(ms|s|m|h|d|w))")
_RATE = re.compile(r"(\d+)\s*/\s*(s|m|h)\Z")


def _string(value: Any, what: str) -> str:
    if not isinstance(value, str):
        raise ValueError(what)
    return value.strip()


def parse_size(value: Any) -> int:
    """Bytes from `50MiB`, `10 MB` or a plain number."""
    what = "write a size such as 50MiB, 500KB or a number of bytes"
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    match = _SIZE.match(_string(value, what))
    unit = _UNITS.get(match[2].upper()) if match else None
    if match is None or unit is None:
        raise ValueError(what)
    return int(float(match[1]) * unit)


def parse_duration(value: Any) -> timedelta:
    """A time span from `5d`, `4h`, `1h30m`, `500ms`. A bare number is refused: nobody agrees on its unit."""
    what = "write a duration with its unit, such as 30s, 5m, 4h or 5d"
    if isinstance(value, timedelta):
        return value
    text = _string(value, what).replace(" ", "")
    parts = _DURATION.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError(what)
    return timedelta(seconds=sum(float(number) * _SECONDS[unit] for number, unit in parts))


def parse_rate(value: Any) -> float:
    """Messages per second from `100/s`, `600/m`, `1000/h`."""
    what = "write a rate such as 100/s, 600/m or 1000/h"
    match = _RATE.match(_string(value, what))
    if match is None or int(match[1]) == 0:
        raise ValueError(what)
    return int(match[1]) / _SECONDS[match[2]]


def parse_network(value: Any) -> Network:
    """An IPv4 or IPv6 network or single address. Bits beyond the mask are an error: they are mostly a typing slip."""
    text = _string(value, "write a network such as 203.0.113.0/24 or 2001:db8::/32")
    try:
        return ipaddress.ip_network(text)
    except ValueError as error:
        try:
            meant = ipaddress.ip_network(text, strict=False)
        except ValueError:
            raise ValueError(f"{text!r} is not a network: write 203.0.113.0/24, 2001:db8::/32 or one address") from None
        raise ValueError(
            f"{text!r} has host bits set: did you mean {meant}, or the single address {text.split('/')[0]}?"
        ) from error


def parse_domain(value: Any) -> str:
    text = _string(value, "write a domain such as contoso.com")
    try:
        return normalise_domain(text)
    except AddressError as error:
        raise ValueError(str(error)) from None


def parse_pattern(value: Any) -> str:
    """A domain pattern: `contoso.com`, `*.contoso.com` (every subdomain at any depth, not the apex) or `*`."""
    text = _string(value, 'write a domain, "*.domain" or "*"')
    if text == "*":
        return text
    star, rest = (text[:2], text[2:]) if text.startswith("*.") else ("", text)
    if "*" in rest:
        raise ValueError(f'{text!r}: a star stands only for all that is left of a domain, as in "*.contoso.com"')
    return star + parse_domain(rest)


def parse_certificate_name(value: Any) -> str:
    """A name to look for in a certificate's SAN: host, `*.domain` or IP address (RFC 9525)."""
    text = _string(value, 'write a host name, "*.domain" or an IP address')
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        pass
    name = parse_pattern(text)
    if name == "*":
        raise ValueError(
            '"*" would accept any certificate of the CA: name the hosts, or use `tls: certificate` without names'
        )
    return name


def parse_pin(value: Any) -> str:
    """`sha256:` and the SHA-256 of the SPKI, in base64 or hex; kept in base64."""
    what = "write a pin as sha256: followed by the SPKI's SHA-256 in base64 (44 characters) or hex (64)"
    text = _string(value, what)
    kind, colon, digest = text.partition(":")
    if kind.lower() != "sha256" or not colon:
        raise ValueError(what)
    digest = digest.strip()
    try:
        compact = digest.replace(":", "")
        raw = bytes.fromhex(compact) if len(compact) == 64 else base64.b64decode(digest, validate=True)
    except (ValueError, binascii.Error):
        raise ValueError(what) from None
    if len(raw) != 32:
        raise ValueError(f"{what}; this one has {len(raw)} bytes instead of 32")
    return "sha256:" + base64.b64encode(raw).decode()


def parse_address(value: Any) -> Address:
    try:
        return parse_mailbox(_string(value, "write an address such as postmaster@example.com"))
    except AddressError as error:
        raise ValueError(str(error)) from None


@dataclass(frozen=True, slots=True, order=True)
class HostPort:
    """A host (name or IP address, without brackets) and a TCP port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_address(self) -> bool:
        try:
            ipaddress.ip_address(self.host)
        except ValueError:
            return False
        return True

    @classmethod
    def parse(cls, value: Any, *, default_port: int | None = None, name: bool = True) -> "HostPort":
        """From `host:port`, `192.0.2.1:25`, `[2001:db8::1]:25`. Raises ValueError. `name` False takes IP addresses only."""
        what = (
            "write host:port, such as mail.contoso.com:25"
            if name
            else "write address:port, such as 0.0.0.0:25 or [::]:25"
        )
        text = _string(value, what)
        match = re.match(r"(?:\[([0-9A-Fa-f:.]+)\]|([^:\[\]]+))(?::(\d{1,5}))?\Z", text)
        if match is None or (match[3] is None and default_port is None):
            raise ValueError(f"{text!r}: {what}")
        port = int(match[3]) if match[3] is not None else default_port
        if port is None or port > 65535:
            raise ValueError(f"{text!r}: a port is a number up to 65535")
        host = match[1] or match[2]
        try:
            return cls(str(ipaddress.ip_address(host)), port)
        except ValueError:
            if not name or match[1]:
                raise ValueError(f"{text!r}: {what}") from None
        return cls(parse_domain(host), port)


class Secret:
    """A value that must not be seen. It shows as stars wherever it is printed; only `reveal()` gives it."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

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
        """The text itself (after `${ENV}`), or the first line of `file:PATH`."""
        if isinstance(value, Secret):
            return value
        text = _string(value, "write ${NAME} for an environment variable, or file:PATH")
        if not text.startswith("file:"):
            return cls(text)
        path = locate(text.removeprefix("file:"), info)
        try:
            content = path.read_text(encoding="utf-8")
        except (OSError, UnicodeError) as error:
            raise ValueError(f"cannot read the secret in {path}: {_reason(error)}") from None
        lines = content.splitlines()
        if not lines or not lines[0]:
            raise ValueError(f"{path} is empty: its first line is the secret")
        return cls(lines[0])

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.with_info_plain_validator_function(cls.parse)

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {"type": "string", "description": "${NAME} of an environment variable, or file:PATH"}


def _reason(error: Exception) -> str:
    return error.strerror if isinstance(error, OSError) and error.strerror else str(error)


def locate(text: str, info: ValidationInfo) -> Path:
    """A path of the file, relative to the folder that the configuration file is in (`context["base"]`)."""
    base = Path((info.context or {}).get("base", "."))
    return (base / text).absolute()


def _path(value: Any, info: ValidationInfo) -> Path:
    if isinstance(value, Path):
        return value
    text = _string(value, "write a path, relative to this file")
    if not text:
        raise ValueError("write a path, relative to this file")
    return locate(text, info)


def _existing(value: Any, info: ValidationInfo) -> Path:
    path = _path(value, info)
    if not path.exists():
        raise ValueError(f"{path} does not exist")
    return path


_TEXT = {"type": "string"}
Size = Annotated[
    int, BeforeValidator(parse_size), WithJsonSchema({"type": ["string", "integer"], "examples": ["50MiB"]})
]
Duration = Annotated[
    timedelta, BeforeValidator(parse_duration), WithJsonSchema(_TEXT | {"examples": ["30s", "4h", "5d"]})
]
Rate = Annotated[float, BeforeValidator(parse_rate), WithJsonSchema(_TEXT | {"examples": ["100/s", "600/m"]})]
Domain = Annotated[str, BeforeValidator(parse_domain)]
Pattern = Annotated[
    str, BeforeValidator(parse_pattern), WithJsonSchema(_TEXT | {"examples": ["contoso.com", "*.contoso.com"]})
]
CertificateName = Annotated[str, BeforeValidator(parse_certificate_name)]
Pin = Annotated[str, BeforeValidator(parse_pin), WithJsonSchema(_TEXT | {"pattern": "^sha256:"})]
Mailbox = Annotated[Address, BeforeValidator(parse_address), WithJsonSchema(_TEXT | {"format": "email"})]
Net = Annotated[Network, BeforeValidator(parse_network), WithJsonSchema(_TEXT | {"examples": ["203.0.113.0/24"]})]
FilePath = Annotated[Path, BeforeValidator(_path), WithJsonSchema(_TEXT)]
ExistingPath = Annotated[Path, BeforeValidator(_existing), WithJsonSchema(_TEXT)]


def _at_least_one(value: tuple[Any, ...]) -> tuple[Any, ...]:
    if not value:
        raise ValueError("an empty list would be a rule that says nothing: name at least one, or leave the key out")
    return value


NonEmpty = AfterValidator(_at_least_one)
