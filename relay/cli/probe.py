"""`relay probe`: what a partner's hosts really do, and what our policy and each level would say of it. Sends no mail."""

import asyncio
from typing import TYPE_CHECKING, Annotated

import typer

from relay.cli.common import DEFAULT_CONFIG, ConfigOption, ExitCode, JsonOption, print_json, read_config

if TYPE_CHECKING:
    from relay.config.models import OutboundConnector
    from relay.config.values import HostPort
    from relay.outbound.probe import Means, Probe
    from relay.policy.book import RuleBook

TargetArgument = Annotated[str, typer.Argument(metavar="DOMAIN|HOST:PORT", help="A recipient domain, or one host.")]
ForOption = Annotated[
    str | None, typer.Option("--for", metavar="DOMAIN", help="With HOST:PORT: whose mail it is about.")
]


def command(
    target: TargetArgument,
    about: ForOption = None,
    config: ConfigOption = DEFAULT_CONFIG,
    json: JsonOption = False,
) -> None:
    """Say EHLO and STARTTLS to every host that mail for DOMAIN would go to, or to HOST:PORT, and then QUIT. Sends no mail.

    Shows what each host is and offers, whether our policy would let mail go there, and what each level would say. HOST:PORT is held
    against the connector that has it as smart host, or the one for --for DOMAIN, or for the host's own name. Exit code 0 where our policy
    is satisfied at one address at least, 1 where not.
    """
    from relay.outbound.probe_json import probe_json
    from relay.policy.book import RuleBook

    book = RuleBook.of(read_config(config))
    domain, hop = _target(target, about)
    found = probe_json(asyncio.run(_probe(book, domain, hop)))
    if json:
        print_json(found)
    else:
        from relay.cli.client import show
        from relay.report.probe import render_probe

        show(render_probe(found))
    if not found["passes"]:
        raise typer.Exit(ExitCode.NO)


def _target(target: str, about: str | None) -> "tuple[str, HostPort | None]":
    """The domain whose mail it is about, "" where only a host was named, and the host where one was."""
    from relay.config.values import HostPort, parse_domain

    try:
        hop = HostPort.parse(target) if ":" in target else None
        domain = parse_domain(target) if hop is None else ""
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="DOMAIN|HOST:PORT") from None
    if about is None:
        return domain, hop
    if hop is None:
        raise typer.BadParameter("it goes with HOST:PORT only", param_hint="--for")
    try:
        return parse_domain(about), hop
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--for") from None


async def _probe(book: "RuleBook", domain: str, hop: "HostPort | None") -> "Probe":
    from relay.cli.outside import outside
    from relay.outbound.probe import Means

    async with outside(book.config) as world:
        means = Means(book, world.resolver, world.tls, world.publications, world.now, world.ourselves)
        return await probe(means, domain, hop)


async def probe(means: "Means", domain: str, hop: "HostPort | None") -> "Probe":
    from relay.outbound.probe import probe_domain, probe_hop

    if hop is None:
        return await probe_domain(means, domain)
    connector = connector_for(means.book, domain, hop)
    return await probe_hop(means, connector, domain or hop.host, hop)


def connector_for(book: "RuleBook", domain: str, hop: "HostPort") -> "OutboundConnector":
    """Against which a host is held: the one for the domain, else the one that has it as smart host, else the one for its own name."""
    if domain:
        return book.outbound_for(domain)
    has_it = (each for each in book.config.outbound if hop in each.route.hosts)
    return next(has_it, None) or book.outbound_for(hop.host)
