"""`relay queue suspend`, `resume`, `suspensions`, `reroute`, `flush`: the flow of mail."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from relay.cli import values
from relay.cli.at import At
from relay.cli.common import ExitCode, JsonOption, given, print_json, spread, stop
from relay.cli.queue_common import Chosen, ConnectorOption, ToOption, ordered, plural, say_suspended

PatternOption = Annotated[
    str, typer.Option("--to", metavar="DOMAIN", help="Recipient domains: exact, '*.x' or '*'.", show_default=False)
]
NameOption = Annotated[
    str,
    typer.Option(
        "--connector",
        metavar="NAME",
        help="What goes by this connector.",
        show_default=False,
        autocompletion=values.connector,
    ),
]
SenderOption = Annotated[
    str, typer.Option("--from", metavar="ADDRESS|DOMAIN", help="What these senders sent; <> too.", show_default=False)
]


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    app.command("suspend")(suspend)
    app.command("resume")(resume)
    app.command("suspensions")(suspensions)
    app.command("reroute")(reroute)
    app.command("flush")(flush)


@spread
def suspend(
    *,
    to: PatternOption = "",
    connector: NameOption = "",
    sender: SenderOption = "",
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="For the record.", show_default=False)] = "",
    until: Annotated[
        str, typer.Option("--until", metavar="TIME", help="It ends by itself: 2h, 3d, or a time.", show_default=False)
    ] = "",
    json: JsonOption = False,
    at: At,
) -> None:
    """Stop attempts at mail that matches, now and after a restart. It keeps waiting and its time runs on: what must not expire, hold."""
    from relay.report.trace import suspension_words

    named = given(**{"to": to, "connector": connector, "from": sender})
    if len(named) != 1:
        stop("say what to suspend: one of --to, --connector and --from", ExitCode.USAGE)
    body = {**named, "reason": reason, **({"until": _ends(until)} if until else {})}
    with at.relay() as relay:
        made = relay.post("/suspensions", body)
    if json:
        print_json(made)
    else:
        typer.echo(f"Suspended: {suspension_words(made)}.")


@spread
def resume(
    *,
    number: Annotated[
        int | None, typer.Argument(metavar="ID", min=1, help="As `suspensions` shows it.", show_default=False)
    ] = None,
    to: PatternOption = "",
    connector: NameOption = "",
    sender: SenderOption = "",
    everything: Annotated[bool, typer.Option("--all", help="Every suspension.")] = False,
    json: JsonOption = False,
    at: At,
) -> None:
    """End suspensions; what waited for that is tried at once."""
    from relay.report.trace import suspension_words

    named = given(**{"to": to, "connector": connector, "from": sender})
    if len(named) + (number is not None) + everything != 1:
        stop("say what to resume: ID, one of --to, --connector and --from, or --all", ExitCode.USAGE)
    body: dict[str, Any] = named or ({"all": True} if everything else {"id": number})
    with at.relay() as relay:
        ended = relay.post("/suspensions/resume", body)["ended"]
    if json:
        print_json(ended)
    else:
        for each in ended:
            typer.echo(f"Resumed: {suspension_words(each, is_over=True)}.")
        if not ended:
            typer.echo("No such suspension: `relay queue suspensions` shows them.", err=True)
    if not ended:
        raise typer.Exit(ExitCode.NO)


@spread
def suspensions(
    *,
    json: JsonOption = False,
    at: At,
) -> None:
    """Show what is suspended, by whom, since when and until when."""
    from relay.report.trace import suspension_words

    with at.relay() as relay:
        found = relay.get("/suspensions")["suspensions"]
    if json:
        print_json(found)
        return
    for each in found:
        typer.echo(f"{each['id']:>4}  {suspension_words(each)}")
    if not found:
        typer.echo("Nothing is suspended.")


@spread
def reroute(
    *,
    chosen: Chosen,
    via: Annotated[
        str,
        typer.Option(
            "--via",
            metavar="CONNECTOR|HOST[:PORT]",
            help="Where to; `default`: its own way again.",
            autocompletion=values.connector_or_default,
        ),
    ],
    weaker: Annotated[bool, typer.Option("--weaker", help="Even by a connector that asks for less TLS.")] = False,
    json: JsonOption = False,
    at: At,
) -> None:
    """Send what waits another way. What it must satisfy does not become less, and new mail goes its own way."""
    lost: dict[str, None] = {}

    def hear(answer: Mapping[str, Any]) -> None:
        lost.update(dict.fromkeys(answer["weaker"]))

    done = ordered(at, "/queue/reroute", chosen.body(), {"via": via, "weaker": weaker}, hear)
    if json:
        print_json({**done.json(), "weaker": list(lost)})
    else:
        where = "their own way" if via == "default" else f"via {via}"
        typer.echo(f"{plural(done.changed, 'recipient')} to go {where}.")
        done.say_rest()
        for each in lost:
            typer.echo(f"Weaker: {each}", err=True)
    done.end()


@spread
def flush(
    *,
    to: ToOption = "",
    connector: ConnectorOption = "",
    json: JsonOption = False,
    at: At,
) -> None:
    """Try all that waits now, also at destinations that were down. What is suspended or held stays so."""
    body = given(to=to, connector=connector) or {"all": True}
    with at.relay() as relay:
        done = relay.post("/queue/flush", body)
        stopped = relay.get("/suspensions")["suspensions"]
    if json:
        print_json({**done, "suspensions": stopped})
        return
    typer.echo(f"{plural(done['changed'], 'recipient')} to be tried at once.")
    say_suspended(done["after"].get("suspended", 0))


def _ends(text: str) -> str:
    """`--until`: a time, or in how long, as RFC 3339."""
    from relay.config.values import parse_duration

    try:
        return (datetime.now(UTC) + parse_duration(text)).isoformat()
    except (ValueError, OverflowError):
        pass
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        stop(f"--until {text!r}: write in how long (2h, 3d) or a time (2026-11-25T08:00:00Z)", ExitCode.USAGE)
    return (moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment).isoformat()
