"""The client of one session as policy sees it, and the questions that are put to policy about it.

The decisions are `relay.policy.admission`'s. This fetches what they need (path checks against exactly the trust stores that the
connectors in question name), at each message anew: `relay.tls.trust` knows how long a result may be used again.
"""

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache

from relay.clients.limits import Key
from relay.config.models import InboundConnector
from relay.config.values import HostPort
from relay.inbound.proxy import unmapped
from relay.mail.tls import TlsEvidence, Trusted
from relay.policy.admission import (
    NO_DOMAIN,
    Admission,
    Peer,
    admit,
    admit_header_from,
    candidates,
    header_candidates,
    trusts,
    unchecked,
)
from relay.policy.book import IpAddress, RuleBook
from relay.tls.revocation.checks import RevocationChecks, with_held
from relay.tls.trust import Purpose, TrustStores

UNKNOWN = "unknown"


def socket_address(peername: object) -> IpAddress:
    """The address in a transport's `peername`. Raises ValueError where it has none."""
    if not isinstance(peername, tuple) or not peername:
        raise ValueError("the connection has no peer address")
    return _address(peername[0])


def socket_port(peername: object) -> int:
    """The port in a `peername`, 0 where it has none."""
    return int(peername[1]) if isinstance(peername, tuple) and len(peername) > 1 else 0


def server_text(sockname: object) -> str:
    """What the client connected to, "" where that is not known."""
    if not isinstance(sockname, tuple) or len(sockname) < 2:
        return ""
    return _server(str(sockname[0]), int(sockname[1]))


@lru_cache(maxsize=256)
def _server(host: str, port: int) -> str:
    return str(HostPort(str(_address(host)), port))


@lru_cache(maxsize=4096)
def _address(host: str) -> IpAddress:
    return unmapped(ipaddress.ip_address(host.partition("%")[0]))


@dataclass(frozen=True, slots=True)
class Means:
    """What a decision goes by at this moment. `now` is the wall clock (UTC)."""

    book: RuleBook
    stores: TrustStores
    revocations: RevocationChecks
    now: datetime


class Client:
    """`address` is None where PROXY did not say; `text` is it for people, `key` how limits count the client.

    `asked`: a certificate was asked for in the handshake. `port` and `server` as in `relay.mail.envelope.Accepted`.
    """

    __slots__ = ("address", "asked", "key", "peer", "port", "server", "text")

    def __init__(self, address: IpAddress | None, key: Key, port: int = 0, server: str = "") -> None:
        self.address, self.key, self.port, self.server = address, key, port, server
        self.peer = Peer(address, None)
        self.asked = False
        self.text = UNKNOWN if address is None else str(address)

    @property
    def evidence(self) -> TlsEvidence | None:
        """None in clear."""
        return self.peer.evidence

    def secured(self, evidence: TlsEvidence) -> None:
        """The handshake is done."""
        self.peer = Peer(self.address, evidence)

    def admit(self, means: Means, domain: str) -> Admission:
        """The decision at MAIL."""
        book = means.book
        if book.config.inbound:
            self._check(means, candidates(book, self.peer, domain))
        return admit(book, self.peer, domain)

    def admit_header_from(self, means: Means, domain: str) -> Admission:
        """The decision at the end of data, where `asks_header_from`."""
        if domain != NO_DOMAIN:
            self._check(means, header_candidates(means.book, domain))
        return admit_header_from(means.book, self.peer, domain)

    def unchecked(self, means: Means, domain: str, header_from: str = NO_DOMAIN) -> tuple[tuple[bytes, ...], ...]:
        """The paths (DER) of which it must be found out whether they are revoked before `admit`, or `admit_header_from`, can decide.

        Empty for most messages, and quickly so where no connector asks.
        """
        book = means.book
        if not book.asks_revocation or self.peer.evidence is None:
            return ()
        connectors = (*candidates(book, self.peer, domain), *header_candidates(book, header_from))
        self._check(means, connectors)
        paths = self.peer.evidence.paths
        found = (paths.get(trust) for trust in unchecked(book, self.peer, connectors))
        return tuple(each.path for each in found if isinstance(each, Trusted) and each.path)

    def _check(self, means: Means, connectors: Iterable[InboundConnector]) -> None:
        wanted = trusts(means.book, connectors)
        evidence = self.peer.evidence
        if not wanted or evidence is None or evidence.leaf is None:
            return
        checked = means.stores.check(evidence, wanted, Purpose.CLIENT, means.now)
        # One connection's messages share one piece of evidence for as long as nothing about it changes.
        if any(evidence.paths.get(trust) != checked.paths.get(trust) for trust in wanted):
            self.secured(checked)
        if evidence.revocation or means.book.asks_revocation:
            current = checked if self.peer.evidence is checked else evidence
            held = with_held(means.revocations, current, wanted)
            if held is not current:
                self.secured(held)
