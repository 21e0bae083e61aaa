"""`relay publish`: the records and files that let others reach us safely, and whether they are out there as they should be.

Reads configuration and certificates, and with --verify asks DNS and HTTPS; what follows from them is `relay.policy.publish`'s and
`relay.policy.publish_check`'s. Does not speak with the running relay.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from relay.cli.common import DEFAULT_CONFIG, ConfigOption, ExitCode, JsonOption, print_json, read_config, stop

if TYPE_CHECKING:
    from relay.config.certificates import CertificateFiles
    from relay.config.models import Config
    from relay.dns.answers import Resolver
    from relay.outbound.outside import Outside
    from relay.policy.publish import OurKey, OurRecords
    from relay.policy.publish_check import FetchFailed, FileFound, Finding, PublicView, TlsaFound
    from relay.policy.route import LookupFailed
    from relay.tls.keyring import Keyring

T = TypeVar("T")
Fetch = Callable[[str], Awaitable["FileFound | FetchFailed"]]
"""A domain's policy file, fetched as senders do."""

AT_ONCE = 20  # domains and hosts that are looked up at the same time
PATIENCE = 20.0  # seconds for a policy

DomainArgument = Annotated[str | None, typer.Argument(metavar="DOMAIN", help="Default: every accepted domain.")]
VerifyOption = Annotated[bool, typer.Option("--verify", help="Compare with what DNS and HTTPS say.")]


def command(
    domain: DomainArgument = None,
    verify: VerifyOption = False,
    config: ConfigOption = DEFAULT_CONFIG,
    json: JsonOption = False,
) -> None:
    """Print the MTA-STS, TLSA and TLSRPT records, the policy files and the pins of our domains, exactly as they are to be published.

    With --verify, say of each whether DNS and HTTPS have it; exit code 1 where anything is missing, different or left over.

    Goes by local files, and asks no running relay.
    """
    from relay.cli import publish_text

    loaded = read_config(config)
    ours = gather(loaded, _domains(loaded, domain), datetime.now(UTC))
    if not verify:
        print_json(publish_text.records_json(ours)) if json else publish_text.print_records(ours, loaded)
        return
    findings = asyncio.run(_verify(loaded, ours))
    print_json(publish_text.findings_json(findings)) if json else publish_text.print_findings(findings)
    if any(each.state is not each.state.PUBLISHED for each in findings):
        raise typer.Exit(ExitCode.NO)


def _domains(config: "Config", wanted: str | None) -> tuple[str, ...]:
    from relay.config.values import parse_domain

    if wanted is None:
        if not config.published_domains:
            stop("there is nothing to publish: `accept.domains` names no domain, and neither does `publish.domains`")
        return config.published_domains
    try:
        domain = parse_domain(wanted)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="DOMAIN") from None
    if domain not in config.published_domains:
        stop(
            f"{domain} is no domain of ours: name it in `accept.domains`, or under `publish.domains` beside a wildcard"
        )
    return (domain,)


def gather(config: "Config", domains: Iterable[str], now: datetime) -> "OurRecords":
    """What is to be published, with the certificates that are in the folder now."""
    from relay.policy.publish import our_hosts, our_records
    from relay.tls.keyring import Keyring

    wanted = tuple(domains)
    if config.certificates is None:
        return our_records(config, wanted, {}, ())
    keyring = Keyring(config.certificates, hostname=config.hostname, clock=lambda: now)
    for problem in keyring.problems:
        typer.echo(f"{problem.severity.value}: {problem}", err=True)
    shown = {host: keys_for(keyring, host) for host in our_hosts(config, wanted)}
    return our_records(config, wanted, shown, map(_key, (*keyring.certificates, *keyring.next)))


def keys_for(keyring: "Keyring", host: str) -> "tuple[OurKey, ...]":
    """The keys that `host` shows, or is about to."""
    return tuple(map(_key, keyring.to_publish(host)))


def _key(files: "CertificateFiles") -> "OurKey":
    from relay.policy.publish import OurKey
    from relay.tls.evidence import parse_certificate

    return OurKey(files.name, parse_certificate(files.leaf), files.is_next, files.chain)


async def _verify(config: "Config", ours: "OurRecords") -> "tuple[Finding, ...]":
    from relay.cli.outside import outside
    from relay.policy.publish_check import compare

    async with outside(config) as world:
        return compare(ours, await look_up(ours, world.resolver, fetcher(world), world.now()))


def fetcher(world: "Outside", port: int = 443) -> Fetch:
    """Fetches policies as senders do, certificate check and all; but from a private address too: seen from inside, our own may have one."""
    from relay.config.models import PrivateAddresses
    from relay.dns.stsfetch import FetchSettings, PolicyFetcher
    from relay.policy.publish_check import FetchFailed, FileFound

    ask = PolicyFetcher(world.resolver, world.tls, FetchSettings(port, PATIENCE, PrivateAddresses.ALLOW))

    async def fetch(domain: str) -> "FileFound | FetchFailed":
        found = await ask(domain)
        if isinstance(found, bytes):
            return FileFound(tuple(found.decode("utf-8", "replace").splitlines()))
        return FetchFailed(found.text)

    return fetch


async def look_up(ours: "OurRecords", resolver: "Resolver", fetch: Fetch, now: datetime) -> "PublicView":
    """Everything that is out there about these domains and hosts, a bounded number at a time."""
    from relay.dns.answers import TlsaRecords, TxtRecords
    from relay.mail.tls import Trusted
    from relay.policy.publish import SMTP_PORT
    from relay.policy.publish_check import PublicView, TlsaFound
    from relay.tls.tlsa import match_chain

    slots = asyncio.Semaphore(AT_ONCE)

    async def each(ask: Callable[[str], Awaitable[T]], names: Iterable[str]) -> dict[str, T]:
        async def one(name: str) -> T:
            async with slots:
                return await ask(name)

        listed = tuple(names)
        return dict(zip(listed, await asyncio.gather(*map(one, listed)), strict=True))

    async def text(name: str) -> "tuple[str, ...] | LookupFailed":
        answer = await resolver.txt(name)
        return answer.texts if isinstance(answer, TxtRecords) else answer

    async def tlsa(host: str) -> "TlsaFound | LookupFailed":
        answer = await resolver.tlsa(host, SMTP_PORT)
        if not isinstance(answer, TlsaRecords):
            return answer
        keys = [key for each in ours.hosts if each.host == host for key in each.keys]
        pairs = [(record, key) for record in answer.records for key in keys]
        good = [(record, key) for record, key in pairs if isinstance(match_chain(key.chain, [record], now), Trusted)]
        matching = frozenset(record for record, _key in good)
        return TlsaFound(answer.records, answer.secure, matching, frozenset(r for r, key in good if not key.is_next))

    records = [record for domain in ours.domains for record in (domain.sts, domain.tlsrpt) if record is not None]
    domains = [domain.domain for domain in ours.domains]
    texts, files, found, mx = await asyncio.gather(
        each(text, (record.name for record in records)),
        each(fetch, domains),
        each(tlsa, (host.host for host in ours.hosts)),
        each(resolver.mx, domains),
    )
    return PublicView(texts, files, found, mx, validates=not resolver.dane)
