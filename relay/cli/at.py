"""Which relay a command speaks with: the options that all such commands share, as one value.

A command has a parameter `at: At` and is registered through `spread`; its command line and --help then have the options themselves.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from relay.cli.client import Network, Relay, reachable, socket_path
from relay.cli.common import DEFAULT_CONFIG, ConfigOption, ExitCode, stop

SocketOption = Annotated[
    Path | None,
    typer.Option("--socket", metavar="PATH", help="The relay's admin socket, where the configuration cannot be read."),
]
UrlOption = Annotated[
    str | None,
    typer.Option("--url", envvar="RELAY_URL", metavar="URL", help="A relay's admin API by network: https://HOST:8443."),
]
TokenOption = Annotated[
    Path | None,
    typer.Option(
        "--token-file",
        envvar="RELAY_TOKEN_FILE",
        metavar="FILE",
        help="With --url: a file with a token of `relay token`.",
    ),
]
CertOption = Annotated[
    Path | None,
    typer.Option(
        "--cert",
        envvar="RELAY_CERT",
        metavar="FILE",
        help="With --url: a client certificate instead of a token, PEM, with its key in it or beside it as NAME.key.",
    ),
]
TrustOption = Annotated[
    Path | None,
    typer.Option(
        "--ca",
        envvar="RELAY_CA",
        metavar="FILE",
        help="With --url: who issued its certificate, where the system does not know.",
    ),
]


@dataclass(frozen=True, slots=True)
class At:
    """A relay: by `--socket`, else by `--url`, else by the configuration file. What stands on the command line goes before the environment."""

    context: typer.Context
    config: ConfigOption = DEFAULT_CONFIG
    socket: SocketOption = None
    url: UrlOption = None
    token_file: TokenOption = None
    cert: CertOption = None
    ca: TrustOption = None

    def relay(self) -> Relay:
        """Ends the program where the options say nothing that can be used."""
        if (url := self._by_network()) is not None:
            return Relay.by_network(Network(url, self.token_file, self.cert, self.ca))
        return Relay.at(self.socket or socket_path(self.config))

    def is_named(self) -> bool:
        """A relay is to be asked, for commands that read the configuration file otherwise."""
        return self.socket is not None or self._by_network() is not None

    def refuse_typed(self, option: str) -> None:
        """Ends the program where a relay is named beside `option`, which asks none."""
        for name in ("socket", "url"):
            if self._is_typed(name):
                stop(f"{option} reads what is on this machine and asks no relay: leave --{name} away", ExitCode.USAGE)

    def may_be_asked(self) -> bool:
        """One is named, or the file's socket is listened on."""
        return self.is_named() or reachable(self.config)

    def _by_network(self) -> str | None:
        """Threat: an order for a relay far away that the one on this machine carries out, since a script's variable was empty or an
        option was forgotten."""
        if self._is_typed("url") and not self.url:
            stop("--url is empty: write https://HOST:PORT, or leave it away", ExitCode.USAGE)
        url = self._url()
        if url is None and (idle := [each for each in ("token_file", "cert", "ca") if self._is_typed(each)]):
            stop(f"--{idle[0].replace('_', '-')} is for a relay by network: give --url too", ExitCode.USAGE)
        return url

    def _url(self) -> str | None:
        if self.socket is not None:
            if self._is_typed("url"):
                stop("give --socket or --url, not both", ExitCode.USAGE)
            return None
        if self._is_typed("config"):
            if self._is_typed("url"):
                stop("give --config or --url, not both: a relay by network has its own", ExitCode.USAGE)
            return None
        return self.url or None

    def _is_typed(self, name: str) -> bool:
        source = self.context.get_parameter_source(name)
        return source is not None and source.name == "COMMANDLINE"
