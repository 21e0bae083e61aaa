"""What every command shares: --config, --json, exit codes, how a configuration that does not load is reported.

Data goes to standard output, everything else to standard error, so that `--json` can be piped.
"""

import inspect
import json
from collections.abc import Callable, Iterator
from dataclasses import MISSING, fields, is_dataclass
from datetime import UTC, datetime
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, get_type_hints

import typer

if TYPE_CHECKING:
    from relay.config.models import Config

DEFAULT_CONFIG = Path("connectors.yaml")

ConfigOption = Annotated[
    Path, typer.Option("--config", envvar="RELAY_CONFIG", metavar="FILE", help="The configuration file.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


class ExitCode(IntEnum):
    """Design section 11."""

    FINE = 0
    NO = 1
    """Refused, invalid, not found."""
    USAGE = 2
    UNREACHABLE = 3
    """The relay can not be reached."""


def spread(command: Callable[..., None]) -> Callable[..., None]:
    """`command` as typer is to see it: in place of each parameter that is a dataclass stand that dataclass's fields, as options."""
    hints = get_type_hints(command, include_extras=True)
    groups: dict[str, Any] = {name: kind for name, kind in hints.items() if is_dataclass(kind)}
    shown: list[inspect.Parameter] = []
    for each in inspect.signature(command).parameters.values():
        if each.name in groups:
            shown.extend(_options(groups[each.name]))
        else:
            shown.append(each.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=hints[each.name]))

    def run(**given: Any) -> None:
        for name, kind in groups.items():
            given[name] = kind(**{field.name: given.pop(field.name) for field in fields(kind)})
        command(**given)

    run.__name__, run.__doc__ = command.__name__, command.__doc__
    run.__annotations__ = {each.name: each.annotation for each in shown}
    run.__signature__ = inspect.Signature(shown)  # type: ignore[attr-defined]  # what inspect.signature looks at first
    return run


def _options(kind: Any) -> Iterator[inspect.Parameter]:
    types = get_type_hints(kind, include_extras=True)
    for each in fields(kind):
        default = inspect.Parameter.empty if each.default is MISSING else each.default
        yield inspect.Parameter(each.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=types[each.name])


def print_json(value: Any) -> None:
    """To standard output, never wrapped or coloured."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))


def stop(message: str, code: ExitCode = ExitCode.NO) -> NoReturn:
    """Say why on standard error and end with `code`."""
    typer.echo(message, err=True)
    raise typer.Exit(code)


def given(**values: Any) -> dict[str, Any]:
    """Those that were given: a question to the relay names nothing else."""
    return {name: value for name, value in values.items() if value}


def since_text(text: str, now: datetime, option: str = "--since") -> str:
    """The value of an option: a time, or how long ago, as RFC 3339."""
    from relay.config.values import parse_duration

    try:
        return (now - parse_duration(text)).isoformat()
    except (ValueError, OverflowError):
        pass
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        stop(f"{option} {text!r}: write how long ago (2h, 3d) or a time (2026-11-25T08:00:00Z)", ExitCode.USAGE)
    return (moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment).isoformat()


def read_config(path: Path) -> "Config":
    """The configuration, or its problems on standard error and exit code 1."""
    from relay.config.load import ConfigError, load

    try:
        return load(path)
    except ConfigError as error:
        stop(str(error))
