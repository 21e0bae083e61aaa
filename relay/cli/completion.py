"""`relay completion SHELL`: the script that lets a shell complete our commands, options and their values."""

from enum import StrEnum
from typing import Annotated

import typer


class Shell(StrEnum):
    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


def command(shell: Annotated[Shell, typer.Argument(help="bash, zsh or fish.")]) -> None:
    """Print the completion script.

    bash: relay completion bash > /etc/bash_completion.d/relay; zsh: relay completion zsh > a file _relay in your $fpath;
    fish: relay completion fish > ~/.config/fish/completions/relay.fish
    """
    from typer._completion_shared import get_completion_script

    typer.echo(get_completion_script(prog_name="relay", complete_var="_RELAY_COMPLETE", shell=shell.value))
