"""`relay certs sheet`: what the other side must be told before a certificate is changed. Reads the folder, not the running relay."""

from datetime import UTC, datetime
from typing import Annotated

import typer

from relay.cli import values
from relay.cli.certs_folder import check_name, no_such, read_keyring
from relay.cli.common import DEFAULT_CONFIG, ConfigOption, ExitCode, JsonOption, print_json, read_config, stop

NameArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="NAME", help="The certificate's file without .pem. Default: all.", autocompletion=values.certificate
    ),
]
HtmlOption = Annotated[bool, typer.Option("--html", help="Print one page of HTML, to be printed or sent as a file.")]
OnOption = Annotated[
    datetime | None,
    typer.Option("--on", metavar="DAY", formats=["%Y-%m-%d"], help="The day of the change.", show_default=False),
]


def command(
    name: NameArgument = None,
    html: HtmlOption = False,
    on: OnOption = None,
    config: ConfigOption = DEFAULT_CONFIG,
    json: JsonOption = False,
) -> None:
    """Print what partners must be told of a certificate, and of the next one where it waits: names, issuer, key pin, TLSA records, dates,
    what changes between the two, and what each kind of partner has to do. Ready to be pasted into a mail.

    Goes by local files, and asks no running relay.
    """
    from relay.report.sheet import sheet_html, sheet_json, sheet_text
    from relay.tls.sheets import sheets

    if html and json:
        raise typer.BadParameter("either --html or --json")
    loaded, now = read_config(config), datetime.now(UTC)
    keyring = read_keyring(loaded, now)
    wanted = check_name(name) if name is not None else ""
    found = [each for each in sheets(loaded, keyring, now, on.date() if on else None) if wanted in ("", each.name)]
    if not found:
        stop(no_such(wanted, keyring) if wanted else "there is no certificate in the folder: `relay init` makes one")
    if html and len(found) > 1:
        stop(f"a page is about one certificate: name one of {', '.join(each.name for each in found)}", ExitCode.USAGE)
    if json:
        print_json([sheet_json(each) for each in found] if not wanted else sheet_json(found[0]))
    elif html:
        typer.echo(sheet_html(found[0]), nl=False)
    else:
        typer.echo("\n\n".join(map(sheet_text, found)), nl=False)
