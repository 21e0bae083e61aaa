"""Files of messages: whole or not there, for their owner only; line ends as mail has them."""

import io
from pathlib import Path

import pytest

from relay.cli import queue_transfer
from relay.cli.queue_transfer import _Fresh, _messages, _with_line_ends
from tests.unit.admin.fake import FakeRelay
from tests.unit.cli.conftest import Shell


@pytest.mark.parametrize("piece", [1, 2, 3, 64])
@pytest.mark.parametrize(
    ("text", "mended"),
    [
        (b"", b""),
        (b"a\nb\n", b"a\r\nb\r\n"),
        (b"a\r\nb\r\n", b"a\r\nb\r\n"),
        (b"a\r\nb\nc", b"a\r\nb\r\nc"),
        (b"a\rb\n", b"a\rb\r\n"),  # a bare CR is no line end: the relay refuses it
        (b"a\r", b"a\r"),
        (b"\n\r\n\n", b"\r\n\r\n\r\n"),
    ],
)
def test_line_ends(monkeypatch: pytest.MonkeyPatch, text: bytes, mended: bytes, piece: int) -> None:
    monkeypatch.setattr(queue_transfer, "_PIECE", piece)
    assert b"".join(_with_line_ends(io.BytesIO(text))) == mended


def test_a_file_is_whole_or_not_there(tmp_path: Path) -> None:
    path = tmp_path / "a.eml"
    with _Fresh(path) as file:
        file.write(b"half")
        assert not path.exists()
    assert list(tmp_path.iterdir()) == []
    with _Fresh(path) as file:
        file.write(b"who")
        file.write(b"le")
        file.keep()
    assert path.read_bytes() == b"whole"
    assert file.size == 5
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_that_somebody_laid_is_not_followed(tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    theirs.write_bytes(b"untouched")
    (tmp_path / "a.eml.part").symlink_to(theirs)
    with _Fresh(tmp_path / "a.eml") as file:
        file.write(b"ours")
        file.keep()
    assert theirs.read_bytes() == b"untouched"
    assert not (tmp_path / "a.eml").is_symlink()


def test_folders_give_their_messages(tmp_path: Path) -> None:
    for name in ("a.eml", "a.json", "b.eml", "c.eml.part"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "d.eml").mkdir()
    assert sorted(each.name for each in _messages([tmp_path])) == ["a.eml", "b.eml"]
    assert list(_messages([Path("x.eml")])) == [Path("x.eml")]


def test_what_is_missing_is_named_with_the_remedy(shell: Shell, relay: FakeRelay, tmp_path: Path) -> None:
    assert "none.eml: No such file" in shell("queue", "import", str(tmp_path / "none.eml")).stderr
    file = tmp_path / "a.eml"
    file.write_bytes(b"Subject: x\r\n\r\nhi\r\n")
    said = shell("queue", "import", str(file))
    assert said.exit_code == 1
    flat = " ".join(said.stderr.split())
    assert "a.json: give --envelope FILE.json, or --from and --to" in flat
    assert relay.asked == []
