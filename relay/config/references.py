"""Certificates that connectors.yaml speaks of: is the folder there, in it what connectors show to partners, and is trust data PEM?

What a *start* needs beyond that (a certificate for each listener, a password file) is apart from it in `missing_at_start`, since the
file is often checked on a machine that does not hold the keys.
"""

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from relay.config.certificates import Folder, PemError, read_folder, read_pem
from relay.config.connectors import InboundConnector, OutboundConnector
from relay.config.files import trouble
from relay.config.models import Config, ListenerKind, Switch
from relay.config.rules import Contradiction, Place
from relay.mail.tls import SYSTEM_TRUST

_TRUST_LIMIT = 16 * 2**20


def reference_errors(config: Config, now: datetime) -> Iterator[Contradiction]:
    """Certificates that are not there, and trust data that holds none. `now` in UTC."""
    yield from _trusts(config)
    if config.certificates is None:
        return
    why = trouble(config.certificates)
    if why or not config.certificates.is_dir():
        yield Contradiction(
            ("certificates",), f"{config.certificates} {why or 'is not a folder'}: `relay init` makes one"
        )
        return
    wanted = tuple(_named_certificates(config))
    if wanted:
        folder = read_folder(config.certificates, now)
        for place, name in wanted:
            if folder.by_name(name) is None:
                yield Contradiction(place, _not_there(name, folder), ("certificates",))


def missing_at_start(config: Config, folder: Folder) -> Iterator[Contradiction]:
    """What the relay needs beyond the file before it can serve. `folder` is what `certificates` holds (relay.config.certificates)."""
    for index, listener in enumerate(config.listeners):
        if listener.starttls is Switch.ON and not folder.certificates:
            yield Contradiction(
                ("listeners", index),
                f"no certificate with its key is in {config.certificates}: `relay init` makes a self-signed one; "
                "`starttls: off` takes mail in clear",
            )
    users = any(listener.kind is not ListenerKind.MX for listener in config.listeners)
    if users and config.submission is not None and (why := trouble(config.submission.passwords)):
        yield Contradiction(
            ("submission", "passwords"),
            f"{config.submission.passwords} {why}: nobody can log in; `relay password USER` writes its lines",
        )
    admin = config.admin
    if admin is not None and admin.listen is not None:
        if admin.tls is Switch.ON and not folder.certificates:
            yield Contradiction(
                ("admin", "listen"),
                f"no certificate with its key is in {config.certificates}: `relay init` makes a self-signed one",
            )
        if admin.accounts is not None and (why := trouble(admin.accounts)):
            yield Contradiction(
                ("admin", "accounts"), f"{admin.accounts} {why}: `relay token NAME --scope read` writes its first line"
            )


def trust_places(config: Config) -> Iterator[tuple[Place, str]]:
    """Every trust store that the file names, and where."""
    if config.trust != SYSTEM_TRUST:
        yield ("trust",), config.trust
    if config.defaults.outbound.ca is not None:
        yield ("defaults", "outbound", "ca"), config.defaults.outbound.ca
    if config.admin is not None and config.admin.clients is not None:
        yield ("admin", "clients", "ca"), config.admin.clients.ca
    for index, connector in enumerate(config.connectors):
        if isinstance(connector, InboundConnector):
            certificate = connector.require.certificate
            if certificate is not None and certificate.ca is not None:
                yield ("connectors", index, "require", "certificate", "ca"), certificate.ca
        elif connector.ca is not None:
            yield ("connectors", index, "ca"), connector.ca


def _trusts(config: Config) -> Iterator[Contradiction]:
    found: dict[str, str] = {SYSTEM_TRUST: ""}
    for place, trust in trust_places(config):
        if trust not in found:
            found[trust] = _trust_trouble(Path(trust))
        if found[trust]:
            yield Contradiction(place, f"{trust} {found[trust]}: put the CA's certificate there, in PEM")


def _trust_trouble(path: Path) -> str:
    if path.is_dir():
        try:
            there = any(_holds_certificate(each) for each in path.iterdir() if each.is_file())
        except OSError as error:
            return f"cannot be read: {error.strerror}"
        return "" if there else "is a folder without any certificate"
    try:
        return "" if read_pem(path, _TRUST_LIMIT).certificates else "holds no certificate"
    except PemError as error:
        return str(error)


def _holds_certificate(path: Path) -> bool:
    try:
        return bool(read_pem(path, _TRUST_LIMIT).certificates)
    except PemError:
        return False


def _named_certificates(config: Config) -> Iterator[tuple[Place, str]]:
    if config.defaults.outbound.client_certificate is not None:
        yield ("defaults", "outbound", "client_certificate"), config.defaults.outbound.client_certificate
    if config.admin is not None and config.admin.certificate is not None:
        yield ("admin", "certificate"), config.admin.certificate
    for index, connector in enumerate(config.connectors):
        if isinstance(connector, OutboundConnector) and connector.client_certificate is not None:
            yield ("connectors", index, "client_certificate"), connector.client_certificate


def _not_there(name: str, folder: Folder) -> str:
    there = ", ".join(each.name for each in folder.certificates) or "none"
    return f"no certificate `{name}` with its key is in the folder: write a file's name without .pem, or a name in one; there: {there}"
