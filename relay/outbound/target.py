"""Where a connection leads and what for: two deliveries with equal targets may share one."""

from dataclasses import dataclass, field, replace

from relay.config.models import ForwardClient, RouteAuth
from relay.config.values import HostPort
from relay.mail.plan import Tlsa, TlsPlan
from relay.policy.book import IpAddress
from relay.policy.forward import OnBehalfOf, proxy_header


@dataclass(frozen=True, slots=True)
class Target:
    """Everything that makes one connection unlike another: two deliveries with equal targets may share it.

    `client`: whom the hop is told it speaks with (`forward_client`). A hop believes that once, so a connection is one client's for good.
    It is looked up a few times for every message and shown once, so hash and texts are kept.
    """

    hop: HostPort
    address: IpAddress
    plan: TlsPlan
    helo: str
    source: str = ""
    auth: RouteAuth | None = field(default=None, repr=False)
    client: OnBehalfOf | None = None
    hop_text: str = field(default="", init=False, repr=False, compare=False)
    address_text: str = field(default="", init=False, repr=False, compare=False)
    _hash: int = field(default=0, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "hop_text", str(self.hop))
        object.__setattr__(self, "address_text", str(self.address))
        told = hash((self.hop, self.address, self.plan, self.helo, self.source))
        object.__setattr__(self, "_hash", told if self.client is None else hash((told, self.client)))

    def __hash__(self) -> int:
        return self._hash

    @property
    def server_name(self) -> str:
        """The SNI; none for an IP address (RFC 6066 section 3).

        Under DANE it is the TLSA base domain (RFC 7672 section 8.1): an alias may lead to a host with certificates for both names.
        """
        bases = [each.base for each in self.plan.demands if isinstance(each, Tlsa)]
        return min(bases, default="" if self.hop.is_address else self.hop.host)

    def on_behalf_of(self, client: OnBehalfOf | None) -> "Target":
        """The same place for a message of that client."""
        return self if client is self.client else replace(self, client=client)

    @property
    def opening(self) -> bytes:
        """What a connection begins with, before any greeting."""
        if self.client is None or self.client.how is not ForwardClient.PROXY:
            return b""
        return proxy_header(self.client, self.endpoint)

    @property
    def endpoint(self) -> HostPort:
        return HostPort(self.address_text, self.hop.port)
