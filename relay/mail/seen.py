"""Certificates that partners showed us, as they are remembered: the newest for each connector and hop."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class Direction(StrEnum):
    INBOUND = "inbound"
    """A client of ours showed it."""
    OUTBOUND = "outbound"
    """A hop showed it."""


@dataclass(frozen=True, slots=True)
class Dated:
    """One certificate of a chain and its end. `sha256` as in relay.mail.tls.Certificate."""

    subject: str
    sha256: str
    ends: datetime


@dataclass(frozen=True, slots=True)
class Spot:
    """Where a certificate was seen. `hop` is "host:port"; of a client, what its certificate calls it (a farm of senders is one partner).

    `refused`: TLS failed its plan there. What was taken and what was refused are remembered apart, so that an impostor's certificate
    never hides the partner's own.
    """

    direction: Direction
    connector: str
    hop: str
    refused: bool = False


@dataclass(frozen=True, slots=True)
class SeenCertificate:
    """The newest that was seen at a spot. `names` are the SAN's first ones, `domain` that of the last recipient or sender, `address` the
    last IP address. `sooner`: an intermediate of the presented chain that ends before the leaf. `failure`: why it was refused, or "".
    """

    spot: Spot
    leaf: Dated
    issuer: str
    names: tuple[str, ...]
    not_before: datetime
    pin: str
    domain: str
    address: str
    failure: str
    first: datetime
    last: datetime
    sooner: Dated | None = None

    @property
    def soonest(self) -> Dated:
        """What ends first: from then on nobody can verify it."""
        return self.sooner or self.leaf


@dataclass(frozen=True, slots=True)
class Said:
    """A warning that was given: about which certificate, to which owner's side ("" ours, else the connector), at which threshold (days)."""

    owner: str
    sha256: str
    threshold: int
    ends: datetime
