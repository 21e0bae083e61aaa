"""The kinds of value that connectors.yaml holds: sizes, durations, networks, patterns, pins. What leads to other files: `relay.config.files`.

Each is a pydantic type whose error says what is allowed. Text comes in as YAML 1.2 gives it, so `off` and `no` are words.
"""

import base64
import binascii
import ipaddress
import re
from dataclasses import dataclass
from datetime import date, timedelta
from enum import StrEnum
from functools import lru_cache
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, GetCoreSchemaHandler, GetJsonSchemaHandler, WithJsonSchema
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from relay.mail.address import Address, AddressError, normalise_domain, parse_mailbox

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_MAPPED = ipaddress.IPv6Network("::ffff:0:0/96")

_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}
_SIZE = re.compile(r"(\d{1,19}(?:\.\d{1,6})?)\s*([A-Za-z]*)\Z", re.ASCII)
_LARGEST = 2**60
_SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_DURATION = re.compile(r"(\d{1,12}(?:\.\d{1,6})?)(ms|s|m|h|d|w)", re.ASCII)
_LONGEST = timedelta(days=365)
_AN_AGE = timedelta(days=3650)
_LAST_DAY = date(2099, 12, 31)
_RATE = re.compile(r"(\d{1,9})\s*/\s*(s|m|h)\Z", re.ASCII)
_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")
_SELECTOR = re.compile(r"^[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63}){0,5}\Z")
_COUNT = re.compile(r"\d{1,18}\Z", re.ASCII)
_HOST_PORT = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([^:\[\]]+))(?::(\d{1,5}))?\Z", re.ASCII)
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}\Z", re.ASCII)


class Switch(StrEnum):
    ON = "on"
    OFF = "off"


def _string(value: Any, what: str) -> str:
    if not isinstance(value, str):
        raise ValueError(what)
    return value.strip()


def parse_size(value: Any) -> int:
    """Bytes from `50MiB`, `10 MB` or a plain number."""
    what = "write a size such as 50MiB, 500KB or a number of bytes"
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _LARGEST:
        return value
    match = _SIZE.match(_string(value, what))
    unit = _UNITS.get(match[2].upper()) if match else None
    if match is None or unit is None:
        raise ValueError(what)
    size = int(match[1]) * unit if match[1].isdigit() else int(float(match[1]) * unit)
    if size > _LARGEST:
        raise ValueError(f"{match[0]} is more than any disk holds: {what}")
    return size


def parse_count(value: Any) -> int:
    """A whole number, also as text (from `${NAME}`)."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str) and _COUNT.match(value.strip()):
        return int(value)
    raise ValueError("write a whole number")


def parse_flag(value: Any) -> bool:
    """`true` or `false`, also as text (from `${NAME}`). `yes`, `on` and their like are words in YAML 1.2."""
    flags = {"true": True, "false": False}
    if isinstance(value, str) and value in flags:
        return flags[value]
    if not isinstance(value, bool):
        raise ValueError("write true or false")
    return value


def parse_only_true(value: Any) -> bool:
    """`true`: `false` would read as a rule that asks for the contrary, and there is none."""
    if not parse_flag(value):
        raise ValueError("only `true` can be written here: leave the key out to ask nothing")
    return True


def parse_name(value: Any) -> str:
    """A connector's name. It stands in logs, metrics and replies, so it is kept to what needs no quoting anywhere."""
    if not isinstance(value, str) or not _NAME.match(value):
        raise ValueError(
            "write a name of letters, digits, `-`, `_` and `.`, at most 64, beginning with a letter or digit"
        )
    return value


def parse_selector(value: Any) -> str:
    """A DKIM selector (RFC 6376 section 3.1)."""
    text = _string(value, "write a selector, such as tlsrpt")
    if not _SELECTOR.match(text):
        raise ValueError(f"{text[:80]!r} is not a selector: write letters, digits, `-` and `_`, such as tlsrpt")
    return text


def parse_text(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError("write some text; a number, true or false needs quotes to be text")
    return value.strip()


def parse_date(value: Any) -> date:
    """A day, `2027-03-31`, of this century: `9999-12-31` would be a way to write "never"."""
    if isinstance(value, date):
        return value
    what = "write a day as year-month-day, such as 2027-03-31"
    text = _string(value, what)
    if not _DATE.match(text):
        raise ValueError(f"{text!r} is not a date: {what}")
    try:
        day = date.fromisoformat(text)
    except ValueError:
        raise ValueError(f"there is no day {text} in the calendar: {what}") from None
    if day > _LAST_DAY:
        raise ValueError(f"{text} is no end: write a day that you will live to see")
    return day


def parse_duration(value: Any, longest: timedelta = _LONGEST) -> timedelta:
    """A time span from `5d`, `4h`, `1h30m`, `500ms`. A bare number is refused: nobody agrees on its unit."""
    what = "write a duration with its unit, such as 30s, 5m, 4h or 5d"
    if isinstance(value, timedelta):
        return value
    text = _string(value, what).replace(" ", "")
    parts = _DURATION.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError(what)
    seconds = sum(float(number) * _SECONDS[unit] for number, unit in parts)
    if seconds > longest.total_seconds():
        raise ValueError(f"{text} is longer than {'a year' if longest == _LONGEST else duration_text(longest)}: {what}")
    return timedelta(seconds=seconds)


def duration_text(span: timedelta) -> str:
    """The shortest way to write a time span in the file: `5d`, `90m`, `0s`. The inverse of `parse_duration`."""
    for unit in ("w", "d", "h", "m", "s"):
        if span and span % timedelta(seconds=_SECONDS[unit]) == timedelta(0):
            return f"{span // timedelta(seconds=_SECONDS[unit])}{unit}"
    return f"{round(span / timedelta(milliseconds=1))}ms" if span else "0s"


def parse_rate(value: Any) -> float:
    """Messages per second from `100/s`, `600/m`, `1000/h`."""
    what = "write a rate such as 100/s, 600/m or 1000/h"
    match = _RATE.match(_string(value, what))
    if match is None or int(match[1]) == 0:
        raise ValueError(what)
    return int(match[1]) / _SECONDS[match[2]]


def parse_network(value: Any) -> Network:
    """An IPv4 or IPv6 network or single address. Bits beyond the mask are an error: they are mostly a typing slip."""
    if isinstance(value, ipaddress.IPv4Network | ipaddress.IPv6Network):
        return value
    text = _string(value, "write a network such as 203.0.113.0/24 or 2001:db8::/32")
    try:
        network = ipaddress.ip_network(text)
    except ValueError:
        try:
            meant = ipaddress.ip_network(text, strict=False)
        except ValueError:
            raise ValueError(f"{text!r} is not a network: write 203.0.113.0/24, 2001:db8::/32 or one address") from None
        raise ValueError(
            f"{text!r} has host bits set: did you mean {meant}, or the single address {text.split('/')[0]}?"
        ) from None
    if isinstance(network, ipaddress.IPv6Network) and network.subnet_of(_MAPPED):
        # Clients from ::ffff:a.b.c.d count as IPv4, so such a network would never match.
        raise ValueError(f"{text!r} holds IPv4 addresses in IPv6 dress: write the IPv4 network")
    return network


def parse_domain(value: Any) -> str:
    """A domain as lower-case A-labels. An IP address is none, however much it looks like one."""
    text = _string(value, "write a domain such as contoso.com")
    if "*" in text:
        raise ValueError(f"{text!r}: no wildcard is taken here, write one domain")
    try:
        domain = normalise_domain(text)
    except AddressError as error:
        raise ValueError(str(error)) from None
    if domain.rpartition(".")[2].isdigit():  # RFC 3696 section 2: a top-level domain is not all-numeric
        raise ValueError(f"{text!r} is an IP address, or part of one: write a domain such as contoso.com")
    return domain


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
    if name.startswith("*.") and "." not in name[2:]:
        raise ValueError(f'"{name}" would accept every domain under "{name[2:]}": name the partner\'s own domain')
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
    if isinstance(value, Address):
        return value
    try:
        return parse_mailbox(_string(value, "write an address such as postmaster@example.com"))
    except AddressError as error:
        raise ValueError(str(error)) from None


@lru_cache(maxsize=4096)
def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


@dataclass(frozen=True, slots=True, order=True)
class HostPort:
    """A host (name or IP address, without brackets) and a TCP port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_address(self) -> bool:
        return _is_address(self.host)

    @classmethod
    def parse(cls, value: Any, *, default_port: int | None = None, name: bool = True) -> "HostPort":
        """From `host:port`, `192.0.2.1:25`, `[2001:db8::1]:25`. Raises ValueError. `name` False takes IP addresses only."""
        what = (
            "write host:port, such as mail.contoso.com:25"
            if name
            else "write address:port, such as 0.0.0.0:25 or [::]:25"
        )
        text = _string(value, what)
        if "@" in text:
            raise ValueError(
                f"{what}; a login belongs under `auth`"
            )  # what stands there may be a password: not repeated
        match = _HOST_PORT.match(text)
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


_TEXT = {"type": "string"}
Size = Annotated[
    int, BeforeValidator(parse_size), WithJsonSchema({"type": ["string", "integer"], "examples": ["50MiB"]})
]
Duration = Annotated[
    timedelta, BeforeValidator(parse_duration), WithJsonSchema(_TEXT | {"examples": ["30s", "4h", "5d"]})
]
LongDuration = Annotated[
    timedelta,
    BeforeValidator(lambda value: parse_duration(value, _AN_AGE)),
    WithJsonSchema(_TEXT | {"examples": ["400d", "52w"]}),
]
"""How long something is kept: up to ten years."""
Rate = Annotated[float, BeforeValidator(parse_rate), WithJsonSchema(_TEXT | {"examples": ["100/s", "600/m"]})]
Count = Annotated[int, BeforeValidator(parse_count)]
Flag = Annotated[bool, BeforeValidator(parse_flag), WithJsonSchema({"type": "boolean"})]
OnlyTrue = Annotated[Literal[True], BeforeValidator(parse_only_true), WithJsonSchema({"const": True})]
Text = Annotated[str, BeforeValidator(parse_text), WithJsonSchema(_TEXT | {"minLength": 1})]
Day = Annotated[date, BeforeValidator(parse_date), WithJsonSchema(_TEXT | {"format": "date"})]
Name = Annotated[
    str, BeforeValidator(parse_name), WithJsonSchema(_TEXT | {"pattern": "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"})
]
Domain = Annotated[str, BeforeValidator(parse_domain), WithJsonSchema(_TEXT | {"examples": ["contoso.com"]})]
Pattern = Annotated[
    str, BeforeValidator(parse_pattern), WithJsonSchema(_TEXT | {"examples": ["contoso.com", "*.contoso.com"]})
]
CertificateName = Annotated[
    str, BeforeValidator(parse_certificate_name), WithJsonSchema(_TEXT | {"examples": ["mail.contoso.com"]})
]
Pin = Annotated[str, BeforeValidator(parse_pin), WithJsonSchema(_TEXT | {"pattern": "^sha256:"})]
Selector = Annotated[str, BeforeValidator(parse_selector), WithJsonSchema(_TEXT | {"examples": ["tlsrpt"]})]
Mailbox = Annotated[Address, BeforeValidator(parse_address), WithJsonSchema(_TEXT | {"format": "email"})]
Net = Annotated[Network, BeforeValidator(parse_network), WithJsonSchema(_TEXT | {"examples": ["203.0.113.0/24"]})]


def _bind(value: Any) -> HostPort:
    return value if isinstance(value, HostPort) else HostPort.parse(value, name=False)


Bind = Annotated[HostPort, BeforeValidator(_bind), WithJsonSchema(_TEXT | {"examples": ["0.0.0.0:25", "[::]:25"]})]


def refuse_twins(by_domain: Any) -> Any:
    """For keys that are domains: `Example.com` and `example.com` are one, and the second would silently take the place of the first."""
    if isinstance(by_domain, dict):
        seen: dict[str, str] = {}
        for domain in by_domain:
            same = str(domain).lower().rstrip(".")
            if seen.setdefault(same, domain) != domain:
                raise ValueError(f"{domain!r} and {seen[same]!r} are one domain")
    return by_domain


class _AtLeastOne:
    """Refuses an empty list: a rule that says nothing is a slip, and which way it would fall nobody can tell from reading it."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(_at_least_one, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {**handler(schema), "minItems": 1}


def _at_least_one(value: tuple[Any, ...]) -> tuple[Any, ...]:
    if not value:
        raise ValueError("an empty list would be a rule that says nothing: name at least one")
    return value


NonEmpty = _AtLeastOne()
