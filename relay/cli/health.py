"""`relay health`: does the relay of this configuration take mail? For a container's health check and for scripts."""

from typing import TYPE_CHECKING

import typer

from relay.cli.common import DEFAULT_CONFIG, ConfigOption, ExitCode, JsonOption, print_json, read_config, stop

if TYPE_CHECKING:
    from relay.config.values import HostPort

_PATIENCE = 5.0


def command(config: ConfigOption = DEFAULT_CONFIG, json: JsonOption = False) -> None:
    """Ask the `observe` listener whether mail can be taken. Exit code 0: yes; 1: no, and why; 3: nobody answers."""
    import httpx

    observe = read_config(config).observe
    if observe is None:
        stop(f"{config} has no `observe`: write `observe: 127.0.0.1:9925` and start the relay again", ExitCode.USAGE)
    url = f"http://{reachable(observe)}/readyz"
    try:
        answer = httpx.get(url, timeout=_PATIENCE, trust_env=False)
        found = answer.json()
    except (httpx.TransportError, ValueError) as error:
        stop(f"no relay answers at {url}: {error}", ExitCode.UNREACHABLE)
    if json:
        print_json(found)
    elif answer.status_code == 200:
        typer.echo("mail is taken")
    if answer.status_code != 200:
        stop("no mail is taken: " + "; ".join(found.get("reasons", [])))


def reachable(bound: "HostPort") -> "HostPort":
    """Where to connect for what is bound: 0.0.0.0 and :: stand for every address of this machine, loopback among them."""
    from relay.config.values import HostPort

    everywhere = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - compared, not bound
    return HostPort(everywhere.get(bound.host, bound.host), bound.port)
