"""Which relay a command speaks with, and what is wrong with what was typed: every way, and every pair of ways."""

import os
import socket
from pathlib import Path

import pytest
import trustme

from tests.unit.admin.fake import FakeRelay
from tests.unit.cli.conftest import Shell


@pytest.fixture
def files(tmp_path: Path) -> Path:
    (tmp_path / "token").write_text("ironpost_abc\n")
    (tmp_path / "none").write_text("two words\n")
    (tmp_path / "binary").write_bytes(b"\xff")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    ours = authority.issue_cert("ops.example.com")
    ours.private_key_and_cert_chain_pem.write_to_path(tmp_path / "both.pem")
    ours.cert_chain_pems[0].write_to_path(tmp_path / "ops.pem")
    ours.private_key_pem.write_to_path(tmp_path / "ops.key")
    ours.cert_chain_pems[0].write_to_path(tmp_path / "alone.pem")
    return tmp_path


NOBODY = "https://127.0.0.1:1"  # tcpmux: nobody listens


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--url", NOBODY], 2, "--url needs --token-file FILE"),
        (["--url", NOBODY, "--token-file", "nothing"], 2, "--token-file nothing: No such file"),
        (["--url", NOBODY, "--token-file", "none"], 2, "--token-file none: it holds no token"),
        (["--url", NOBODY, "--token-file", "binary"], 2, "--token-file binary: it holds no token"),
        (["--url", NOBODY, "--token-file", "token", "--ca", "nothing"], 2, "--ca nothing: No such file"),
        (["--url", NOBODY, "--token-file", "token", "--ca", "token"], 2, "--ca token: it is not PEM"),
        (["--url", NOBODY, "--cert", "nothing"], 2, "--cert nothing: No such file"),
        (["--url", NOBODY, "--cert", "alone.pem"], 2, "--cert alone.pem: it is not PEM that can be used"),
        (["--url", NOBODY, "--cert", "both.pem"], 3, f"the relay cannot be reached at {NOBODY}"),
        (["--url", NOBODY, "--cert", "ops.pem", "--ca", "ca.pem"], 3, f"the relay cannot be reached at {NOBODY}"),
        (["--url", "http://127.0.0.1:1", "--token-file", "token"], 3, "the relay cannot be reached"),
        (["--url", "http://192.0.2.1", "--token-file", "token"], 2, "a token does not travel in clear"),
        (["--url", "relay.example.com", "--token-file", "token"], 2, "write https://HOST:PORT"),
        (["--url", "https://", "--token-file", "token"], 2, "write https://HOST:PORT"),
        (["--url", "https://a:b", "--token-file", "token"], 2, "https://a:b: Invalid port"),
        (["--url", "https://a..b", "--token-file", "token"], 2, "https://a..b: "),
        (["--url", "https://xn--a-", "--token-file", "token"], 2, "https://xn--a-: "),
        (["--url", "https://127.0.0.1:65537", "--token-file", "token"], 2, "a port up to 65535"),
        (["--url", f"{NOBODY}/x?y", "--token-file", "token"], 2, "nothing behind it"),
        (["--url", "http://127.0.0.1:1", "--cert", "both.pem"], 2, "a certificate is shown by https only"),
        (["--url", NOBODY, "--cert", ""], 2, "--cert .: "),
        (["--url", ""], 2, "--url is empty"),
        (["--token-file", "token"], 2, "--token-file is for a relay by network: give --url too"),
        (["--config", "token", "--cert", "both.pem"], 2, "--cert is for a relay by network"),
        (["--socket", "x", "--ca", "ca.pem"], 2, "--ca is for a relay by network"),
        (["--url", NOBODY, "--socket", "x"], 2, "give --socket or --url, not both"),
        (["--url", NOBODY, "--config", "x"], 2, "give --config or --url, not both"),
        (["--socket", "x"], 3, "there is no such socket"),
        (["--config", "token"], 1, "names no admin socket"),
    ],
)
def test_what_was_typed(
    files: Path, shell: Shell, monkeypatch: pytest.MonkeyPatch, options: list[str], code: int, said: str
) -> None:
    monkeypatch.chdir(files)
    result = shell("status", *options, config=False)
    assert (result.exit_code, result.stdout) == (code, "")
    assert said in result.stderr


def test_what_is_typed_goes_before_the_environment(
    shell: Shell, relay: FakeRelay, monkeypatch: pytest.MonkeyPatch, files: Path
) -> None:
    monkeypatch.setenv("RELAY_URL", NOBODY)
    monkeypatch.setenv("RELAY_TOKEN_FILE", str(files / "token"))
    assert shell("status", config=False).exit_code == 3
    assert shell("status").exit_code == 0  # --config FILE
    assert shell("status", "--socket", str(files / "relay.sock"), config=False).exit_code == 0
    monkeypatch.setenv("RELAY_CONFIG", str(shell.config))
    assert shell("status", config=False).exit_code == 3  # the address that somebody wrote down is meant
    monkeypatch.setenv("RELAY_URL", "")
    assert shell("status", config=False).exit_code == 0


@pytest.mark.parametrize("url", ["https://ops:hunter2@127.0.0.1:1", "https://ops:hunter2@127.0.0.1:b"])
def test_a_password_in_the_address_is_not_taken_nor_repeated(files: Path, shell: Shell, url: str) -> None:
    """It would take the token's place in what is sent, and stand in every error."""
    result = shell("status", "--url", url, "--token-file", str(files / "token"), config=False)
    assert result.exit_code == 2
    assert "hunter2" not in result.output
    assert "without a name or a password" in result.stderr


def test_a_host_that_says_nothing_is_not_waited_for(files: Path, shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relay.cli.client._CONNECT", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"https://127.0.0.1:{silent.getsockname()[1]}"
        result = shell("status", "--url", url, "--token-file", str(files / "token"), config=False)
    assert result.exit_code == 3
    assert f"the relay cannot be reached at {url}: " in result.stderr


def test_our_key_is_not_asked_for_at_the_terminal(files: Path, shell: Shell) -> None:
    """One with a password is told, not prompted for: there may be no terminal."""
    from cryptography.hazmat.primitives.serialization import (
        BestAvailableEncryption,
        Encoding,
        PrivateFormat,
        load_pem_private_key,
    )

    key = load_pem_private_key((files / "ops.key").read_bytes(), None)
    locked = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))
    (files / "ops.key").write_bytes(locked)
    result = shell("status", "--url", NOBODY, "--cert", os.fspath(files / "ops.pem"), config=False)
    assert result.exit_code == 2
    assert "ops.pem: it is not PEM that can be used" in result.stderr
