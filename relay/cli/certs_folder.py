"""The certificates folder as the `relay certs` commands see it without the running relay."""

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from relay.cli.common import stop

if TYPE_CHECKING:
    from relay.config.models import Config
    from relay.tls.keyring import Keyring


def folder_of(config: "Config") -> Path:
    if config.certificates is None:
        stop("the configuration names no `certificates` folder")
    return config.certificates


def read_keyring(config: "Config", now: datetime, *, complain: bool = True) -> "Keyring":
    """What the folder holds at `now`; its problems on standard error, unless the command shows them itself."""
    from relay.tls.keyring import Keyring

    keyring = Keyring(folder_of(config), hostname=config.hostname, clock=lambda: now)
    for problem in keyring.problems if complain else ():
        typer.echo(f"{problem.severity.value}: {problem}", err=True)
    return keyring


def no_such(name: str, keyring: "Keyring") -> str:
    there = ", ".join(each.name for each in (*keyring.certificates, *keyring.next)) or "none"
    return f"there is no certificate {name} in the folder; there: {there}"


def check_name(name: str) -> str:
    """A certificate's name becomes a file's. Ends the program where it cannot be one."""
    from relay.config.certificates import NEXT

    bare = name.removesuffix(".pem").removesuffix(NEXT)
    if not bare or bare.startswith(".") or "/" in bare or "\0" in bare or len(bare) > 200:
        raise typer.BadParameter(f"{name!r} is not the name of a certificate: write a file's name without .pem")
    return bare
