"""`relay certs`: our certificates and those that partners show, what partners must be told, the next certificate, and what is revoked.

A group of commands, one file each: `relay.cli.certs_NAME` has `command`.
"""

import typer

from relay.cli import certs_check, certs_list, certs_next, certs_request, certs_sheet

app = typer.Typer(
    help="Our certificates and partners', what partners must be told, and the next certificate.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.command("list")(certs_list.command)
app.command("sheet")(certs_sheet.command)
app.command("request")(certs_request.command)
app.command("next")(certs_next.command)
app.command("check")(certs_check.command)
