"""Certificates that connectors.yaml speaks of: is the folder there, and in it what connectors show to their partners?

What a *start* needs beyond that (a certificate for each listener, a password file) is `relay.config.startup`'s business, since the
file is often checked on a machine that does not hold the keys.
"""

from collections.abc import Iterator
from datetime import datetime

from relay.config.certificates import Folder, read_folder
from relay.config.files import trouble
from relay.config.models import Config, OutboundConnector
from relay.config.rules import Contradiction, Place


def reference_errors(config: Config, now: datetime) -> Iterator[Contradiction]:
    """Certificates that are not there. `now` in UTC."""
    if config.certificates is None:
        return
    why = trouble(config.certificates)
    if why or not config.certificates.is_dir():
        why = why or "is not a folder"
        yield Contradiction(("certificates",), f"{config.certificates} {why}: `relay init` makes it")
        return
    wanted = tuple(_client_certificates(config))
    if wanted:
        folder = read_folder(config.certificates, now)
        for place, name in wanted:
            if folder.by_name(name) is None:
                yield Contradiction(place, _not_there(name, folder), ("certificates",))


def _client_certificates(config: Config) -> Iterator[tuple[Place, str]]:
    if config.defaults.outbound.client_certificate is not None:
        yield ("defaults", "outbound", "client_certificate"), config.defaults.outbound.client_certificate
    for index, connector in enumerate(config.connectors):
        if isinstance(connector, OutboundConnector) and connector.client_certificate is not None:
            yield ("connectors", index, "client_certificate"), connector.client_certificate


def _not_there(name: str, folder: Folder) -> str:
    there = ", ".join(each.name for each in folder.certificates) or "none"
    return f"no certificate of this name is in the folder: write a file's name without .pem, or a name in one; there: {there}"
