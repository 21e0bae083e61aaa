"""`relay reports`: TLS reports (RFC 8460) of a running relay, those that it sends and those that it received."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from relay.cli.at import At
from relay.cli.common import ExitCode, JsonOption, given, print_json, since_text, spread
from relay.report.text import one_line

app = typer.Typer(
    help="TLS reports (RFC 8460): sessions counted for other domains, reports sent to them, reports received about us.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

DayOption = Annotated[str, typer.Option("--day", metavar="DAY", help="As in 2026-11-25, UTC.", show_default=False)]
DomainArgument = Annotated[str, typer.Argument(metavar="DOMAIN", help="Only this domain.", show_default=False)]
LimitOption = Annotated[int, typer.Option("--limit", metavar="N", min=1, max=1000, help="At most so many.")]


@app.command("list")
@spread
def list_(
    *,
    domain: DomainArgument = "",
    day: DayOption = "",
    limit: LimitOption = 100,
    json: JsonOption = False,
    at: At,
) -> None:
    """Sessions counted by day and domain, newest day first, and where the report about each stands."""
    with at.relay() as relay:
        found = relay.get("/reports", given(domain=domain, day=day) | {"limit": limit})
    if json:
        print_json(found)
        return
    for each in found["reports"]:
        typer.echo(f"{each['day']}  {each['domain']}: {_sessions(each)}")
        for line in _standing(each, sending=found["sending"]):
            typer.echo(f"    {line}")
    if not found["reports"]:
        typer.echo("Nothing was counted.")
    if found["uncounted"]:
        typer.echo(f"{found['uncounted']} sessions were not counted: there was no room to remember them.", err=True)


@app.command("show")
@spread
def show_(
    *,
    domain: Annotated[str, typer.Argument(metavar="DOMAIN")],
    day: DayOption = "",
    json: JsonOption = False,
    at: At,
) -> None:
    """Print the report that would go to a domain, as JSON (RFC 8460 section 4.4). Without --day: today's, so far."""
    with at.relay() as relay:
        print_json(relay.get("/reports/show", given(domain=domain, day=day)))


@app.command("send")
@spread
def send_(
    *,
    domain: DomainArgument = "",
    day: DayOption = "",
    json: JsonOption = False,
    at: At,
) -> None:
    """Send now what waits for its time; or, with DOMAIN or --day, one day's reports (yesterday's), even a second time.

    Today's can be sent for one domain, to try it out; it goes again, whole, when the day is over.
    """
    with at.relay() as relay:
        done = relay.post("/reports/send", given(domain=domain, day=day))
    if json:
        print_json(done)
    else:
        for each in done["reports"]:
            typer.echo(f"{each['day']}  {each['domain']}: {_posting(each)}")
        if not done["reports"]:
            typer.echo("There is nothing to send.")
    if not done["reports"]:
        raise typer.Exit(ExitCode.NO)


@app.command("received")
@spread
def received_(
    *,
    since: Annotated[
        str, typer.Option("--since", metavar="TIME", help="2h, 3d, or 2026-11-25T08:00:00Z.", show_default=False)
    ] = "",
    limit: LimitOption = 100,
    json: JsonOption = False,
    at: At,
) -> None:
    """What others report about their sessions to us, newest first."""
    query = given(since=since_text(since, datetime.now(UTC)) if since else "") | {"limit": limit}
    with at.relay() as relay:
        found = relay.get("/reports/received", query)["received"]
    if json:
        print_json(found)
        return
    for each in found:
        signed = f"signed by {one_line(each['signed_by'])}" if each["signed_by"] else "signature not asked for"
        typer.echo(f"{each['begins'][:10]}  {one_line(each['organization'])} ({signed}): {_sessions(each)}")
        for policy in each["policies"]:
            typer.echo(f"    {policy['policy']} {one_line(policy['domain'])}: {_sessions(policy)}")
            for one in policy["failing"]:
                where = " ".join(one_line(one[key]) for key in ("mx", "receiving_ip", "reason") if one[key])
                typer.echo(f"      {one['sessions']} x {one['result']}" + (f": {where}" if where else ""))
    if not found:
        typer.echo("No report was received.")


def _sessions(counts: Mapping[str, Any]) -> str:
    return f"{counts['successes']} good, {counts['failures']} failed"


def _standing(report: Mapping[str, Any], *, sending: bool) -> list[str]:
    if report["to"]:
        return [_posting(each) for each in report["to"]]
    return [f"due at {report['due'][:16]}Z" if sending else "sending is off"]


def _posting(posting: Mapping[str, Any]) -> str:
    to, text = one_line(posting["to"] or ""), one_line(posting["text"])
    again = f", next try {posting['next_try'][:16]}Z" if posting["next_try"] else ""
    return " ".join(filter(None, (posting["state"], to))) + again + (f" ({text})" if text else "")
