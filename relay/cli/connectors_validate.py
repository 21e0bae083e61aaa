"""`relay connectors validate`: one connector, step by step, each with what was found, how long it took and what to do where it failed."""

import asyncio
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from relay.cli.common import DEFAULT_CONFIG, ConfigOption, ExitCode, JsonOption, print_json, read_config, stop

if TYPE_CHECKING:
    from datetime import datetime

    from relay.config.connectors import Connector, InboundConnector
    from relay.config.models import Config
    from relay.policy.book import RuleBook
    from relay.policy.connector_steps import Files
    from relay.policy.steps import Step

_MOST_DOMAINS = 10

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="A connector of connectors.yaml.")]
DomainOption = Annotated[
    str,
    typer.Option("--domain", metavar="DOMAIN", help="Outbound: only this domain of the partner.", show_default=False),
]
SendOption = Annotated[
    str,
    typer.Option(
        "--send-test",
        metavar="ADDRESS",
        help="Outbound: send a small message through the running relay.",
        show_default=False,
    ),
]
AsOption = Annotated[
    tuple[Path, Path] | None,
    typer.Option(
        "--as",
        metavar="CERT KEY",
        help="Inbound: play the partner with this certificate (PEM: leaf, then chain) and key.",
    ),
]
ListenerOption = Annotated[
    str,
    typer.Option("--listener", metavar="ADDRESS:PORT", help="With --as: this listener of ours.", show_default=False),
]
WaitOption = Annotated[
    int,
    typer.Option("--wait", metavar="SECONDS", min=1, max=600, help="With --send-test: how long to wait for its end."),
]


def validate(
    name: NameArgument,
    domain: DomainOption = "",
    send_test: SendOption = "",
    wait: WaitOption = 60,
    as_: AsOption = None,
    listener: ListenerOption = "",
    config: ConfigOption = DEFAULT_CONFIG,
    json: JsonOption = False,
) -> None:
    """Try a connector step by step: its files and rules, DNS, every address of the partner, TLS, certificates, what else must be there.

    Outbound, no mail is sent and nobody logs in, unless --send-test says so: then the running relay delivers a small message, and its
    trace is shown. Inbound, --as plays the partner against our own listener up to MAIL. Exit code 0 where no step failed, 1 where
    one did, 3 where --send-test finds no running relay.
    """
    from relay.policy.book import RuleBook
    from relay.policy.steps import failed, steps_json

    book = RuleBook.of(read_config(config))
    connector = _named(book, name)
    _fits(connector, domain, send_test, as_, listener)
    if json:
        shown: Callable[[Step], None] = lambda _step: None  # noqa: E731
    else:
        shown = show_step
    steps: list[Step] = []

    def take(found: "Iterable[Step]") -> None:
        for step in found:
            steps.append(step)
            shown(step)

    take(_configuration(book, connector))
    trace: dict[str, Any] | None = None
    if connector.direction == "outbound":
        take(asyncio.run(_probe(book, _domains(book, connector, domain, send_test))))
        if send_test:
            from relay.cli.connectors_trial import send_trial

            trial, trace = send_trial(book.config, connector.name, send_test, wait)
            take(trial)
    else:
        take(_inbound(book, connector, as_, listener))
    bad = failed(steps)
    if json:
        print_json(
            {
                "connector": connector.name,
                "direction": connector.direction,
                "passes": not bad,
                "steps": steps_json(steps),
                "trace": trace,
            }
        )
    else:
        _end(bad, trace)
    if bad:
        raise typer.Exit(ExitCode.NO)


def _end(bad: bool, trace: dict[str, Any] | None) -> None:
    if trace is not None:
        from relay.cli.client import show
        from relay.report.trace import render_trace

        show(render_trace(trace))
    verdict = "at least one step failed" if bad else "no step failed"
    typer.echo(typer.style(f"\n{verdict}", fg=typer.colors.RED if bad else typer.colors.GREEN, bold=True))


def show_step(step: "Step") -> None:
    """A line or two, at once: some steps take their time."""
    from relay.report.text import one_line

    colours = {"ok": typer.colors.GREEN, "warning": typer.colors.YELLOW, "failed": typer.colors.RED}
    word = typer.style(f"{step.result.value:8}", fg=colours.get(step.result.value), bold=step.result.value == "failed")
    took = "" if step.seconds is None else f"  ({step.seconds:.3f} s)"
    target = f"{one_line(step.target)}: " if step.target else ""
    typer.echo(f"{word}{step.name:20}{target}{one_line(step.text)}{took}")
    if step.remedy and step.result.value != "ok":
        typer.echo(f"{'':8}{'':20}-> {one_line(step.remedy)}")


def _named(book: "RuleBook", name: str) -> "Connector":
    connectors: tuple[Connector, ...] = (*book.config.inbound, *book.config.outbound)
    for each in connectors:
        if each.name == name:
            return each
    there = ", ".join(each.name for each in connectors) or "none"
    raise typer.BadParameter(f"there is no connector {name!r}; there are: {there}", param_hint="NAME")


def _fits(connector: "Connector", domain: str, send_test: str, as_: object, listener: str) -> None:
    outbound = connector.direction == "outbound"
    for option, given in (("--domain", domain), ("--send-test", send_test)):
        if given and not outbound:
            raise typer.BadParameter(f"{connector.name} is inbound: this is about mail to a partner", param_hint=option)
    if as_ is not None and outbound:
        raise typer.BadParameter(f"{connector.name} is outbound: this is about mail from a partner", param_hint="--as")
    if listener and as_ is None:
        raise typer.BadParameter("it goes with --as only", param_hint="--listener")


def _configuration(book: "RuleBook", connector: "Connector") -> "Iterable[Step]":
    from relay.policy.connector_steps import configuration_steps

    return configuration_steps(book, connector, files_of(book.config, connector))


def files_of(config: "Config", connector: "Connector") -> "Files":
    """What the connector's files hold just now."""
    from datetime import UTC, datetime

    from relay.config.advice import advice
    from relay.config.certificates import Folder, read_folder
    from relay.config.connectors import OutboundConnector
    from relay.config.references import trust_places
    from relay.policy.connector_steps import Files
    from relay.tls.trust import TrustStores

    now = datetime.now(UTC)
    position = next(index for index, each in enumerate(config.connectors) if each.name == connector.name)
    folder = read_folder(config.certificates, now) if config.certificates is not None else Folder()
    place = ("connectors", position)
    named = [trust for where, trust in trust_places(config) if where[:2] == place or where == ("trust",)]
    stores = TrustStores()
    client = connector.client_certificate if isinstance(connector, OutboundConnector) else None
    return Files(
        now,
        {trust: stores.problem(trust, now) for trust in dict.fromkeys(named)},
        {trust: end for trust in named if (end := _last_end(trust)) is not None},
        folder.by_name(client) if client is not None else None,
        folder.certificates,
        tuple(each.text for each in advice(config, folder, now) if each.place[:2] == place),
    )


def _last_end(trust: str) -> "datetime | None":
    """When the last of a file's certificates ends; None for a folder, and for what cannot be read."""
    from cryptography import x509

    from relay.config.certificates import PemError, read_pem

    path = Path(trust)
    if not path.is_file():
        return None
    try:
        ends = [x509.load_der_x509_certificate(each).not_valid_after_utc for each in read_pem(path).certificates]
    except (PemError, ValueError):
        return None
    return max(ends, default=None)


def _domains(book: "RuleBook", connector: "Connector", domain: str, send_test: str) -> list[str]:
    """Whose hosts are looked at."""
    from relay.config.connectors import OutboundConnector
    from relay.config.values import parse_domain

    assert isinstance(connector, OutboundConnector)  # noqa: S101 - by its direction
    wanted = domain or send_test.rpartition("@")[2]
    if wanted:
        option = "--domain" if domain else "--send-test"
        try:
            wanted = parse_domain(wanted)
        except ValueError as error:
            raise typer.BadParameter(str(error), param_hint=option) from None
        governing = book.outbound_for(wanted).name
        if governing != connector.name:
            raise typer.BadParameter(f"{wanted} is governed by {governing}, not by {connector.name}", param_hint=option)
        return [wanted]
    exact = [each for each in connector.match.recipient_domains if not each.startswith("*")]
    if connector.route.by_mx:
        if not exact:
            stop(
                f"connector {connector.name} names only wildcards and goes by MX: say one domain with --domain",
                ExitCode.USAGE,
            )
        return exact[:_MOST_DOMAINS]
    # By smart hosts, whichever domain leads to the same ones.
    anyone = [
        f"any.{each.removeprefix('*.')}" if each != "*" else "any.example" for each in connector.match.recipient_domains
    ]
    governed = [each for each in (*exact, *anyone) if book.outbound_for(each).name == connector.name]
    return governed[:1] or [connector.match.recipient_domains[0]]


async def _probe(book: "RuleBook", domains: list[str]) -> "list[Step]":
    """The hosts of each domain, as a delivery would find them."""
    from relay.cli.outside import outside
    from relay.outbound.probe import probe_domain
    from relay.outbound.validation import Wanted, probe_steps

    found: list[Step] = []
    async with outside(book.config) as world:
        means = world.means(book)
        for domain in domains:
            probe = await probe_domain(means, domain)
            wanted = Wanted(probe.connector, domain, book.config.limits.message_size, world.now())
            found.extend(probe_steps(probe, wanted))
    return found


def _inbound(
    book: "RuleBook", connector: "InboundConnector", as_: tuple[Path, Path] | None, listener: str
) -> "Iterable[Step]":
    from relay.cli.connectors_play import last_seen, play
    from relay.policy.connector_steps import inbound_steps

    yield from inbound_steps(book, connector, files_of(book.config, connector))
    yield last_seen(book.config, connector)
    if as_ is not None:
        yield from play(book, connector, as_, listener)
