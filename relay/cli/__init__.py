"""The command line: one file per group of commands, listed in COMMANDS and imported only when it is used.

Talks to a running relay over its admin socket only. Exit codes and options that all commands share are in `relay.cli.common`.
"""

import importlib
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import typer

import relay


@dataclass(frozen=True, slots=True)
class Command:
    """`module` has either `command`, a function that typer can run, or `app`, a typer.Typer with sub-commands."""

    name: str
    module: str
    summary: str


COMMANDS = (
    Command("init", "relay.cli.init", "Create connectors.yaml and a self-signed certificate where they are missing."),
    Command("serve", "relay.cli.serve", "Run the relay in the foreground."),
    Command("demo", "relay.cli.demo", "Watch two relays hold each other to TLS, and refuse a wrong certificate."),
    Command("check", "relay.cli.check", "Check connectors.yaml: every error with its line, and what is unwise."),
    Command("explain", "relay.cli.explain", "Say what would happen to a message, and why, without sending one."),
    Command(
        "probe", "relay.cli.probe", "Say EHLO and STARTTLS to a partner's hosts, and what each level would say of them."
    ),
    Command(
        "publish", "relay.cli.publish", "Print what lets others reach us safely (MTA-STS, DANE, reports), or check it."
    ),
    Command(
        "certs", "relay.cli.certs", "Our certificates and partners', what partners must be told, the next certificate."
    ),
    Command("schema", "relay.cli.schema", "Print the JSON Schema of connectors.yaml, for editors."),
    Command("status", "relay.cli.status", "How a running relay is: mail, queue, listeners, certificates, what waits."),
    Command("queue", "relay.cli.queue", "Look into the queue of a running relay, and act on what is in it."),
    Command("store", "relay.cli.store", "Check the queue's file, and copy it."),
    Command("trace", "relay.cli.trace", "Show the life of messages, with the TLS evidence of every attempt."),
    Command(
        "reports", "relay.cli.reports", "TLS reports: what is counted, what was sent, what others report about us."
    ),
    Command("alerts", "relay.cli.alerts", "What somebody should see to, and a test of how it is told."),
    Command(
        "security", "relay.cli.security", "Security report: mail in transit by TLS and partner; partners in trouble."
    ),
    Command("connectors", "relay.cli.connectors", "Partners: list them, validate one, see what could be asked."),
    Command("reload", "relay.cli.reload", "Put the configuration on disk in force, and say what becomes weaker."),
    Command("health", "relay.cli.health", "Does the relay take mail? For a container's health check."),
    Command("doctor", "relay.cli.doctor", "Check the surroundings: ports, DNS, clock, disk, limits, names, networks."),
    Command("completion", "relay.cli.completion", "Print what lets a shell complete commands and options."),
    Command("audit", "relay.cli.audit", "Who changed what, and who signed in."),
    Command("password", "relay.cli.password", "Set a submission user's password, or a person's for the web console."),
    Command("token", "relay.cli.token", "Make a token for the admin API."),
    Command("sink", "relay.cli.sink", "Take all mail and print or store it, for trying a set-up."),
)

_COMPLETE = "_RELAY_COMPLETE"
_HELP = "A self-hosted SMTP relay with enforced TLS per partner."


def build(arguments: Sequence[str]) -> typer.Typer:
    """The application for this command line. Only the command that `arguments` name is imported; of the others it knows the summary."""
    # No rich mark-up, no pretty tracebacks: help stays fast, and a traceback never prints the values of variables.
    # `relay completion` prints what a shell needs; no option of the root does so too.
    app = typer.Typer(
        help=_HELP, no_args_is_help=True, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False
    )
    app.callback()(_root)
    named = next((each for each in arguments if not each.startswith("-")), "")
    for command in COMMANDS:
        if command.name != named:
            app.command(command.name, help=command.summary)(_unused)
            continue
        module = importlib.import_module(command.module)
        if hasattr(module, "app"):
            app.add_typer(module.app, name=command.name)
        else:
            app.command(command.name)(module.command)
    return app


def main() -> None:
    """The `relay` command. Exits with the codes of design section 11."""
    if _COMPLETE in os.environ:
        from typer._completion_classes import completion_init

        completion_init()
    build(_typed(sys.argv[1:], os.environ))(prog_name="relay")


def _typed(arguments: Sequence[str], environment: Mapping[str, str]) -> Sequence[str]:
    """The command line; where a shell asks how it could go on (`relay completion`), the one that stands at its prompt."""
    if _COMPLETE not in environment:
        return arguments
    return (environment.get("COMP_WORDS") or environment.get("_TYPER_COMPLETE_ARGS", "")).split()[1:]


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"ironpost {relay.__version__}")
        raise typer.Exit


def _root(
    version: bool = typer.Option(False, "--version", help="Print the version.", callback=_version, is_eager=True),
) -> None:
    """What comes before the command's name."""


def _unused() -> None:
    """Stands in the list of commands for one that this command line does not name."""
