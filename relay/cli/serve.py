"""`relay serve`: run a relay in the foreground until a signal says stop. SIGTERM and SIGINT stop it, SIGHUP is `relay reload`.

With `workers: 1` this process is the relay; else it is the supervisor of as many as the configuration says.
"""

import asyncio
import contextlib
import os
import select
import signal
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from relay.cli.common import DEFAULT_CONFIG, ConfigOption, stop

if TYPE_CHECKING:
    from relay.app.place import InForce
    from relay.observe.lines import LineWriter
    from relay.observe.log import EventLog, LogStyle

LogFormatOption = Annotated[
    str, typer.Option("--log-format", metavar="json|text", help="Default: text on a terminal, else json.")
]
LogLevelOption = Annotated[str, typer.Option("--log-level", metavar="debug|info|warning|error")]


def command(
    config: ConfigOption = DEFAULT_CONFIG, log_format: LogFormatOption = "", log_level: LogLevelOption = "info"
) -> None:
    """Run the relay in the foreground. The log goes to standard output, one event a line."""
    from relay.app.place import InForce
    from relay.app.several import how_many
    from relay.config.load import ConfigError, load_with_places
    from relay.observe.log import LEVELS, LogFormat, LogStyle, format_for

    if log_format not in ("", *LogFormat):
        raise typer.BadParameter(f"{log_format!r} is neither json nor text", param_hint="--log-format")
    if log_level not in LEVELS:
        raise typer.BadParameter(f"{log_level!r} is none of {', '.join(LEVELS)}", param_hint="--log-level")
    out = sys.stdout.fileno()
    look = LogStyle(LogFormat(log_format) if log_format else format_for(out), log_level)
    try:
        in_force = InForce.of(load_with_places(config))
    except ConfigError as error:
        stop(str(error))
    serve = _alone if how_many(in_force.config) == 1 else _several
    problem = serve(config, in_force, out, look)
    if problem:
        stop(problem)


def _now() -> datetime:
    return datetime.now(UTC)


def _alone(file: Path, in_force: "InForce", out: int, look: "LogStyle") -> str:
    import uvloop

    from relay.observe.log import event_log, library_logs

    with event_log(out, look, clock=_now) as (log, writer), library_logs(log):
        return uvloop.run(_serve(file, in_force, log, writer))


async def _serve(file: Path, in_force: "InForce", log: "EventLog", writer: "LineWriter") -> str:
    """Until a signal. Why it could not start, "" where it could."""
    from relay.app import Relay, StartError
    from relay.app.collector import calm_collector
    from relay.app.pace import pace
    from relay.app.several import reload_on_signal
    from relay.config.load import ConfigError

    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    try:
        async with Relay(file, observers=(log,), lines_dropped=lambda: writer.dropped, in_force=in_force) as relay:
            loop.add_signal_handler(signal.SIGHUP, reload_on_signal(relay))
            calm_collector()
            with pace(lambda: relay.under_way):
                await _until(ended)
            loop.remove_signal_handler(signal.SIGHUP)
    except (ConfigError, StartError) as error:
        return str(error)
    return ""


async def _until(ended: asyncio.Event) -> None:
    """Until it is set; the service manager hears meanwhile that we live."""
    from relay.workers.service import of_this_process

    service = of_this_process()
    service.ready("mail is taken")
    while not ended.is_set():
        service.alive()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(ended.wait(), service.watchdog or None)
    service.stopping()


def _several(file: Path, in_force: "InForce", out: int, look: "LogStyle") -> str:
    import uvloop

    from relay.app.several import Whole, supervise, work
    from relay.observe.log import EventLog, event_log, library_logs
    from relay.workers.locks import Byte, ProcessLock
    from relay.workers.supervisor import Station

    def run(whole: Whole, station: Station) -> int:
        lock = ProcessLock(whole.table.fd, Byte.LOG)
        with (
            event_log(out, look, clock=_now, worker=station.slot, lock=lock) as (log, writer),
            library_logs(log),
        ):
            return uvloop.run(work(whole, station, log, lambda: writer.dropped))

    def write(line: bytes) -> None:
        """The supervisor waits for nobody: where nobody reads, its lines are lost."""
        if select.select([], [out], [], 0)[1]:
            os.write(out, line)

    log = EventLog(write, clock=_now, style=look.style, level=look.level, colors=os.isatty(out))
    return supervise(file, in_force, run, log, now=_now())
