"""`relay doctor`: is everything around the relay as it should be? Looks, has it judged (`relay.policy.surroundings`), and names remedies.

Needs no running relay; where one runs, it is asked how it is. Run it where the relay runs: in its container, in its network namespace. What
the relay's user may do is asked as that user: where root runs it, it takes off root's rights first.
"""

import asyncio
import contextlib
import io
import os
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from relay.cli.common import DEFAULT_CONFIG, ConfigOption, ExitCode, JsonOption, print_json

if TYPE_CHECKING:
    from relay.config.load import Loaded
    from relay.config.models import Config
    from relay.policy.surroundings import Bound, Finding, Owner

ReachOption = Annotated[
    list[str] | None,
    typer.Option("--reach", metavar="DOMAIN|HOST:PORT", help="Try to reach this, instead of what connectors name."),
]
OfflineOption = Annotated[bool, typer.Option("--offline", help="Leave out what asks the network.")]
StrictOption = Annotated[bool, typer.Option("--strict", help="Count warnings as failures.")]


def command(
    config: ConfigOption = DEFAULT_CONFIG,
    reach: ReachOption = None,
    offline: OfflineOption = False,
    strict: StrictOption = False,
    json: JsonOption = False,
) -> None:
    """Check the surroundings: ports, DNS and DNSSEC, clock, disk, file limits, permissions, certificates, names, networks.

    Exit code 0 where nothing failed, 1 where something did. Warnings change that only with --strict; what could not be found out never does.

    Goes by local files, and asks the running relay too where one answers at the configured socket.
    """
    findings = tuple(_examine(config, reach or (), offline=offline))
    failed = [each for each in findings if each.state in _bad(strict)]
    if json:
        print_json({"healthy": not failed, "findings": [_as_json(each) for each in findings]})
    else:
        _print(findings)
    if failed:
        raise typer.Exit(ExitCode.NO)


def _bad(strict: bool) -> tuple[str, ...]:
    return ("failed", "warning") if strict else ("failed",)


def _examine(file: Path, wanted: Sequence[str], *, offline: bool) -> Iterator["Finding"]:
    from relay.cli import doctor_host as look
    from relay.config.load import ConfigError, load_with_places
    from relay.policy import surroundings as judge

    owner = None
    try:
        config = load_with_places(file).config
        _import_all()
        # While we are who we were started as: the admin socket and ports below 1024 may be for root only to ask about.
        status = _status(file)
        ports = _ports(config, status)
        owner = look.become_the_relay(config.queue_file)
        loaded = load_with_places(file)
    except ConfigError as error:
        yield from judge.looked_as(owner, root=False)
        for problem in error.problems:
            remedy = f"{_as_whom(owner)}relay check says the same, with all errors"
            yield judge.Finding("configuration", judge.State.FAILED, str(problem), remedy)
        return
    yield from judge.looked_as(owner, root=os.geteuid() == 0)
    yield from _configuration(loaded, owner)
    yield from judge.ports(ports)
    yield from _host(loaded.config, status)
    if not offline:
        yield from asyncio.run(_network(loaded.config, wanted))


def _import_all() -> None:
    """What follows is looked at as another user, who perhaps may not read our own modules: they may be in root's home. Python's own may too."""
    import codecs

    import relay.app
    import relay.cli.doctor_net
    import relay.cli.doctor_revocation
    import relay.tls.check  # noqa: F401

    for each in ("unicode_escape", "ascii", "idna"):
        codecs.lookup(each)


def _as_whom(owner: "Owner | None") -> str:
    """Root may read what the relay's user may not."""
    return f"as {owner.name}: " if owner is not None else ""


def _ports(config: "Config", status: dict[str, Any] | None) -> dict[str, "Bound"]:
    from relay.cli import doctor_host as look
    from relay.config.values import HostPort

    ours = [HostPort.parse(each) for each in (status or {}).get("listeners", {}).values()]
    return {each.name: look.bound(each.address, ours) for each in config.listeners if each.address.port}


def _configuration(loaded: "Loaded", owner: "Owner | None") -> Iterator["Finding"]:
    """The file, and the certificates and trust that it names, as `relay check` sees them."""
    from relay.policy.surroundings import Finding, State
    from relay.tls.check import Weight, beyond_the_file

    found = tuple(beyond_the_file(loaded, datetime.now(UTC)))
    for weight, problem in found:
        state = State.FAILED if weight is Weight.ERROR else State.WARNING
        remedy = f"{_as_whom(owner)}relay check --config {problem.file}"
        yield Finding("configuration", state, str(problem), remedy)
    if not found:
        yield Finding("configuration", State.FINE, "relay check has nothing to say")


def _host(config: "Config", status: dict[str, Any] | None) -> Iterator["Finding"]:
    from relay.app.several import how_many
    from relay.cli import doctor_host as look
    from relay.policy import surroundings as judge

    queue = config.queue_file
    yield from judge.disk(look.disk(queue), config.limits.free_space)
    yield from judge.kernel(look.kernel(pid=(status or {}).get("pid")), config.limits.connections, how_many(config))
    yield judge.clock(look.clock())
    yield from judge.permissions(look.readable(config), look.barred(config), look.user_name(os.geteuid()))
    yield from judge.gateways(config, look.gateways(), contained=look.contained())
    waiting = (status or {}).get("configuration", {}).get("waiting", [])
    troubles = (status or {}).get("troubles", [])
    yield from judge.running(None if status is None else bool(status["ready"]), troubles, waiting)


def _status(file: Path) -> dict[str, Any] | None:
    """Of the running relay; None where none can be asked."""
    from relay.cli.client import Relay, socket_path

    try:
        with (
            contextlib.redirect_stderr(io.StringIO()),
            Relay.at(socket_path(file)) as relay,
        ):  # that none runs is a finding of ours
            return relay.get("/status")
    except typer.Exit:
        return None


async def _network(config: "Config", wanted: Sequence[str]) -> list["Finding"]:
    from relay.cli import doctor_net as look
    from relay.cli.doctor_revocation import revocation
    from relay.dns.resolver import DnsResolver
    from relay.policy import surroundings as judge

    resolver = DnsResolver.of(config.dns)
    try:
        answered, _tested = await asyncio.gather(look.Asking(config).root(), resolver.test())
        called, leads = await look.names(config, resolver)
        tries = await look.reach(config, resolver, wanted)
        trouble = resolver.dane if config.dns.validating else ""
        return [
            *judge.dns(answered.answers, answered.seconds, config.dns.validating, trouble),
            *judge.reverse_dns(config.hostname, called, leads),
            *judge.way_out(tries),
            *await revocation(config, resolver),
        ]
    finally:
        await resolver.close()


def _as_json(finding: "Finding") -> dict[str, str]:
    return {
        "check": finding.check,
        "state": finding.state.value,
        "text": finding.text,
        "remedy": finding.remedy,
    }


_COLOURS = {"fine": "green", "warning": "yellow", "failed": "red", "unknown": "blue"}


def _print(findings: Sequence["Finding"]) -> None:
    for each in findings:
        state = typer.style(f"{each.state.value:8}", fg=_COLOURS[each.state.value], bold=True)
        typer.echo(f"{state} {typer.style(each.check, bold=True)}: {each.text}")
        if each.remedy:
            typer.echo(f"         -> {each.remedy}")
    counts = [f"{sum(each.state.value == state for each in findings)} {state}" for state in _COLOURS]
    typer.echo(", ".join(counts))
