"""`relay queue`: what waits in a running relay, and what to do with it."""

import json as jsonlib
import sys
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Annotated, Any

import typer

from relay.cli import values
from relay.cli.at import At
from relay.cli.client import show
from relay.cli.common import ExitCode, JsonOption, given, print_json, spread, stop
from relay.cli.queue_common import Chosen, ConnectorOption, ToOption, id_of, ordered, plural
from relay.cli.queue_control import register as register_control
from relay.cli.queue_transfer import register as register_transfer
from relay.report.text import one_line

app = typer.Typer(
    help="Look into the queue of a running relay, and act on what is in it.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

_PAGE = 500
_SAID = 74  # characters of what a hop said
_DONE = {
    "retry": "to be tried at once",
    "hold": "held",
    "release": "released",
    "bounce": "returned to the sender",
    "delete": "deleted without a word to the sender",
}
_FINAL = ("bounce", "delete")

StateOption = Annotated[
    list[str] | None,
    typer.Option(
        "--state",
        metavar="STATE",
        help="waiting, suspended, delivering, held; may be repeated.",
        show_default=False,
        autocompletion=values.state,
    ),
]
LimitOption = Annotated[int, typer.Option("--limit", metavar="N", min=0, help="At most so many messages; 0: all.")]
YesOption = Annotated[bool, typer.Option("--yes", help="Do not ask, even for what cannot be undone.")]


@app.command("list")
@spread
def list_(
    *,
    to: ToOption = "",
    connector: ConnectorOption = "",
    state: StateOption = None,
    limit: LimitOption = 0,
    json: JsonOption = False,
    at: At,
) -> None:
    """List what is queued, oldest first."""
    query: dict[str, Any] = {"limit": min(limit, _PAGE) if limit else _PAGE}
    query |= given(to=to, connector=connector, state=state)
    with at.relay() as relay:
        messages = _up_to(relay.pages(query), limit)
        if json:
            _print_array(messages)
        else:
            _print_list(messages, narrowed=bool(to or connector or state))


def _up_to(pages: Iterable[list[dict[str, Any]]], limit: int) -> Iterable[dict[str, Any]]:
    count = 0
    for page in pages:
        for each in page:
            yield each
            count += 1
            if count == limit:
                return


def _print_array(messages: Iterable[Mapping[str, Any]]) -> None:
    """A JSON array, one message a line, written as it comes."""
    first = True
    for each in messages:
        typer.echo(("[" if first else ",") + jsonlib.dumps(each, ensure_ascii=False))
        first = False
    typer.echo("[]" if first else "]")


def _print_list(messages: Iterable[Mapping[str, Any]], *, narrowed: bool) -> None:
    count = 0
    for each in messages:
        if not count:
            typer.echo(f"{'ID':20}  {'ACCEPTED':20}  {'SIZE':>9}  SENDER")
        count += 1
        sender = one_line(each["sender"]) or "<>"
        typer.echo(f"{each['id']:20}  {_moment(each['accepted_at']):20}  {_size(each['size']):>9}  {sender}")
        for recipient in each["recipients"]:
            for line in _recipient_lines(recipient):
                typer.echo(f"    {line}")
    if not count:
        typer.echo("Nothing in the queue matches." if narrowed else "The queue is empty.")


def _recipient_lines(recipient: Mapping[str, Any]) -> Iterable[str]:
    state, attempts, following = recipient["state"], recipient["attempts"], recipient["next_attempt"]
    when = f", next {_moment(following)}" if following else ""
    tried = f"{attempts} attempt{'' if attempts == 1 else 's'}"
    yield f"{state:10}  {one_line(recipient['address'])}  ({tried}{when})"
    via, stopped = recipient.get("via"), recipient.get("suspended")
    if via:
        yield f"  sent via {via['host'] or 'connector ' + via['connector']}{' although weaker' if via['weaker'] else ''}"
    if stopped:
        what = " ".join(f"{key} {stopped[key]}" for key in ("to", "connector", "from") if stopped.get(key))
        until = f", until {_moment(stopped['until'])}" if stopped["until"] else ""
        why = f": {one_line(stopped['reason'])}" if stopped["reason"] else ""
        yield f"  suspended ({one_line(what)}) by {one_line(stopped['who'])}{until}{why}"
    last = recipient["last"]
    if last:
        said = one_line(" ".join(str(last[key] or "") for key in ("code", "status", "text")))
        yield f"  {said if len(said) <= _SAID else said[: _SAID - 3] + '...'}"


@app.command("show")
@spread
def show_(
    *,
    message_id: Annotated[str, typer.Argument(metavar="ID")],
    json: JsonOption = False,
    at: At,
) -> None:
    """Show one message: where each recipient stands, what the last hop said, and what to do where TLS withholds it."""
    from relay.report.trace import render_message, with_remedies

    with at.relay() as relay:
        found = relay.get(f"/queue/{id_of(message_id)}")
    if json:
        print_json(with_remedies(found))
    else:
        show(render_message(found))


def _register(action: str, summary: str) -> None:
    """Four of the orders take the same arguments: one function, registered under each name."""

    @app.command(action, help=summary)
    @spread
    def command(*, chosen: Chosen, yes: YesOption = False, json: JsonOption = False, at: At) -> None:
        _act(action, at, _confirmed(action, chosen, yes=yes), json=json)


_register("retry", "Try at once, whatever the back-off says.")
_register("hold", "Keep back: no attempts and no expiry until released.")
_register("release", "Let go what was held.")
_register("delete", "Throw away without telling anybody.")


@app.command("bounce")
@spread
def bounce(
    *,
    chosen: Chosen,
    reason: Annotated[
        str, typer.Option("--reason", metavar="TEXT", help="One line that the senders read.", show_default=False)
    ] = "",
    yes: YesOption = False,
    json: JsonOption = False,
    at: At,
) -> None:
    """Give up now and tell the senders."""
    _act("bounce", at, _confirmed("bounce", chosen, yes=yes), json=json, more=given(reason=reason))


register_control(app)
register_transfer(app)


def _confirmed(action: str, chosen: Chosen, *, yes: bool) -> Mapping[str, Any]:
    """The selection. What cannot be undone and names no ids, or is told to nobody, is asked for once more; a script says --yes."""
    selection = chosen.body()
    named = selection.get("ids")
    if yes or action not in _FINAL or (named is not None and action != "delete"):
        return selection
    if named is not None:
        what = named[0] if len(named) == 1 else f"{len(named)} messages"
    else:
        what = "everything" + "".join(f", {key} {selection[key]}" for key in ("to", "connector") if key in selection)
    if not _is_terminal():
        stop(f"{action} {what}: this cannot be undone; add --yes", ExitCode.USAGE)
    if not typer.confirm(f"{action.capitalize()} {what}: {_DONE[action]}. Go on?", err=True):
        raise typer.Exit(ExitCode.NO)
    return selection


def _is_terminal() -> bool:
    return sys.stdin.isatty()


def _act(
    action: str, at: At, selection: Mapping[str, Any], *, json: bool, more: Mapping[str, Any] = MappingProxyType({})
) -> None:
    done = ordered(at, f"/queue/{action}", selection, more)
    if json:
        print_json(done.json())
    else:
        typer.echo(f"{plural(done.changed, 'recipient')} {_DONE[action]}.")
        done.say_rest()
    done.end()


def _moment(text: str) -> str:
    """RFC 3339 to the second."""
    return f"{text[:19]}Z"


def _size(count: int) -> str:
    size = float(count)
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{count} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"
