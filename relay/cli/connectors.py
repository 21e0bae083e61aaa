"""`relay connectors`: partners, as the configuration has them. One file for each command beside this one."""

import typer

from relay.cli.connectors_in_force import in_force
from relay.cli.connectors_list import list_
from relay.cli.connectors_suggest import suggest
from relay.cli.connectors_validate import validate

app = typer.Typer(
    help="Partners: which connectors there are, whether one does what it should, what could be asked.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.command("list")(list_)
app.command("in-force")(in_force)
app.command("validate")(validate)
app.command("suggest")(suggest)
