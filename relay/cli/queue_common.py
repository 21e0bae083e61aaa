"""Which messages a command of `relay queue` is about: options, and the body that asks the admin API for them."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

import typer

from relay.cli import values
from relay.cli.at import At
from relay.cli.common import ExitCode, given, stop

_CHUNK = 1000  # ids in one request

IdArguments = Annotated[list[str] | None, typer.Argument(metavar="ID", help="Ids of messages.", show_default=False)]
AllOption = Annotated[bool, typer.Option("--all", help="Everything in the queue.")]
ToOption = Annotated[
    str, typer.Option("--to", metavar="DOMAIN", help="Only recipients in this domain.", show_default=False)
]
ConnectorOption = Annotated[
    str,
    typer.Option(
        "--connector",
        metavar="NAME",
        help="Only what this connector governs.",
        show_default=False,
        autocompletion=values.connector,
    ),
]


@dataclass(frozen=True, slots=True)
class Chosen:
    """The messages that an order is about, as the command line says it (`relay.cli.common.spread`)."""

    ids: IdArguments = None
    everything: AllOption = False
    to: ToOption = ""
    connector: ConnectorOption = ""

    def body(self) -> dict[str, Any]:
        """The body of POST /queue/ACTION. Exit code 2 where it says nothing, or two things."""
        narrowed = given(to=self.to, connector=self.connector)
        if self.ids and (self.everything or narrowed):
            stop("give ids, or --all, --to and --connector, not both", ExitCode.USAGE)
        if self.ids:
            return {"ids": [id_of(each) for each in self.ids]}
        if not self.everything and not narrowed:
            stop("say which messages: ID..., --all, --to DOMAIN or --connector NAME", ExitCode.USAGE)
        return {"all": True, **narrowed}


def id_of(text: str) -> str:
    """As ids are written; what cannot be one is wrong usage, and must never become part of a path."""
    upper = text.upper()
    if not upper.isascii() or not upper.isalnum():
        stop(f"{text!r} is not a message id: `relay queue list` shows them", ExitCode.USAGE)
    return upper


def chunks(selection: Mapping[str, Any]) -> Iterable[Mapping[str, Any]]:
    """The selection in as many bodies as its ids need."""
    ids = selection.get("ids")
    if ids is None:
        return (selection,)
    return ({"ids": ids[start : start + _CHUNK]} for start in range(0, len(ids), _CHUNK))


@dataclass(slots=True)
class Done:
    """What became of an order, over all requests that it took."""

    changed: int = 0
    running: int = 0
    suspended: int = 0
    unknown: list[str] = field(default_factory=list)

    def json(self) -> dict[str, Any]:
        return {"changed": self.changed, "running": self.running, "unknown": self.unknown}

    def say_rest(self) -> None:
        if self.running:
            typer.echo(f"{self.running} under way just now: done as soon as the attempt ends, unless that decides it.")
        if self.unknown:
            typer.echo(f"Not in the queue: {', '.join(self.unknown)}.", err=True)
        say_suspended(self.suspended)

    def end(self) -> None:
        """Exit code 1 where something was not there, or nothing was done."""
        if self.unknown or not self.changed + self.running:
            raise typer.Exit(ExitCode.NO)


def ordered(
    at: At,
    path: str,
    selection: Mapping[str, Any],
    more: Mapping[str, Any],
    hear: Callable[[Mapping[str, Any]], None] = lambda _answer: None,
) -> Done:
    """Has the relay do it. `hear` gets each answer."""
    done = Done()
    with at.relay() as relay:
        for body in chunks(selection):
            answer = relay.post(path, {**body, **more})
            done.changed += answer["changed"]
            done.running += answer["running"]
            done.suspended += answer.get("after", {}).get("suspended", 0)
            done.unknown += answer["unknown"]
            hear(answer)
    return done


def plural(count: int, word: str) -> str:
    return f"{count} {word}{'' if count == 1 else 's'}"


def say_suspended(count: int) -> None:
    """Of what an order would have had tried."""
    if count:
        verb = "stays" if count == 1 else "stay"
        typer.echo(f"{plural(count, 'recipient')} {verb} suspended: `relay queue suspensions` says by what.", err=True)
