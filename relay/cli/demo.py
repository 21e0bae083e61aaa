"""`relay demo`: two relays and a sink in this process, one message that arrives over enforced TLS, one that a wrong certificate stops."""

import asyncio
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from relay.cli.common import JsonOption, print_json, stop

if TYPE_CHECKING:
    from relay.testing import RelayPair

PARTNER = "partner.test"
_PATIENCE = 20.0
_GLANCE = 0.05

_SETTING = f"""\
Three mail servers run in this process, each on a free port of 127.0.0.1:

  relay A (a.test)   connector to-b demands of B: TLS 1.3, a certificate of our CA, the name b.test. It shows its own.
  relay B (b.test)   connector from-a takes mail from a.test only with A's certificate, and hands it to
  a sink             which keeps what it gets.

And one more stands in for {PARTNER}, with a certificate for the right name from the wrong CA. Connector partner-out demands the right one.
"""


def command(json: JsonOption = False) -> None:
    """Send one message from relay to relay under enforced TLS, and one to a partner with a wrong certificate. Prints both traces."""
    import uvloop

    arrived, stopped = uvloop.run(_run())
    if json:
        print_json({"arrived": arrived, "stopped": stopped})
        return
    from relay.cli.client import show
    from relay.report.trace import render_trace

    typer.echo(_SETTING)
    typer.echo("1. alice@a.test -> bob@b.test: arrived in the sink. Its trace at A, and at B:\n")
    for trace in arrived:
        show(render_trace(trace))
    typer.echo(
        f"\n2. alice@a.test -> carol@{PARTNER}: not sent, not one byte of it. It waits in A's queue, and is tried again:\n"
    )
    for trace in stopped:
        show(render_trace(trace))


async def _run() -> tuple[list[Any], list[Any]]:
    from relay.testing import Pki, Sink, relay_pair

    with tempfile.TemporaryDirectory(prefix="relay-demo-") as folder:
        wrong = Pki(Path(folder) / "wrong", "somebody-else")
        async with Sink(wrong.issue(Path(folder) / "wrong", PARTNER)) as partner:
            connector = {
                "name": "partner-out",
                "direction": "outbound",
                "match": {"recipient_domains": [PARTNER]},
                "tls": "domain",
                "names": [PARTNER],
                "ca": str(Path(folder) / "pair" / "pki" / "ca.pem"),
                "route": {"smart_hosts": [str(partner.address)]},
            }
            async with relay_pair(folder=Path(folder) / "pair", more=[connector]) as pair:
                await pair.send("bob@b.test", content="This went over TLS 1.3, and both sides proved who they are.")
                await pair.send(f"carol@{PARTNER}", content="This must not be read by somebody else.")
                await pair.received()
                async with asyncio.timeout(_PATIENCE):
                    arrived, stopped = await _traces(pair)
                if partner.messages:
                    stop("the partner with the wrong certificate got the message: this is a bug")
                return arrived, stopped


async def _traces(pair: "RelayPair") -> tuple[list[Any], list[Any]]:
    """Of both messages, once every attempt that will be made now is recorded."""
    from relay.admin.trace import TraceQuery

    arrived, stopped = TraceQuery(recipient="bob@b.test"), TraceQuery(recipient=f"carol@{PARTNER}")
    while True:
        first = [*await pair.a.operator.trace(arrived), *await pair.b.operator.trace(arrived)]
        second = list(await pair.a.operator.trace(stopped))
        if len(first) == 2 and all(trace["attempts"] for trace in (*first, *second)):
            return first, second
        await asyncio.sleep(_GLANCE)
