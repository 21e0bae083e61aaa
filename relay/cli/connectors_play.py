"""Of `relay connectors validate` for an inbound connector: what was last seen of the partner, and, with --as, the partner played.

Playing goes as far as MAIL, with a domain of the connector, and never to DATA: nothing is queued.
"""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from relay.policy.steps import Result, Step

if TYPE_CHECKING:
    from relay.config.certificates import CertificateFiles
    from relay.config.connectors import InboundConnector
    from relay.config.models import Config
    from relay.config.values import HostPort
    from relay.policy.book import RuleBook

_HELO = "partner.invalid"
_MINE = (
    "Where this is the partner's own certificate, connector {name} asks for something else than it has, or the partner's network is asked for: "
    "relay explain --from {sender} says what is met and what is not."
)


def last_seen(config: "Config", connector: "InboundConnector") -> Step:
    """From the running relay; skipped where none runs."""
    from relay.cli.client import Relay, listens
    from relay.policy.connector_steps import last_seen as step

    if config.admin is None or not listens(config.admin.socket):
        return step(None, "no running relay can be asked what it has seen of the partner")
    with Relay.at(config.admin.socket) as relay:
        found = relay.find(f"/connectors/{connector.name}")
    return step(found and found["last"], "no message of the partner is among the last ones that the relay knows of")


def play(book: "RuleBook", connector: "InboundConnector", pair: tuple[Path, Path], listener: str) -> Iterator[Step]:
    """Connects to our own listener as the partner would."""
    certificate = _read(*pair)
    names = connector.match.sender_domains or ()
    exact = next((each for each in names if not each.startswith("*")), "")
    domain = exact or (f"any.{names[0].removeprefix('*.')}" if names and names[0] != "*" else "any.example")
    yield from asyncio.run(_play(certificate, _listener(book.config, listener), f"postmaster@{domain}", connector.name))


def _read(file: Path, key: Path) -> "CertificateFiles":
    from datetime import UTC, datetime

    from relay.config.certificates import PemError, read_pair

    try:
        return read_pair(file, key, datetime.now(UTC))
    except PemError as error:
        raise typer.BadParameter(str(error), param_hint="--as") from None


def _listener(config: "Config", named: str) -> "HostPort":
    """The one named, else the first of kind mx that offers TLS: where it really is, if a relay runs."""
    from relay.cli.client import Relay, listens
    from relay.config.models import ListenerKind, Switch
    from relay.config.values import HostPort

    if named:
        try:
            return HostPort.parse(named)
        except ValueError as error:
            raise typer.BadParameter(str(error), param_hint="--listener") from None
    taking = [each for each in config.listeners if each.kind is ListenerKind.MX]
    chosen = next((each for each in taking if each.starttls is Switch.ON), None) or next(iter(taking), None)
    if chosen is None:
        raise typer.BadParameter("no listener of kind mx is configured", param_hint="--as")
    address = chosen.address
    if config.admin is not None and listens(config.admin.socket):
        with Relay.at(config.admin.socket) as relay:
            address = HostPort.parse(relay.get("/status")["listeners"].get(chosen.name, str(address)))
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address.host, address.host)  # noqa: S104 - where it listens, not where we do
    return HostPort(host, address.port)


async def _play(certificate: "CertificateFiles", at: "HostPort", sender: str, name: str) -> list[Step]:
    from aiosmtplib import SMTPException

    from relay.mail.tls import TlsEvidence
    from relay.outbound.client import Client
    from relay.outbound.probe import PATIENCE
    from relay.tls.context import client_context
    from relay.tls.evidence import evidence_of

    client, where = Client(at, helo=_HELO, timeouts=PATIENCE), str(at)
    steps: list[Step] = []
    doing, begun = "connect", time.monotonic()

    def done(text: str, following: str) -> None:
        nonlocal doing, begun
        steps.append(Step(f"as-{doing}", where, Result.OK, text, seconds=time.monotonic() - begun))
        doing, begun = following, time.monotonic()

    def bad(text: str, how: str = "") -> None:
        steps.append(Step(f"as-{doing}", where, Result.FAILED, text, how, time.monotonic() - begun))

    try:
        await client.connect()
        done("connected, 220", "ehlo")
        await client.ehlo()
        done("EHLO is answered", "starttls")
        if not client.offer.starttls:
            bad("STARTTLS is not offered", "See `starttls` of the listener, and its certificate.")
            return steps
        evidence: TlsEvidence = evidence_of(await client.secure(client_context(client_certificate=certificate), ""))
        await client.ehlo()
        leaf = evidence.leaf
        shown = f"; our listener shows {', '.join(leaf.names[:3]) or leaf.subject}" if leaf is not None else ""
        done(f"{evidence.version}, {evidence.cipher}{shown}", "mail")
        reply = await client.execute_command(b"MAIL", f"FROM:<{sender}>".encode("ascii"))
        text = f"MAIL FROM:<{sender}> is answered {reply.code} {reply.message}"
        if reply.code < 300:
            done(text, "quit")
        else:
            bad(text, _MINE.format(name=name, sender=sender))
    except (SMTPException, OSError) as error:
        bad(f"{type(error).__name__}: {error}", "See that the relay runs and listens there; its log says more.")
    finally:
        client.leave()
    return steps
