"""Values that a shell can complete: names of connectors and certificates, taken from the text of the local configuration file.

Not parsed as YAML, which takes longer than somebody who presses Tab waits; a file with errors completes too. Whatever is wrong, nothing is
offered and nothing is said: what is printed here lands in the middle of somebody's command line.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import typer

from relay.cli.common import DEFAULT_CONFIG

_MOST = 2**20  # bytes of a file that are looked at
_TOP = re.compile(r"^(\w+):(.*)$")
_NAME = re.compile(r"""(?:^|[\s{,-])name:\s*["']?([A-Za-z0-9][A-Za-z0-9._-]*)""")
_PLAIN = re.compile(r"[A-Za-z0-9._-]+")  # a shell would carry out, or split, what is called otherwise
_NEXT = ".next"  # as relay.config.certificates names the one that waits


def connector(context: typer.Context, incomplete: str) -> list[str]:
    """Connectors, of both directions."""
    return _beginning(
        incomplete, (name for line in _section(_text(context), "connectors") for name in _NAME.findall(line))
    )


def connector_or_default(context: typer.Context, incomplete: str) -> list[str]:
    return _beginning(incomplete, ("default", *connector(context, "")))


def certificate(context: typer.Context, incomplete: str) -> list[str]:
    """Our certificates, as the files in the folder are called."""
    folder = next((line for line in _section(_text(context), "certificates")), "").split(" #")[0].strip(" \"'")
    if not folder:
        return []
    try:
        files = [each.stem for each in (_file(context).parent / folder).glob("*.pem")]
    except OSError:
        return []
    return _beginning(incomplete, (each for each in files if _PLAIN.fullmatch(each) and not each.endswith(_NEXT)))


def state(incomplete: str) -> list[str]:
    return _beginning(incomplete, ("waiting", "suspended", "delivering", "held"))


def scope(incomplete: str) -> list[str]:
    return _beginning(incomplete, ("read", "operate", "admin"))


def _beginning(incomplete: str, names: Iterator[str] | tuple[str, ...]) -> list[str]:
    return sorted({each for each in names if each.startswith(incomplete)})


def _file(context: typer.Context) -> Path:
    """The configuration that the command line names so far."""
    return Path(context.params.get("config") or os.environ.get("RELAY_CONFIG") or DEFAULT_CONFIG)


def _text(context: typer.Context) -> str:
    try:
        with _file(context).open("rb") as file:
            return file.read(_MOST).decode("utf-8", "replace")
    except OSError:
        return ""


def _section(text: str, key: str) -> Iterator[str]:
    """The lines of a top-level key, without whole comments: what stands behind its colon first."""
    inside = False
    for line in text.splitlines():
        top = _TOP.match(line)
        if top is not None:
            inside = top[1] == key
            if inside:
                yield top[2]
        elif inside and not line.lstrip().startswith("#"):
            yield line
