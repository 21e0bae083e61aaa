"""`relay queue export` and `import`: messages as files, each NAME.eml with its envelope beside it as NAME.json."""

import json as jsonlib
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from relay.cli.at import At
from relay.cli.client import Relay
from relay.cli.common import ExitCode, JsonOption, given, print_json, spread, stop
from relay.cli.queue_common import AllOption, ConnectorOption, ToOption, id_of, plural
from relay.report.text import one_line

_PIECE = 64 * 1024
_MOST_ENVELOPE = 2**20
_PAGE = 200


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    app.command("export")(export)
    app.command("import")(import_)


@spread
def export(
    *,
    what: Annotated[
        list[str], typer.Argument(metavar="[ID]... DIR|-", help="Ids of messages, then a folder, or - for the output.")
    ],
    everything: AllOption = False,
    to: ToOption = "",
    connector: ConnectorOption = "",
    json: JsonOption = False,
    at: At,
) -> None:
    """Copy messages out of the queue: the bytes as they were received, and the envelope. They stay in the queue; hold what is to move."""
    *ids, target = what
    if bool(ids) == (everything or bool(to or connector)):
        stop("say which messages: ID..., or --all, --to DOMAIN, --connector NAME; then where to", ExitCode.USAGE)
    if target == "-" and len(ids) != 1:
        stop("one message goes to the output: name it, or name a folder for more", ExitCode.USAGE)
    wanted = [id_of(each) for each in ids]
    done, missing = list[str](), list[str]()
    with at.relay() as relay:
        if target == "-":
            if not relay.download(f"/queue/{wanted[0]}/export", _output):
                stop(f"there is no message {wanted[0]} in the queue")
            return
        folder = Path(target)
        _folder(folder)
        for name in wanted or _selected(relay, to, connector):
            (done if _export(relay, name, folder) else missing).append(name)
    if json:
        print_json({"exported": done, "missing": missing})
    else:
        typer.echo(f"{plural(len(done), 'message')} in {folder}.")
        if missing:
            typer.echo(f"Not in the queue (any more): {', '.join(missing[:20])}.", err=True)
    if missing or not done:
        raise typer.Exit(ExitCode.NO)


def _selected(relay: Relay, to: str, connector: str) -> Iterator[str]:
    query = {"limit": _PAGE, **given(to=to, connector=connector)}
    for page in relay.pages(query):
        yield from (id_of(each["id"]) for each in page)  # it becomes a file's name here, and another machine said it


def _folder(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        stop(f"{folder}: {error.strerror}")


def _export(relay: Relay, name: str, folder: Path) -> bool:
    """The envelope comes last: a message that has one beside it is whole."""
    envelope = relay.find(f"/queue/{name}/envelope")
    if envelope is None:
        return False
    body, about = folder / f"{name}.eml", folder / f"{name}.json"
    try:
        with _Fresh(body) as file:
            if not relay.download(f"/queue/{name}/export", file.write):
                return False
            if file.size != envelope["size"]:
                return False  # it was delivered meanwhile
            file.keep()
        with _Fresh(about) as file:
            file.write(jsonlib.dumps(envelope, indent=2, ensure_ascii=False).encode() + b"\n")
            file.keep()
    except OSError as error:
        stop(f"{error.filename or folder}: {error.strerror}")
    return True


class _Fresh:
    """A file that has its name only once it is whole and on disk, mode 0600."""

    def __init__(self, path: Path) -> None:
        self._path, self._part = path, path.with_name(f"{path.name}.part")
        self._descriptor = -1
        self._keep = False
        self.size = 0

    def __enter__(self) -> "_Fresh":
        self._part.unlink(missing_ok=True)
        # Not through a link that somebody laid there.
        self._descriptor = os.open(self._part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        return self

    def write(self, data: bytes) -> None:
        self.size += len(data)
        view = memoryview(data)
        while view:
            view = view[os.write(self._descriptor, view) :]

    def keep(self) -> None:
        os.fsync(self._descriptor)
        self._keep = True

    def __exit__(self, *_error: object) -> None:
        os.close(self._descriptor)
        if self._keep:
            self._part.rename(self._path)
        else:
            self._part.unlink(missing_ok=True)


def _output(data: bytes) -> None:
    sys.stdout.buffer.write(data)


@spread
def import_(
    *,
    files: Annotated[list[Path], typer.Argument(metavar="FILE.eml|DIR...", help="Messages, or folders of them.")],
    envelope: Annotated[
        Path | None,
        typer.Option("--envelope", metavar="FILE.json", help="Of the one message; else the .json beside each."),
    ] = None,
    sender: Annotated[
        str | None,
        typer.Option("--from", metavar="ADDRESS", help="Instead of an envelope; <> too.", show_default=False),
    ] = None,
    to: Annotated[
        list[str] | None, typer.Option("--to", metavar="ADDRESS", help="May be repeated.", show_default=False)
    ] = None,
    again: Annotated[bool, typer.Option("--again", help="Even what was imported before, or is here already.")] = False,
    crlf: Annotated[bool, typer.Option("--crlf", help="Make bare LF line ends CRLF first.")] = False,
    json: JsonOption = False,
    at: At,
) -> None:
    """Put messages into the queue; each is on disk when it is reported. Those that are refused are named, and the others are taken."""
    if (sender is None) != (not to) or (envelope is not None and sender is not None):
        stop("give --envelope FILE.json, or both --from and --to, or neither", ExitCode.USAGE)
    if envelope is not None and (len(files) != 1 or files[0].is_dir()):
        stop("--envelope is for one message", ExitCode.USAGE)
    typed = {"sender": sender, "recipients": [{"address": each} for each in to]} if to else None
    taken = refused = 0
    with at.relay() as relay:
        for file in _messages(files):
            outcome = _import(relay, file, typed or envelope or file.with_suffix(".json"), again=again, crlf=crlf)
            taken, refused = taken + ("id" in outcome), refused + ("id" not in outcome)
            if json:
                typer.echo(jsonlib.dumps({"file": str(file), **outcome}, ensure_ascii=False))
            elif "id" in outcome:
                typer.echo(f"{file}: queued as {outcome['id']}")
            else:
                typer.echo(f"{file}: {one_line(str(outcome['error']))}", err=True)
    if not json:
        typer.echo(f"{plural(taken, 'message')} taken, {refused} refused.", err=True)
    if refused or not taken:
        raise typer.Exit(ExitCode.NO)


def _messages(files: Iterable[Path]) -> Iterator[Path]:
    """Folders one entry at a time, however many they have."""
    for file in files:
        if file.is_dir():
            with os.scandir(file) as entries:
                yield from (Path(each.path) for each in entries if each.name.endswith(".eml") and each.is_file())
        else:
            yield file


def _import(relay: Relay, file: Path, envelope: Path | dict[str, Any], *, again: bool, crlf: bool) -> dict[str, Any]:
    """`{"id": ...}` or `{"error": ...}`."""
    try:
        with file.open("rb") as message:
            about = envelope if isinstance(envelope, dict) else _read(envelope)
            content = _with_line_ends(message) if crlf else _pieces(message)
            return relay.upload("/queue/import", {"again": again}, _body(about, content))
    except OSError as error:
        return {"error": f"{error.filename}: {error.strerror}"}
    except ValueError as error:
        return {"error": str(error)}


def _read(path: Path) -> Any:
    try:
        opened = path.open("rb")
    except FileNotFoundError:
        raise ValueError(f"there is no envelope {path}: give --envelope FILE.json, or --from and --to") from None
    with opened as file:
        text = file.read(_MOST_ENVELOPE + 1)
    if len(text) > _MOST_ENVELOPE:
        raise ValueError(f"{path}: larger than any envelope")
    try:
        return jsonlib.loads(text)
    except (ValueError, RecursionError):
        raise ValueError(f"{path}: not JSON") from None


def _body(envelope: Any, content: Iterable[bytes]) -> Iterator[bytes]:
    yield jsonlib.dumps(envelope).encode() + b"\n"
    yield from content


def _pieces(file: Any) -> Iterator[bytes]:
    while piece := file.read(_PIECE):
        yield piece


def _with_line_ends(file: Any) -> Iterator[bytes]:
    before = b""
    for piece in _pieces(file):
        # A CR at the end of the last piece may belong to a LF at the front of this one.
        whole = before + piece
        before = whole[-1:] if whole.endswith(b"\r") else b""
        yield whole[: len(whole) - len(before)].replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
    yield before
