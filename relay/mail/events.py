"""One event per fact. Log, metrics and traces are made from these and from nothing else; `relay.observe` turns them into both.

An event never holds a secret (password, key) and never a message's content.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime

from relay.mail.attempt import Attempt
from relay.mail.envelope import Message
from relay.mail.published import StsMode
from relay.mail.reply import Reply
from relay.mail.tls import TlsFailure
from relay.mail.tlsreport import Judged, PostState, Received


@dataclass(frozen=True, slots=True)
class Event:
    """Base of all."""


@dataclass(frozen=True, slots=True)
class ListenerReady(Event):
    listener: str
    address: str


@dataclass(frozen=True, slots=True)
class SessionOpened(Event):
    listener: str
    client: str


@dataclass(frozen=True, slots=True)
class SessionClosed(Event):
    """`reason` is "quit", "lost", or what made us close. `tls` is the version in use, "" in clear."""

    listener: str
    client: str
    reason: str
    seconds: float
    tls: str = ""


@dataclass(frozen=True, slots=True)
class ConnectionRefused(Event):
    """A connection that never became a session: too many, bad PROXY header, failed handshake."""

    listener: str
    client: str
    reason: str


@dataclass(frozen=True, slots=True)
class CommandRefused(Event):
    """We said 4xx or 5xx to something that mattered. `connector` is the one that refused, "" if none did."""

    listener: str
    client: str
    command: str
    reply: Reply
    sender: str = ""
    recipient: str = ""
    connector: str = ""


@dataclass(frozen=True, slots=True)
class RecipientAsked(Event):
    """The mail server inside was asked whether a recipient exists: `result` is "exists", "missing" or "unknown"; `text` is what it said, or
    why there was no answer."""

    recipient: str
    result: str
    text: str
    seconds: float


@dataclass(frozen=True, slots=True)
class CalloutTakesAll(Event):
    """The mail server inside takes a recipient of `domain` who cannot exist: asking it finds out nothing."""

    domain: str


@dataclass(frozen=True, slots=True)
class LoginFailed(Event):
    listener: str
    client: str
    user: str


@dataclass(frozen=True, slots=True)
class MessageAccepted(Event):
    message: Message


@dataclass(frozen=True, slots=True)
class AttemptMade(Event):
    message: Message
    attempt: Attempt


@dataclass(frozen=True, slots=True)
class RecipientEnded(Event):
    """A recipient reached its last state: "delivered", "bounced" (given up, `status` says why) or "deleted"."""

    message: str
    recipient: str
    state: str
    status: str


@dataclass(frozen=True, slots=True)
class TlsWithheld(Event):
    """Mail waits because TLS was offered and broke, or failed its plan: someone may be tampering. `remedy` is for the admin."""

    message: str
    recipient: str
    hop: str
    failure: TlsFailure
    remedy: str


@dataclass(frozen=True, slots=True)
class ReportQueued(Event):
    """We wrote a DSN. `kind` is "failure", "delay", "success"; `about` the message it speaks of."""

    message: str
    about: str
    kind: str
    recipient: str


@dataclass(frozen=True, slots=True)
class ReportHeld(Event):
    """A DSN that could not be delivered: held for the postmaster, never bounced (RFC 5321 section 6.1, RFC 8689 section 5)."""

    message: str
    status: str


@dataclass(frozen=True, slots=True)
class RefusalHeld(Event):
    """The hop refused mail that we had taken from a stranger: held for the postmaster by the connector's `on_5xx: hold`, not bounced."""

    message: str
    recipient: str
    hop: str
    code: int
    status: str
    text: str


@dataclass(frozen=True, slots=True)
class StsPolicyFetched(Event):
    """A domain's MTA-STS policy was fetched, for the first time or again. `max_age` in seconds."""

    domain: str
    mode: StsMode
    id: str
    max_age: int


@dataclass(frozen=True, slots=True)
class StsPolicyChanged(Event):
    """What was fetched asks something else than what it replaces: another mode (`before` it was), other mx patterns."""

    domain: str
    before: StsMode
    mode: StsMode
    mx: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class StsFetchFailed(Event):
    """A policy could not be fetched. `held` is the mode of the one that stays in force, "" where there is none.

    Where that goes on until the one in force ends, somebody may be at work (RFC 8461 section 10.2).
    """

    domain: str
    failure: TlsFailure
    trouble: str
    held: str


@dataclass(frozen=True, slots=True)
class TlsSessionTried(Event):
    """A new connection, as it counts in the TLS report to `domain` (RFC 8460): under each published policy by itself, or under none."""

    domain: str
    hop: str
    address: str
    judged: tuple[Judged, ...]


@dataclass(frozen=True, slots=True)
class TlsReportSent(Event):
    """The TLS report about `day` to one of the addresses that `domain` publishes: SENT, or FAILED with the reason in `text`."""

    domain: str
    day: date
    to: str
    state: PostState
    tries: int
    text: str


@dataclass(frozen=True, slots=True)
class TlsReportReceived(Event):
    """Somebody tells how their sessions to us went. `message` is the mail's id."""

    message: str
    report: Received


@dataclass(frozen=True, slots=True)
class TlsReportIgnored(Event):
    """A mail to a TLS report mailbox that was thrown away: no report, no valid signature, one that we have already."""

    message: str
    sender: str
    reason: str


@dataclass(frozen=True, slots=True)
class ConfigurationTaken(Event):
    """`weaker` lists what the new configuration allows that the old one did not."""

    file: str
    weaker: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ConfigurationWaiting(Event):
    """The file on disk changed and is not in use: it has errors, or it weakens something and waits for `relay reload`."""

    file: str
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ConfigurationSettled(Event):
    """What kept a file waiting is gone: it says what is in force again (a change taken back, an error mended)."""

    file: str


@dataclass(frozen=True, slots=True)
class CertificatesLoaded(Event):
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class CertificateTrouble(Event):
    """A certificate in our folder is not used as it stands there, or is used and something is wrong with it."""

    name: str
    trouble: str


@dataclass(frozen=True, slots=True)
class CertificateEnding(Event):
    """A certificate of ours is about to end (`threshold` days are reached, `days` are left) or has ended (threshold 0).

    Once per threshold and certificate. `subject` and `sha256` are an intermediate's where that ends before the leaf.
    """

    name: str
    subject: str
    sha256: str
    ends: datetime
    days: int
    threshold: int


@dataclass(frozen=True, slots=True)
class PartnerCertificateEnding(Event):
    """As CertificateEnding, about one that a partner showed whom `connector` verifies. `direction` and `hop` as in relay.mail.seen; `seen`
    is when it was seen last."""

    connector: str
    direction: str
    hop: str
    subject: str
    sha256: str
    ends: datetime
    days: int
    threshold: int
    seen: datetime


@dataclass(frozen=True, slots=True)
class CrlFetched(Event):
    """A CRL of `size` bytes was fetched, for the first time or again; it counts until `next_update`."""

    url: str
    size: int
    next_update: datetime


@dataclass(frozen=True, slots=True)
class RevocationFetchFailed(Event):
    """A CRL or an OCSP answer could not be had from `url`. `held`: until when the one that is held counts, None where none does.

    `remedy` is what an admin can do about it, "" where that is not known.
    """

    url: str
    trouble: str
    remedy: str
    held: datetime | None


@dataclass(frozen=True, slots=True)
class RevocationUnavailable(Event):
    """Whether a certificate has been revoked could not be found out. It passes where a connector says `prefer`."""

    certificate: str
    serial: str
    trouble: str


@dataclass(frozen=True, slots=True)
class CertificateRevokedSeen(Event):
    """A certificate was shown that its issuer has revoked, or one that was issued under such a one."""

    certificate: str
    serial: str
    revoked_at: datetime | None
    reason: str
    by: str


@dataclass(frozen=True, slots=True)
class StoreTrouble(Event):
    """The queue can not take mail: disk short of `limits.free_space`, database locked or gone. Clients get 452 until it recovers."""

    trouble: str


@dataclass(frozen=True, slots=True)
class StoreRecovered(Event):
    """Mail is taken again."""


@dataclass(frozen=True, slots=True)
class DaneUnusable(Event):
    """The resolver that is declared to validate DNSSEC has not shown that it does: `dane: auto` is off, `dane: require` defers."""

    trouble: str


@dataclass(frozen=True, slots=True)
class DaneUsable(Event):
    """The resolver has shown that it validates DNSSEC: what it vouches for is believed."""

    resolver: str


@dataclass(frozen=True, slots=True)
class StoreDamaged(Event):
    """The start found rows of the queue that do not go together. What is sound is delivered; `problems` say what is not."""

    problems: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ClockSetBack(Event):
    """The clock is at least `seconds` behind what it was: all mail that waits is tried at once."""

    seconds: float


@dataclass(frozen=True, slots=True)
class AdminActed(Event):
    """Somebody changed something. `who` is an account's or certificate's name, or "uid 0" at the admin socket (SO_PEERCRED); `via` how we
    know: "socket", "token", "certificate", "console", or "itself" for the relay.

    `action` is "retry", "hold", "release", "bounce", "delete", "send-reports", "reload", ...; `selection` says what of, in words; `count`
    how many it touched.
    """

    who: str
    via: str
    action: str
    selection: str
    count: int


@dataclass(frozen=True, slots=True)
class WorkerStarted(Event):
    """A process of the relay has started, in that slot."""

    worker: int
    pid: int


@dataclass(frozen=True, slots=True)
class WorkerEnded(Event):
    """A process of the relay ended that should not have. `how`: the signal, the exit code, or why it could not start.

    `pause`: seconds until its successor starts, which takes up what it held.
    """

    worker: int
    how: str
    pause: float


@dataclass(frozen=True, slots=True)
class AlertRaised(Event):
    """Somebody should see to it. `kind`, `severity` as in relay.mail.alerts; `state` is "raised", or "repeated" while it lasts."""

    kind: str
    subject: str
    severity: str
    state: str
    title: str
    text: str


@dataclass(frozen=True, slots=True)
class AlertCleared(Event):
    """What had been raised is over."""

    kind: str
    subject: str
    text: str


@dataclass(frozen=True, slots=True)
class AlertSent(Event):
    """An alert is with its receiver: "webhook", or on its way through our queue: "mail" (`message` is its id)."""

    id: str
    kind: str
    way: str
    message: str = ""


@dataclass(frozen=True, slots=True)
class AlertNotSent(Event):
    """An alert could not be handed over: at its first try, and when it is given up."""

    id: str
    kind: str
    way: str
    reason: str
    tries: int
    given_up: bool


@dataclass(frozen=True, slots=True)
class Unexpected(Event):
    """A bug. `id` is the one that the peer was told; `trace` is the traceback, for the log only."""

    id: str
    where: str
    trace: str


Emit = Callable[[Event], None]
