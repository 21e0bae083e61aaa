"""Which messages a command of `relay queue` is about: options, and the body that asks the admin API for them."""

from collections.abc import Iterable, Mapping
from typing import Annotated, Any

import typer

from relay.cli.common import ExitCode, stop

_CHUNK = 1000  # ids in one request

IdArguments = Annotated[list[str] | None, typer.Argument(metavar="ID", help="Ids of messages.", show_default=False)]
AllOption = Annotated[bool, typer.Option("--all", help="Everything in the queue.")]
ToOption = Annotated[
    str, typer.Option("--to", metavar="DOMAIN", help="Only recipients in this domain.", show_default=False)
]
ConnectorOption = Annotated[
    str, typer.Option("--connector", metavar="NAME", help="Only what this connector governs.", show_default=False)
]


def selection_of(ids: list[str] | None, everything: bool, to: str, connector: str) -> dict[str, Any]:
    """The body of POST /queue/ACTION. Exit code 2 where it says nothing, or two things."""
    narrowed = {key: value for key, value in (("to", to), ("connector", connector)) if value}
    if ids and (everything or narrowed):
        stop("give ids, or --all, --to and --connector, not both", ExitCode.USAGE)
    if ids:
        return {"ids": [id_of(each) for each in ids]}
    if not everything and not narrowed:
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


def plural(count: int, word: str) -> str:
    return f"{count} {word}{'' if count == 1 else 's'}"


def say_suspended(count: int) -> None:
    """Of what an order would have had tried."""
    if count:
        verb = "stays" if count == 1 else "stay"
        typer.echo(f"{plural(count, 'recipient')} {verb} suspended: `relay queue suspensions` says by what.", err=True)
