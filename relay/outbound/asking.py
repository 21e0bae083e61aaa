"""What people ask about mail before any is sent: how a message would fare (explain), what a partner's hosts do (probe).

The command line and the admin API both ask here. What follows from the look-ups is decided by `relay.policy.explain` and `probe`.
"""

import asyncio
import ipaddress
import ssl
from dataclasses import dataclass
from datetime import datetime

from relay.config.models import OutboundConnector
from relay.config.values import HostPort, parse_domain
from relay.dns.answers import Addresses
from relay.mail.address import Address, AddressError, parse_path
from relay.mail.tls import TLS_VERSIONS, TlsEvidence
from relay.outbound.probe import Means, Probe, probe_domain, probe_hop
from relay.outbound.publications import Way
from relay.policy.admission import NO_DOMAIN, Peer, candidates, header_candidates, trusts, unchecked
from relay.policy.book import IpAddress, RuleBook
from relay.policy.explain import Addresses as Found
from relay.policy.explain import Arrival, DnsFacts, Explanation, Question, destination, explain
from relay.policy.plan import running_exception
from relay.policy.published import uses
from relay.policy.route import MxAnswer, MxRecords, hops, needs_mx
from relay.tls.evidence import MAX_CHAIN, parse_certificate
from relay.tls.revocation.checks import RevocationChecks, with_statuses
from relay.tls.trust import Purpose, TrustStores

IN_CLEAR = "none"


class WrongWordError(ValueError):
    """A word of the question cannot be; `name` is which (to, from, client_ip, client_certificate, tls_version, target, for)."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__(text)
        self.name = name


@dataclass(frozen=True, slots=True)
class Words:
    """A question about a message, as people write it. All but `to` None: only the delivery is asked about. `client_certificate` is PEM, leaf
    first; `tls_version` TLSv1.3 unless given, "none" for a client in clear."""

    to: str
    sender: str | None = None
    client_ip: str | None = None
    client_certificate: str | None = None
    tls_version: str | None = None


async def question_of(book: RuleBook, words: Words, now: datetime, revocations: RevocationChecks) -> Question:
    """Asks whether a certificate that is shown is revoked, where a connector wants to know. Raises WrongWordError."""
    recipient = _address("to", words.to)
    about_client = (words.sender, words.client_ip, words.client_certificate, words.tls_version)
    if all(each is None for each in about_client):
        return Question(recipient)
    sender, evidence = _address("from", words.sender or "<>"), _evidence(words.client_certificate, words.tls_version)
    peer = Peer(_ip(words.client_ip), evidence)
    if evidence is not None:
        domain = sender.domain or NO_DOMAIN
        judged = (*candidates(book, peer, domain), *header_candidates(book, domain))
        evidence = TrustStores().check(evidence, trusts(book, judged), Purpose.CLIENT, now)
        asked = unchecked(book, Peer(peer.address, evidence), judged)
        if asked:
            evidence = await with_statuses(revocations, evidence, asked)
    return Question(recipient, Arrival(sender, Peer(peer.address, evidence)))


async def explain_message(means: Means, question: Question) -> Explanation:
    """Looks up what DNS says, and sends nothing."""
    facts = await look_up(means, destination(means.book, question.recipient).domain)
    return explain(means.book, question, facts, means.clock())


def _address(name: str, text: str) -> Address:
    try:
        return parse_path(text)
    except AddressError as error:
        raise WrongWordError(name, str(error)) from None


def _ip(text: str | None) -> IpAddress | None:
    try:
        return None if text is None else ipaddress.ip_address(text)
    except ValueError:
        raise WrongWordError("client_ip", f"{text!r} is not an IP address") from None


def _evidence(pem: str | None, version: str | None) -> TlsEvidence | None:
    """What the client's TLS would be like; None in clear."""
    spoken = version or TLS_VERSIONS[-1]
    if spoken == IN_CLEAR:
        if pem is not None:
            raise WrongWordError("client_certificate", "a certificate is shown in TLS only")
        return None
    if spoken not in TLS_VERSIONS:
        raise WrongWordError("tls_version", f"{spoken[:40]!r} is none of {', '.join((IN_CLEAR, *TLS_VERSIONS))}")
    if pem is None:
        return TlsEvidence(spoken, "", "")
    return TlsEvidence(spoken, "", "", chain=tuple(parse_certificate(each) for each in _chain(pem)))


def _chain(pem: str) -> tuple[bytes, ...]:
    end = "-----END CERTIFICATE-----"
    parts = [each[each.find("-----BEGIN CERTIFICATE-----") :] + end for each in pem.split(end)[:-1]]
    try:
        found = tuple(ssl.PEM_cert_to_DER_cert(each) for each in parts[:MAX_CHAIN])
    except ValueError:
        raise WrongWordError("client_certificate", "it is not PEM that can be read") from None
    if not found:
        raise WrongWordError("client_certificate", "it holds no certificate in PEM")
    return found


def probe_target(target: str, about: str) -> tuple[str, HostPort | None]:
    """The domain whose mail it is about, "" where only a host was named, and the host where one was. Raises WrongWordError."""
    try:
        hop = HostPort.parse(target) if ":" in target else None
        domain = parse_domain(target) if hop is None else ""
    except ValueError as error:
        raise WrongWordError("target", str(error)) from None
    if not about:
        return domain, hop
    if hop is None:
        raise WrongWordError("for", "it goes with HOST:PORT only")
    try:
        return parse_domain(about), hop
    except ValueError as error:
        raise WrongWordError("for", str(error)) from None


async def probe(means: Means, domain: str, hop: HostPort | None) -> Probe:
    """What `probe_target` gave."""
    if hop is None:
        return await probe_domain(means, domain)
    return await probe_hop(means, connector_for(means.book, domain, hop), domain or hop.host, hop)


def connector_for(book: RuleBook, domain: str, hop: HostPort) -> OutboundConnector:
    """What one host is held against: the domain's connector, else the one that has it as smart host, else the one for its name."""
    if domain:
        return book.outbound_for(domain)
    has_it = (each for each in book.config.outbound if hop in each.route.hosts)
    return next(has_it, None) or book.outbound_for(hop.host)


async def look_up(means: Means, domain: str) -> DnsFacts:
    """What DNS says about the hosts that mail for a domain would go to, and what is published about them."""
    book, resolver, ourselves = means.book, means.resolver, means.ourselves
    connector = book.outbound_for(domain)
    mx: dict[str, MxAnswer] = {}
    secure = not connector.route.by_mx
    if needs_mx(connector, domain):
        answer = mx[domain] = await resolver.mx(domain)
        secure = isinstance(answer, MxRecords) and answer.secure
    facts = DnsFacts(mx, {}, ourselves.names)
    found = hops(connector, domain, facts.mx_of(domain), ourselves=ourselves.names)
    wanted = found if isinstance(found, tuple) else ()
    hosts = tuple(dict.fromkeys(each.host for each in wanted))
    ask = resolver.addresses if connector.route.by_mx else resolver.configured_addresses
    answers = await asyncio.gather(*(ask(host) for host in hosts))
    addresses: dict[str, Found] = {
        host: answer.addresses if isinstance(answer, Addresses) else answer
        for host, answer in zip(hosts, answers, strict=True)
    }
    own = {each: ourselves.own(_known(addresses[each.host]), each.port) for each in wanted}
    if not connector.route.by_mx:
        # A smart host may be another relay on this machine: only where we listen ourselves would it be a loop.
        own = {
            each: frozenset(a for a in _known(addresses[each.host]) if ourselves.listens_at(a, each.port))
            for each in wanted
        }
    asked = uses(connector, running_exception(book, domain, means.clock().date()))
    ways = [Way(connector, domain, hop, secure) for hop in wanted]
    published = await asyncio.gather(*(means.publications.find(way, asked) for way in ways))
    return DnsFacts(mx, addresses, ourselves.names, own, dict(zip(wanted, published, strict=True)))


def _known(found: Found) -> tuple[IpAddress, ...]:
    return found if isinstance(found, tuple) else ()
