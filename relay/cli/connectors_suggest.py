"""`relay connectors suggest`: from the recorded evidence, what could be asked of whom without having lost a message."""

from typing import Annotated, Any

import typer

from relay.cli.at import At
from relay.cli.common import ExitCode, JsonOption, print_json, spread
from relay.report.text import one_line


@spread
def suggest(
    *,
    days: Annotated[int, typer.Option("--days", metavar="N", min=1, max=100, help="How far back.")] = 30,
    least: Annotated[
        int,
        typer.Option("--min-messages", metavar="M", min=1, max=1_000_000, help="Fewer are too few to tell from."),
    ] = 20,
    json: JsonOption = False,
    at: At,
) -> None:
    """Print connectors to paste: the highest level that all mail of the last days would have satisfied, and what that rests on.

    What is not suggested, and why, goes to standard error. Exit code 1 where nothing is.
    """
    with at.relay() as relay:
        found = relay.get("/connectors/suggest", {"days": days, "min_messages": least})
    made = [each for each in found["suggestions"] if each["how"] != "none"]
    if json:
        print_json(found)
    else:
        typer.echo(found["yaml"], nl=False)
        _print_others(found)
    if not made:
        raise typer.Exit(ExitCode.NO)


def _print_others(found: dict[str, Any]) -> None:
    others = [each for each in found["suggestions"] if each["how"] == "none"]
    for each in others:
        way = "to" if each["direction"] == "out" else "from"
        typer.echo(one_line(f"{way} {each['domain']}: {each['why']}"), err=True)
    if not found["suggestions"]:
        typer.echo(f"No mail was counted in the last {found['days']} days.", err=True)
