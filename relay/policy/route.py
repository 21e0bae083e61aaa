"""Where mail for a domain goes: the hosts to try, in order, from what DNS said (RFC 5321 section 5.1, RFC 7505).

The caller shuffles equal preferences; sorting here is stable. Addresses are filtered here too: an MX record is a stranger's word
and must not lead us to our own loopback or to a machine inside.
"""

import ipaddress
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from relay.config.models import DEFAULT, On5xx, OutboundConnector, PrivateAddresses, Retry
from relay.config.values import HostPort
from relay.mail.outcome import Bounced, Deferred
from relay.mail.tls import TlsFailure
from relay.policy.book import IpAddress, RuleBook

SMTP_PORT = 25


@dataclass(frozen=True, slots=True)
class MxRecord:
    preference: int
    host: str


@dataclass(frozen=True, slots=True)
class MxRecords:
    """What the MX look-up gave, in the order to prefer among equals. Empty: the domain exists and has no MX record.

    `skipped` says of each MX record that was left out why it can not name a host (an IP address, not a host name).
    `secure`: the records, or the proof that there are none, are DNSSEC-secure, and so is every alias on the way to them.
    """

    records: tuple[MxRecord, ...]
    skipped: tuple[str, ...] = ()
    secure: bool = False


@dataclass(frozen=True, slots=True)
class NoDomain:
    """NXDOMAIN. `secure` where DNSSEC proves it."""

    secure: bool = False


@dataclass(frozen=True, slots=True)
class LookupFailed:
    """SERVFAIL, a timeout: nothing is known. `bogus` where the resolver says that DNSSEC signatures do not verify (RFC 8914)."""

    text: str
    bogus: bool = False


MxAnswer = MxRecords | NoDomain | LookupFailed
Unroutable = Bounced | Deferred

NULL_MX = Bounced(556, "5.1.10", "the domain says that it takes no mail (null MX, RFC 7505)")
LOOPS = Bounced(554, "5.4.6", "mail for this domain loops back to this relay: its best MX is ourselves")


def look_up_failed(what: str, failed: LookupFailed) -> Deferred:
    """Nothing is known, so mail waits. Where signatures do not verify, somebody may want it to go elsewhere (RFC 7672 section 2.1.2)."""
    text = f"{what} failed: {failed.text}"
    if failed.bogus:
        return Deferred(451, "4.7.5", text, TlsFailure.DNSSEC_INVALID)
    return Deferred(451, "4.4.3", text)


def lane(connector: OutboundConnector, domain: str) -> str:
    """The destination that shares concurrency, rate and back-off: the smart hosts of a connector, or the domain by MX."""
    if not connector.route.by_mx:
        return DEFAULT if connector.name == DEFAULT else f"connector {connector.name}"
    return domain


def needs_mx(connector: OutboundConnector, domain: str) -> bool:
    """False for smart hosts and for address literals, which need no MX look-up."""
    return connector.route.by_mx and not domain.startswith("[")


def hops(
    connector: OutboundConnector, domain: str, answer: MxAnswer, *, ourselves: Collection[str], port: int = SMTP_PORT
) -> tuple[HostPort, ...] | Unroutable:
    """The hosts to try. `answer` counts only where `needs_mx`; `ourselves` are the names of this relay, which end the list.

    Without an MX record the domain itself is the host (implicit MX). Hosts with the preference of our own or a worse one are left out:
    they would send it back to us (RFC 5321 section 5.1).
    """
    if not connector.route.by_mx:
        return connector.route.hosts
    if domain.startswith("["):
        return (HostPort(str(ipaddress.ip_address(domain[1:-1].removeprefix("IPv6:"))), port),)
    if isinstance(answer, NoDomain):
        return Bounced(550, "5.1.2", f"the domain {domain} does not exist")
    if isinstance(answer, LookupFailed):
        return look_up_failed(f"the MX look-up of {domain}", answer)
    if answer.skipped and not answer.records:
        # RFC 5321 section 5.1: MX records of which none is usable are an error; the implicit MX is only for a domain without any.
        return Bounced(550, "5.4.4", f"no MX record of {domain} names a host: {'; '.join(answer.skipped[:3])}")
    return _by_mx(domain, answer.records, ourselves, port)


def _by_mx(
    domain: str, records: tuple[MxRecord, ...], ourselves: Collection[str], port: int
) -> tuple[HostPort, ...] | Unroutable:
    if not records:
        return LOOPS if domain in ourselves else (HostPort(domain, port),)
    ordered = sorted((each for each in records if each.host), key=lambda each: each.preference)
    if not ordered:
        return NULL_MX
    own = min((each.preference for each in ordered if each.host in ourselves), default=None)
    usable = [each for each in ordered if own is None or each.preference < own]
    return tuple(HostPort(each.host, port) for each in usable) or LOOPS


def usable_addresses(
    connector: OutboundConnector, addresses: Iterable[IpAddress], own: Collection[IpAddress]
) -> tuple[IpAddress, ...]:
    """The addresses of a host that mail may go to. By MX: none that is private, loopback, link-local, reserved, or our own.

    Smart hosts are exempt, an admin named them; `route: {private: allow}` lifts all but our own.
    """
    if not connector.route.by_mx:
        return tuple(addresses)
    private = connector.route.private is PrivateAddresses.ALLOW
    embedded = {each: _embedded(each) for each in addresses}
    return tuple(each for each, inner in embedded.items() if inner not in own and (private or _is_public(each, inner)))


def public_addresses(addresses: Iterable[IpAddress]) -> tuple[IpAddress, ...]:
    """Those that lead out into the world: for hosts that strangers name and we fetch something from."""
    return tuple(each for each in addresses if _is_public(each, _embedded(each)))


_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")  # RFC 6052


def _embedded(address: IpAddress) -> IpAddress:
    """The IPv4 address that an IPv6 address leads to (mapped, 6to4, NAT64), else the address itself.

    Threat: an AAAA record of 64:ff9b::7f00:1 would reach 127.0.0.1 of whoever translates.
    """
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or address


def _is_public(address: IpAddress, embedded: IpAddress) -> bool:
    mapped = address != embedded and isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None
    outer = embedded if mapped else address  # some Pythons call every mapped address private
    return all(each.is_global and not each.is_multicast for each in (outer, embedded))


@dataclass(frozen=True, slots=True)
class Lane:
    """A destination as the scheduler sees it: what shares one limit. `rate` in messages a second, 0 for none.

    `on_5xx`: what becomes of mail that it refuses.
    """

    key: str
    connector: str
    concurrency: int
    rate: float
    retry: Retry
    on_5xx: On5xx = On5xx.BOUNCE


def lane_of(book: RuleBook, domain: str) -> Lane:
    """The lane that mail for a recipient domain waits in, by the configuration in force now."""
    connector = book.outbound_for(domain)
    limits = connector.limits
    return Lane(
        lane(connector, domain),
        connector.name,
        limits.concurrency,
        limits.rate or 0.0,
        connector.retry,
        connector.on_5xx,
    )
