"""The admin API and who may use it, as connectors.yaml says it under `admin`."""

import ipaddress
from datetime import timedelta
from enum import StrEnum
from typing import Annotated, Any, Self

from pydantic import Field, field_validator, model_validator

from relay.config.connectors import Model
from relay.config.files import FilePath, SocketPath, Trust
from relay.config.values import Bind, CertificateName, Domain, LongDuration, NonEmpty, Pattern, Switch, refuse_twins

CertificateNamePattern = Annotated[Pattern, Field(description="A name in the certificate: a host, or *.domain")]


class AdminScope(StrEnum):
    READ = "read"
    OPERATE = "operate"
    ADMIN = "admin"


class AdminClients(Model):
    """Callers who show a certificate."""

    ca: Trust
    """Who must have issued it: a PEM file or folder."""
    names: Annotated[dict[CertificateNamePattern, AdminScope], NonEmpty]
    """What each name may do: `read`, `operate` (the queue, reports) or `admin` (configuration and all else)."""

    @field_validator("names", mode="before")
    @classmethod
    def _once(cls, names: Any) -> Any:
        return refuse_twins(names)

    @model_validator(mode="after")
    def _named(self) -> Self:
        if "*" in self.names:
            raise ValueError('"*" would let in whoever has any certificate of that CA: name them, or "*.domain"')
        return self


class Admin(Model):
    socket: SocketPath
    """A unix socket for the command line. Whoever may open it may do everything."""
    listen: Bind | None = None
    """An address and port for the API by HTTPS, and the web console. Without it there is the socket only."""
    certificate: CertificateName | None = None
    """The certificate that is shown there, a name in `certificates`. Default: by the name that the client asks for, else the one
    for `hostname`."""
    accounts: FilePath | None = None
    """People and tokens, lines `NAME:HASH:SCOPE` that `relay token` and `relay password --scope` write. Read again when it changes; mode
    0600."""
    clients: AdminClients | None = None
    """Callers who show a certificate instead of a token."""
    names: tuple[Domain, ...] = ()
    """Further names by which people reach the web console, such as that of a reverse proxy before it. Ours anyway: `hostname`, the names in
    our certificates, `localhost`, and any IP address. Under another name the console answers 421."""
    tls: Switch = Switch.ON
    """`off`, on a loopback address only: in clear, for a reverse proxy or a tunnel on this machine."""
    audit: LongDuration = Field(default=timedelta(days=400), ge=timedelta(days=1))
    """How long the audit log is kept."""

    @model_validator(mode="after")
    def _goes_together(self) -> Self:
        if self.listen is None:
            for key in ("certificate", "accounts", "clients", "names"):
                if getattr(self, key):
                    raise ValueError(
                        f'`{key}` acts on `listen` only: write `listen: "127.0.0.1:8443"`, or leave it out'
                    )
            if self.tls is Switch.OFF:
                raise ValueError("`tls: off` acts on `listen` only: leave it out")
            return self
        if self.accounts is None and self.clients is None:
            raise ValueError("nobody could use `listen`: name an `accounts` file, or `clients` with certificates")
        if self.tls is Switch.OFF:
            if not ipaddress.ip_address(self.listen.host).is_loopback:
                raise ValueError(
                    f"`tls: off` is for a loopback address only: on {self.listen.host} tokens would travel in clear"
                )
            if self.clients is not None or self.certificate is not None:
                raise ValueError(
                    "certificates are shown in TLS only: leave out `tls: off`, or `clients` and `certificate`"
                )
        return self
