"""What is told of the certificates folder, look by look."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from relay.app.certificates import CertificateWatch
from relay.mail.events import CertificatesLoaded, CertificateTrouble, Event
from relay.tls.keyring import Keyring
from tests.unit.policy.builders import book
from tests.unit.tls.pki import DAY, NOW, Issued, Wish, root

CA = root("ca")
HOST = "relay.example.com"


def issued(days: int = 90) -> Issued:
    return CA.issue(Wish(HOST, names=[HOST], after=NOW + days * DAY))


class Watched:
    def __init__(self, folder: Path, **more: str) -> None:
        self.folder, self.events = folder, list[Event]()
        clock = lambda: datetime.now(UTC)  # noqa: E731
        keyring = Keyring(folder, hostname=HOST, clock=clock)
        config = book(**more).config
        self.watch = CertificateWatch(
            keyring, folder, config=lambda: config, emit=self.events.append, clock=clock, compares=True
        )
        self.watch.start()

    async def troubles(self) -> list[str]:
        """After one look, of it."""
        self.events.clear()
        await self.watch.look()
        return [each.trouble for each in self.events if isinstance(each, CertificateTrouble)]

    @property
    def loaded(self) -> int:
        return sum(isinstance(each, CertificatesLoaded) for each in self.events)


@pytest.fixture
def watched(tmp_path: Path) -> Watched:
    issued().write(tmp_path, "relay")
    return Watched(tmp_path)


async def test_a_renewal_that_is_seen_half_way_is_no_trouble(watched: Watched) -> None:
    new = issued(days=180)
    (watched.folder / "relay.key").write_bytes(new.key_pem)
    assert await watched.troubles() == []
    assert watched.loaded == 0
    new.write(watched.folder, "relay")
    assert await watched.troubles() == []
    assert watched.loaded == 1
    assert await watched.troubles() == []


async def test_what_is_there_at_two_looks_is_told_once_and_again_when_it_comes_back(watched: Watched) -> None:
    own = (watched.folder / "relay.key").read_bytes()
    for _ in range(2):
        (watched.folder / "relay.key").write_bytes(issued().key_pem)
        assert await watched.troubles() == []
        (trouble,) = await watched.troubles()
        assert "relay.key: the key does not match" in trouble
        assert await watched.troubles() == []
        (watched.folder / "relay.key").write_bytes(own)
        assert await watched.troubles() == []


async def test_what_is_wrong_at_the_start_is_told_at_once(tmp_path: Path) -> None:
    issued().write(tmp_path, "relay")
    (tmp_path / "relay.key").write_bytes(issued().key_pem)
    watched = Watched(tmp_path)
    (trouble,) = [each.trouble for each in watched.events if isinstance(each, CertificateTrouble)]
    assert "the key does not match" in trouble
    assert await watched.troubles() == []


async def test_a_renewal_that_leads_to_no_trusted_root_any_more_is_told(tmp_path: Path) -> None:
    trusted, folder = tmp_path / "ca.pem", tmp_path / "certs"
    folder.mkdir()
    trusted.write_bytes(CA.pem)
    issued().write(folder, "relay")
    watched = Watched(folder, trust=str(trusted))
    (folder / "relay.pem").write_bytes((folder / "relay.pem").read_bytes() + CA.pem)
    assert await watched.troubles() == [], "the same pair with its root"
    assert watched.loaded == 1
    own = root(HOST)
    new = own.issue(Wish(HOST, names=[HOST]))
    new.write(folder, "relay")
    (folder / "relay.pem").write_bytes(new.pem + own.pem)
    (trouble,) = await watched.troubles()
    assert "relay.pem is in use, and it leads to CN=relay.example.com, which is in no trust store here" in trouble
