"""`relay password USER`: give a submission user a password and the addresses to send as, or a person a way into the web console."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from relay.cli import values
from relay.cli.common import DEFAULT_CONFIG, ConfigOption, ExitCode, JsonOption, print_json, read_config, stop

if TYPE_CHECKING:
    from relay.inbound.passwords import Account

FileOption = Annotated[
    Path | None,
    typer.Option(
        "--file", metavar="FILE", help="The password file, instead of `submission.passwords` of the configuration."
    ),
]
SendersOption = Annotated[
    str | None,
    typer.Option(
        "--senders",
        metavar="LIST",
        help="As whom the user may send: bob@example.com, @example.com or *, comma separated. "
        "Default: as before; for a new user whose name is an address, that address.",
    ),
]


ScopeOption = Annotated[
    str | None,
    typer.Option(
        "--scope",
        metavar="SCOPE",
        help="For the web console: read, operate or admin. Goes to `admin.accounts`.",
        autocompletion=values.scope,
    ),
]


def command(
    user: Annotated[str, typer.Argument(metavar="USER", help="The user name.")],
    senders: SendersOption = None,
    scope: ScopeOption = None,
    file: FileOption = None,
    config: ConfigOption = DEFAULT_CONFIG,
    json: JsonOption = False,
) -> None:
    """Ask for a password, twice, or read it from standard input, and write the user's line into the password file.

    With --scope it is a person's account for the web console instead, in the accounts file of the admin API. A running relay sees the
    change by itself.

    Goes by local files, and asks no running relay.
    """
    if scope is not None:
        if senders is not None:
            stop("--senders is for submission, --scope for the web console: give one of them", ExitCode.USAGE)
        _for_console(user, scope, file, config, json=json)
        return
    from relay.clients.passwords import checked_user
    from relay.inbound.passwords import PasswordFileError, make_line, write_line

    path = file or _configured(config)
    try:
        name = checked_user(user)
        known = _known(path, name)
        words = senders or _default_senders(name, known)
        line = make_line(name, _password(), words)
        write_line(path, line)
    except PasswordFileError as error:
        stop(str(error))
    except ValueError as error:
        stop(str(error), ExitCode.USAGE)
    except OSError as error:
        stop(f"cannot write {path}: {error.strerror or error}")
    may_send_as = line.rpartition(":")[2]
    if json:
        print_json({"file": str(path), "user": name, "changed": bool(known), "senders": may_send_as.split(",")})
        return
    done = "changed" if known else "written"
    typer.echo(f"{path}: password of {name} {done}, who may send as {may_send_as}")


def _for_console(user: str, scope: str, file: Path | None, config: Path, *, json: bool) -> None:
    from relay.admin.accounts import AccountsFileError, set_password
    from relay.cli.token import accounts_file, checked_scope

    path = file or accounts_file(config)
    try:
        set_password(path, user, _password(), checked_scope(scope))
    except AccountsFileError as error:
        stop(str(error))
    except ValueError as error:
        stop(str(error), ExitCode.USAGE)
    except OSError as error:
        stop(f"cannot write {path}: {error.strerror or error}")
    if json:
        print_json({"file": str(path), "user": user, "scope": scope})
        return
    typer.echo(f"{path}: password of {user} written, scope {scope}")


def _configured(config: Path) -> Path:
    submission = read_config(config).submission
    if submission is None:
        stop(f"{config} has no `submission: {{passwords: FILE}}`: write it, or give --file", ExitCode.USAGE)
    return submission.passwords


def _known(path: Path, name: str) -> "tuple[Account, ...]":
    """The user's present account, if there is one."""
    from relay.inbound.passwords import Accounts

    if not path.exists():
        return ()
    account = Accounts.read(path).by_user.get(name)
    return () if account is None else (account,)


def _default_senders(name: str, known: "tuple[Account, ...]") -> str:
    for account in known:
        return str(account.senders)
    if "@" in name:
        return name
    raise ValueError(
        f"say as whom {name} may send: --senders {name}@example.com, --senders @example.com, or --senders '*'"
    )


def _password() -> str:
    """From a person twice and unseen, from a program the first line of standard input."""
    if sys.stdin.isatty():
        entered: str = typer.prompt("Password", hide_input=True, confirmation_prompt="Once more", err=True)
        return entered
    return sys.stdin.readline().rstrip("\r\n")
