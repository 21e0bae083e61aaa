"""`relay probe`: what a partner's hosts really do, and what our policy and each level would say of it. Sends no mail."""

import asyncio
from typing import TYPE_CHECKING, Annotated

import typer

from relay.cli.common import DEFAULT_CONFIG, ConfigOption, ExitCode, JsonOption, print_json, read_config

if TYPE_CHECKING:
    from relay.config.values import HostPort
    from relay.outbound.probe import Probe
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
    from relay.outbound.asking import WrongWordError, probe_target

    try:
        return probe_target(target, about or "")
    except WrongWordError as error:
        hint = {"target": "DOMAIN|HOST:PORT", "for": "--for"}[error.name]
        raise typer.BadParameter(str(error), param_hint=hint) from None


async def _probe(book: "RuleBook", domain: str, hop: "HostPort | None") -> "Probe":
    from relay.cli.outside import outside
    from relay.outbound.asking import probe

    async with outside(book.config) as world:
        return await probe(world.means(book), domain, hop)
