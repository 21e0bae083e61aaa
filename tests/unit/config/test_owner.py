"""Whose a file is that root makes, in the folders that there are."""

import os
from pathlib import Path

import pytest

from relay.clients.passwords import put_line
from relay.config.owner import give
from relay.queue.disk import create
from relay.queue.store import StoreUnusable
from relay.tls.selfsigned import create_self_signed
from tests.unit.tls.pki import NOW

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="takes root")


@pytest.mark.parametrize(
    ("folder", "expected"),
    [((0, 0), (0, 0, 0o600)), ((0, 4712), (0, 4712, 0o640)), ((4711, 4712), (4711, 4712, 0o600))],
)
def test_whose_it_becomes(tmp_path: Path, folder: tuple[int, int], expected: tuple[int, int, int]) -> None:
    os.chown(tmp_path, *folder)
    descriptor = os.open(tmp_path / "new", os.O_WRONLY | os.O_CREAT, 0o600)
    give(descriptor, tmp_path)
    found = os.fstat(descriptor)
    os.close(descriptor)
    assert (found.st_uid, found.st_gid, found.st_mode & 0o7777) == expected


def test_what_cannot_be_given_is_not_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a container without the capability: the next start would find the file, and go on with it as root's."""

    def refused(*_arguments: int) -> None:
        raise PermissionError(1, "Operation not permitted")

    os.chown(tmp_path, 4711, 4712)
    monkeypatch.setattr(os, "fchown", refused)
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _time in range(2):
        with pytest.raises(StoreUnusable, match="Operation not permitted"):
            create(tmp_path / "queue.db")
    assert list(tmp_path.iterdir()) == []
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_only_root_gives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.chown(tmp_path, 4711, 4712)
    monkeypatch.setattr(os, "geteuid", lambda: 4713)
    with (tmp_path / "new").open("w") as file:
        give(file.fileno(), tmp_path)
    assert (tmp_path / "new").stat().st_uid == 0


def test_keys_and_password_files_are_readable_for_the_group(tmp_path: Path) -> None:
    """`relay init`, `relay password` and `relay token` by root in /etc/ironpost, which is root's and the group ironpost's."""
    os.chown(tmp_path, 0, 4712)
    made = create_self_signed(tmp_path, "relay.test", NOW)
    put_line(tmp_path / "passwords", "joe:x:*", lambda _text: None)
    for path in (made.key, tmp_path / "passwords"):
        assert (path.stat().st_gid, path.stat().st_mode & 0o777) == (4712, 0o640)
    put_line(tmp_path / "passwords", "ann:x:*", lambda _text: None)
    assert ((tmp_path / "passwords").stat().st_gid, (tmp_path / "passwords").stat().st_mode & 0o777) == (4712, 0o640)
