import errno
import os
import socket
import threading
from pathlib import Path

import pytest
from rich.text import Text

from relay.cli import client
from relay.cli.client import unreachable
from tests.unit.admin.fake import FakeRelay
from tests.unit.cli.conftest import Shell


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("hostname: x\n", "names no admin socket: write `admin: {socket: relay.sock}`"),
        ("admin: {socket: 5}\n", "names no admin socket"),
        ("admin: yes please\n", "names no admin socket"),
        ("admin: {socket: relay.sock\n", "connectors.yaml:1:8: a `[` or `{` that is never closed"),
    ],
)
def test_a_file_that_does_not_name_the_socket(shell: Shell, text: str, said: str) -> None:
    shell.config.write_text(text)
    result = shell("queue", "list")
    assert result.exit_code == 1
    assert said in result.stderr
    assert "--socket PATH" in result.stderr


def test_a_file_that_is_not_there_or_not_text(shell: Shell, tmp_path: Path) -> None:
    shell.config.write_bytes(b"\xff\xfe")
    assert "is not UTF-8 text" in shell("queue", "list").stderr
    shell.config.unlink()
    result = shell("queue", "list")
    assert result.exit_code == 1
    assert f"{tmp_path}/connectors.yaml: No such file or directory" in result.stderr


def test_the_socket_can_be_named(shell: Shell, relay: FakeRelay, tmp_path: Path) -> None:
    shell.config.unlink()
    result = shell("queue", "list", "--socket", str(tmp_path / "relay.sock"))
    assert (result.exit_code, result.stdout) == (0, "The queue is empty.\n")


def test_the_configuration_can_come_from_the_environment(
    shell: Shell, relay: FakeRelay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RELAY_CONFIG", str(shell.config))
    assert shell("queue", "list", config=False).stdout == "The queue is empty.\n"


def test_every_reason_has_words() -> None:
    path = Path("/run/relay.sock")
    assert f"it is not for user {os.getuid()}. Run this as the relay's user" in unreachable(path, errno.EACCES)
    assert "nobody listens there" in unreachable(path, errno.ECONNREFUSED)
    assert unreachable(path, errno.EAGAIN).endswith("Resource temporarily unavailable")


def test_a_path_that_no_socket_can_have(shell: Shell) -> None:
    result = shell("reload", "--socket", "/" + "x" * 200)
    assert result.exit_code == 3
    assert "there is no such socket" in result.stderr


@pytest.mark.parametrize("tty", [True, False])
def test_people_get_the_width_of_their_terminal(
    tty: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: tty)
    monkeypatch.setenv("COLUMNS", "40")
    client.show(Text("word " * 30))
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) in (range(30, 41) if tty else range(90, 101))


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"", "broke off"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", "its answer is not JSON"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]", "its answer is not JSON"),
    ],
)
def test_what_listens_is_no_relay(shell: Shell, tmp_path: Path, answer: bytes, said: str) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "relay.sock"))
        listener.listen()

        def serve() -> None:
            probe, _address = listener.accept()
            probe.close()
            peer, _address = listener.accept()
            with peer:
                peer.recv(65536)
                peer.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        result = shell("queue", "list")
        thread.join()
    assert result.exit_code == 3
    assert said in result.stderr
