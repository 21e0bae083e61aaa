"""The shape of connectors.yaml (design section 4) as frozen models: what may be written, its defaults, and what contradicts itself.

Models check one value, or values of one mapping; connectors are in `relay.config.connectors`. What needs the whole file (two
connectors for one domain, an accepted domain without a connector) is in `relay.config.rules`; reading the file and placing errors
in it is in `relay.config.load`.
"""

import ipaddress
from datetime import timedelta
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, WithJsonSchema, model_validator

from relay.config.accept import Accept, Callout, OnFailure
from relay.config.admin import Admin, AdminClients, AdminScope
from relay.config.alerts import Alerts, Webhook
from relay.config.connectors import (
    DEFAULT,
    Allow,
    CertificateRequirement,
    Connector,
    Defaults,
    ForwardClient,
    Grant,
    InboundConnector,
    InboundMatch,
    InboundSettings,
    Model,
    On5xx,
    OutboundConnector,
    OutboundLimits,
    OutboundMatch,
    OutboundSettings,
    PrivateAddresses,
    Require,
    Retry,
    Route,
    RouteAuth,
    TlsException,
    TlsVersionName,
    with_defaults,
)
from relay.config.files import SQLITE, FilePath, QueueUrl, Trust
from relay.config.publication import DomainPublication, DomainWords, Ourselves, Publication, words_for
from relay.config.tlsrpt import Dkim, Tlsrpt, Unsigned
from relay.config.values import (
    Bind,
    Count,
    Domain,
    Duration,
    Flag,
    HostPort,
    Mailbox,
    Net,
    NonEmpty,
    Size,
    Switch,
    parse_domain,
)
from relay.mail.revocation import Revocation
from relay.mail.tls import SYSTEM_TRUST

__all__ = [
    "DEFAULT",
    "Accept",
    "Admin",
    "AdminClients",
    "AdminScope",
    "Alerts",
    "Allow",
    "BareLf",
    "Callout",
    "CertificateRequirement",
    "Config",
    "Connector",
    "Defaults",
    "Dkim",
    "Dns",
    "DomainPublication",
    "ForwardClient",
    "Grant",
    "InboundConnector",
    "InboundMatch",
    "InboundSettings",
    "Limits",
    "Listener",
    "ListenerKind",
    "Model",
    "On5xx",
    "OnFailure",
    "OutboundConnector",
    "OutboundLimits",
    "OutboundMatch",
    "OutboundSettings",
    "PrivateAddresses",
    "ProxyProtocol",
    "Publication",
    "Require",
    "Retention",
    "Retry",
    "Route",
    "RouteAuth",
    "SelfTest",
    "Submission",
    "Switch",
    "TlsException",
    "TlsRequiredNo",
    "TlsVersionName",
    "Tlsrpt",
    "Unsigned",
    "Webhook",
    "with_defaults",
]


MOST_WORKERS = 64  # that ids have room for


def _workers(value: Any) -> Literal["auto"] | int:
    if value == "auto":
        return "auto"
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MOST_WORKERS:
        raise ValueError(f"{str(value)[:80]!r}: write `auto`, or a number from 1 to {MOST_WORKERS}")
    return value


Workers = Annotated[
    Literal["auto"] | int,
    BeforeValidator(_workers),
    WithJsonSchema({"anyOf": [{"const": "auto"}, {"type": "integer", "minimum": 1, "maximum": MOST_WORKERS}]}),
]


class ListenerKind(StrEnum):
    MX = "mx"
    SUBMISSION = "submission"
    SUBMISSIONS = "submissions"


class ProxyProtocol(Model):
    from_: Annotated[tuple[Net, ...], NonEmpty, Field(alias="from")]
    """Networks whose connections begin with a PROXY header; connections from elsewhere are refused."""


class Listener(Model):
    address: Bind
    """Address and port to listen on; a host name is not an address."""
    kind: ListenerKind = ListenerKind.MX
    """`mx` takes mail from other servers, `submission` from users (STARTTLS), `submissions` from users (TLS from the first byte)."""
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


class Limits(Model):
    message_size: Size = Field(default=50 * 2**20, ge=1)
    """Bytes of one message; larger ones get 552 5.3.4."""
    recipients: Count = Field(default=1000, ge=100)  # RFC 5321 section 4.5.3.1.8: at least 100
    """Recipients of one message; more get 452 4.5.3."""
    connections: Count = Field(default=10_000, ge=1)
    """Inbound connections at the same time; more get 421 4.7.0."""
    connections_per_ip: Count = Field(default=100, ge=1)
    """Inbound connections at the same time from one address."""
    free_space: Size = 500 * 2**20
    """Below this much room on the queue's disk, mail is refused with 452 until there is room again."""
    line_length: Count = Field(default=8192, ge=1000)
    """Octets in one line of a message, CRLF included (RFC 5321 says 1000; much real mail is beyond it)."""
    command_timeout: Duration = Field(default=timedelta(minutes=5), gt=timedelta(0))  # RFC 5321 section 4.5.3.2.7
    """Longest wait for a client's next command."""
    data_timeout: Duration = Field(default=timedelta(minutes=30), gt=timedelta(0))
    """For the whole of DATA or of all BDAT chunks together."""
    session_messages: Count = Field(default=1000, ge=1)
    """Messages in one inbound connection; then 421."""


class Retention(Model):
    traces: Duration = Field(default=timedelta(days=30), gt=timedelta(0))
    """Traces: who wrote to whom, each attempt and its TLS evidence."""
    tls_reports: Duration = Field(default=timedelta(days=30), ge=timedelta(days=2))
    """What is counted for TLS reports, and the reports of others."""


def _resolver(value: Any) -> Literal["system"] | HostPort:
    if isinstance(value, HostPort):
        return value
    if value == "system":
        return "system"
    try:
        return HostPort.parse(value, name=False)
    except ValueError:
        raise ValueError(f"{str(value)[:80]!r}: write `system`, or address:port such as 127.0.0.1:53") from None


# Docker's and systemd's stubs: they forward to whatever the machine uses, over a network that anyone may be on.
_FORWARDERS = frozenset({"127.0.0.11", "127.0.0.53", "127.0.0.54"})


def _probe(value: Any) -> str:
    return "." if value == "." else parse_domain(value)


ProbeName = Annotated[
    str, BeforeValidator(_probe), WithJsonSchema({"type": "string", "examples": [".", "contoso.com"]})
]


class SelfTest(Model):
    """What a resolver that is declared to validate must know. Name others where the public DNS cannot be reached."""

    signed: ProbeName = "."
    """A DNSSEC-signed zone: the resolver must say that it has validated what it answers."""
    broken: ProbeName = "dnssec-failed.org"
    """A zone whose signatures do not verify: the resolver must answer SERVFAIL."""


class Dns(Model):
    resolver: Annotated[
        Literal["system"] | HostPort,
        BeforeValidator(_resolver),
        WithJsonSchema({"type": "string", "examples": ["system", "127.0.0.1:53"]}),
    ] = "system"
    """`system` (resolv.conf), or the address of a resolver."""
    validating: Flag = False
    """The resolver validates DNSSEC and is on this machine: only then is DANE used. It is put to the test at the start."""
    self_test: SelfTest = SelfTest()
    """What `validating` is tested with."""

    @model_validator(mode="after")
    def _near(self) -> Self:
        """The AD bit is believed from a loopback address only: on the way from anywhere else anyone can set it."""
        if not self.validating:
            return self
        if self.resolver == "system":
            raise ValueError("`validating` needs `resolver` to name the validating resolver, such as 127.0.0.1:53")
        host = self.resolver.host
        if not ipaddress.ip_address(host).is_loopback or host in _FORWARDERS:
            raise ValueError(
                f"`validating` is believed of a resolver on a loopback address of this machine only, and {host} is not one that "
                "validates here: run unbound beside the relay and name it, such as 127.0.0.1:53"
            )
        return self


def _fetch_host(value: Any) -> HostPort:
    return value if isinstance(value, HostPort) else HostPort.parse(value, default_port=0)


FetchHost = Annotated[
    HostPort,
    BeforeValidator(_fetch_host),
    WithJsonSchema({"type": "string", "examples": ["crl.example.internal", "pki.example.internal:8080"]}),
]


class Submission(Model):
    passwords: FilePath
    """Lines `user:$argon2id$...:senders`, as `relay password` writes them."""


class TlsRequiredNo(StrEnum):
    IGNORE = "ignore"
    HONOUR = "honour"


class BareLf(Model):
    normalise: Annotated[tuple[Net, ...], NonEmpty]
    """Old devices of your own that end lines with a bare LF: made CRLF for clients in these networks, refused for all others."""


class Config(Model):
    """All of connectors.yaml, as written. `outbound` and `default` are what acts: connectors with the defaults in them."""

    hostname: Domain
    """The name said in the greeting and in EHLO; its certificate is looked for in `certificates`."""
    postmaster: Mailbox
    """Who gets mail to postmaster, and what could not be returned."""
    listeners: Annotated[tuple[Listener, ...], NonEmpty]
    """Where mail comes in."""
    certificates: FilePath | None = None
    """A folder: every PEM certificate and key found in it, picked by SNI, read again on change."""
    trust: Trust = SYSTEM_TRUST
    """Whose certificates are believed where no `ca` is named: `system`, or a PEM file or folder."""
    workers: Workers = "auto"
    """Processes that share the work, on the same listeners and the same queue. `auto`: one for each core, up to 8."""
    queue: QueueUrl = Field(default="sqlite:queue.db", validate_default=True)
    """The database that holds accepted mail: `sqlite:PATH`."""
    admin: Admin | None = None
    """Lets `relay queue`, `relay trace` and `relay reload` speak to the running relay."""
    observe: Bind | None = None
    """Where /metrics, /healthz and /readyz are served, read-only."""
    retention: Retention = Retention()
    """How long what is known of mail that has ended stays."""
    limits: Limits = Limits()
    """What one client, one message and the disk may cost."""
    dns: Dns = Dns()
    """Whom we ask about MX records and addresses."""
    accept: Accept = Accept()
    """Whose mail is taken; all else gets 550 5.7.1 relaying denied."""
    publish: Publication = Publication()
    """What `relay publish` prints and checks, and the policies that are served: how others reach us safely."""
    submission: Submission | None = None
    """Users of the submission listeners."""
    bare_lf: BareLf | None = None
    """Devices whose wrong line ends are put right instead of refused."""
    tls_required_no: TlsRequiredNo = TlsRequiredNo.IGNORE
    """`honour` lets a logged-in user's header `TLS-Required: No` (RFC 8689) set aside what the recipient's domain publishes: DANE and
    MTA-STS, never a connector."""
    tlsrpt: Tlsrpt | None = None
    """TLS reports (RFC 8460): what we tell other domains of their TLS, and what others tell us of ours."""
    alerts: Alerts | None = None
    """Who is told, by mail and by webhook, of what somebody should see to."""
    defaults: Defaults = Defaults()
    """What acts where no connector says otherwise."""
    revocation_hosts: tuple[FetchHost, ...] = ()
    """Hosts of your own that CRLs and OCSP answers are fetched from though their addresses are private, or HOST:PORT where the port is
    neither 80 nor 443. All others must be public."""
    connectors: tuple[Connector, ...] = ()
    """Rules about partners."""
    exceptions: tuple[TlsException, ...] = ()
    """The only way to say "weaker" about one domain; each ends by itself."""

    @cached_property
    def queue_file(self) -> Path:
        """The database that `queue` names."""
        return Path(self.queue.removeprefix(SQLITE))

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

    @cached_property
    def published_domains(self) -> tuple[str, ...]:
        """Those that we publish something about: the accepted ones, wildcards apart, and those named under `publish`."""
        accepted = (each for each in self.accept.domains if not each.startswith("*"))
        return tuple(dict.fromkeys((*accepted, *self.publish.domains)))

    def revocation_of(self, certificate: CertificateRequirement) -> Revocation:
        """What an inbound connector asks about revocation: its own word, else the default. Pins alone lead to no issuer that could be asked."""
        if certificate.ca is None and certificate.pins is not None:
            return Revocation.OFF
        return self.defaults.inbound.revocation if certificate.revocation is None else certificate.revocation

    def publication_for(self, domain: str) -> DomainWords:
        """What `publish` says about one domain."""
        mailbox = self.tlsrpt.mailbox if self.tlsrpt is not None else None
        return words_for(self.publish, domain, Ourselves(self.hostname, mailbox or ()))
