"""`relay certs next`: the certificate that will take a present one's place, from the CA's file to its first handshake."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from relay.cli import values
from relay.cli.certs_folder import check_name, folder_of, read_keyring
from relay.cli.common import DEFAULT_CONFIG, ConfigOption, ExitCode, JsonOption, print_json, read_config, stop

if TYPE_CHECKING:
    from relay.config.certificates import CertificateFiles
    from relay.config.models import Config
    from relay.policy.candidate import Remark
    from relay.policy.holdings import Holding
    from relay.policy.publish_check import Finding
    from relay.tls.keyring import Keyring

NameArgument = Annotated[
    str,
    typer.Argument(
        metavar="NAME", help="The present certificate's file without .pem.", autocompletion=values.certificate
    ),
]
CertificateArgument = Annotated[
    Path | None, typer.Argument(metavar="CERT.pem", help="The coming one, leaf first, then its chain.")
]
KeyArgument = Annotated[
    Path | None, typer.Argument(metavar="KEY.pem", help="Its key. Default: the requested one's, or the present one's.")
]
CommitOption = Annotated[bool, typer.Option("--commit", help="Put the one that waits in use.")]
CancelOption = Annotated[bool, typer.Option("--cancel", help="Take the one that waits away, with its key and request.")]
NowOption = Annotated[bool, typer.Option("--now", help="Put it in use whatever is not ready for it.")]


def command(
    name: NameArgument,
    certificate: CertificateArgument = None,
    key: KeyArgument = None,
    commit: CommitOption = False,
    cancel: CancelOption = False,
    now: NowOption = False,
    config: ConfigOption = DEFAULT_CONFIG,
    json: JsonOption = False,
) -> None:
    """Stage the next certificate of NAME: it is checked and put beside the present one; `relay publish` and `relay certs sheet` name it, and
    no peer is shown it. Then --commit puts it in use, unless DNS lacks its TLSA record, and keeps the old pair in the sub-folder `old`.

    Without CERT.pem, say what waits, and what is not ready for it. Exit code 1 where it cannot be staged, or not be used yet.

    Goes by local files, and asks no running relay.
    """
    if sum((commit, cancel, certificate is not None)) > 1:
        raise typer.BadParameter("one of CERT.pem, --commit and --cancel")
    if now and not commit:
        raise typer.BadParameter("--now goes with --commit")
    loaded, name = read_config(config), check_name(name)
    try:
        if cancel:
            _cancel(loaded, name, json)
        elif certificate is not None:
            _stage(loaded, name, certificate, key, json)
        else:
            _commit(loaded, name, json, really=commit, anyway=now)
    except OSError as error:
        stop(f"{error.filename or folder_of(loaded)}: {error.strerror or error}")


def _stage(config: "Config", name: str, certificate: Path, key: Path | None, json: bool) -> None:
    from relay.config.certificates import Severity, read_folder
    from relay.policy.candidate import Remark, judge
    from relay.tls.inventory import Anchors, holding_of
    from relay.tls.staging import StagingError, drafted

    moment, path = datetime.now(UTC), folder_of(config)
    folder, anchors = read_folder(path, moment), Anchors(config)
    present = next((each for each in folder.certificates if each.name == name), None)
    before = holding_of(present, config, anchors, moment) if present is not None else None
    try:
        with drafted(folder, path, name, certificate, key, moment) as draft:
            if draft.files is None:
                remarks = [Remark(Severity.ERROR, each.text, each.remedy) for each in draft.problems]
                _refuse(name, "it is not staged", remarks, json)
            coming = holding_of(draft.files, config, anchors, moment)
            remarks = list(judge(before, coming, moment))
            if any(each.is_error for each in remarks):
                _refuse(name, "it is not staged", remarks, json)
            pair = draft.put()
    except StagingError as error:
        _refuse(name, "it is not staged", [Remark(Severity.ERROR, str(error))], json)
    if json:
        print_json({"name": name, "done": "staged", "file": str(pair.certificate), "remarks": _json(remarks)})
        return
    _say(remarks)
    leaf = coming.chain[0]
    typer.echo(
        f"{pair.certificate} waits: {leaf.key}, until {leaf.certificate.not_after:%Y-%m-%d}, pin {leaf.certificate.spki_sha256}"
    )
    typer.echo("next:")
    typer.echo("  relay publish                       # the records that must be in DNS before it is used")
    typer.echo(f"  relay certs sheet {name}            # what to tell partners")
    typer.echo(f"  relay certs next {name} --commit    # when both are done")


def _cancel(config: "Config", name: str, json: bool) -> None:
    from relay.tls.staging import cancel

    gone = cancel(folder_of(config), name)
    if json:
        print_json({"name": name, "done": "cancelled" if gone else None, "removed": [str(each) for each in gone]})
    for each in () if json else gone:
        typer.echo(f"removed {each}")
    if not gone:
        stop(f"nothing waits for {name}")


def _commit(config: "Config", name: str, json: bool, *, really: bool, anyway: bool) -> None:
    """Or, unless `really`, only says what would be in the way."""
    from relay.policy.candidate import obstacles
    from relay.tls.inventory import Anchors, holding_of
    from relay.tls.staging import commit, finish, links

    moment = datetime.now(UTC)
    keyring = read_keyring(config, moment)
    coming = next((each for each in keyring.next if each.replaces == name), None)
    if coming is None and really and finish(folder_of(config), name):
        done_already = f"the next one of {name} was in use already; what was left over of it is taken away"
        print_json({"name": name, "done": "committed", "remarks": []}) if json else typer.echo(done_already)
        return
    if coming is None and (folder_of(config) / f"{name}.next.csr").exists():
        stop(f"a request is out for {name}: when its certificate is there, relay certs next {name} CERT.pem")
    if coming is None:
        stop(
            f"nothing waits for {name}: `relay certs next {name} CERT.pem` stages one, `relay certs request {name}` asks for one"
        )
    holding = holding_of(coming, config, Anchors(config), moment)
    found = asyncio.run(_tlsa(config, keyring, coming))
    remarks = list(obstacles(holding, found, moment, links(folder_of(config), name)))
    if not really:
        _show_waiting(name, holding, remarks, json)
        return
    if remarks and (not anyway or moment > coming.not_after):
        _refuse(name, "it is not in use yet; --now uses it all the same", remarks, json)
    done = commit(folder_of(config), coming)
    if json:
        old = str(done.old) if done.old is not None else None
        print_json(
            {
                "name": name,
                "done": "committed",
                "file": str(done.pair.certificate),
                "old": old,
                "remarks": _json(remarks),
            }
        )
        return
    _say(remarks)
    typer.echo(
        f"{done.pair.certificate} is in use from the next connection on: a running relay sees it within two seconds"
    )
    if done.old is not None:
        typer.echo(f"what was in use before is kept as {done.old}")
    typer.echo("take its TLSA record out of DNS after twice the record's TTL (relay publish --verify)")


def _show_waiting(name: str, holding: "Holding", remarks: "Sequence[Remark]", json: bool) -> None:
    from relay.policy.holdings import holding_json

    if json:
        found = holding_json(holding, datetime.now(UTC))
        print_json({"name": name, "ready": not remarks, "waiting": found, "remarks": _json(remarks)})
    else:
        leaf = holding.chain[0]
        typer.echo(
            f"{holding.name} waits: {leaf.key}, until {leaf.certificate.not_after:%Y-%m-%d}, pin {leaf.certificate.spki_sha256}"
        )
        _say(remarks)
        typer.echo("not ready" if remarks else f"ready: relay certs next {name} --commit")
    if remarks:
        raise typer.Exit(ExitCode.NO)


async def _tlsa(config: "Config", keyring: "Keyring", coming: "CertificateFiles") -> "list[Finding]":
    """What DNS says of the TLSA record of the coming one, for the hosts of our MX records that will show it and have any."""
    from relay.cli.outside import outside
    from relay.cli.publish import keys_for, look_up
    from relay.policy.publish import OurRecords, our_hosts, our_records, tlsa_of
    from relay.policy.publish_check import FetchFailed, TlsaFound, compare

    wanted = our_hosts(config, config.published_domains) if config.publish.tlsa else ()
    hosts = [host for host in wanted if any(each.name == coming.name for each in keyring.to_publish(host))]
    if not hosts:
        return []
    shown = {host: keys_for(keyring, host) for host in hosts}
    every = our_records(config, config.published_domains, shown, ())
    ours = OurRecords((), tuple(each for each in every.hosts if each.host in hosts), ())

    async def nothing(_domain: str) -> FetchFailed:
        return FetchFailed("")

    async with outside(config) as world:
        view = await look_up(ours, world.resolver, nothing, world.now())
    named = {host.name: view.tlsa.get(host.host) for host in ours.hosts}
    values = {str(tlsa_of(key)) for host in ours.hosts for key in host.keys if key.name == coming.name}
    found = []
    for each in compare(ours, view):
        answer = named.get(each.name)
        # Of a host without any record nobody expects one.
        if each.expected in values and not (isinstance(answer, TlsaFound) and not answer.records):
            found.append(each)
    return found


def _refuse(name: str, why: str, remarks: "Sequence[Remark]", json: bool) -> NoReturn:
    if json:
        print_json({"name": name, "done": None, "remarks": _json(remarks)})
    else:
        _say(remarks)
        typer.echo(why, err=True)
    raise typer.Exit(ExitCode.NO)


def _say(remarks: "Sequence[Remark]") -> None:
    for each in remarks:
        typer.echo(f"{each.severity.value}: {each.text}" + (f"; {each.remedy}" if each.remedy else ""), err=True)


def _json(remarks: "Sequence[Remark]") -> list[dict[str, Any]]:
    return [{"severity": each.severity.value, "text": each.text, "remedy": each.remedy} for each in remarks]
