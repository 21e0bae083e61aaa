"""`relay audit`: who changed what, and who signed in."""

import json as jsonlib
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from relay.cli.at import At
from relay.cli.common import ExitCode, JsonOption, given, print_json, since_text, spread
from relay.report.text import one_line

_PAGE = 500


@spread
def command(
    *,
    since: Annotated[
        str, typer.Option("--since", metavar="TIME", help="2h, 3d, or 2026-11-25T08:00:00Z.", show_default=False)
    ] = "",
    who: Annotated[str, typer.Option("--who", metavar="NAME", help="Only by this one.", show_default=False)] = "",
    action: Annotated[
        str, typer.Option("--action", metavar="ACTION", help="reload, hold, sign-in-failed, ...", show_default=False)
    ] = "",
    limit: Annotated[int, typer.Option("--limit", metavar="N", min=1, help="At most so many entries.")] = 100,
    json: JsonOption = False,
    at: At,
) -> None:
    """Show the audit log, newest first: every change that somebody made to the relay, and every sign-in."""
    query = given(who=who, action=action)
    if since:
        query["since"] = since_text(since, datetime.now(UTC))
    found: list[dict[str, Any]] = []
    below: int | None = 0
    with at.relay() as relay:
        while below is not None and len(found) < limit:
            wanted = query | {"limit": min(limit - len(found), _PAGE)} | ({"below": below} if below else {})
            page = relay.get("/audit", wanted)
            found += page["entries"]
            below = page["next"]
    if json:
        print_json(found)
    else:
        for each in found:
            _print(each)
    if not found:
        typer.echo("Nothing matches.", err=True)
        raise typer.Exit(ExitCode.NO)


def _print(entry: dict[str, Any]) -> None:
    place = f" from {entry['address']}" if entry["address"] else ""
    who = f"{one_line(entry['who'])} ({entry['via']}{place})"
    typer.echo(f"{entry['at'][:19]}Z  {entry['action']}: {one_line(entry['what'])} [{entry['count']}]  {who}")
    for word in ("before", "after"):
        told = entry[word]
        diff = told.get("diff") if isinstance(told, dict) else None
        if diff:
            for line in str(diff).splitlines():
                typer.echo(f"    {one_line(line)}")
        elif told:
            typer.echo(f"    {word}: {one_line(jsonlib.dumps(told, ensure_ascii=False))}")
