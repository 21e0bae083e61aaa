"""`relay alerts`: what a running relay finds somebody should see to, and a test of how it would tell."""

from typing import Annotated

import typer

from relay.cli.at import At
from relay.cli.common import ExitCode, JsonOption, print_json, spread
from relay.report.text import one_line

app = typer.Typer(
    help="What somebody should see to, and how it is told: by mail, by webhook.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


@app.command("list")
@spread
def list_(
    *,
    json: JsonOption = False,
    at: At,
) -> None:
    """What is active now, the worst first. Exit code 0 whether there is any or none."""
    with at.relay() as relay:
        found = relay.get("/alerts")
    if json:
        print_json(found)
        return
    colours = {"critical": typer.colors.RED, "warning": typer.colors.YELLOW}
    for each in found["alerts"]:
        word = typer.style(each["severity"], fg=colours.get(each["severity"]), bold=True)
        typer.echo(f"{word}  {one_line(each['title'])}, since {each['since'][:16]}Z")
        if each["away"]:
            typer.echo(
                f"    It comes and goes: away since {each['away'][:16]}Z, over once that has lasted for some hours."
            )
        typer.echo(f"    {one_line(each['detail'])}")
        if each["remedy"]:
            typer.echo(f"    {one_line(each['remedy'])}")
    if not found["alerts"]:
        typer.echo("There is nothing to see to.")
    if not found["ways"]:
        typer.echo("Nobody is told: the configuration has neither `alerts.mail` nor `alerts.webhook`.", err=True)
    for way, number in found["waiting"].items():
        typer.echo(f"{number} still to be sent by {way}", err=True)


@app.command("test")
@spread
def try_(
    *,
    mail: Annotated[bool, typer.Option("--mail", help="By mail only.")] = False,
    webhook: Annotated[bool, typer.Option("--webhook", help="By webhook only.")] = False,
    json: JsonOption = False,
    at: At,
) -> None:
    """Send a test alert by every way that is configured, or by the one named. Exit code 1 where one of them failed.

    By mail it is in the queue then: relay trace says whether it arrives.
    """
    ways = [way for way, wanted in (("mail", mail), ("webhook", webhook)) if wanted]
    with at.relay() as relay:
        done = relay.post("/alerts/test", {"ways": ways})
    if json:
        print_json(done)
    else:
        for way, answer in done.items():
            how = f"queued as {answer['message']}" if answer["message"] else "taken by the receiver"
            typer.echo(f"{way}: {'not sent: ' + one_line(answer['error']) if answer['error'] else how}")
    if any(answer["error"] for answer in done.values()):
        raise typer.Exit(ExitCode.NO)
