"""`relay status`: who a running relay is and how it is, at a glance."""

from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any

import typer

from relay.cli.at import At
from relay.cli.common import ExitCode, JsonOption, print_json, spread
from relay.report.text import one_line

_LABEL = 14


@spread
def command(*, json: JsonOption = False, at: At) -> None:
    """Show how a running relay is: does it take mail, what waits, which listeners are open, whose certificates end, what waits to be reloaded.

    Exit code 0: mail is taken; 1: it is not, and why; 3: nobody answers.
    """
    with at.relay() as relay:
        found = relay.get("/status")
    if json:
        print_json(found)
    else:
        for label, text in _lines(found):
            typer.echo(f"{label:{_LABEL}}{one_line(text)}")
    if not found["ready"]:
        raise typer.Exit(ExitCode.NO)


def _lines(found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "relay", f"{found['hostname']}, ironpost {found['version']}, since {found['started_at'][:19]}Z"
    yield "mail", "is taken" if found["ready"] else "is NOT taken"
    yield from (("trouble", each) for each in found["troubles"])
    queue = found["queue"]
    oldest = f", the oldest for {timedelta(seconds=int(queue['oldest']))}" if queue["messages"] else ""
    yield "queue", f"{queue['messages']} messages{oldest}"
    yield "recipients", ", ".join(f"{queue[state]} {state}" for state in ("waiting", "delivering", "held"))
    for name, address in found["listeners"].items():
        yield "listener", f"{name} at {address}, {found['connections'].get(name, 0)} connections"
    yield "workers", ", ".join(f"{each['worker']} (pid {each['pid']})" for each in found["workers"])
    for name, days in found["certificates"].items():
        yield "certificate", f"{name}, {'it has ended' if days < 0 else f'{int(days)} days left'}"
    for each in found["one_way"]:
        yield "one way", f"{each['domain']} is held to TLS by {each['connector']}, and {each['missing']} by nothing"
    yield from (("not in force", each) for each in found["configuration"]["waiting"])
