from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from relay.admin.accounts import (
    Accounts,
    AccountsFileError,
    TooManyFailuresError,
    add_token,
    client_key,
    hash_token,
    parse,
    read,
    set_password,
)
from relay.admin.endpoint import Caller, Change, Scope
from relay.mail.events import ConfigurationSettled, ConfigurationWaiting, Event

HASH = hash_token("x")


class World:
    def __init__(self, folder: Path) -> None:
        self.file = folder / "accounts"
        self.events: list[Event] = []
        self.noted: list[tuple[Caller, str, Change]] = []
        self.token = add_token(self.file, "ci", Scope.OPERATE)
        set_password(self.file, "alice", "correct horse", Scope.ADMIN)
        self.accounts = Accounts(self.file, self.events.append, self.note)

    async def note(self, caller: Caller, action: str, change: Change) -> None:
        self.noted.append((caller, action, change))

    @property
    def actions(self) -> list[str]:
        return [action for _caller, action, _change in self.noted]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.accounts.close()


async def test_a_person_signs_in_by_password_and_a_program_by_token(world: World) -> None:
    alice = Caller("alice", Scope.ADMIN, "console", "192.0.2.1")
    assert await world.accounts.sign_in("alice", "correct horse", "192.0.2.1") == alice
    assert world.accounts.holder("alice") == Caller("alice", Scope.ADMIN, "console")
    assert await world.accounts.by_token(world.token, "192.0.2.1") == Caller("ci", Scope.OPERATE, "token", "192.0.2.1")
    assert world.actions == ["sign-in"]
    assert world.accounts.mark("alice")
    assert world.accounts.mark("ci") == world.accounts.mark("nobody") == ""


async def test_neither_takes_the_other_s_way(world: World) -> None:
    assert await world.accounts.sign_in("ci", world.token, "192.0.2.1") is None
    assert await world.accounts.by_token("correct horse", "192.0.2.1") is None
    assert world.accounts.holder("ci") is None


async def test_guesses_are_slowed_by_address_and_noted_without_what_was_guessed(world: World) -> None:
    for number in range(5):
        assert await world.accounts.sign_in("alice", f"guess {number}", "192.0.2.9") is None
    with pytest.raises(TooManyFailuresError, match="again in 30 seconds"):
        await world.accounts.sign_in("alice", "correct horse", "192.0.2.9")
    assert await world.accounts.sign_in("alice", "correct horse", "192.0.2.10") is not None
    assert world.actions == ["sign-in-failed"] * 5 + ["sign-in"]
    assert "guess" not in str(world.noted)


async def test_a_name_that_is_none_is_not_noted_it_may_be_a_password(world: World) -> None:
    assert await world.accounts.sign_in("correct horse", "alice", "192.0.2.9") is None
    assert [caller.name for caller, _action, _change in world.noted] == ["unknown"]


async def test_a_changed_file_holds_at_once_and_is_noted(world: World) -> None:
    await world.accounts.look()
    assert world.noted == []
    lines = [line for line in world.file.read_text().splitlines() if not line.startswith("alice")]
    world.file.write_text("\n".join([*lines, f"bob:{HASH}:read"]) + "\n")
    await world.accounts.look()
    assert world.accounts.holder("alice") is None
    ((caller, action, change),) = world.noted
    assert (caller.via, action, change.what) == ("itself", "accounts", "alice, bob")
    assert (change.before, change.after) == ({"alice": "password, admin"}, {"bob": "token, read"})


@pytest.mark.parametrize("spoil", ["text", "mode", "gone"])
async def test_a_file_with_errors_changes_nothing(world: World, spoil: str) -> None:
    sound = world.file.read_text()
    if spoil == "text":
        world.file.write_text("nonsense\n")
    elif spoil == "mode":
        world.file.chmod(0o644)
    else:
        world.file.unlink()
    await world.accounts.look()
    assert world.accounts.holder("alice") is not None
    assert [type(each) for each in world.events] == [ConfigurationWaiting]
    world.file.write_text(sound)
    world.file.chmod(0o600)
    await world.accounts.look()
    assert isinstance(world.events[-1], ConfigurationSettled)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("alice", "a line is NAME:HASH:SCOPE"),
        (f"alice:{HASH}:root", "'root' is none of read, operate, admin"),
        ("alice:sha256:abc:read", "not an argon2id hash"),
        ("alice:hunter2:read", "not an argon2id hash"),
        (f" :{HASH}:read", "cannot be a user name"),
        (f"a:{HASH}:read\na:{HASH}:admin", "a second time"),
    ],
)
def test_lines_that_cannot_be(line: str, said: str) -> None:
    with pytest.raises(AccountsFileError, match=said) as error:
        parse(line, "accounts")
    assert "hunter2" not in str(error.value)


def test_blank_lines_and_comments() -> None:
    assert list(parse(f"\n# people\nalice:{HASH}:read\n", "accounts")) == ["alice"]


def test_a_group_that_is_meant_may_read(tmp_path: Path) -> None:
    """In /etc/ironpost files are root's, and the group's to read."""
    file = tmp_path / "accounts"
    file.touch()
    file.chmod(0o640)
    assert read(file) == {}


@pytest.mark.parametrize("mode", [0o644, 0o660, 0o604])
def test_others_must_not_read_or_write_the_file(tmp_path: Path, mode: int) -> None:
    file = tmp_path / "accounts"
    add_token(file, "ci", Scope.READ)
    file.chmod(mode)
    with pytest.raises(AccountsFileError, match="chmod g-w,o-rwx"):
        read(file)


def test_clients_as_limits_count_them() -> None:
    def same(one: str, other: str) -> Any:
        return client_key(one) == client_key(other)

    assert same("192.0.2.1", "::ffff:192.0.2.1")
    assert same("2001:db8::1", "2001:db8::2")
    assert not same("2001:db8::1", "2001:db8:0:1::1")
    assert not same("192.0.2.1", "192.0.2.2")
