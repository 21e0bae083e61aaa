"""`relay connectors in-force`: connectors as a running relay has them, with what is known of them just now."""

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import typer

from relay.cli import values
from relay.cli.at import At
from relay.cli.common import ExitCode, JsonOption, print_json, spread, stop
from relay.report.text import one_line

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")

NameArgument = Annotated[
    str,
    typer.Argument(
        metavar="NAME",
        help="Only this one, with its settings. Default: all.",
        show_default=False,
        autocompletion=values.connector_or_default,
    ),
]


@spread
def in_force(*, name: NameArgument = "", json: JsonOption = False, at: At) -> None:
    """Show the connectors that a running relay has in force: level, what waits for them, and the newest use of each with its TLS.

    With NAME its settings too, defaults among them; secrets are masked.
    """
    with at.relay() as relay:
        found = relay.get(f"/connectors/{_checked(name)}") if name else relay.get("/connectors")
    if json:
        print_json(found)
        return
    for each in (found,) if name else found["connectors"]:
        for line in _lines(each):
            typer.echo(line)
    if name:
        for indent, text in _settings(found["settings"], "    "):
            typer.echo(indent + one_line(text))


def _checked(name: str) -> str:
    """It becomes part of a path."""
    if not _NAME.fullmatch(name):
        stop(f"{name!r} is not the name of a connector: `relay connectors in-force` shows them", ExitCode.USAGE)
    return name


def _lines(each: Mapping[str, Any]) -> Iterator[str]:
    about = one_line(", ".join(each["domains"]))
    yield "  ".join(filter(None, (typer.style(each["name"], bold=True), each["direction"], about)))
    if each["direction"] == "outbound":
        plain = f", plaintext {each['plaintext']}" if each["plaintext"] else ""
        yield f"    tls {each['level']}{plain}; {each['waiting']} recipients wait, {each['held']} held"
    last = each["last"]
    if last is None:
        yield "    not used lately"
        return
    tls = last["evidence"]
    how = f"{tls['version']} {tls['cipher']}" if tls else "in clear"
    yield "    " + one_line(f"last used {last['at'][:19]}Z{' with ' + last['hop'] if last['hop'] else ''}, {how}")


def _settings(value: Mapping[str, Any], indent: str) -> Iterator[tuple[str, str]]:
    """As connectors.yaml would have it."""
    for key, each in value.items():
        if isinstance(each, dict):
            yield indent, f"{key}:"
            yield from _settings(each, indent + "  ")
        elif isinstance(each, list):
            yield indent, f"{key}: [{', '.join(map(str, each))}]"
        elif each is not None:
            yield indent, f"{key}: {str(each).lower() if isinstance(each, bool) else each}"
