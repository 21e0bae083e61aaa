"""`relay security`: what the recorded evidence adds up to, for an auditor and for whoever is on call.

Not `relay report`: that would be one letter from `relay reports`, which are the TLS reports of RFC 8460 that relays send each other.
"""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from relay.cli.at import At
from relay.cli.common import ExitCode, JsonOption, given, print_json, spread, stop

app = typer.Typer(
    help="The security report: mail in transit by TLS version, cipher and partner; and partners in trouble now.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

DayOption = Annotated[
    str,
    typer.Option(
        "--day", metavar="DAY", help="One day, as in 2026-11-25, UTC. Default: yesterday.", show_default=False
    ),
]
SinceOption = Annotated[
    str, typer.Option("--since", metavar="TIME", help="2h, 30d, or 2026-11-25T08:00:00Z.", show_default=False)
]
UntilOption = Annotated[
    str, typer.Option("--until", metavar="TIME", help="As --since. Default: now.", show_default=False)
]
DomainOption = Annotated[str, typer.Option("--domain", metavar="DOMAIN", help="Only this partner.", show_default=False)]
OutputOption = Annotated[
    Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write it there.", show_default=False)
]


@app.command()
@spread
def report(
    *,
    csv: Annotated[bool, typer.Option("--csv", help="Print CSV, for a spreadsheet.")] = False,
    html: Annotated[bool, typer.Option("--html", help="Print one HTML page, fit to print and to keep.")] = False,
    day: DayOption = "",
    since: SinceOption = "",
    until: UntilOption = "",
    domain: DomainOption = "",
    output: OutputOption = None,
    json: JsonOption = False,
    at: At,
) -> None:
    """The security report of a day or a span: totals, each partner, what connectors asked and what was had, exceptions, mail in clear."""
    if json + csv + html > 1:
        stop("--json, --csv and --html: choose one", ExitCode.USAGE)
    if day and (since or until):
        stop("give --day, or --since and --until, not both", ExitCode.USAGE)
    query = given(day=day, since=_time(since, "--since"), until=_time(until, "--until"), domain=domain)
    with at.relay() as relay:
        found = relay.get("/security/report", query)
    _write(_shown(found, json=json, csv=csv, html=html), output)


@app.command()
@spread
def troubled(
    *,
    json: JsonOption = False,
    at: At,
) -> None:
    """Partners whose mail waits because of TLS, or since no host of theirs can be reached. Exit code 1 where there are some."""
    from relay.report.text import one_line

    with at.relay() as relay:
        found = relay.get("/security/troubled")
    if json:
        print_json(found)
    else:
        for each in found["troubled"]:
            what = each["failure"] or each["reason"]
            typer.echo(one_line(f"{each['domain']}: {what} since {each['since'][:16]}Z, {each['recipients']} waiting"))
            typer.echo(f"    {one_line(each['text'])}")
            typer.echo(f"    {one_line(each['remedy'])}")
        if not found["troubled"]:
            typer.echo("No partner is in trouble.")
        if found["more"]:
            typer.echo("There are more domains with waiting mail than were looked at.", err=True)
    if found["troubled"]:
        raise typer.Exit(ExitCode.NO)


def _time(text: str, option: str) -> str:
    from datetime import UTC, datetime

    from relay.cli.common import since_text

    return since_text(text, datetime.now(UTC), option) if text else ""


def _shown(found: dict[str, Any], *, json: bool, csv: bool, html: bool) -> str:
    if csv:
        from relay.report.security.table import csv_of

        return csv_of(found)
    if html:
        from relay.report.security.page import page_of

        return page_of(found)
    if json:
        import json as jsonlib

        return jsonlib.dumps(found, indent=2, ensure_ascii=False) + "\n"
    from relay.report.security.text import text_lines

    return "\n".join(text_lines(found)) + "\n"


def _write(text: str, output: Path | None) -> None:
    data = text.encode("utf-8", "backslashreplace")
    if output is None:
        sys.stdout.flush()
        typer.get_binary_stream("stdout").write(data)
        return
    try:
        output.write_bytes(data)
    except OSError as error:
        stop(f"{output}: {error.strerror}")
