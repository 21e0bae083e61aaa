"""The shape of connectors.yaml (design section 4) as frozen models: what may be written, its defaults, and what contradicts itself.

Models check one value, or values of one mapping. What needs the whole file (two connectors for one domain, an accepted domain
without a connector) is in `relay.config.rules`; reading the file and placing errors in it is in `relay.config.load`.
"""

import ipaddress
from datetime import date, timedelta
from enum import StrEnum
from functools import cached_property
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from relay.config.values import (
    CertificateName,
    Domain,
    Duration,
    FilePath,
    HostPort,
    Mailbox,
    Net,
    NonEmpty,
    Pattern,
    Pin,
    Rate,
    Secret,
    Size,
    locate,
)
from relay.mail.address import AddressError, normalise_domain
from relay.mail.plan import Level, Plaintext
from relay.mail.tls import SYSTEM_TRUST

DEFAULT = "default"


class Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True, use_attribute_docstrings=True)


TlsVersionName = Literal["TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3"]


def _bind(value: Any) -> HostPort:
    return value if isinstance(value, HostPort) else HostPort.parse(value, name=False)


def _smart_host(value: Any) -> HostPort:
    return value if isinstance(value, HostPort) else HostPort.parse(value, default_port=25)


def _hop(value: Any) -> HostPort:
    return value if isinstance(value, HostPort) else HostPort.parse(value, name=False)


_HOST_PORT = WithJsonSchema({"type": "string", "examples": ["0.0.0.0:25"]})
Bind = Annotated[HostPort, BeforeValidator(_bind), _HOST_PORT]
SmartHost = Annotated[HostPort, BeforeValidator(_smart_host), _HOST_PORT]


def _trust(value: Any, info: ValidationInfo) -> str:
    if value == SYSTEM_TRUST:
        return SYSTEM_TRUST
    if not isinstance(value, str) or not value:
        raise ValueError("write `system`, or the path of a PEM file or of a folder of PEM files")
    path = locate(value, info)
    if not path.exists():
        raise ValueError(f"{path} does not exist: put the CA's certificate there, or name another file")
    return str(path)


Trust = Annotated[
    str, BeforeValidator(_trust), WithJsonSchema({"type": "string", "description": "`system`, or a PEM file or folder"})
]


class ListenerKind(StrEnum):
    MX = "mx"
    SUBMISSION = "submission"
    SUBMISSIONS = "submissions"


class Switch(StrEnum):
    ON = "on"
    OFF = "off"


class ProxyProtocol(Model):
    from_: Annotated[tuple[Net, ...], NonEmpty, Field(alias="from")]
    """Networks whose connections begin with a PROXY header; connections from elsewhere are refused."""


class Listener(Model):
    address: Bind
    """Address and port to listen on; a host name is not an address."""
    kind: ListenerKind = ListenerKind.MX
    proxy_protocol: ProxyProtocol | None = None
    """PROXY protocol v1 and v2 (haproxy), from the networks listed."""
    starttls: Switch = Switch.ON
    """`off` lets a listener start without a certificate: mail comes in clear."""

    @property
    def name(self) -> str:
        return f"{self.kind.value} {self.address}"

    @model_validator(mode="after")
    def _implicit(self) -> Self:
        if self.starttls is Switch.OFF and self.kind is not ListenerKind.MX:
            raise ValueError(
                f"`starttls: off` is for kind mx only: on {self.kind.value} passwords would travel in clear"
            )
        return self


class Admin(Model):
    socket: FilePath


class Limits(Model):
    message_size: Size = 50 * 2**20
    recipients: int = Field(default=1000, ge=100)  # RFC 5321 section 4.5.3.1.8: at least 100
    """Recipients of one message; more get 452 4.5.3."""
    connections: int = Field(default=10_000, ge=1)
    connections_per_ip: int = Field(default=100, ge=1)
    free_space: Size = 500 * 2**20
    """Below this much room on the queue's disk, mail is refused with 452 until there is room again."""
    line_length: int = Field(default=8192, ge=1000)
    """Octets in one line of a message, CRLF included (RFC 5321 says 1000; much real mail is beyond it)."""
    command_timeout: Duration = timedelta(minutes=5)  # RFC 5321 section 4.5.3.2.7
    data_timeout: Duration = timedelta(minutes=30)
    """For the whole of DATA or of all BDAT chunks together."""
    session_messages: int = Field(default=1000, ge=1)
    """Messages in one inbound connection; then 421."""


class Dns(Model):
    resolver: Annotated[
        Literal["system"] | HostPort,
        BeforeValidator(lambda value: value if value == "system" else _hop(value)),
        WithJsonSchema({"type": "string", "examples": ["system", "127.0.0.1:53"]}),
    ] = "system"


def _recipient_list(value: Any, info: ValidationInfo) -> frozenset[str]:
    """Local parts, lower case. From `file:PATH`, one address or local part a line, `#` comments."""
    if isinstance(value, frozenset):
        return value
    if not isinstance(value, str) or not value.startswith("file:"):
        raise ValueError("write file:PATH; the file has one address or local part a line")
    path = locate(value.removeprefix("file:"), info)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeError) as error:
        raise ValueError(
            f"cannot read the recipient list {path}: {getattr(error, 'strerror', None) or error}"
        ) from None
    names = (line.split("#", 1)[0].strip() for line in lines)
    found = frozenset(name.lower() for name in names if name)
    if not found:
        raise ValueError(f"{path} names no recipient: every message would be refused; leave the key out to accept all")
    return found


RecipientList = Annotated[
    frozenset[str], BeforeValidator(_recipient_list), WithJsonSchema({"type": "string", "pattern": "^file:"})
]


class Accept(Model):
    domains: tuple[Pattern, ...] = ()
    recipients: dict[Domain, RecipientList] = {}
    networks: tuple[Net, ...] = ()

    @field_validator("recipients", mode="after")
    @classmethod
    def _own_domain_only(cls, lists: dict[str, frozenset[str]]) -> dict[str, frozenset[str]]:
        """Entries become bare local parts. An address of another domain in a domain's list is an error."""
        result = {}
        for domain, entries in lists.items():
            locals_ = set()
            for entry in entries:
                local, at, of = entry.rpartition("@")
                if at:
                    try:
                        belongs = normalise_domain(of) == domain
                    except AddressError:
                        belongs = False
                    if not belongs:
                        raise ValueError(
                            f"{entry!r} stands in the recipient list of {domain}, where it can never match"
                        )
                locals_.add(local if at else entry)
            result[domain] = frozenset(locals_)
        return result


class Submission(Model):
    passwords: FilePath
    """Lines `user:$argon2id$...:senders`, as `relay password` writes them."""


class BareLf(Model):
    normalise: Annotated[tuple[Net, ...], NonEmpty]
    """Old devices of your own that end lines with a bare LF: made CRLF for clients in these networks, refused for all others."""


class RouteAuth(Model):
    user: str
    password: Secret


class PrivateAddresses(StrEnum):
    REFUSE = "refuse"
    ALLOW = "allow"


class Route(Model):
    smart_hosts: Annotated[tuple[SmartHost, ...], NonEmpty] | None = None
    """Hosts to deliver to, in order. Without them, the domain's MX."""
    auth: RouteAuth | None = None
    private: PrivateAddresses = PrivateAddresses.REFUSE
    """`allow` lets MX hosts resolve to private addresses (closed networks). Smart hosts always may."""

    @property
    def by_mx(self) -> bool:
        return self.smart_hosts is None

    @property
    def hosts(self) -> tuple[HostPort, ...]:
        """The smart hosts; empty by MX."""
        return self.smart_hosts or ()

    @model_validator(mode="after")
    def _sense(self) -> Self:
        if self.auth is not None and self.smart_hosts is None:
            raise ValueError("`auth` needs `smart_hosts`: a password is never sent to whatever host an MX record names")
        return self


def _route(value: Any) -> Any:
    return {} if value == "mx" else value


RouteOrMx = Annotated[Route, BeforeValidator(_route)]


class Retry(Model):
    initial: Duration = timedelta(minutes=1)
    """Wait before the second attempt; doubled after each one."""
    maximum: Duration = timedelta(hours=1)
    """Longest wait between two attempts."""
    expire: Duration = timedelta(days=5)
    """Age at which a message is bounced."""
    delay_warning: Duration = timedelta(hours=4)
    """Age at which the sender hears, once, that the message waits. `0s`: never."""

    @model_validator(mode="after")
    def _order(self) -> Self:
        if not timedelta(0) < self.initial <= self.maximum:
            raise ValueError("`initial` must be above zero and not above `maximum`")
        if self.expire <= timedelta(0):
            raise ValueError("`expire` must be above zero")
        return self


class OutboundLimits(Model):
    concurrency: int = Field(default=20, ge=1)
    """Connections at the same time to one destination."""
    messages_per_connection: int = Field(default=100, ge=1)
    rate: Rate | None = None
    """Messages a second to one destination; none: as fast as it takes them."""


def _ip(value: Any) -> str:
    try:
        return str(ipaddress.ip_address(value))
    except ValueError:
        raise ValueError(f"{value!r} is not an IP address of this machine") from None


class OutboundSettings(Model):
    """Every key that `defaults.outbound` and an outbound connector share."""

    tls: Level = Level.OPPORTUNISTIC
    plaintext: Plaintext | None = None
    """Only at `opportunistic`. Default: if-not-offered."""
    names: Annotated[tuple[CertificateName, ...], NonEmpty] | None = None
    """What the certificate must say, at level `domain`. Default: the smart host as configured."""
    ca: Trust | None = None
    """Who must have issued the certificate, from level `certificate` on. Default: `trust`."""
    pins: Annotated[tuple[Pin, ...], NonEmpty] | None = None
    """SPKI pins of the leaf, in addition to the level."""
    tls_version: TlsVersionName = "TLSv1.2"
    """The lowest version."""
    client_certificate: str | None = None
    """A name in `certificates`, shown to the hop."""
    route: RouteOrMx = Route()
    helo: Domain | None = None
    source: Annotated[str, BeforeValidator(_ip)] | None = None
    """Local address to send from."""
    retry: Retry = Retry()
    limits: OutboundLimits = OutboundLimits()


class Defaults(Model):
    outbound: OutboundSettings = OutboundSettings()


class CertificateRequirement(Model):
    names: Annotated[tuple[CertificateName, ...], NonEmpty] | None = None
    ca: Trust | None = None
    """Default: `trust`."""
    pins: Annotated[tuple[Pin, ...], NonEmpty] | None = None

    @model_validator(mode="after")
    def _not_empty(self) -> Self:
        if not self.names and not self.ca and not self.pins:
            raise ValueError("an empty `certificate` would accept any: give `names`, `ca` or `pins`")
        return self


class Require(Model):
    tls: Literal[True] | None = None
    tls_version: TlsVersionName | None = None
    certificate: CertificateRequirement | None = None
    networks: Annotated[tuple[Net, ...], NonEmpty] | None = None

    @model_validator(mode="after")
    def _not_empty(self) -> Self:
        if not (self.tls or self.tls_version or self.certificate or self.networks):
            raise ValueError(
                "an empty `require` requires nothing: give `tls`, `tls_version`, `certificate` or `networks`"
            )
        return self

    @property
    def needs_tls(self) -> bool:
        return bool(self.tls or self.tls_version or self.certificate)


class Grant(Model):
    relay: Literal[True]
    """The peer may send to anywhere through us."""


class InboundMatch(Model):
    sender_domains: Annotated[tuple[Pattern, ...], NonEmpty] | None = None
    certificate_names: Annotated[tuple[CertificateName, ...], NonEmpty] | None = None
    networks: Annotated[tuple[Net, ...], NonEmpty] | None = None
    header_from: bool = False
    """Match the From: header's domain too, for the null sender as well."""

    @model_validator(mode="after")
    def _not_empty(self) -> Self:
        if not (self.sender_domains or self.certificate_names or self.networks):
            raise ValueError(
                "an empty `match` matches nobody: give `sender_domains`, `certificate_names` or `networks`"
            )
        if self.header_from and not self.sender_domains:
            raise ValueError("`header_from` needs `sender_domains` to compare the From: header with")
        return self


Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]


class InboundConnector(Model):
    name: Name
    direction: Literal["inbound"]
    match: InboundMatch
    require: Require
    grant: Grant | None = None

    @model_validator(mode="after")
    def _grant(self) -> Self:
        if self.grant is None:
            return self
        certificate = self.require.certificate
        by_certificate = certificate is not None and bool(certificate.pins or (certificate.names and certificate.ca))
        if not by_certificate and not self.require.networks:
            raise ValueError(
                "`grant.relay` needs to know who gets it: require certificate `names` with a `ca`, `pins`, or `networks`"
            )
        return self

    @property
    def speaks_of_certificates(self) -> bool:
        return self.require.certificate is not None or self.match.certificate_names is not None


class OutboundMatch(Model):
    recipient_domains: Annotated[tuple[Pattern, ...], NonEmpty]


class OutboundConnector(OutboundSettings):
    name: Name
    direction: Literal["outbound"]
    match: OutboundMatch

    def source_of(self, *keys: str) -> str:
        """Who asks for what these keys say: the connector where it wrote one of them itself, else the defaults."""
        own = self.name != DEFAULT and any(key in self.model_fields_set for key in keys)
        return f"connector {self.name}" if own else DEFAULT


Connector = Annotated[InboundConnector | OutboundConnector, Field(discriminator="direction")]


class Allow(StrEnum):
    PLAINTEXT = "plaintext"
    ENCRYPTION = "encryption"


class TlsException(Model):
    recipient_domain: Domain
    """Matched exactly."""
    allow: Allow
    """`encryption`: TLS with any certificate. `plaintext`: clear text where TLS can not be had."""
    until: Annotated[date, WithJsonSchema({"type": "string", "format": "date"})]
    """Last day (UTC) on which it holds."""
    reason: Annotated[str, Field(min_length=1)]


class Config(Model):
    """All of connectors.yaml, as written. `outbound` and `default` are what acts: connectors with the defaults in them."""

    hostname: Domain
    postmaster: Mailbox
    listeners: Annotated[tuple[Listener, ...], NonEmpty]
    certificates: FilePath | None = None
    trust: Trust = SYSTEM_TRUST
    queue: str = "sqlite:queue.db"
    admin: Admin | None = None
    observe: Bind | None = None
    limits: Limits = Limits()
    dns: Dns = Dns()
    accept: Accept = Accept()
    submission: Submission | None = None
    bare_lf: BareLf | None = None
    defaults: Defaults = Defaults()
    connectors: tuple[Connector, ...] = ()
    exceptions: tuple[TlsException, ...] = ()

    @cached_property
    def inbound(self) -> tuple[InboundConnector, ...]:
        return tuple(each for each in self.connectors if isinstance(each, InboundConnector))

    @cached_property
    def outbound(self) -> tuple[OutboundConnector, ...]:
        own = (each for each in self.connectors if isinstance(each, OutboundConnector))
        return tuple(with_defaults(each, self.defaults.outbound) for each in own)

    @cached_property
    def default(self) -> OutboundConnector:
        """What acts for a domain that no outbound connector names."""
        everything = OutboundConnector(
            name=DEFAULT, direction="outbound", match=OutboundMatch(recipient_domains=("*",))
        )
        return with_defaults(everything, self.defaults.outbound, replace_all=True)


def with_defaults(
    connector: OutboundConnector, defaults: OutboundSettings, *, replace_all: bool = False
) -> OutboundConnector:
    """The connector with `defaults.outbound` where it says nothing itself. `model_fields_set` stays what it wrote itself.

    A default that could not stand beside the connector's own level (plaintext above opportunistic) is left out.
    """
    own = frozenset() if replace_all else connector.model_fields_set
    values = {
        field: getattr(connector if field in own or field not in OutboundSettings.model_fields else defaults, field)
        for field in OutboundConnector.model_fields
    }
    if values["tls"] is not Level.OPPORTUNISTIC and "plaintext" not in own:
        values["plaintext"] = None
    return OutboundConnector.model_construct(_fields_set=set(own), **values)
