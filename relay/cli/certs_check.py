"""`relay certs check`: fetches every CRL and OCSP address that finding out about a certificate's revocation would need."""

import asyncio
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from relay.cli import values
from relay.cli.common import DEFAULT_CONFIG, ConfigOption, ExitCode, JsonOption, print_json, read_config, stop

if TYPE_CHECKING:
    from relay.config.connectors import InboundConnector, OutboundConnector
    from relay.config.values import HostPort
    from relay.dns.answers import Resolver
    from relay.mail.revocation import Statuses
    from relay.mail.tls import PathResult, TlsEvidence
    from relay.outbound.outside import Outside
    from relay.policy.book import RuleBook
    from relay.tls.revocation.reach import Examined

_SMTP = 25

TargetArgument = Annotated[
    str,
    typer.Argument(metavar="HOST[:PORT]|FILE", help="A mail server, or a PEM file: the certificate, then its chain."),
]
ConnectorOption = Annotated[
    str | None,
    typer.Option(
        "--connector",
        metavar="NAME",
        help="Whose `ca` the chain must lead to.",
        show_default=False,
        autocompletion=values.connector,
    ),
]


@dataclass(slots=True)
class Shown:
    """A chain as somebody shows it. `trouble` says why there is none; `anchored` that its path leads to `trust`."""

    where: str
    trust: str = ""
    path: tuple[bytes, ...] = ()
    anchored: bool = False
    trouble: str = ""
    staple: bytes = b""


@dataclass(slots=True)
class _Staples:
    """Takes the place of revocation checks in a handshake: keeps what was stapled, finds out nothing."""

    staple: bytes = field(default=b"")

    def held(self, _path: object) -> "Statuses":
        return ()

    async def check(self, _path: object, staple: bytes = b"") -> "Statuses":
        self.staple = staple or self.staple
        return ()

    async def again(self, _path: object, before: "Statuses") -> "Statuses":
        return before


def command(
    target: TargetArgument,
    connector: ConnectorOption = None,
    config: ConfigOption = DEFAULT_CONFIG,
    json: JsonOption = False,
) -> None:
    """Fetch every CRL and OCSP address that checking a mail server's certificate, or the one in FILE, for revocation needs.

    Says which are reachable from here, how old and how large what is there is, until when it counts, and what it says of each certificate.
    Exit code 0 where all can be had and no certificate is revoked, else 1.

    Goes by local files, and asks no running relay.
    """
    from relay.policy.book import RuleBook
    from relay.report.revocation import examined_json

    book = RuleBook.of(read_config(config))
    file = Path(target) if Path(target).is_file() else None
    shown, examined = asyncio.run(examine(book, target, file, connector))
    found: dict[str, Any] = {
        "target": shown.where,
        "trust": shown.trust,
        "trouble": shown.trouble or None,
        "stapled": bool(shown.staple),
        "fine": shown.anchored and all(each.is_fine for each in examined),
        "certificates": [examined_json(each) for each in examined],
    }
    if json:
        print_json(found)
    else:
        from relay.cli.client import show
        from relay.report.revocation import render_examined

        show(render_examined(found))
    if not found["fine"]:
        raise typer.Exit(ExitCode.NO)


async def examine(
    book: "RuleBook", target: str, file: Path | None, name: str | None, resolver: "Resolver | None" = None
) -> "tuple[Shown, tuple[Examined, ...]]":
    """What is shown at `target`, or in `file`, and what became of each address that it needs. `name` is a connector's."""
    from relay.cli.outside import outside
    from relay.tls.revocation.reach import needed_and_reachable

    staples = _Staples()
    async with outside(book.config, resolver, revocations=staples) as world:
        if file is not None:
            shown = _of_file(book, file, name, world)
        else:
            shown = await _of_host(book, _host(target), name, world)
            shown.staple = staples.staple
        return shown, await needed_and_reachable(shown.path, world.fetch, world.now, shown.staple)


def _host(target: str) -> "HostPort":
    from relay.config.values import HostPort

    try:
        return HostPort.parse(target, default_port=_SMTP)
    except ValueError as error:
        raise typer.BadParameter(f"no such file, and {error}", param_hint="HOST[:PORT]|FILE") from None


def _named(book: "RuleBook", name: str) -> "InboundConnector | OutboundConnector":
    connectors: tuple[InboundConnector | OutboundConnector, ...] = (
        *book.config.outbound,
        *book.config.inbound,
        book.config.default,
    )
    found = next((each for each in connectors if each.name == name), None)
    if found is None:
        stop(f"--connector {name}: no connector has this name: `relay check` lists them", ExitCode.USAGE)
    return found


def _of_file(book: "RuleBook", file: Path, name: str | None, world: "Outside") -> Shown:
    from relay.config.certificates import PemError, read_pem
    from relay.config.connectors import OutboundConnector
    from relay.mail.tls import TlsEvidence
    from relay.tls.evidence import parse_certificate
    from relay.tls.trust import Purpose, TrustStores

    try:
        chain = read_pem(file).certificates
    except PemError as error:
        stop(f"{file} {error}")
    if not chain:
        stop(f"{file} holds no certificate")
    trust, purpose = book.config.trust, Purpose.CLIENT
    if name is not None:
        connector = _named(book, name)
        required = None if isinstance(connector, OutboundConnector) else connector.require.certificate
        purpose = Purpose.SERVER if isinstance(connector, OutboundConnector) else Purpose.CLIENT
        ca = connector.ca if isinstance(connector, OutboundConnector) else required and required.ca
        trust = ca or trust
    evidence = TlsEvidence("", "", "", chain=tuple(parse_certificate(each) for each in chain))
    checked = TrustStores().check(evidence, (trust,), purpose, world.now())
    return _shown(str(file), trust, checked, checked.paths[trust])


async def _of_host(book: "RuleBook", hop: "HostPort", name: str | None, world: "Outside") -> Shown:
    """As `relay probe` looks at it."""
    from relay.config.connectors import OutboundConnector
    from relay.mail.plan import Level
    from relay.mail.revocation import Revocation
    from relay.outbound.asking import connector_for
    from relay.outbound.probe import probe_hop

    connector = connector_for(book, "", hop) if name is None else _named(book, name)
    if not isinstance(connector, OutboundConnector):
        stop(f"--connector {name} is an inbound one: give the partner's certificate as a FILE", ExitCode.USAGE)
    # What asks for a path to its CA, and for a staple.
    asking = connector.model_copy(update={"tls": Level.CERTIFICATE, "plaintext": None, "revocation": Revocation.PREFER})
    means = world.means(book)
    probe = await probe_hop(means, asking, hop.host, hop)
    trust = asking.ca or book.config.trust
    addresses = [each for found in probe.hops for each in found.addresses]
    for each in addresses:
        if each.evidence is not None and each.evidence.chain:
            path = each.evidence.paths.get(trust)
            return _shown(f"{hop} ({each.address})", trust, each.evidence, path)
    troubles = [
        *(each.trouble for each in probe.hops if each.trouble),
        *(each.trouble for each in addresses if each.trouble),
    ]
    trouble = "; ".join(dict.fromkeys(troubles)) or (
        probe.unroutable.text if probe.unroutable is not None else "it offers no TLS, or shows no certificate"
    )
    return Shown(str(hop), trust, trouble=f"no certificate was seen: {trouble}")


def _shown(where: str, trust: str, evidence: "TlsEvidence", path: "PathResult | None") -> Shown:
    """Where the chain leads nowhere, it is looked at as it was shown."""
    from relay.mail.tls import Trusted

    if isinstance(path, Trusted):
        return Shown(where, trust, path.path, anchored=True)
    chain = tuple(each.der for each in evidence.chain)
    why = path.text if path is not None else "it was not checked"
    return Shown(where, trust, chain, trouble=f"the chain does not lead to {trust}: {why}")
