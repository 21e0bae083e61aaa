"""What a connector's files hold just now: its trust data, the certificate of ours that it shows.

What it means is `relay.policy.connector_steps`'s.
"""

from datetime import datetime
from pathlib import Path

from cryptography import x509

from relay.config.advice import advice
from relay.config.certificates import Folder, PemError, read_folder, read_pem
from relay.config.connectors import Connector, OutboundConnector
from relay.config.models import Config
from relay.config.references import trust_places
from relay.policy.connector_steps import Files
from relay.tls.trust import TrustStores


def files_of(config: Config, connector: Connector, now: datetime) -> Files:
    """Reads them; never raises for what is in them. `connector` is one of the configuration's."""
    position = next(index for index, each in enumerate(config.connectors) if each.name == connector.name)
    folder = read_folder(config.certificates, now) if config.certificates is not None else Folder()
    place = ("connectors", position)
    named = [trust for where, trust in trust_places(config) if where[:2] == place or where == ("trust",)]
    stores = TrustStores()
    client = connector.client_certificate if isinstance(connector, OutboundConnector) else None
    return Files(
        now,
        {trust: stores.problem(trust, now) for trust in dict.fromkeys(named)},
        {trust: end for trust in named if (end := _last_end(trust)) is not None},
        folder.by_name(client) if client is not None else None,
        folder.certificates,
        tuple(each.text for each in advice(config, folder, now) if each.place[:2] == place),
    )


def _last_end(trust: str) -> datetime | None:
    """When the last of a file's certificates ends; None for a folder, and for what cannot be read."""
    path = Path(trust)
    if not path.is_file():
        return None
    try:
        ends = [x509.load_der_x509_certificate(each).not_valid_after_utc for each in read_pem(path).certificates]
    except (PemError, ValueError):
        return None
    return max(ends, default=None)
