"""`relay trace`: the life of messages, with the TLS evidence of every attempt; `relay trace purge` forgets some."""

import sys
from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from relay.cli.at import At
from relay.cli.client import show
from relay.cli.common import ExitCode, JsonOption, given, print_json, since_text, spread, stop

_LIMIT = 20


class _Group(TyperGroup):
    """`relay trace ...` shows, unless a word says otherwise."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args or (args[0] not in self.commands and args[0] != "--help"):
            args = ["show", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=_Group,
    help="Show the life of messages, with the TLS evidence of every attempt (`relay trace show --help`), or forget it.",
    no_args_is_help=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


@app.command("show")
@spread
def command(
    *,
    message_id: Annotated[str, typer.Argument(metavar="ID", help="The id of a message.", show_default=False)] = "",
    to: Annotated[str, typer.Option("--to", metavar="ADDRESS|DOMAIN", help="To whom.", show_default=False)] = "",
    sender: Annotated[
        str, typer.Option("--from", metavar="ADDRESS|DOMAIN", help="From whom.", show_default=False)
    ] = "",
    since: Annotated[
        str, typer.Option("--since", metavar="TIME", help="2h, 3d, or 2026-11-25T08:00:00Z.", show_default=False)
    ] = "",
    header: Annotated[
        str, typer.Option("--message-id", metavar="TEXT", help="The Message-ID header.", show_default=False)
    ] = "",
    limit: Annotated[int, typer.Option("--limit", metavar="N", min=1, max=200, help="At most so many.")] = _LIMIT,
    json: JsonOption = False,
    at: At,
) -> None:
    """Show how messages were accepted, each attempt with its plan and TLS evidence, and what became of whom; newest first."""
    query = given(**{"id": message_id.upper(), "to": to, "from": sender, "message_id": header})
    if since:
        query["since"] = since_text(since, datetime.now(UTC))
    if not query:
        stop("say which messages: ID, --to, --from, --since or --message-id", ExitCode.USAGE)
    with at.relay() as relay:
        traces = relay.get("/trace", {**query, "limit": limit})["traces"]
    if json:
        print_json(traces)
    else:
        _print(traces)
    if len(traces) == limit and not message_id:
        typer.echo(f"The newest {limit} are shown; there may be more: --limit N.", err=True)
    if not traces:
        raise typer.Exit(ExitCode.NO)


@app.command("purge")
@spread
def purge(
    *,
    message: Annotated[str, typer.Option("--message", metavar="ID", help="Of one message.", show_default=False)] = "",
    to: Annotated[str, typer.Option("--to", metavar="ADDRESS|DOMAIN", help="Of mail to.", show_default=False)] = "",
    sender: Annotated[
        str, typer.Option("--from", metavar="ADDRESS|DOMAIN", help="Of mail from.", show_default=False)
    ] = "",
    before: Annotated[
        str, typer.Option("--before", metavar="TIME", help="That ended before: 30d ago, or a time.", show_default=False)
    ] = "",
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    json: JsonOption = False,
    at: At,
) -> None:
    """Forget the traces of mail that has ended, for good; all that is given must hold. What is still in the queue is never touched."""
    body = given(**{"id": message.upper(), "to": to, "from": sender})
    if before:
        body["before"] = since_text(before, datetime.now(UTC), "--before")
    if not body:
        stop("say which traces: --message, --to, --from or --before", ExitCode.USAGE)
    if not yes:
        if not sys.stdin.isatty():
            stop("this cannot be undone; add --yes", ExitCode.USAGE)
        if not typer.confirm("Forget these traces for good?", err=True):
            raise typer.Exit(ExitCode.NO)
    with at.relay() as relay:
        done = relay.post("/trace/purge", body)
    if json:
        print_json(done)
    else:
        typer.echo(f"The traces of {done['forgotten']} message{'' if done['forgotten'] == 1 else 's'} are forgotten.")
    if not done["forgotten"]:
        raise typer.Exit(ExitCode.NO)


def _print(traces: list[dict[str, Any]]) -> None:
    from relay.report.trace import render_trace

    for number, each in enumerate(traces):
        if number:
            typer.echo("\n" + "-" * 80 + "\n")
        show(render_trace(each))
    if not traces:
        typer.echo("No message matches.")
