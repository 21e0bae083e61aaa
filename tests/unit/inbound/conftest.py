"""One PKI for all tests of the room: making keys is slow."""

import pytest

from tests.unit.inbound.world import Pki


@pytest.fixture(scope="session")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return Pki(tmp_path_factory.mktemp("pki"))
