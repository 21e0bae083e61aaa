"""`relay serve`: run a relay in the foreground until a signal says stop. SIGTERM and SIGINT stop it, SIGHUP is `relay reload`."""

import asyncio
import signal
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from relay.cli.common import DEFAULT_CONFIG, ConfigOption, stop

if TYPE_CHECKING:
    from relay.app import Relay
    from relay.observe.lines import LineWriter
    from relay.observe.log import EventLog

LogFormatOption = Annotated[
    str, typer.Option("--log-format", metavar="json|text", help="Default: text on a terminal, else json.")
]
LogLevelOption = Annotated[str, typer.Option("--log-level", metavar="debug|info|warning|error")]


def command(
    config: ConfigOption = DEFAULT_CONFIG, log_format: LogFormatOption = "", log_level: LogLevelOption = "info"
) -> None:
    """Run the relay in the foreground. The log goes to standard output, one event a line."""
    import uvloop

    from relay.observe.log import LEVELS, LogFormat, event_log, format_for, library_logs

    if log_format not in ("", *LogFormat):
        raise typer.BadParameter(f"{log_format!r} is neither json nor text", param_hint="--log-format")
    if log_level not in LEVELS:
        raise typer.BadParameter(f"{log_level!r} is none of {', '.join(LEVELS)}", param_hint="--log-level")
    out = sys.stdout.fileno()
    style = LogFormat(log_format) if log_format else format_for(out)
    with (
        event_log(out, clock=lambda: datetime.now(UTC), style=style, level=log_level) as (log, writer),
        library_logs(log),
    ):
        problem = uvloop.run(_serve(config, log, writer))
    if problem:
        stop(problem)


async def _serve(file: Path, log: "EventLog", writer: "LineWriter") -> str:
    """Until a signal. Why it could not start, "" where it could."""
    from relay.app import Relay, StartError
    from relay.config.load import ConfigError

    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    try:
        async with Relay(file, observers=(log,), lines_dropped=lambda: writer.dropped) as relay:
            reloads: set[asyncio.Task[None]] = set()
            loop.add_signal_handler(signal.SIGHUP, lambda: _reload(relay, reloads))
            await ended.wait()
            loop.remove_signal_handler(signal.SIGHUP)
            if reloads:
                await asyncio.wait(reloads)
    except (ConfigError, StartError) as error:
        return str(error)
    return ""


def _reload(relay: "Relay", running: set[asyncio.Task[None]]) -> None:
    """What came of it is told by events: taken, or waiting and why."""
    task = asyncio.ensure_future(_ask(relay))
    running.add(task)
    task.add_done_callback(running.discard)


async def _ask(relay: "Relay") -> None:
    await relay.operator.reload(dry_run=False)
