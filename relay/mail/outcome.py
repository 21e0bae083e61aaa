"""What became of one recipient at one attempt."""

from dataclasses import dataclass, field

from relay.mail.tls import TlsFailure


@dataclass(frozen=True, slots=True)
class Delivered:
    """The hop said 2xx to the end of data. `dsn` says that the hop took over the DSN parameters (RFC 3461 section 5.2.2)."""

    code: int
    status: str
    text: str
    dsn: bool = False


@dataclass(frozen=True, slots=True)
class Deferred:
    """Try again later. `code` is the hop's reply code, or the 4xx that stands for our own finding. `failure` where TLS was the reason."""

    code: int
    status: str
    text: str
    failure: TlsFailure | None = None


@dataclass(frozen=True, slots=True)
class Bounced:
    """Given up for good. `by_hop`: the hop refused it, with a 5xx to MAIL or later; else we gave it up ourselves."""

    code: int
    status: str
    text: str
    failure: TlsFailure | None = None
    by_hop: bool = field(default=False, compare=False)


Outcome = Delivered | Deferred | Bounced
