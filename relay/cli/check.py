"""`relay check`: every error of connectors.yaml with its place, what it lacks to start on this machine, and what is unwise."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from relay.cli.common import DEFAULT_CONFIG, ConfigOption, ExitCode, JsonOption, print_json

if TYPE_CHECKING:
    from relay.tls.check import Found

StrictOption = Annotated[bool, typer.Option("--strict", help="Count warnings as errors.")]


def command(config: ConfigOption = DEFAULT_CONFIG, json: JsonOption = False, strict: StrictOption = False) -> None:
    """Check connectors.yaml: every error with its file, line and key, what is allowed there, and what is legal but unwise.

    Exit code 0 where the relay would take the file, 1 where not. Warnings change that only with --strict.

    Goes by local files, and asks no running relay.
    """
    from relay.tls.check import Weight, check, check_json

    found = check(config, datetime.now(UTC))
    errors = sum(weight is Weight.ERROR for weight, _ in found)
    warnings = len(found) - errors
    if json:
        print_json(check_json(config, found))
    else:
        _print(str(config), found)
    if errors or (strict and warnings):
        raise typer.Exit(ExitCode.NO)


def _print(file: str, found: "Found") -> None:
    from relay.tls.check import Weight

    colours = {Weight.ERROR: typer.colors.RED, Weight.WARNING: typer.colors.YELLOW}
    for weight, problem in found:
        where = f"{problem.file}:{problem.line}:{problem.column}" if problem.line else problem.file
        typer.echo(f"{typer.style(weight.value, fg=colours[weight], bold=True)} {where}")
        if problem.key:
            typer.echo(f"    {typer.style(problem.key, bold=True)}")
        typer.echo(f"    {problem.message}")
        if problem.meant:
            typer.echo(f"    did you mean `{problem.meant}`?")
        if problem.allowed:
            typer.echo(f"    allowed: {problem.allowed}")
    errors = sum(weight is Weight.ERROR for weight, _ in found)
    warnings = len(found) - errors
    verdict = "cannot be used" if errors else "is fine" if not warnings else "can be used"
    typer.echo(f"{file} {verdict}: {_count(errors, 'error')}, {_count(warnings, 'warning')}")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number or 'no'} {noun}s"
