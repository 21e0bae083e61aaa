"""What traces add up to: how many messages went which way, under which TLS, with which end. Nouns only.

Counted by `relay.queue.tally`, shown by `relay.report.security`, drawn on by `relay.policy.suggest`.
"""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

OTHER = "(other)"
"""Stands for what did not fit into the limits of an hour."""
NULL_SENDER = "<>"
CLEAR = "none"
"""Version, cipher, group and `verified` of mail in clear."""


class Way(StrEnum):
    IN = "in"
    OUT = "out"


class Verified(StrEnum):
    """How it was made sure who the other side is, weakest first."""

    NONE = "none"
    ENCRYPTED = "encrypted"  # TLS, and nobody looked at the certificate
    PKIX = "pkix"
    PKIX_NAME = "pkix+name"
    MTA_STS = "mta-sts"
    DANE = "dane"
    PINS = "pins"
    CLIENT_CERTIFICATE = "client-certificate"

    @property
    def rank(self) -> int:
        return tuple(Verified).index(self)


class Result(StrEnum):
    ACCEPTED = "accepted"
    DELIVERED = "delivered"
    DEFERRED = "deferred"
    BOUNCED = "bounced"

    @property
    def moved(self) -> bool:
        """The message went over the wire: it is mail in transit."""
        return self in (Result.ACCEPTED, Result.DELIVERED)


@dataclass(frozen=True, slots=True)
class Style:
    """What of plan and evidence is counted. `version`, `cipher`, `group` as in TlsEvidence, CLEAR in clear.

    `asked`: the connector's level, or "exception", and what else was asked: "encryption", "domain+pins", "opportunistic+dane"; "" inbound.
    """

    version: str
    cipher: str
    group: str
    verified: str
    asked: str = ""


@dataclass(frozen=True, slots=True)
class Kind:
    """One line of the tally. `connector` "" where none admitted it. `failure` is a TlsFailure, "" without one."""

    way: Way
    domain: str
    connector: str
    style: Style
    result: Result
    failure: str = ""


@dataclass(frozen=True, slots=True)
class Count:
    """`at`: the hour, or the day where it was rolled up. Recipients of a message that was tried five times count five times."""

    at: datetime
    kind: Kind
    messages: int
    recipients: int


@dataclass(frozen=True, slots=True)
class Refusal:
    """What we refused, without who it was. `what` is "command" or "connection"; `command` a verb, `code` and `status` our reply's."""

    what: str
    listener: str
    command: str = ""
    connector: str = ""
    code: int = 0
    status: str = ""


@dataclass(frozen=True, slots=True)
class Sighting:
    """A chain that a partner showed, and how many messages went over connections with it. `host`: outbound "host:port" of the hop, inbound
    the client's network. `chain`: DER, leaf first, () where none was shown; `complete` is False where bytes of it are not kept."""

    way: Way
    domain: str
    host: str
    chain: tuple[bytes, ...]
    complete: bool
    messages: int
    latest: datetime


@dataclass(frozen=True, slots=True)
class Waiting:
    """Mail of one domain that waits after a failed attempt: `failure` where TLS was the reason, "" where no host could be reached.

    `recipients` counts all that wait for the domain. `since`: when the oldest message that was looked at began to arrive.
    """

    domain: str
    failure: str
    since: datetime
    recipients: int
    hop: str
    text: str
