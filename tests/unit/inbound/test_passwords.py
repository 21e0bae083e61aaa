"""The password file: what a line may say, what an error names, and how a line gets in."""

import os
import stat
from pathlib import Path

import pytest
from argon2 import PasswordHasher

from relay.clients.passwords import verify
from relay.inbound.passwords import Accounts, PasswordFileError, Senders, make_line, write_line
from relay.mail.address import NULL, Address

CHEAP = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
HASH = CHEAP.hash("geheim", salt=b"always the same one")  # it is in the names of tests, which workers must agree on
BOB = Address("bob", "example.com")


def test_lines_comments_and_blanks() -> None:
    text = f"# people\n\n  \nbob:{HASH}:bob@example.com, @Example.ORG\n  # more\nscanner@x:{HASH}:*\n"
    accounts = Accounts.parse(text, "passwords")
    assert set(accounts.by_user) == {"bob", "scanner@x"}
    bob = accounts.by_user["bob"].senders
    assert bob == Senders(frozenset({("bob", "example.com")}), frozenset({"example.org"}), anyone=False)
    assert accounts.by_user["scanner@x"].senders.anyone


@pytest.mark.parametrize(
    ("senders", "address", "allowed"),
    [
        ("bob@example.com", BOB, True),
        ("BOB@EXAMPLE.com", BOB, True),
        ("bob@example.com", Address("Bob", "example.com"), True),
        ("bob@example.com", Address("eve", "example.com"), False),
        ("bob@example.com", Address("bob", "sub.example.com"), False),
        ("@example.com", BOB, True),
        ("@example.com", Address("bob", "sub.example.com"), False),
        ("@bücher.example", Address("x", "xn--bcher-kva.example"), True),
        ("*", Address("x", "y.example"), True),
        ("bob@example.com", NULL, True),
        ("bob@example.com", Address("postmaster", ""), False),
    ],
)
def test_senders(senders: str, address: Address, allowed: bool) -> None:
    assert Senders.parse(senders).allow(address) is allowed


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("bob", "a line is user:"),
        (f"bob:{HASH}", "a line is user:"),
        (f":{HASH}:*", "cannot be a user name"),
        (f"bob\x00:{HASH}:*", "cannot be a user name"),
        (f"bob:{HASH}:", "name the senders"),
        (f"bob:{HASH}:a@b.example,,*", "name the senders"),
        (f"bob:{HASH}:bob", "write senders as"),
        (f"bob:{HASH}:@-", "write senders as"),
        ("bob:hunter2:*", "not an argon2id hash"),
        ("bob:$2b$12$abcdefghijklmnopqrstuv:*", "not an argon2id hash"),
        ("bob:$argon2id$v=19$m=x,t=1,p=1$YWFhYWFhYWE$YWFhYWFhYWE:*", "not an argon2id hash"),
        ("bob:$argon2i$v=19$m=8,t=1,p=1$YWFhYWFhYWFhYWE$YWFhYWFhYWFhYWFhYWFhYWFhYWFhYWE:*", "not an argon2id hash"),
        ("bob:$argon2id$v=19$m=8,t=1,p=1$YWFh$YWFhYWFhYWFhYWFhYWFhYWFhYWE:*", "not an argon2id hash"),
        ("bob:$argon2id$v=19$m=8,t=1,p=1$YWFhYWFhYWFhYWE$YWFh:*", "not an argon2id hash"),
        (f"ann:{HASH}:*", "a second time"),
    ],
)
def test_errors_name_file_and_line_and_hide_the_rest(line: str, error: str) -> None:
    with pytest.raises(PasswordFileError) as caught:
        Accounts.parse(f"# x\nann:{HASH}:*\n{line}\n", "passwords")
    assert str(caught.value).startswith("passwords:3: ")
    assert error in str(caught.value)
    assert "hunter2" not in str(caught.value)
    assert "$argon2id$v" not in str(caught.value)


def test_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(PasswordFileError, match="cannot read the password file: No such file"):
        Accounts.read(tmp_path / "passwords")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(PasswordFileError, match="cannot read"):
        Accounts.read(tmp_path / "binary")


def test_verify() -> None:
    assert verify(HASH, "geheim")
    assert not verify(HASH, "Geheim")
    assert not verify("nonsense", "geheim")
    assert verify(CHEAP.hash("\u00fc"), "u\u0308")  # one password, two ways to type it


def test_the_decoy_costs_as_much_and_fits_no_password() -> None:
    accounts = Accounts.parse(f"bob:{HASH}:*", "passwords")
    assert accounts.decoy.split("$")[:4] == HASH.split("$")[:4]
    assert len(accounts.decoy) == len(HASH)
    assert not verify(accounts.decoy, "")
    assert Accounts.parse("", "passwords").decoy.split("$")[3] == "m=65536,t=3,p=4"


def test_a_line_is_made_written_and_replaced(tmp_path: Path) -> None:
    file = tmp_path / "passwords"
    write_line(file, f"bob:{HASH}:*")
    file.write_text(f"# ours\n{file.read_text()}ann:{HASH}:*\n")
    write_line(file, make_line("bob", "new", "bob@example.com, @example.com,bob@example.com"))
    write_line(file, f"eve:{HASH}:*")
    lines = file.read_text().splitlines()
    assert [line.split(":")[0] for line in lines] == ["# ours", "bob", "ann", "eve"]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    bob = Accounts.read(file).by_user["bob"]
    assert bob.senders == Senders.parse("bob@example.com,@example.com")
    assert verify(bob.hash, "new")
    assert lines[1].endswith(":bob@example.com,@example.com")
    assert "new" not in lines[1].split(":")[1]
    assert [each.name for each in tmp_path.iterdir()] == ["passwords"]


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real" / "passwords")
    write_line(tmp_path / "link", f"bob:{HASH}:*")
    assert (tmp_path / "link").is_symlink()
    assert set(Accounts.read(tmp_path / "link").by_user) == {"bob"}


def test_a_file_with_errors_is_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "passwords"
    file.write_text("nonsense\n")
    with pytest.raises(PasswordFileError, match=":1: "):
        write_line(file, f"bob:{HASH}:*")
    assert file.read_text() == "nonsense\n"


def test_a_failed_write_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "passwords"
    file.write_text(f"bob:{HASH}:*\n")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_line(file, f"eve:{HASH}:*")
    assert [each.name for each in tmp_path.iterdir()] == ["passwords"]
    assert set(Accounts.read(file).by_user) == {"bob"}


@pytest.mark.parametrize(
    ("user", "password", "senders", "error"),
    [
        ("bob", "", "*", "empty password"),
        ("b:b", "x", "*", "user name"),
        (" bob", "x", "*", "user name"),
        ("#bob", "x", "*", "user name"),
        ("bob", "x", "", "name the senders"),
    ],
)
def test_a_line_that_cannot_be(user: str, password: str, senders: str, error: str) -> None:
    with pytest.raises(ValueError, match=error):
        make_line(user, password, senders)


def test_the_owner_stays_when_root_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "passwords"
    file.write_text(f"bob:{HASH}:*\n")
    given: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(os, "fchown", lambda descriptor, user, group: given.append((user, group)))
    write_line(file, f"eve:{HASH}:*")
    assert given == [(os.getuid(), os.getgid())]
