"""`relay trace`: the life of messages, with the TLS evidence of every attempt."""

from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from relay.cli.client import Relay, SocketOption, show
from relay.cli.common import DEFAULT_CONFIG, ConfigOption, ExitCode, JsonOption, print_json, since_text, stop

_LIMIT = 20


def command(
    message_id: Annotated[str, typer.Argument(metavar="ID", help="The id of a message.", show_default=False)] = "",
    config: ConfigOption = DEFAULT_CONFIG,
    json: JsonOption = False,
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
    socket: SocketOption = None,
) -> None:
    """Show how messages were accepted, each attempt with its plan and TLS evidence, and what became of whom; newest first."""
    given = {"id": message_id.upper(), "to": to, "from": sender, "message_id": header}
    query: dict[str, Any] = {key: value for key, value in given.items() if value}
    if since:
        query["since"] = since_text(since, datetime.now(UTC))
    if not query:
        stop("say which messages: ID, --to, --from, --since or --message-id", ExitCode.USAGE)
    with Relay.of(config, socket) as relay:
        traces = relay.get("/trace", {**query, "limit": limit})["traces"]
    if json:
        print_json(traces)
    else:
        _print(traces)
    if len(traces) == limit and not message_id:
        typer.echo(f"The newest {limit} are shown; there may be more: --limit N.", err=True)
    if not traces:
        raise typer.Exit(ExitCode.NO)


def _print(traces: list[dict[str, Any]]) -> None:
    from relay.report.trace import render_trace

    for number, each in enumerate(traces):
        if number:
            typer.echo("\n" + "-" * 80 + "\n")
        show(render_trace(each))
    if not traces:
        typer.echo("No message matches.")
