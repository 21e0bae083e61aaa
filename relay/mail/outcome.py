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


GIVEN_UP = "the administrator of this relay gave up on this message"


def given_up(reason: str = "") -> Bounced:
    """An operator's word. `reason` is one line for the sender."""
    return Bounced(554, "5.0.0", f"{GIVEN_UP}: {reason}" if reason else GIVEN_UP)


def reason_given(outcome: "Outcome") -> str:
    """The reason that an operator gave for giving up, "" where it is another outcome or there was none."""
    mark = f"{GIVEN_UP}: "
    ours = isinstance(outcome, Bounced) and outcome.status == "5.0.0" and outcome.text.startswith(mark)
    return outcome.text.removeprefix(mark) if ours else ""


Outcome = Delivered | Deferred | Bounced
