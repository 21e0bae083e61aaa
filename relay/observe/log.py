"""The log: one line per event, JSON for machines or coloured text for a terminal, and the libraries' own log lines in the same form.

What is in a line is decided in `relay.observe.fields`; where lines go, and what happens when nobody reads them, in `relay.observe.lines`.

Threat: text from peers. In JSON everything but printable ASCII is escaped; in text, control characters are made visible, so that a
reply can neither forge a line nor talk to the terminal.
"""

import json
import logging
import os
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

import structlog

from relay.mail.codec import time_text
from relay.mail.events import Event
from relay.observe.fields import Fields, is_debug, record
from relay.observe.lines import LineWriter

LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}

_encode = json.JSONEncoder(separators=(",", ":"), check_circular=False, default=str).encode
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


class LogFormat(StrEnum):
    JSON = "json"
    TEXT = "text"


def format_for(fd: int) -> LogFormat:
    """Text where somebody is looking, JSON where a program reads."""
    return LogFormat.TEXT if os.isatty(fd) else LogFormat.JSON


class EventLog:
    """Call it with an event. Never raises and never waits: what cannot be written is counted in `failed`.

    `write` takes one line with its newline. `level` is one of LEVELS. `relay` names this relay in each line where one process
    runs several; "" leaves the field out. `worker` is this process's number where a relay has several.
    """

    def __init__(
        self,
        write: Callable[[bytes], None],
        *,
        clock: Callable[[], datetime],
        style: LogFormat = LogFormat.JSON,
        level: str = "info",
        colors: bool = False,
        relay: str = "",
        worker: int | None = None,
    ) -> None:
        self.failed = 0
        self._write = write
        self._clock = clock
        self.least = LEVELS[level]
        self._leaves_out_debug = self.least > LEVELS["debug"]
        self._who: Fields = {"relay": relay} if relay else {}
        if worker is not None:
            self._who["worker"] = worker
        self._render = _json if style is LogFormat.JSON else _text(colors)

    def __call__(self, event: Event) -> None:
        try:
            if self._leaves_out_debug and is_debug(event):
                return
            level, name, fields = record(event)
            if LEVELS[level] >= self.least:
                self.line(level, name, fields)
        except Exception:  # noqa: BLE001 - a fault in what is told about mail must never be a fault in mail
            self.failed += 1

    def line(self, level: str, name: str, fields: Fields) -> None:
        """One line as it is, whatever the level."""
        self._write(self.render(level, name, fields))

    def render(self, level: str, name: str, fields: Fields) -> bytes:
        return self._render({"time": _stamp(self._clock()), "level": level, "event": name, **self._who, **fields})

    def dropped_notice(self, count: int) -> bytes:
        """The line that tells of lines that nobody took (`LineWriter.notice`)."""
        return self.render("warning", "log-lines-dropped", {"count": count})


def _stamp(moment: datetime) -> str:
    """As `time_text`; the short cut for UTC saves a tenth of the whole line."""
    return moment.isoformat(timespec="milliseconds")[:-6] + "Z" if moment.tzinfo is UTC else time_text(moment)


def _json(values: dict[str, Any]) -> bytes:
    return _encode(values).encode("ascii") + b"\n"


def _text(colors: bool) -> Callable[[dict[str, Any]], bytes]:
    console = structlog.dev.ConsoleRenderer(
        colors=colors,
        sort_keys=False,
        timestamp_key="time",
        # The default prints local variables with a traceback, secrets among them.
        exception_formatter=structlog.dev.plain_traceback,
    )

    def render(values: dict[str, Any]) -> bytes:
        trace = values.pop("trace", None)
        text = str(console(None, values["level"], {key: _visible(each) for key, each in values.items()}))
        lines = [text] if trace is None else [text, _visible(str(trace).rstrip())]
        return ("\n".join(lines) + "\n").encode("utf-8", "backslashreplace")

    return render


def _visible(value: Any) -> Any:
    if isinstance(value, list):
        return ", ".join(_visible(each) for each in value)
    if isinstance(value, dict):
        return " ".join(f"{key}={_visible(each)}" for key, each in value.items())
    return _CONTROL.sub(lambda match: f"\\x{ord(match[0]):02x}", str(value))


class _Bridge(logging.Handler):
    def __init__(self, log: EventLog) -> None:
        super().__init__(log.least)
        self._log = log

    def emit(self, entry: logging.LogRecord) -> None:
        try:
            level = next((name for name in ("error", "warning", "info") if entry.levelno >= LEVELS[name]), "debug")
            fields = {"logger": entry.name, "text": entry.getMessage()}
            if entry.exc_info:
                fields["trace"] = logging.Formatter().formatException(entry.exc_info)
            self._log.line(level, "library-log", fields)
        except Exception:  # noqa: BLE001 - as in EventLog.__call__; logging's own way would print to stderr in free form
            self._log.failed += 1


@dataclass(frozen=True, slots=True)
class LogStyle:
    """How lines look, and from which level on they are written."""

    style: LogFormat = LogFormat.JSON
    level: str = "info"


@contextmanager
def event_log(
    fd: int,
    look: LogStyle,
    *,
    clock: Callable[[], datetime],
    worker: int | None = None,
    lock: AbstractContextManager[object] | None = None,
) -> Iterator[tuple[EventLog, LineWriter]]:
    """A log on a file descriptor while the block runs, written out at its end. The writer's `dropped` is for the metrics.

    `worker`, and the `lock` on the descriptor: where a relay has several processes.
    """
    log = EventLog(
        lambda line: writer.write(line),
        clock=clock,
        style=look.style,
        level=look.level,
        colors=os.isatty(fd),
        worker=worker,
    )
    writer = LineWriter(fd, notice=log.dropped_notice, lock=lock)
    try:
        yield log, writer
    finally:
        writer.close()


@contextmanager
def library_logs(log: EventLog, *, level: str = "warning") -> Iterator[None]:
    """While the block runs, what libraries log at `level` and above (asyncio, uvicorn, warnings) goes into `log`, and nowhere else."""
    root = logging.getLogger()
    bridge, handlers, threshold = _Bridge(log), root.handlers[:], root.level
    root.handlers[:] = [bridge]
    root.setLevel(LEVELS[level])
    logging.captureWarnings(True)
    try:
        yield
    finally:
        logging.captureWarnings(False)
        root.handlers[:] = handlers
        root.setLevel(threshold)
