"""Files of messages: whole or not there, for their owner only; line ends as mail has them."""

import io
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
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


ENVELOPE = b'{"size": 1000}'
WHOLE = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n"
FAILED = b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 15\r\n\r\n" + b'{"error": "no"}'


@pytest.mark.parametrize(
    ("answer", "code", "said"),
    [
        (WHOLE % 1000 + b"x" * 400, 3, "broke off"),  # it fell silent in the middle
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n190\r\n" + b"x" * 400 + b"\r\n", 3, "broke off"),
        (WHOLE % 400 + b"x" * 400, 1, "Not in the queue (any more)"),  # shorter than the envelope says
        (WHOLE % 1000, 1, "Not in the queue (any more)"),  # delivered meanwhile
        (FAILED, 1, "no"),
    ],
)
def test_a_download_that_breaks_off_leaves_no_file(
    tmp_path: Path, shell: Shell, answer: bytes, code: int, said: str
) -> None:
    with answering(tmp_path / "relay.sock", [WHOLE % len(ENVELOPE) + ENVELOPE, answer]):
        result = shell("queue", "export", "A1", str(tmp_path / "out"))
    assert result.exit_code == code
    assert said in result.stderr
    assert list((tmp_path / "out").iterdir()) == []


def test_a_download_to_the_output_that_breaks_off(tmp_path: Path, shell: Shell) -> None:
    with answering(tmp_path / "relay.sock", [WHOLE % 1000 + b"x" * 400]):
        result = shell("queue", "export", "A1", "-")
    assert (result.exit_code, result.stdout) == (3, "x" * 400)
    assert "broke off" in result.stderr


@contextmanager
def answering(path: Path, answers: list[bytes]) -> Iterator[None]:
    """A relay that answers each request with these bytes and hangs up. The first connection only knocks."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        listener.settimeout(20)

        def serve() -> None:
            listener.accept()[0].close()
            for answer in answers:
                peer = listener.accept()[0]
                with peer:
                    peer.recv(65536)
                    peer.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield
        finally:
            thread.join()
