"""Self-signed certificates for the two relays of docker-compose.yml, each trusting the other's. Made once, never overwritten."""

import os
import shutil
from datetime import UTC, datetime
from pathlib import Path

from relay.tls.selfsigned import create_self_signed

ROOT = Path("/certificates")
OWNER = 10025


def main() -> None:
    for letter in "ab":
        folder = ROOT / letter
        if not list(folder.glob("*.key")):
            create_self_signed(folder, f"relay-{letter}", datetime.now(UTC))
    for letter, other in ("ab", "ba"):
        partners = ROOT / letter / "partners"
        partners.mkdir(exist_ok=True)
        shutil.copy(ROOT / other / f"relay-{other}.pem", partners)
    for path in ROOT.rglob("*"):  # not ROOT itself: it is on the container's root, which is read-only
        os.chown(path, OWNER, OWNER)


main()
