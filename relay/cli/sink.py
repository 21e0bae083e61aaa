"""`relay sink`: a mail server that takes everything and shows or stores it, for trying a set-up. Not for a port that strangers reach."""

import asyncio
import json as jsonlib
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from relay.cli.common import JsonOption, stop

if TYPE_CHECKING:
    from relay.testing.sink import Received

ListenOption = Annotated[str, typer.Option("--listen", metavar="ADDRESS:PORT")]
CertificateOption = Annotated[
    Path | None,
    typer.Option("--certificate", metavar="PEM", help="Offer STARTTLS with this; its key is beside it as NAME.key."),
]
FolderOption = Annotated[
    Path | None,
    typer.Option("--folder", metavar="DIR", help="Store each message as NUMBER.eml there, instead of printing it."),
]


def command(
    listen: ListenOption = "127.0.0.1:2526",
    certificate: CertificateOption = None,
    folder: FolderOption = None,
    json: JsonOption = False,
) -> None:
    """Take all mail and print it, or store it. Ends with Ctrl-C or SIGTERM. With --json, an object on one line for each message."""
    from relay.config.values import HostPort
    from relay.testing.sink import Sink

    try:
        address = HostPort.parse(listen, name=False)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--listen") from None
    if folder is not None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            stop(f"cannot store mail in {folder}: {error.strerror}")
    count = 0

    def received(message: "Received") -> None:
        nonlocal count
        count += 1
        file = None if folder is None else folder / f"{count:06}.eml"
        if file is not None:
            file.write_bytes(message.content)
        content = message.content.decode("utf-8", "backslashreplace") if file is None else None
        if json:
            about = {"sender": message.sender, "recipients": list(message.recipients), "peer": str(message.peer)}
            kept = {"file": file and str(file), "content": content}
            typer.echo(
                jsonlib.dumps({"number": count, **about, "tls": message.tls or None, **kept}, ensure_ascii=False)
            )
            return
        tls = message.tls or "clear text"
        typer.echo(f"{count}: from <{message.sender}> to {', '.join(message.recipients)} by {message.peer}, {tls}")
        if content is not None:
            typer.echo(content)

    try:
        server = Sink(certificate, address=address, received=received)
    except OSError as error:  # ssl.SSLError is one; only a certificate is read here
        stop(f"cannot use {certificate} with its key NAME.key beside it: {error.strerror or error}")

    async def run() -> None:
        async with server as sink:
            loop, ended = asyncio.get_running_loop(), asyncio.Event()
            # What a shell's script starts with & has SIGINT ignored: it is asked for by name.
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.add_signal_handler(number, ended.set)
            typer.echo(f"listening on {sink.address}", err=True)
            await ended.wait()

    try:
        asyncio.run(run())
    except OSError as error:
        stop(f"cannot run on {listen}: {error.strerror or error}")
