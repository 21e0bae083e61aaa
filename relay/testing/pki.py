"""A throw-away certificate authority for tests and demonstrations: right certificates, and every kind of wrong one.

Made with trustme (EC P-256 keys). Nothing here is fit for production: the CA's key is in memory and gone with the object.
"""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import trustme


class Pki:
    """One CA, its certificate in `ca` (a PEM file in `folder`), issuing into any folder as `NAME.pem` and `NAME.key`."""

    def __init__(self, folder: Path, name: str = "ca") -> None:
        self._ca = trustme.CA(organization_name=f"throw-away {name}")
        folder.mkdir(parents=True, exist_ok=True)
        self.ca = folder / f"{name}.pem"
        self._ca.cert_pem.write_to_path(str(self.ca))

    def issue(self, folder: Path, *names: str, expired: bool = False) -> Path:
        """A certificate for `names` (hosts, wildcards or IP addresses); the first names the files. Returns the PEM's path: leaf, then CA."""
        folder.mkdir(parents=True, exist_ok=True)
        ends = datetime.now(UTC) - timedelta(days=1) if expired else None
        leaf = self._ca.issue_cert(*names, not_after=ends)
        pem = folder / f"{names[0]}.pem"
        key = pem.with_suffix(".key")
        key.touch(mode=0o600)
        leaf.private_key_pem.write_to_path(str(key))
        leaf.cert_chain_pems[0].write_to_path(str(pem))
        self._ca.cert_pem.write_to_path(str(pem), append=True)
        return pem
