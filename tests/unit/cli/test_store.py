import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from relay.queue.copies import examine
from tests.unit.cli.conftest import Shell
from tests.unit.queue.world import LATER, world

CONFIG = """\
hostname: relay.test
postmaster: postmaster@relay.test
listeners: [{address: "127.0.0.1:0", starttls: off}]
queue: sqlite:queue.db
"""


@pytest.fixture
async def queue(tmp_path: Path, shell: Shell) -> Path:
    """One message that waits."""
    shell.config.write_text(CONFIG)
    async with world(tmp_path / "queue.db") as made:
        made.hops.says = {"": [LATER]}
        await made.put()
        await made.settle()
    return tmp_path / "queue.db"


def damage(path: Path) -> str:
    """The id of the message that is no longer whole."""
    with closing(sqlite3.connect(path)) as db:
        db.execute("DELETE FROM chunk")
        db.commit()
        return str(db.execute("SELECT id FROM message").fetchone()[0])


async def test_a_sound_queue(queue: Path, shell: Shell) -> None:
    result = shell("store", "check")
    assert result.exit_code == 0
    assert result.stdout == f"{queue} is sound: 1 messages wait, 0 have ended and are kept for traces\n"
    found = json.loads(shell("store", "check", "--json").stdout)
    assert (found["sound"], found["live"], found["ended"], found["problems"]) == (True, 1, 0, [])


async def test_a_damaged_queue(queue: Path, shell: Shell) -> None:
    name = damage(queue)
    result = shell("store", "check")
    assert result.exit_code == 1
    assert result.stdout.splitlines()[0] == f"1 messages whose bytes are not all there (such as {name})"
    assert "is damaged" in result.stdout
    result = shell("store", "check", "--json")
    assert result.exit_code == 1
    (problem,) = json.loads(result.stdout)["problems"]
    assert problem == {
        "what": "messages whose bytes are not all there",
        "count": 1,
        "examples": [name],
        "harmless": False,
    }


async def test_a_copy_and_what_is_held_in_it(queue: Path, shell: Shell, tmp_path: Path) -> None:
    copy = tmp_path / "copy.db"
    result = shell("store", "backup", str(copy))
    assert (result.exit_code, result.stdout) == (0, f"{copy}: {size_of(copy)} bytes\n")
    assert shell("store", "backup", str(copy)).exit_code == 1
    other = tmp_path / "other.db"
    assert json.loads(shell("store", "backup", str(other), "--json").stdout) == {
        "file": str(other),
        "size": size_of(other),
    }
    assert shell("store", "hold", "--file", str(copy)).stdout == "1 recipients held\n"
    assert json.loads(shell("store", "hold", "--file", str(copy), "--json").stdout) == {"held": 0}
    assert examine(copy).is_sound


def size_of(path: Path) -> int:
    return path.stat().st_size


async def test_what_is_not_there(shell: Shell, tmp_path: Path) -> None:
    shell.config.write_text(CONFIG)
    result = shell("store", "check")
    assert (result.exit_code, result.stderr) == (1, f"there is no queue at {tmp_path / 'queue.db'}\n")


async def test_a_folder_that_is_not_there(queue: Path, shell: Shell, tmp_path: Path) -> None:
    result = shell("store", "backup", str(tmp_path / "nowhere" / "copy.db"))
    assert result.exit_code == 1
    assert "nowhere" in result.stderr
