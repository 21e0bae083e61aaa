"""One configuration, indexed for deciding. A new configuration is a new book; nothing in it changes."""

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass

from relay.config.models import Config, InboundConnector, OutboundConnector, TlsException
from relay.mail.address import Address
from relay.mail.revocation import Revocation
from relay.policy.match import PatternIndex

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True, slots=True)
class RuleBook:
    """`senders` files inbound connectors under the sender domains they name, `peers` are those that name none (they go with the
    client); `header_from` those that also select by the From: header. `report_mailboxes`: local parts in lower case, and domains.
    `asks_revocation`: some inbound connector does. Mostly none, and then nothing of it costs anything."""

    config: Config
    outbound: PatternIndex[OutboundConnector]
    senders: PatternIndex[InboundConnector]
    header_from: PatternIndex[InboundConnector]
    peers: tuple[InboundConnector, ...]
    accepted: PatternIndex[str]
    exceptions: dict[str, TlsException]
    report_mailboxes: frozenset[tuple[str, str]]
    asks_revocation: bool

    @classmethod
    def of(cls, config: Config) -> "RuleBook":
        inbound = config.inbound
        return cls(
            config=config,
            outbound=PatternIndex.of((p, each) for each in config.outbound for p in each.match.recipient_domains),
            senders=PatternIndex.of(_by_sender(inbound)),
            header_from=PatternIndex.of(_by_sender(each for each in inbound if each.match.header_from)),
            peers=tuple(each for each in inbound if not each.match.sender_domains),
            accepted=PatternIndex.of((domain, domain) for domain in config.accept.domains),
            exceptions={each.recipient_domain: each for each in config.exceptions},
            report_mailboxes=frozenset(
                (each.local.lower(), each.domain) for each in (config.tlsrpt and config.tlsrpt.mailbox) or ()
            ),
            asks_revocation=any(
                each.require.certificate is not None
                and config.revocation_of(each.require.certificate) is not Revocation.OFF
                for each in inbound
            ),
        )

    def outbound_for(self, domain: str) -> OutboundConnector:
        """The connector that governs a recipient domain; the default where none names it."""
        found = self.outbound.find(domain).values
        return found[0] if found else self.config.default

    def is_report_mailbox(self, address: Address) -> bool:
        """One of `tlsrpt.mailbox`: its mail is taken in here, whoever else has such an address."""
        mailboxes = self.report_mailboxes
        return bool(mailboxes) and (address.local.lower(), address.domain) in mailboxes

    @property
    def asks_for_certificates(self) -> bool:
        """Clients are asked for a certificate only where a rule speaks of one: being asked disturbs some senders."""
        return any(each.speaks_of_certificates for each in self.config.inbound)


def _by_sender(connectors: Iterable[InboundConnector]) -> Iterable[tuple[str, InboundConnector]]:
    return ((pattern, each) for each in connectors for pattern in each.match.sender_domains or ())


def in_networks(address: IpAddress | None, networks: Iterable[ipaddress.IPv4Network | ipaddress.IPv6Network]) -> bool:
    """False for None: a client whose address we do not know (PROXY LOCAL or UNKNOWN) has no network's rights.

    An IPv4 client that arrived on a dual-stack socket (::ffff:a.b.c.d) counts as IPv4.
    """
    if address is None:
        return False
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return any(address.version == network.version and address in network for network in networks)
