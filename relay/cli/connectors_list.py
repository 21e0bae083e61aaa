"""`relay connectors list`: each connector, whom it is about, how much it asks, and what speaks against it."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import typer

from relay.cli.common import DEFAULT_CONFIG, ConfigOption, JsonOption, print_json, read_config

if TYPE_CHECKING:
    from relay.config.connectors import TlsException
    from relay.config.models import Config


def list_(config: ConfigOption = DEFAULT_CONFIG, json: JsonOption = False) -> None:
    """List the connectors of connectors.yaml: direction, whom they are about, how much they ask, exceptions in force.

    Says of which partners one direction only is held to TLS.

    Goes by local files, and asks no running relay.
    """
    from relay.config.directions import one_way, told

    loaded = read_config(config)
    found = listing(loaded, datetime.now(UTC))
    if json:
        print_json({"connectors": found})
        return
    for each in found:
        typer.echo(f"{typer.style(each['name'], bold=True)}  {each['direction']}  {', '.join(each['who'])}")
        typer.echo(f"    {each['asks']}" + (f", to {each['route']}" if each["route"] else ""))
        for exception in each["exceptions"]:
            allowed = f"{exception['allow']} for {exception['recipient_domain']} until {exception['until']}"
            typer.echo(typer.style(f"    exception: {allowed}", fg=typer.colors.YELLOW))
    if not found:
        typer.echo("There is no connector: all mail goes by the defaults.")
    for _position, text in told(one_way(loaded)):
        typer.echo(typer.style(text, fg=typer.colors.YELLOW), err=True)


def listing(config: "Config", now: datetime) -> list[dict[str, Any]]:
    """[{name, direction, who, level, asks, route, exceptions: [...], one_way: [{domain, missing}]}], in the file's order."""
    from relay.config.connectors import OutboundConnector
    from relay.config.directions import one_way
    from relay.policy.book import RuleBook
    from relay.policy.connector_steps import asks, exceptions_for, whom

    book, halves = RuleBook.of(config), one_way(config)
    acting = {each.name: each for each in config.outbound}
    found = []
    for written in config.connectors:
        connector = acting.get(written.name, written)
        outbound = isinstance(connector, OutboundConnector)
        running: tuple[TlsException, ...] = ()
        route = level = None
        if isinstance(connector, OutboundConnector):
            running, level = exceptions_for(book, connector, now), connector.tls.value
            route = "MX" if connector.route.by_mx else ", ".join(map(str, connector.route.hosts))
        found.append(
            {
                "name": connector.name,
                "direction": connector.direction,
                "who": list(whom(connector)),
                "level": level,
                "asks": asks(connector),
                "route": route,
                "exceptions": [
                    {"recipient_domain": each.recipient_domain, "allow": each.allow.value, "until": str(each.until)}
                    for each in running
                ],
                "one_way": [
                    {"domain": each.domain, "missing": each.other}
                    for each in halves
                    if each.connector == connector.name and (each.other == "inbound") is outbound
                ],
            }
        )
    return found
