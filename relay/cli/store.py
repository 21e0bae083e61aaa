"""`relay store`: the queue's file. Is it sound; copy it; hold what waits in a copy that was put back."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from relay.cli.common import DEFAULT_CONFIG, ConfigOption, ExitCode, JsonOption, print_json, read_config, stop

app = typer.Typer(
    help="Check the queue's file, and copy it. Both may be done while the relay runs.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

FileOption = Annotated[
    Path | None,
    typer.Option(
        "--file", metavar="FILE", help="This file, instead of the configuration's `queue`.", show_default=False
    ),
]


@app.command()
def check(config: ConfigOption = DEFAULT_CONFIG, file: FileOption = None, json: JsonOption = False) -> None:
    """Read the whole queue and say what is wrong with it. About a second for 100,000 messages, longer from a slow disk.

    Exit code 0 where it is sound, 1 where it is not. Repairs nothing.

    Goes by local files, and asks no running relay.
    """
    from relay.queue.copies import examine

    path, begun = _path(config, file), time.monotonic()
    with _troubles():
        report = examine(path)
    if json:
        print_json(
            {
                "file": str(path),
                "sound": report.is_sound,
                "live": report.live,
                "ended": report.ended,
                "seconds": round(time.monotonic() - begun, 1),
                "problems": [
                    {"what": each.what, "count": each.count, "examples": each.examples, "harmless": each.harmless}
                    for each in report.problems
                ],
            }
        )
    else:
        for each in report.problems:
            typer.echo(f"{'harmless: ' if each.harmless else ''}{each}")
        verdict = "is sound" if report.is_sound else "is damaged"
        typer.echo(f"{path} {verdict}: {report.live} messages wait, {report.ended} have ended and are kept for traces")
    if not report.is_sound:
        raise typer.Exit(ExitCode.NO)


@app.command()
def backup(
    target: Annotated[Path, typer.Argument(metavar="FILE", help="Where the copy goes; must not be there yet.")],
    config: ConfigOption = DEFAULT_CONFIG,
    file: FileOption = None,
    json: JsonOption = False,
) -> None:
    """Copy the queue as it is at this moment. The relay goes on meanwhile; its log grows until the copy is made.

    Goes by local files, and asks no running relay.
    """
    from relay.queue.copies import back_up

    with _troubles():
        size = back_up(_path(config, file), target)
    if json:
        print_json({"file": str(target), "size": size})
    else:
        typer.echo(f"{target}: {size} bytes")


@app.command()
def hold(config: ConfigOption = DEFAULT_CONFIG, file: FileOption = None, json: JsonOption = False) -> None:
    """Hold everything that waits, in the file itself, while no relay runs on it: before a copy that was put back is started.

    What has been delivered since the copy was made would be delivered again. `relay queue release` lets go what is still to go.

    Goes by local files, and asks no running relay.
    """
    from relay.queue.copies import hold_all

    with _troubles():
        held = hold_all(_path(config, file), datetime.now(UTC))
    if json:
        print_json({"held": held})
    else:
        typer.echo(f"{held} recipients held")


def _path(config: Path, file: Path | None) -> Path:
    return file if file is not None else read_config(config).queue_file


@contextmanager
def _troubles() -> Iterator[None]:
    from relay.queue.store import StoreError

    try:
        yield
    except StoreError as error:
        stop(str(error))
    except OSError as error:
        stop(f"{error.filename or 'the copy'}: {error.strerror}")
