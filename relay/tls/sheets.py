"""Partner sheets from the certificates folder and the configuration; what they say is `relay.policy.sheet`'s.

Synchronous and slow (path checks): for commands and the admin API.
"""

from dataclasses import replace
from datetime import date, datetime

from relay.config.certificates import CertificateFiles
from relay.config.models import Config
from relay.policy.publish import our_hosts
from relay.policy.sheet import Paper, Sheet, tlsa_records
from relay.tls.inventory import Anchors, holding_of, holdings
from relay.tls.keyring import Keyring


def sheets(config: Config, keyring: Keyring, now: datetime, on: date | None = None) -> tuple[Sheet, ...]:
    """One for each certificate in use, and for each that waits to be used for the first time. `on`: the day of the change, if it is known."""
    anchors = Anchors(config)
    hosts = our_hosts(config, config.published_domains) if config.publish.tlsa else ()
    held = {each.name: each for each in holdings(config, keyring, now)}

    def paper(files: CertificateFiles) -> Paper:
        holding = holding_of(files, config, anchors, now)
        shown = [host for host in hosts if any(each.name == files.name for each in keyring.to_publish(host))]
        records = tuple(record for host in shown for record in tlsa_records(host, holding.chain))
        return Paper(holding.chain, holding.anchor, records)

    coming = {files.replaces: paper(files) for files in keyring.next}
    blank = Sheet(
        "", config.hostname, str(config.postmaster), now, server=True, client=False, present=None, coming=None
    )
    found = []
    for files in keyring.certificates:
        holding, after = held[files.name], coming.pop(files.name, None)
        found.append(
            replace(
                blank,
                name=files.name,
                server=holding.shown.anybody,
                client=bool(holding.connectors),
                present=paper(files),
                coming=after,
                on=on if after is not None else None,
            )
        )
    found.extend(replace(blank, name=name, coming=after, on=on) for name, after in coming.items())
    return tuple(found)
