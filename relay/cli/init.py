"""`relay init`: makes what a first start needs and is not there: connectors.yaml, and a self-signed certificate. Overwrites nothing."""

from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from relay.cli.common import DEFAULT_CONFIG, ConfigOption, JsonOption, print_json, stop

if TYPE_CHECKING:
    from relay.config.models import Config

_SAMPLE = files("relay.config") / "sample"
_PARTNERS = "certs/partners"


def command(config: ConfigOption = DEFAULT_CONFIG, json: JsonOption = False) -> None:
    """Create connectors.yaml and a self-signed certificate where they are missing. What is there stays as it is."""
    from relay.config.load import ConfigError

    try:
        made = create_missing(config, datetime.now(UTC))
    except ConfigError as error:
        stop(str(error))
    except OSError as error:
        stop(f"{error.filename or config}: {error.strerror or error}")
    if json:
        print_json({"created": [str(each) for each in made]})
        return
    for path in made:
        typer.echo(f"created {path}")
    if not made:
        typer.echo("nothing is missing")


def create_missing(path: Path, now: datetime) -> tuple[Path, ...]:
    """Writes the sample to `path` where nothing is, then a certificate for its hostname where its folder holds none.

    Returns what was made. Raises ConfigError where the file that is there cannot be used, OSError where something cannot be written.
    """
    from relay.config.load import load

    made = [] if path.exists() else _write_sample(path)
    made.extend(_make_folder(path))
    made.extend(_make_certificate(load(path), now))
    return tuple(made)


def sample() -> str:
    """The commented connectors.yaml to start from."""
    return (_SAMPLE / "connectors.yaml").read_text(encoding="utf-8")


def _write_sample(path: Path) -> list[Path]:
    """The sample and the example CAs that it names."""
    path.parent.mkdir(parents=True, exist_ok=True)
    made = []
    target = path.parent / _PARTNERS
    target.mkdir(parents=True, exist_ok=True)
    for ca in sorted((_SAMPLE / _PARTNERS).iterdir(), key=lambda each: each.name):
        copy = target / ca.name
        if not copy.exists():
            _write(copy, ca.read_text(encoding="ascii"))
            made.append(copy)
    _write(path, sample())  # last, so that what it names is there
    return [path, *made]


def _write(path: Path, text: str) -> None:
    with path.open("x", encoding="utf-8") as file:
        file.write(text)


def _make_folder(path: Path) -> list[Path]:
    """The folder that `certificates` names: without it the file would not load."""
    from relay.config.document import UnreadableError, read

    try:
        root, _ = read(path.read_text(encoding="utf-8-sig"), {})
    except (UnreadableError, UnicodeDecodeError):
        return []  # loading it says what is wrong
    named = root.child("certificates")
    if named is None or not isinstance(named.content, str) or named.reference or not named.content:
        return []
    folder = path.parent / named.content
    if folder.exists():
        return []
    folder.mkdir(parents=True, mode=0o700)
    return [folder]


def _make_certificate(config: "Config", now: datetime) -> list[Path]:
    from relay.config.certificates import read_folder
    from relay.tls.selfsigned import create_self_signed

    if config.certificates is None or read_folder(config.certificates, now).certificates:
        return []
    paths = create_self_signed(config.certificates, config.hostname, now)
    return [paths.certificate, paths.key]
