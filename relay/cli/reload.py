"""`relay reload`: put the configuration on disk in force, and say what becomes weaker."""

from typing import Annotated, Any

import typer

from relay.cli.at import At
from relay.cli.common import ExitCode, JsonOption, print_json, spread


@spread
def command(
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would happen.")] = False,
    json: JsonOption = False,
    at: At,
) -> None:
    """Have the running relay read its configuration again. What is taken holds at once, for queued mail too."""
    with at.relay() as relay:
        answer = relay.post("/reload", {"dry_run": dry_run}, expected=(200, 422))
    if json:
        print_json(answer)
    else:
        _print(answer)
    if answer["errors"]:
        raise typer.Exit(ExitCode.NO)


def _print(answer: dict[str, Any]) -> None:
    if answer["errors"]:
        for each in answer["errors"]:
            typer.echo(each, err=True)
        typer.echo("Nothing was taken: the relay goes on with the configuration that it has.", err=True)
        return
    if answer["weaker"]:
        typer.echo("Weaker than what is in force:" if answer["dry_run"] else "Weaker than before:")
        for each in answer["weaker"]:
            typer.echo(f"  - {each}")
    for each in answer["restart"]:
        typer.echo(f"Not yet: {each}")
    if not answer["changed"]:
        typer.echo("Nothing to take: the file says what is in force already.")
    else:
        typer.echo("It would be taken." if answer["dry_run"] else "Taken: it holds at once, for queued mail too.")
