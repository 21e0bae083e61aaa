"""`relay probe`: what a partner's hosts really do, and what our policy and each level would say of it. Sends no mail."""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from relay.cli.at import At
from relay.cli.common import ExitCode, JsonOption, given, print_json, read_config, spread

if TYPE_CHECKING:
    from relay.config.values import HostPort
    from relay.outbound.probe import Probe
    from relay.policy.book import RuleBook

Json = Mapping[str, Any]

TargetArgument = Annotated[str, typer.Argument(metavar="DOMAIN|HOST:PORT", help="A recipient domain, or one host.")]
ForOption = Annotated[
    str | None, typer.Option("--for", metavar="DOMAIN", help="With HOST:PORT: whose mail it is about.")
]


@spread
def command(
    *,
    target: TargetArgument,
    about: ForOption = None,
    json: JsonOption = False,
    at: At,
) -> None:
    """Say EHLO and STARTTLS to every host that mail for DOMAIN would go to, or to HOST:PORT, and then QUIT. Sends no mail.

    Shows what each host is and offers, whether our policy would let mail go there, and what each level would say. HOST:PORT is held
    against the connector that has it as smart host, or the one for --for DOMAIN, or for the host's own name. Exit code 0 where our policy
    is satisfied at one address at least, 1 where not.

    It goes by the configuration file, from here, and needs no running relay. With --socket or --url that relay probes: by what it has in
    force, from where it runs.
    """
    found = _by_relay(at, target, about) if at.is_named() else _by_file(at.config, target, about)
    if json:
        print_json(found)
    else:
        from relay.cli.client import show
        from relay.report.probe import render_probe

        show(render_probe(found))
    if not found["passes"]:
        raise typer.Exit(ExitCode.NO)


def _by_relay(at: At, target: str, about: str | None) -> Json:
    with at.relay() as relay:
        return relay.post("/probe", {"target": target, **given(**{"for": about})})


def _by_file(file: Path, target: str, about: str | None) -> Json:
    from relay.outbound.probe_json import probe_json
    from relay.policy.book import RuleBook

    book = RuleBook.of(read_config(file))
    domain, hop = _target(target, about)
    return probe_json(asyncio.run(_probe(book, domain, hop)))


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
