"""`relay queue suspend`, `resume`, `suspensions`, `reroute`, `flush`: the flow of mail."""

from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from relay.cli.client import Relay, SocketOption, TokenOption, TrustOption, UrlOption
from relay.cli.common import DEFAULT_CONFIG, ConfigOption, ExitCode, JsonOption, print_json, stop
from relay.cli.queue_common import (
    AllOption,
    ConnectorOption,
    IdArguments,
    ToOption,
    chunks,
    plural,
    say_suspended,
    selection_of,
)

PatternOption = Annotated[
    str, typer.Option("--to", metavar="DOMAIN", help="Recipient domains: exact, '*.x' or '*'.", show_default=False)
]
NameOption = Annotated[
    str, typer.Option("--connector", metavar="NAME", help="What goes by this connector.", show_default=False)
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


def suspend(
    config: ConfigOption = DEFAULT_CONFIG,
    json: JsonOption = False,
    to: PatternOption = "",
    connector: NameOption = "",
    sender: SenderOption = "",
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="For the record.", show_default=False)] = "",
    until: Annotated[
        str, typer.Option("--until", metavar="TIME", help="It ends by itself: 2h, 3d, or a time.", show_default=False)
    ] = "",
    socket: SocketOption = None,
    url: UrlOption = None,
    token_file: TokenOption = None,
    ca: TrustOption = None,
) -> None:
    """Stop attempts at mail that matches, now and after a restart. It keeps waiting and its time runs on: what must not expire, hold."""
    from relay.report.trace import suspension_words

    named = _named(to, connector, sender)
    if len(named) != 1:
        stop("say what to suspend: one of --to, --connector and --from", ExitCode.USAGE)
    body = {**named, "reason": reason, **({"until": _ends(until)} if until else {})}
    with Relay.of(config, socket, url, token_file, ca) as relay:
        made = relay.post("/suspensions", body)
    if json:
        print_json(made)
    else:
        typer.echo(f"Suspended: {suspension_words(made)}.")


def resume(
    number: Annotated[
        int | None, typer.Argument(metavar="ID", min=1, help="As `suspensions` shows it.", show_default=False)
    ] = None,
    config: ConfigOption = DEFAULT_CONFIG,
    json: JsonOption = False,
    to: PatternOption = "",
    connector: NameOption = "",
    sender: SenderOption = "",
    everything: Annotated[bool, typer.Option("--all", help="Every suspension.")] = False,
    socket: SocketOption = None,
    url: UrlOption = None,
    token_file: TokenOption = None,
    ca: TrustOption = None,
) -> None:
    """End suspensions; what waited for that is tried at once."""
    from relay.report.trace import suspension_words

    named = _named(to, connector, sender)
    if len(named) + (number is not None) + everything != 1:
        stop("say what to resume: ID, one of --to, --connector and --from, or --all", ExitCode.USAGE)
    body: dict[str, Any] = named or ({"all": True} if everything else {"id": number})
    with Relay.of(config, socket, url, token_file, ca) as relay:
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


def suspensions(
    config: ConfigOption = DEFAULT_CONFIG,
    json: JsonOption = False,
    socket: SocketOption = None,
    url: UrlOption = None,
    token_file: TokenOption = None,
    ca: TrustOption = None,
) -> None:
    """Show what is suspended, by whom, since when and until when."""
    from relay.report.trace import suspension_words

    with Relay.of(config, socket, url, token_file, ca) as relay:
        found = relay.get("/suspensions")["suspensions"]
    if json:
        print_json(found)
        return
    for each in found:
        typer.echo(f"{each['id']:>4}  {suspension_words(each)}")
    if not found:
        typer.echo("Nothing is suspended.")


def reroute(
    via: Annotated[
        str,
        typer.Option("--via", metavar="CONNECTOR|HOST[:PORT]", help="Where to; `default`: its own way again."),
    ],
    ids: IdArguments = None,
    config: ConfigOption = DEFAULT_CONFIG,
    json: JsonOption = False,
    everything: AllOption = False,
    to: ToOption = "",
    connector: ConnectorOption = "",
    weaker: Annotated[bool, typer.Option("--weaker", help="Even by a connector that asks for less TLS.")] = False,
    socket: SocketOption = None,
    url: UrlOption = None,
    token_file: TokenOption = None,
    ca: TrustOption = None,
) -> None:
    """Send what waits another way. What it must satisfy does not become less, and new mail goes its own way."""
    selection = selection_of(ids, everything, to, connector)
    changed, running, unknown, lost = 0, 0, list[str](), dict[str, None]()
    with Relay.of(config, socket, url, token_file, ca) as relay:
        for body in chunks(selection):
            done = relay.post("/queue/reroute", {**body, "via": via, "weaker": weaker})
            changed, running = changed + done["changed"], running + done["running"]
            unknown += done["unknown"]
            lost |= dict.fromkeys(done["weaker"])
    if json:
        print_json({"changed": changed, "running": running, "unknown": unknown, "weaker": list(lost)})
    else:
        where = "their own way" if via == "default" else f"via {via}"
        typer.echo(f"{plural(changed, 'recipient')} to go {where}.")
        _say_rest(running, unknown)
        for each in lost:
            typer.echo(f"Weaker: {each}", err=True)
    if unknown or not changed + running:
        raise typer.Exit(ExitCode.NO)


def flush(
    config: ConfigOption = DEFAULT_CONFIG,
    json: JsonOption = False,
    to: ToOption = "",
    connector: ConnectorOption = "",
    socket: SocketOption = None,
    url: UrlOption = None,
    token_file: TokenOption = None,
    ca: TrustOption = None,
) -> None:
    """Try all that waits now, also at destinations that were down. What is suspended or held stays so."""
    body: dict[str, Any] = {key: value for key, value in (("to", to), ("connector", connector)) if value} or {
        "all": True
    }
    with Relay.of(config, socket, url, token_file, ca) as relay:
        done = relay.post("/queue/flush", body)
        stopped = relay.get("/suspensions")["suspensions"]
    if json:
        print_json({**done, "suspensions": stopped})
        return
    typer.echo(f"{plural(done['changed'], 'recipient')} to be tried at once.")
    say_suspended(done["after"].get("suspended", 0))


def _say_rest(running: int, unknown: list[str]) -> None:
    if running:
        typer.echo(f"{running} under way just now: done as soon as the attempt ends, unless that decides it.")
    if unknown:
        typer.echo(f"Not in the queue: {', '.join(unknown)}.", err=True)


def _named(to: str, connector: str, sender: str) -> dict[str, Any]:
    return {key: value for key, value in (("to", to), ("connector", connector), ("from", sender)) if value}


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
