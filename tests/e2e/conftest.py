"""Peers that all tests of a process share."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.dnssec import NAME_SERVER, Bench, bench
from tests.e2e import dane
from tests.e2e.peers import program


@pytest.fixture(scope="session")
def dnssec() -> Iterator[Bench]:
    """The zones of `tests.e2e.dane`, and a resolver that validates. Up in a fifth of a second."""
    for name in ("knotd", "keymgr", "unbound"):
        program(name)
    also_at = [f"{NAME_SERVER}@53"] if os.geteuid() == 0 else []  # where Postfix looks
    with (
        tempfile.TemporaryDirectory(prefix="dnssec-") as folder,
        bench(Path(folder) / "dns", dane.zones(), also_at=also_at) as found,
    ):
        yield found
