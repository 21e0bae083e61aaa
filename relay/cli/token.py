"""`relay token NAME --scope SCOPE`: a program's way into the admin API."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from relay.cli import values
from relay.cli.common import DEFAULT_CONFIG, ConfigOption, ExitCode, JsonOption, print_json, read_config, stop

if TYPE_CHECKING:
    from relay.admin.endpoint import Scope

ScopeOption = Annotated[
    str,
    typer.Option(
        "--scope", metavar="SCOPE", help="read, operate (queue, reports) or admin (all).", autocompletion=values.scope
    ),
]
AccountsOption = Annotated[
    Path | None,
    typer.Option("--file", metavar="FILE", help="The accounts file, instead of `admin.accounts` of the configuration."),
]


def command(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What the audit log calls whoever uses it.")],
    scope: ScopeOption,
    file: AccountsOption = None,
    config: ConfigOption = DEFAULT_CONFIG,
    json: JsonOption = False,
) -> None:
    """Make a token for the admin API and print it, this once: the accounts file keeps its hash. A name has one; a new one ends the old.

    A running relay sees the change by itself.

    Goes by local files, and asks no running relay.
    """
    from relay.admin.accounts import AccountsFileError, add_token

    path = file or accounts_file(config)
    try:
        token = add_token(path, name, checked_scope(scope))
    except AccountsFileError as error:
        stop(str(error))
    except ValueError as error:
        stop(str(error), ExitCode.USAGE)
    except OSError as error:
        stop(f"cannot write {path}: {error.strerror or error}")
    if json:
        print_json({"name": name, "scope": scope, "token": token})
    else:
        typer.echo(token)
        typer.echo(f"{path}: a token for {name}, scope {scope}. It is shown this once.", err=True)


def accounts_file(config: Path) -> Path:
    admin = read_config(config).admin
    if admin is None or admin.accounts is None:
        stop(f"{config} has no `admin: {{accounts: FILE}}`: write it beside `listen`, or give --file", ExitCode.USAGE)
    return admin.accounts


def checked_scope(text: str) -> "Scope":
    """Raises ValueError."""
    from relay.admin.endpoint import Scope

    if text not in set(Scope):
        raise ValueError(f"--scope {text!r} is none of {', '.join(Scope)}")
    return Scope(text)
