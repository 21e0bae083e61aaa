"""Logins: who gets in, what a wrong password costs its sender, and that nobody can keep us busy."""

import asyncio
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from argon2 import PasswordHasher

from relay.clients.limits import LoginFailures
from relay.clients.passwords import verify
from relay.clients.verifier import Denied, LoginLimits
from relay.inbound.auth import Authenticator
from relay.inbound.passwords import Account, PasswordFileError
from relay.mail.events import ConfigurationSettled, ConfigurationWaiting, Event

CHEAP = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
BOB = f"bob:{CHEAP.hash('geheim')}:bob@example.com\n"
HERE = 1


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "passwords"
    path.write_text(BOB)
    return path


@pytest.fixture
def events() -> list[Event]:
    return []


@pytest.fixture
def authenticator(file: Path, events: list[Event]) -> Iterator[Authenticator]:
    made = Authenticator(file, events.append)
    yield made
    made.close()


async def test_right_and_wrong(authenticator: Authenticator) -> None:
    account = await authenticator.login("bob", "geheim", HERE)
    assert isinstance(account, Account)
    assert account.user == "bob"
    assert await authenticator.login("bob", "Geheim", HERE) is Denied.WRONG
    assert await authenticator.login("eve", "geheim", HERE) is Denied.WRONG


async def test_an_unknown_user_costs_a_verification_too(file: Path, events: list[Event]) -> None:
    seen: list[str] = []

    def record(digest: str, password: str) -> bool:
        seen.append(digest)
        return verify(digest, password)

    authenticator = Authenticator(file, events.append, verify=record)
    await authenticator.login("bob", "x", HERE)
    await authenticator.login("eve", "x", HERE)
    authenticator.close()
    known, unknown = (digest.split("$")[:4] for digest in seen)
    assert known == unknown


async def test_a_client_that_guesses_is_not_even_heard(file: Path, events: list[Event]) -> None:
    seen: list[str] = []

    def record(digest: str, password: str) -> bool:
        seen.append(password)
        return verify(digest, password)

    authenticator = Authenticator(file, events.append, failures=LoginFailures(tries=2), verify=record)
    assert await authenticator.login("bob", "a", HERE) is Denied.WRONG
    assert await authenticator.login("bob", "b", HERE) is Denied.WRONG
    assert await authenticator.login("bob", "geheim", HERE) is Denied.BLOCKED
    assert isinstance(await authenticator.login("bob", "geheim", 2), Account)
    authenticator.close()
    assert seen == ["a", "b", "geheim"]


async def test_logins_in_work_are_bounded(file: Path, events: list[Event]) -> None:
    go = threading.Event()

    def slow(digest: str, password: str) -> bool:
        go.wait(30)
        return True

    limits = LoginLimits(waiting=4, waiting_per_client=3)
    authenticator = Authenticator(file, events.append, verify=slow, limits=limits)
    logins = [asyncio.create_task(authenticator.login("bob", "x", HERE)) for _ in range(3)]
    await asyncio.sleep(0)
    assert await authenticator.login("bob", "x", HERE) is Denied.BUSY
    logins.append(asyncio.create_task(authenticator.login("bob", "x", 2)))
    await asyncio.sleep(0)
    assert await authenticator.login("bob", "x", 3) is Denied.BUSY
    go.set()
    assert all(isinstance(each, Account) for each in await asyncio.gather(*logins))
    assert isinstance(await authenticator.login("bob", "x", HERE), Account)
    assert not authenticator._verifier._by_client  # nothing is kept of clients that have gone
    authenticator.close()


@pytest.mark.parametrize(
    ("processes", "expected"),
    [(1, LoginLimits(2, 32, 8)), (2, LoginLimits(1, 16, 4)), (4, LoginLimits(1, 8, 2)), (64, LoginLimits(1, 4, 2))],
)
def test_logins_in_work_are_bounded_for_all_processes(processes: int, expected: LoginLimits) -> None:
    assert LoginLimits().among(processes) == expected


async def test_another_process_that_begins_knows_who_is_blocked(file: Path, events: list[Event]) -> None:
    made = [Authenticator(file, events.append, failures=LoginFailures(tries=1)) for _ in range(2)]
    assert await made[0].login("bob", "a", HERE) is Denied.WRONG
    made[1].learn(made[0].failures())
    assert await made[1].login("bob", "geheim", HERE) is Denied.BLOCKED
    for each in made:
        each.close()


def touch(file: Path, text: str) -> None:
    file.write_text(text)
    status = file.stat()
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns + 1_000_000))


def remove(file: Path) -> None:
    file.unlink()


async def test_the_file_is_read_again_when_it_changes(
    file: Path, authenticator: Authenticator, events: list[Event]
) -> None:
    touch(file, BOB + f"eve:{CHEAP.hash('neu')}:*\n")
    assert isinstance(await authenticator.login("eve", "neu", HERE), Account)
    touch(file, BOB)
    assert authenticator.account("eve") is None
    assert authenticator.account("bob") is not None
    assert events == []


async def test_a_file_with_errors_changes_nothing_and_is_reported_once(
    file: Path, authenticator: Authenticator, events: list[Event]
) -> None:
    touch(file, BOB + "half a li")
    assert isinstance(await authenticator.login("bob", "geheim", HERE), Account)
    assert authenticator.account("bob") is not None
    remove(file)
    assert authenticator.account("bob") is not None
    assert [type(event) for event in events] == [ConfigurationWaiting, ConfigurationWaiting]
    first = events[0]
    assert isinstance(first, ConfigurationWaiting)
    assert first.reasons[0].startswith(f"{file}:2: ")
    touch(file, BOB)
    assert authenticator.account("bob") is not None
    assert events[2:] == [ConfigurationSettled(str(file))]
    touch(file, BOB + "\n")
    assert authenticator.account("bob") is not None
    assert len(events) == 3


def test_no_file_is_an_error(tmp_path: Path, events: list[Event]) -> None:
    with pytest.raises(PasswordFileError, match="No such file"):
        Authenticator(tmp_path / "none", events.append)
