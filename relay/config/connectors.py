"""The shape of connectors, exceptions and `defaults` in connectors.yaml (design section 4), as frozen models.

Models check one value, or values of one mapping. What needs the whole file is in `relay.config.rules`.
"""

import ipaddress
from datetime import timedelta
from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator

from relay.config.files import Secret, Trust
from relay.config.values import (
    CertificateName,
    Count,
    Day,
    Domain,
    Duration,
    Flag,
    HostPort,
    Name,
    Net,
    NonEmpty,
    OnlyTrue,
    Pattern,
    Pin,
    Rate,
    Text,
)
from relay.mail.plan import Level, Plaintext
from relay.mail.published import Use
from relay.mail.revocation import Revocation

DEFAULT = "default"


class Model(BaseModel):
    """Base of every mapping in the file."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True, use_attribute_docstrings=True)


TlsVersionName = Literal["TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3"]


def _smart_host(value: Any) -> HostPort:
    host = value if isinstance(value, HostPort) else HostPort.parse(value, default_port=25)
    if host.port == 0:
        raise ValueError(f"{str(value)!r}: mail cannot be sent to port 0")
    return host


SmartHost = Annotated[
    HostPort,
    BeforeValidator(_smart_host),
    WithJsonSchema({"type": "string", "examples": ["mail.contoso.com:25", "[2001:db8::1]:25"]}),
]


class RouteAuth(Model):
    user: Text
    """The user name that the smart hosts know us by."""
    password: Secret
    """`${NAME}` of an environment variable, or `file:PATH`."""


class ForwardClient(StrEnum):
    OFF = "off"
    XCLIENT = "xclient"
    PROXY = "proxy"


class On5xx(StrEnum):
    BOUNCE = "bounce"
    HOLD = "hold"


class PrivateAddresses(StrEnum):
    REFUSE = "refuse"
    ALLOW = "allow"


class Route(Model):
    """Where mail goes. `route: mx`, the default, is the same as leaving it out."""

    smart_hosts: Annotated[tuple[SmartHost, ...], NonEmpty] | None = None
    """Hosts to deliver to, in order; port 25 where none is written. Without them, the domain's MX."""
    auth: RouteAuth | None = None
    """AUTH at the smart hosts, after TLS."""
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
        if self.smart_hosts is not None and self.private is PrivateAddresses.ALLOW:
            raise ValueError("`private` is about MX hosts: `smart_hosts` may have private addresses without it")
        return self


def _route(value: Any) -> Any:
    if isinstance(value, str) and value != "mx":
        raise ValueError("write `mx`, or a mapping such as {smart_hosts: [mail.contoso.com:25]}")
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
    concurrency: Count = Field(default=20, ge=1)
    """Connections at the same time to one destination."""
    messages_per_connection: Count = Field(default=100, ge=1)
    """Messages in one connection; then a new one is made."""
    rate: Rate | None = None
    """Messages a second to one destination; none: as fast as it takes them."""


def _source(value: Any) -> str:
    try:
        return str(ipaddress.ip_address(value if isinstance(value, str) else ""))
    except ValueError:
        raise ValueError(f"{str(value)[:80]!r} is not an IP address: write one of this machine's") from None


class OutboundSettings(Model):
    """Every key that `defaults.outbound` and an outbound connector share."""

    tls: Level = Level.OPPORTUNISTIC
    """How much TLS: `opportunistic` tries it with any certificate; `encryption` requires it with any certificate;
    `certificate` requires a chain to `ca` or `trust`; `domain` requires one of `names` in it as well."""
    plaintext: Plaintext | None = None
    """Only at `opportunistic`. `if-not-offered` (default), `if-tls-fails` (also after broken TLS), `never`."""
    names: Annotated[tuple[CertificateName, ...], NonEmpty] | None = None
    """What the certificate must say, at level `domain`. Default: the smart host as configured."""
    ca: Trust | None = None
    """Who must have issued the certificate, from level `certificate` on. Default: `trust`."""
    pins: Annotated[tuple[Pin, ...], NonEmpty] | None = None
    """SPKI pins of the leaf, in addition to the level. List the next one before a rotation."""
    tls_version: TlsVersionName = "TLSv1.2"
    """The lowest version."""
    dane: Use = Use.AUTO
    """TLSA records (RFC 7672): `auto` holds to them where they are published and DNSSEC-secure, `require` sends nowhere without them,
    `off` leaves them out, only where `names` and `ca`, or `pins`, already fix who the hop is."""
    mta_sts: Use = Use.AUTO
    """MTA-STS (RFC 8461): `auto` holds to an enforced policy where there is one, `require` sends nowhere without one, `off` as for `dane`."""
    revocation: Revocation = Revocation.OFF
    """From level `certificate` on, is a certificate of the chain revoked? `prefer` refuses a revoked one and lets pass what cannot be found out,
    `require` waits until it can be, `off` (default) asks nobody."""
    client_certificate: Text | None = None
    """A name in `certificates`, shown to the hop."""
    route: RouteOrMx = Route()
    """`mx` (default), or `smart_hosts`."""
    helo: Domain | None = None
    """The name said in EHLO. Default: `hostname`."""
    source: Annotated[str, BeforeValidator(_source)] | None = None
    """Local address to send from."""
    retry: Retry = Retry()
    """When deferred mail is tried again and when it is given up."""
    limits: OutboundLimits = OutboundLimits()
    """How hard one destination is pressed."""
    on_5xx: On5xx = On5xx.BOUNCE
    """What becomes of mail that the hop refuses for good after our 250: `bounce` tells its sender, `hold` keeps it for the postmaster
    where the client was a stranger, whose sender address may be forged. Clients that may relay get their bounce in any case."""


class InboundSettings(Model):
    """What inbound connectors share."""

    revocation: Revocation = Revocation.OFF
    """Where `require.certificate` asks for an issuer and says nothing itself."""


class Defaults(Model):
    outbound: OutboundSettings = OutboundSettings()
    """Any key of an outbound connector but `name`, `direction`, `match`. A connector's own key wins."""
    inbound: InboundSettings = InboundSettings()
    """What inbound connectors require where they say nothing themselves."""


class CertificateRequirement(Model):
    names: Annotated[tuple[CertificateName, ...], NonEmpty] | None = None
    """Names of which the client's certificate must have one."""
    ca: Trust | None = None
    """Who must have issued it. Default: `trust`, unless `pins` say which key."""
    pins: Annotated[tuple[Pin, ...], NonEmpty] | None = None
    """SPKI pins of the leaf."""
    revocation: Revocation | None = None
    """Is a certificate of the chain revoked? `prefer` refuses a revoked one and lets pass what cannot be found out, `require` says 451 until
    it can be, `off` asks nobody. Default: `defaults.inbound.revocation`."""

    @model_validator(mode="after")
    def _not_empty(self) -> Self:
        if not self.names and not self.ca and not self.pins:
            raise ValueError("an empty `certificate` would accept any: give `names`, `ca` or `pins`")
        if self.revocation not in (None, Revocation.OFF) and not self.ca and self.pins:
            raise ValueError("`revocation` is about a chain to an issuer, and these are pins alone: name a `ca` too")
        return self


class Require(Model):
    tls: OnlyTrue | None = None
    """The client must use TLS."""
    tls_version: TlsVersionName | None = None
    """The lowest version."""
    certificate: CertificateRequirement | None = None
    """The client must show a certificate."""
    networks: Annotated[tuple[Net, ...], NonEmpty] | None = None
    """The client must come from one of these."""

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
    relay: OnlyTrue
    """The peer may send to anywhere through us."""


class InboundMatch(Model):
    sender_domains: Annotated[tuple[Pattern, ...], NonEmpty] | None = None
    """Domains of the envelope sender."""
    certificate_names: Annotated[tuple[CertificateName, ...], NonEmpty] | None = None
    """Names that the client's certificate claims."""
    networks: Annotated[tuple[Net, ...], NonEmpty] | None = None
    """Where the client comes from."""
    header_from: Flag = False
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


class InboundConnector(Model):
    """A rule about a partner that sends to us."""

    name: Name
    """Stands in logs, replies and traces."""
    direction: Literal["inbound"]
    match: InboundMatch
    """Whom it speaks of. All keys must match."""
    require: Require
    """All must hold, else the message is refused and nothing is queued."""
    grant: Grant | None = None
    """What the peer may do beyond sending to our own domains."""

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
    """Exact domain beats longest wildcard beats `*`."""


class OutboundConnector(OutboundSettings):
    """A rule about a partner that we send to."""

    name: Name
    """Stands in logs and traces."""
    direction: Literal["outbound"]
    match: OutboundMatch
    """Whose mail it governs."""
    forward_client: ForwardClient = ForwardClient.OFF
    """Hands the client's address, name and HELO to the smart hosts, for their SPF and block-list checks: `xclient` (Postfix's XCLIENT) or
    `proxy` (PROXY protocol, version 2). Only towards a mail server of your own: it believes what it is told. Mail waits where it does not."""

    @property
    def is_fixed(self) -> bool:
        """True where the connector says itself who the hop is: fixed names under a fixed CA, or pinned keys."""
        if self.tls is Level.OPPORTUNISTIC:
            return False
        return bool(self.pins or (self.tls is Level.DOMAIN and self.names and self.ca))

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
    until: Day
    """Last day (UTC) on which it holds."""
    reason: Text
    """Why, for whoever reads it later."""


_MERGED = ("retry", "limits")
_PUBLISHED = ("dane", "mta_sts")


def with_defaults(
    connector: OutboundConnector, defaults: OutboundSettings, *, replace_all: bool = False
) -> OutboundConnector:
    """The connector with `defaults.outbound` where it says nothing itself. `model_fields_set` stays what it wrote itself.

    `retry` and `limits` are joined key by key; a route is taken whole. A default that could not stand beside the connector's own
    level (plaintext above opportunistic; published policy `off` without fixed names or pins) is left out.
    """
    own = frozenset() if replace_all else connector.model_fields_set
    values = {
        field: getattr(connector if field in own or field not in OutboundSettings.model_fields else defaults, field)
        for field in OutboundConnector.model_fields
    }
    for field in _MERGED:
        if field in own:
            written: Model = getattr(connector, field)
            update = {key: getattr(written, key) for key in written.model_fields_set}
            values[field] = getattr(defaults, field).model_copy(update=update)
    if values["tls"] is not Level.OPPORTUNISTIC and "plaintext" not in own:
        values["plaintext"] = None
    made = OutboundConnector.model_construct(_fields_set=set(own), **values)
    if replace_all or made.is_fixed:
        return made
    loose = {key: Use.AUTO for key in _PUBLISHED if key not in own and values[key] is Use.OFF}
    return OutboundConnector.model_construct(_fields_set=set(own), **(values | loose))
