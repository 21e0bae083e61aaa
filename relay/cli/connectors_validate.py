"""`relay connectors validate`: one connector, step by step, each with what was found, how long it took and what to do where it failed."""

import asyncio
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from relay.cli import values
from relay.cli.at import At
from relay.cli.client import Relay
from relay.cli.common import ExitCode, JsonOption, given, print_json, read_config, spread, stop

if TYPE_CHECKING:
    from relay.config.connectors import Connector, InboundConnector
    from relay.policy.book import RuleBook
    from relay.policy.steps import Step

Json = Mapping[str, Any]

NameArgument = Annotated[
    str, typer.Argument(metavar="NAME", help="A connector of connectors.yaml.", autocompletion=values.connector)
]
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


@dataclass(frozen=True, slots=True)
class Further:
    """What is tried beyond looking: a test message, the partner played."""

    domain: DomainOption = ""
    send_test: SendOption = ""
    wait: WaitOption = 60
    as_: AsOption = None
    listener: ListenerOption = ""

    @property
    def about(self) -> tuple[str, str]:
        """The one domain that is looked at, "" for the connector's own, and the option that says so."""
        if self.domain:
            return self.domain, "--domain"
        return self.send_test.rpartition("@")[2], "--send-test"

    def fits(self, name: str, direction: str) -> None:
        """Ends the program where an option has no meaning for such a connector."""
        for option, value in (("--domain", self.domain), ("--send-test", self.send_test)):
            if value and direction == "inbound":
                raise typer.BadParameter(f"{name} is inbound: this is about mail to a partner", param_hint=option)
        if self.as_ is not None and direction == "outbound":
            raise typer.BadParameter(f"{name} is outbound: this is about mail from a partner", param_hint="--as")
        if self.listener and self.as_ is None:
            raise typer.BadParameter("it goes with --as only", param_hint="--listener")


@spread
def validate(*, name: NameArgument, further: Further, json: JsonOption = False, at: At) -> None:
    """Try a connector step by step: its files and rules, DNS, every address of the partner, TLS, certificates, what else must be there.

    Outbound, no mail is sent and nobody logs in, unless --send-test says so: then the running relay delivers a small message, and its
    trace is shown. Inbound, --as plays the partner against our own listener up to MAIL. Exit code 0 where no step failed, 1 where
    one did, 3 where --send-test finds no running relay.

    It goes by the configuration file, from here. With --socket or --url that relay does it: by what it has in force, from where it runs.
    """
    steps = _Steps(told=not json)
    if at.is_named():
        direction, trace = _by_relay(at, name, further, steps)
    else:
        direction, trace = _by_file(at.config, name, further, steps)
    bad = any(each["result"] == "failed" for each in steps.found)
    if json:
        found = {"connector": name, "direction": direction, "passes": not bad, "steps": steps.found, "trace": trace}
        print_json(found)
    else:
        _end(bad, trace)
    if bad:
        raise typer.Exit(ExitCode.NO)


class _Steps:
    """Steps as they come, told at once to people: some take their time."""

    def __init__(self, *, told: bool) -> None:
        self.found: list[Json] = []
        self._told = told

    def take(self, steps: "Iterable[Step]") -> None:
        from relay.policy.steps import steps_json

        for step in steps:
            self.take_json(steps_json((step,)))

    def take_json(self, steps: Iterable[Json]) -> None:
        for step in steps:
            self.found.append(step)
            if self._told:
                show_step(step)


def _by_relay(at: At, name: str, further: Further, steps: _Steps) -> tuple[str, Json | None]:
    from relay.cli.connectors_trial import send_trial

    if further.as_ is not None or further.listener:
        stop("--as plays from here, by the configuration file: leave --socket and --url away", ExitCode.USAGE)
    trace = None
    with at.relay() as relay:
        found = relay.post("/connectors/validate", {"connector": name, **given(domain=further.about[0])})
        steps.take_json(found["steps"])
        if further.send_test:
            step, trace = send_trial(relay, name, further.send_test, further.wait)
            steps.take((step,))
    return found["direction"], trace


def _by_file(file: Path, name: str, further: Further, steps: _Steps) -> tuple[str, Json | None]:
    from relay.outbound.asking import WrongWordError
    from relay.outbound.validate import connector_named, domains_of, steps_here
    from relay.policy.book import RuleBook

    book = RuleBook.of(read_config(file))
    try:
        connector = connector_named(book, name)
    except WrongWordError as error:
        raise typer.BadParameter(str(error), param_hint="NAME") from None
    further.fits(name, connector.direction)
    domain, option = further.about
    try:
        domains = domains_of(book, connector, domain)
    except WrongWordError as error:
        raise typer.BadParameter(str(error), param_hint=option if domain else "--domain") from None
    steps.take(steps_here(book, connector, datetime.now(UTC)))
    if connector.direction == "inbound":
        steps.take(_inbound(book, connector, further))
        return connector.direction, None
    steps.take(asyncio.run(_there(book, domains)))
    return connector.direction, _trial(book, connector, further, steps)


async def _there(book: "RuleBook", domains: tuple[str, ...]) -> "list[Step]":
    from relay.cli.outside import outside
    from relay.outbound.validate import steps_there

    async with outside(book.config) as world:
        return await steps_there(world.means(book), domains)


def _trial(book: "RuleBook", connector: "Connector", further: Further, steps: _Steps) -> Json | None:
    if not further.send_test:
        return None
    from relay.cli.connectors_trial import send_trial

    if book.config.admin is None:
        stop(
            "--send-test needs the running relay: write `admin: {socket: relay.sock}` and restart it",
            ExitCode.UNREACHABLE,
        )
    with Relay.at(book.config.admin.socket) as relay:
        step, trace = send_trial(relay, connector.name, further.send_test, further.wait)
    steps.take((step,))
    return trace


def _inbound(book: "RuleBook", connector: "InboundConnector", further: Further) -> "Iterator[Step]":
    from relay.cli.connectors_play import last_seen, play

    yield last_seen(book.config, connector)
    if further.as_ is not None:
        yield from play(book, connector, further.as_, further.listener)


def _end(bad: bool, trace: Json | None) -> None:
    if trace is not None:
        from relay.cli.client import show
        from relay.report.trace import render_trace

        show(render_trace(trace))
    verdict = "at least one step failed" if bad else "no step failed"
    typer.echo(typer.style(f"\n{verdict}", fg=typer.colors.RED if bad else typer.colors.GREEN, bold=True))


def show_step(step: Json) -> None:
    """A line or two."""
    from relay.report.text import one_line

    result = step["result"]
    colours = {"ok": typer.colors.GREEN, "warning": typer.colors.YELLOW, "failed": typer.colors.RED}
    word = typer.style(f"{result:8}", fg=colours.get(result), bold=result == "failed")
    took = "" if step["seconds"] is None else f"  ({step['seconds']:.3f} s)"
    target = f"{one_line(step['target'])}: " if step["target"] else ""
    typer.echo(f"{word}{step['step']:20}{target}{one_line(step['text'])}{took}")
    if step["remedy"] and result != "ok":
        typer.echo(f"{'':8}{'':20}-> {one_line(step['remedy'])}")
