"""`relay check`: every error of connectors.yaml with its place, what it lacks to start on this machine, and what is unwise."""

from collections.abc import Iterator
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from relay.cli.common import DEFAULT_CONFIG, ConfigOption, ExitCode, JsonOption, print_json

if TYPE_CHECKING:
    from relay.config.load import Loaded, Problem

StrictOption = Annotated[bool, typer.Option("--strict", help="Count warnings as errors.")]


class Weight(StrEnum):
    ERROR = "error"
    """The relay refuses this file."""
    WARNING = "warning"
    """Legal, and unwise; or something that only the machine that serves needs to have."""


def command(config: ConfigOption = DEFAULT_CONFIG, json: JsonOption = False, strict: StrictOption = False) -> None:
    """Check connectors.yaml: every error with its file, line and key, what is allowed there, and what is legal but unwise.

    Exit code 0 where the relay would take the file, 1 where not. Warnings change that only with --strict.
    """
    from relay.config.load import ConfigError, load_with_places

    try:
        loaded = load_with_places(config)
        found = tuple(beyond_the_file(loaded, datetime.now(UTC)))
    except ConfigError as error:
        found = tuple((Weight.ERROR, problem) for problem in error.problems)
    errors = sum(weight is Weight.ERROR for weight, _ in found)
    warnings = len(found) - errors
    if json:
        print_json({"file": str(config), "valid": not errors, "problems": [_as_json(*each) for each in found]})
    else:
        _print(str(config), found)
    if errors or (strict and warnings):
        raise typer.Exit(ExitCode.NO)


def beyond_the_file(loaded: "Loaded", now: datetime) -> Iterator[tuple[Weight, "Problem"]]:
    """What stands in other files, and advice, for a file that is sound by itself."""
    from relay.config.advice import advice
    from relay.config.certificates import Folder, Severity
    from relay.config.references import missing_at_start, trust_places
    from relay.tls.inventory import folder_defects
    from relay.tls.keyring import checked_folder
    from relay.tls.trust import TrustStores

    config = loaded.config
    stores = TrustStores()
    for place, trust in trust_places(config):
        if why := stores.problem(trust, now):
            yield Weight.ERROR, loaded.at(place, why)
    folder = checked_folder(config.certificates, now) if config.certificates is not None else Folder()
    for each in (*folder.problems, *folder_defects(config, folder, now)):
        weight = Weight.ERROR if each.severity is Severity.ERROR else Weight.WARNING
        yield weight, loaded.at(("certificates",), str(each))
    for missing in missing_at_start(config, folder):
        # The keys may be elsewhere: a file is often checked where it is kept, not where it serves.
        yield Weight.WARNING, loaded.at(missing.place, f"will not start on this machine: {missing.text}")
    for each_advice in advice(config, folder, now):
        yield Weight.WARNING, loaded.at(each_advice.place, each_advice.text)


def _as_json(weight: Weight, problem: "Problem") -> dict[str, Any]:
    return {
        "severity": weight.value,
        "file": problem.file,
        "line": problem.line,
        "column": problem.column,
        "key": problem.key,
        "message": problem.message,
        "allowed": problem.allowed or None,
        "meant": problem.meant or None,
    }


def _print(file: str, found: tuple[tuple[Weight, "Problem"], ...]) -> None:
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
