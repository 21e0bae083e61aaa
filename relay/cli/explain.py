"""`relay explain`: which connector governs a message, what each delivery must satisfy and why, what would be refused. Sends nothing.

Does the look-ups and the path check of a certificate file; what follows from them is `relay.policy.explain`'s.
"""

import asyncio
import ipaddress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from relay.cli.common import DEFAULT_CONFIG, ConfigOption, ExitCode, JsonOption, print_json, read_config

if TYPE_CHECKING:
    from collections.abc import Collection

    from relay.cli.outside import Outside
    from relay.mail.address import Address
    from relay.mail.tls import TlsEvidence
    from relay.policy.book import IpAddress, RuleBook
    from relay.policy.explain import Addresses as Found
    from relay.policy.explain import Arrival, DnsFacts

IN_CLEAR = "none"

ToOption = Annotated[str, typer.Option("--to", metavar="ADDRESS", help="The recipient.")]
FromOption = Annotated[
    str | None, typer.Option("--from", metavar="ADDRESS", help="The envelope sender; <> for the null sender.")
]
ClientOption = Annotated[str | None, typer.Option("--client-ip", metavar="IP", help="Where the client comes from.")]
CertificateOption = Annotated[
    Path | None,
    typer.Option(
        "--client-certificate", metavar="FILE", help="What the client shows: PEM, leaf first, then its chain."
    ),
]
VersionOption = Annotated[
    str | None,
    typer.Option(
        "--tls-version", metavar="VERSION", help="TLSv1.3 (default), TLSv1.2, ..., or `none` for a client in clear."
    ),
]


def command(
    to: ToOption,
    sender: FromOption = None,
    client_ip: ClientOption = None,
    client_certificate: CertificateOption = None,
    tls_version: VersionOption = None,
    config: ConfigOption = DEFAULT_CONFIG,
    json: JsonOption = False,
) -> None:
    """Say which connector governs a message, what its delivery must satisfy and why, and what would be refused.

    Nothing is sent: only DNS is asked. With any of --from, --client-ip, --client-certificate or --tls-version, it also says whether
    the message would be let in. Exit code 1 where it would be refused, or could be delivered nowhere.
    """
    from relay.policy.book import RuleBook
    from relay.policy.explain import Question, explain
    from relay.policy.explain_json import explanation_json

    book = RuleBook.of(read_config(config))
    now = datetime.now(UTC)
    recipient = _address("--to", to)
    asked = not all(each is None for each in (sender, client_ip, client_certificate, tls_version))
    arrival = _arrival(book, sender or "<>", client_ip, client_certificate, tls_version, now) if asked else None
    facts = asyncio.run(_look_up(book, recipient))
    explanation = explain(book, Question(recipient, arrival), facts, now)
    if json:
        print_json(explanation_json(explanation))
    else:
        from relay.cli.explain_text import print_explanation

        print_explanation(explanation, arrival)
    inbound, outbound = explanation.inbound, explanation.outbound
    if (inbound is not None and not inbound.accepted) or not any(hop.addresses for hop in outbound.hops):
        raise typer.Exit(ExitCode.NO)


def _address(option: str, text: str) -> "Address":
    from relay.mail.address import AddressError, parse_path

    try:
        return parse_path(text)
    except AddressError as error:
        raise typer.BadParameter(str(error), param_hint=option) from None


def _arrival(
    book: "RuleBook", sender: str, client_ip: str | None, certificate: Path | None, version: str | None, now: datetime
) -> "Arrival":
    from relay.policy.admission import NO_DOMAIN, Peer, candidates, header_candidates, trusts, unchecked
    from relay.policy.explain import Arrival
    from relay.tls.trust import Purpose, TrustStores

    address = _address("--from", sender)
    evidence = _evidence(certificate, version)
    peer = Peer(_ip(client_ip), evidence)
    domain = address.domain or NO_DOMAIN
    if evidence is not None:
        judged = (*candidates(book, peer, domain), *header_candidates(book, domain))
        evidence = TrustStores().check(evidence, trusts(book, judged), Purpose.CLIENT, now)
        asked = unchecked(book, Peer(peer.address, evidence), judged)
        if asked:
            evidence = asyncio.run(_find_out(book, evidence, asked))
    return Arrival(address, Peer(peer.address, evidence))


async def _find_out(book: "RuleBook", evidence: "TlsEvidence", trusts: "Collection[str]") -> "TlsEvidence":
    """Whether a certificate of the paths is revoked, as the relay would ask."""
    from relay.cli.outside import outside
    from relay.tls.revocation.checks import with_statuses

    async with outside(book.config) as world:
        return await with_statuses(world.revocations, evidence, trusts)


def _ip(text: str | None) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return None if text is None else ipaddress.ip_address(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not an IP address", param_hint="--client-ip") from None


def _evidence(certificate: Path | None, version: str | None) -> "TlsEvidence | None":
    """What the client's TLS would be like; None in clear."""
    from relay.config.certificates import PemError, read_pem
    from relay.mail.tls import TLS_VERSIONS, TlsEvidence
    from relay.tls.evidence import parse_certificate

    spoken = version or TLS_VERSIONS[-1]
    if spoken == IN_CLEAR:
        if certificate is not None:
            raise typer.BadParameter("a certificate is shown in TLS only", param_hint="--client-certificate")
        return None
    if spoken not in TLS_VERSIONS:
        allowed = ", ".join((IN_CLEAR, *TLS_VERSIONS))
        raise typer.BadParameter(f"{spoken!r} is none of {allowed}", param_hint="--tls-version")
    if certificate is None:
        return TlsEvidence(spoken, "", "")
    try:
        chain = read_pem(certificate).certificates
    except PemError as error:
        raise typer.BadParameter(f"{certificate} {error}", param_hint="--client-certificate") from None
    if not chain:
        raise typer.BadParameter(f"{certificate} holds no certificate", param_hint="--client-certificate")
    return TlsEvidence(spoken, "", "", chain=tuple(parse_certificate(each) for each in chain))


async def _look_up(book: "RuleBook", recipient: "Address") -> "DnsFacts":
    from relay.cli.outside import outside
    from relay.policy.explain import destination

    async with outside(book.config) as world:
        return await look_up(book, destination(book, recipient).domain, world)


async def look_up(book: "RuleBook", domain: str, world: "Outside") -> "DnsFacts":
    """What DNS says about the hosts that mail for a domain would go to, and what is published about them."""
    from relay.dns.answers import Addresses
    from relay.outbound.publications import Way
    from relay.policy.explain import DnsFacts
    from relay.policy.plan import running_exception
    from relay.policy.published import uses
    from relay.policy.route import MxAnswer, MxRecords, hops, needs_mx

    connector, resolver, ourselves = book.outbound_for(domain), world.resolver, world.ourselves
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
    asked = uses(connector, running_exception(book, domain, world.now().date()))
    ways = [Way(connector, domain, hop, secure) for hop in wanted]
    published = await asyncio.gather(*(world.publications.find(way, asked) for way in ways))
    return DnsFacts(mx, addresses, ourselves.names, own, dict(zip(wanted, published, strict=True)))


def _known(found: "Found") -> "tuple[IpAddress, ...]":
    return found if isinstance(found, tuple) else ()
